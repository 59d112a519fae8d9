//! A healthy repository with everything in it that can be damaged, and what is true of it: which
//! commits lie in which segment, and what each backup needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;
use serde_json::Value;
use walden::postgres::{Lsn, SegmentName, TimelineId};

use crate::harness::saboteur::{Copy, raw};
use crate::harness::site::files_below;
use crate::harness::{ANY_MAJOR, Cluster, Scratch};

pub const SEGMENT_BYTES: u32 = 1 << 20;

/// Two timelines, three backups, WAL before, between and after them.
pub struct Landscape {
    /// What there was after each chapter of its life; the last one is all of it.
    pub chapters: Vec<Chapter>,
    /// `main/<system identifier>`.
    pub home: PathBuf,
    /// In the order of the WAL: each is the last commit of its segment.
    pub steps: Vec<Step>,
    /// A full one of timeline 1, an incremental one to it, a full one of timeline 2.
    pub full: Backup,
    pub incremental: Backup,
    pub second: Backup,
}

/// The repository as it was then.
pub struct Chapter(Scratch);

#[derive(Debug, Clone)]
pub struct Step {
    pub segment: SegmentName,
    pub time: Timestamp,
    pub xid: u32,
}

#[derive(Debug, Clone)]
pub struct Backup {
    pub id: String,
    pub ended: Timestamp,
    pub first_wal: SegmentName,
    pub last_wal: SegmentName,
}

/// While it is made.
struct Author {
    cluster: Cluster,
    repository: Scratch,
    chapters: Vec<Chapter>,
    steps: Vec<Step>,
}

impl Landscape {
    #[track_caller]
    pub fn live() -> Landscape {
        let etc = Scratch::new();
        let mut author = Author::begin(&etc);
        author.step(3);
        author.close();
        let full = author.back_up(&[]);
        author.close();
        author.step(4);
        author.cluster.sql("UPDATE t SET what = 'x' || substr(what, 2) WHERE n < 20");
        let incremental = author.back_up(&["--incremental"]);
        author.step(4);
        author.close();
        fail_over(&mut author.cluster);
        author.step(1);
        author.close();
        author.step(2);
        let second = author.back_up(&["--full"]);
        author.step(3);
        author.cluster.stop();
        author.close();
        let home = fs::read_dir(author.repository.path().join("main")).unwrap();
        let home = home.flatten().next().unwrap().file_name();
        Landscape {
            chapters: author.chapters,
            home: Path::new("main").join(home),
            steps: author.steps,
            full,
            incremental,
            second,
        }
    }

    pub fn copy(&self) -> Copy {
        let last = self.chapters.last().expect("it has several");
        Copy::of(last.0.path(), &self.home)
    }

    pub fn copy_of(&self, chapter: &Chapter) -> Copy {
        Copy::of(chapter.0.path(), &self.home)
    }

    /// The segment of the `number`th step.
    pub fn segment(&self, number: usize) -> SegmentName {
        self.steps[number].segment
    }

    /// The first step after a backup.
    pub fn step_after(&self, backup: &Backup) -> usize {
        let is_later = |step: &Step| start(step.segment) > start(backup.last_wal);
        self.steps.iter().position(is_later).expect("there are steps after it")
    }

    /// The last one before the failover.
    pub fn last_of_first_timeline(&self) -> usize {
        self.steps.iter().rposition(|step| step.segment.timeline == first_timeline()).unwrap()
    }

    /// Where WAL that lacks this segment ends: with the last commit before it.
    pub fn last_commit_before(&self, segment: SegmentName) -> Timestamp {
        let before = self.steps.iter().rev().find(|step| start(step.segment) < start(segment));
        before.expect("a step before it").time
    }

    /// From when on there is another beginning: the next backup that needs only later segments.
    pub fn next_beginning(&self, segment: SegmentName) -> Option<Timestamp> {
        let backups = [&self.full, &self.incremental, &self.second].into_iter();
        let mut later = backups.filter(|backup| start(backup.first_wal) > start(segment));
        later.next().map(|backup| backup.ended)
    }
}

impl Backup {
    pub fn object(&self, name: &str) -> String {
        format!("backup/{}/{name}", self.id)
    }

    pub fn manifest(&self, copy: &Copy) -> Value {
        let object = copy.read(&self.object("manifest.json.zst"));
        serde_json::from_slice(&raw(&object)).unwrap()
    }
}

impl Author {
    fn begin(etc: &Scratch) -> Author {
        // What is configured outside of the data directory is kept with a backup.
        fs::write(etc.join("more.conf"), "work_mem = 7MB\n").unwrap();
        etc.give("more.conf");
        let repository = Scratch::new();
        let cluster = Cluster::builder(ANY_MAJOR)
            .data_checksums()
            .setting("track_commit_timestamp", "on")
            .setting("restart_after_crash", "off")
            .setting("include_if_exists", &format!("'{}'", etc.join("more.conf").display()))
            .tablespace("space")
            .archive_to(format!("file://{}", repository.path().display()), "main")
            .start();
        // As much as makes a second pack, and no WAL.
        for name in ["one", "two"] {
            cluster.sql(&format!("CREATE DATABASE {name} STRATEGY file_copy"));
        }
        cluster.sql(
            "CREATE TABLE t TABLESPACE space AS SELECT n, \
             (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 8) \
             WHERE n IS NOT NULL) AS what FROM generate_series(1, 2000) n",
        );
        Author { cluster, repository, chapters: Vec::new(), steps: Vec::new() }
    }

    /// Segments that each end with a commit, which begins with words to be found in its WAL.
    fn step(&mut self, count: usize) {
        for _ in 0..count {
            let xid = self.cluster.value(
                "SELECT pg_current_xact_id()::xid FROM \
                 pg_logical_emit_message(true, 'test', repeat('walden', 1000))",
            );
            let time = self.cluster.value(&format!(
                "SELECT to_char(pg_xact_commit_timestamp('{xid}') AT TIME ZONE 'UTC', \
                 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
            ));
            let segment = self.cluster.value("SELECT pg_walfile_name(pg_switch_wal())");
            let segment = SegmentName::parse(&segment).unwrap();
            let (time, xid) = (time.parse().unwrap(), xid.parse().unwrap());
            self.steps.push(Step { segment, time, xid });
        }
    }

    #[track_caller]
    fn back_up(&self, words: &[&str]) -> Backup {
        let backup = self.cluster.walden().args(["backup", "--json", "--mode", "local"]);
        let output = backup.args(words).run().succeeds();
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        let text = |key: &str| report[key].as_str().unwrap();
        let segment = |key: &str| SegmentName::parse(text(key)).unwrap();
        let is_incremental = words.contains(&"--incremental");
        assert_eq!(report["parent"].is_string(), is_incremental, "{report:#}");
        Backup {
            id: text("id").to_owned(),
            ended: text("ended").parse().unwrap(),
            first_wal: segment("first_wal"),
            last_wal: segment("last_wal"),
        }
    }

    /// The repository as it is now.
    fn close(&mut self) {
        if self.cluster.try_sql("SELECT 1").is_ok() {
            self.cluster.wait_archived();
        }
        let (repository, source) = (Scratch::new(), self.repository.path());
        for file in files_below(source) {
            let link = repository.join(&file.strip_prefix(source).unwrap().display().to_string());
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            fs::hard_link(&file, link).unwrap();
        }
        self.chapters.push(Chapter(repository));
    }
}

/// One for the tests that only read it, for as long as any of them holds it: what is static is
/// never dropped, and its directories would outlive the tests.
pub fn shared() -> Arc<Landscape> {
    static LANDSCAPE: Mutex<Weak<Landscape>> = Mutex::new(Weak::new());
    let mut kept = LANDSCAPE.lock().unwrap_or_else(PoisonError::into_inner);
    kept.upgrade().unwrap_or_else(|| {
        let landscape = Arc::new(Landscape::live());
        *kept = Arc::downgrade(&landscape);
        landscape
    })
}

/// A recovery of its own WAL: a history file, a partial segment, a timeline.
pub fn fail_over(cluster: &mut Cluster) {
    cluster.stop();
    recover_again(cluster);
}

pub fn recover_again(cluster: &mut Cluster) {
    cluster.configure("restore_command", "'/bin/false'");
    cluster.signal("recovery.signal");
    cluster.start_again();
    cluster.wait_until("NOT pg_is_in_recovery()");
}

pub fn first_timeline() -> TimelineId {
    TimelineId::new(1).unwrap()
}

pub fn start(segment: SegmentName) -> Lsn {
    segment.start(SEGMENT_BYTES)
}

/// The segment `count` before it, of the same timeline.
pub fn before(segment: SegmentName, count: u64) -> SegmentName {
    let lsn = Lsn(start(segment).0 - count * u64::from(SEGMENT_BYTES));
    SegmentName::containing(segment.timeline, lsn, SEGMENT_BYTES)
}

/// The object of a segment.
pub fn object(segment: SegmentName) -> String {
    crate::harness::reference::place_of(&segment.to_string())
}

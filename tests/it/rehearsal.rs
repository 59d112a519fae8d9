//! Drills of a cluster that never rests: failovers, incrementals, tablespaces, DDL under load.
//! Every one reaches its commit, where the rows are those of the source's own books; the live
//! cluster beside it is not touched; killed at any instant, it leaves nothing.
//!
//! `WALDEN_TEST_DRILL_ROUNDS` says how many commits are rehearsed, `WALDEN_TEST_DRILL_KILLS` how
//! many drills are killed, `WALDEN_TEST_SEED` which.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use walden::host::privileges;

use crate::harness::books::{self, AGREEMENT, Clerks, Entries};
use crate::harness::cluster::within;
use crate::harness::saboteur::fingerprint;
use crate::harness::session::Session;
use crate::harness::site::files_below;
use crate::harness::{self, ANY_MAJOR, Cluster, Output, Scratch, Walden, processes};

/// A cluster that went through all of it, and is idle now.
struct Source {
    live: Cluster,
    /// What it says itself of its transactions.
    entries: Entries,
    repository: Scratch,
    places: Scratch,
}

impl Source {
    #[track_caller]
    fn live() -> Source {
        let (repository, places) = (Scratch::new(), Scratch::new());
        let url = format!("file://{}", repository.path().display());
        let builder = Cluster::builder(ANY_MAJOR).data_checksums().tablespace("space");
        let builder = builder.archive_to(url, "main").setting("log_connections", "on");
        let mut first = builder.setting("checkpoint_timeout", "1h").start();
        books::prepare(&first);
        let clerks = Clerks::begin(&first, 3);
        thread::sleep(Duration::from_millis(300));
        back_up(&first, "local", "--full");
        thread::sleep(Duration::from_millis(700));
        back_up(&first, "local", "--incremental");
        thread::sleep(Duration::from_millis(700));
        clerks.end();
        first.archive_everything();

        // Another server takes over, and the first one is gone.
        let directory = places.join("second");
        let restore = first.walden().arg("restore").arg(&directory).arg("--adopt");
        let restore = restore.arg("--tablespace-root").arg(places.directory("spaces"));
        restore.arg("--target-latest").run().succeeds();
        let mut second = Cluster::over(ANY_MAJOR, &directory).archiving_as(&first);
        first.crash();
        second.start_again();
        second.wait_until("NOT pg_is_in_recovery()");
        let clerks = Clerks::begin(&second, 2);
        thread::sleep(Duration::from_millis(500));
        back_up(&second, "local", "--incremental");
        thread::sleep(Duration::from_millis(500));
        clerks.end();

        // And once more, with a timeline that ends in the middle of a segment.
        // Its own recovery followed timeline 1, and is over.
        fs::write(directory.join("postgresql.auto.conf"), "").unwrap();
        crate::sabotage::landscape::fail_over(&mut second);
        let clerks = Clerks::begin(&second, 3);
        thread::sleep(Duration::from_millis(500));
        back_up(&second, "stream", "--full");
        thread::sleep(Duration::from_millis(700));
        let count = clerks.end();
        second.archive_everything();
        let entries = books::entries(&second);
        assert_eq!(entries.len() as u64, count);
        assert_eq!(second.value(AGREEMENT), "t");
        second.sql("CHECKPOINT");
        Source { live: second, entries, repository, places }
    }

    /// In a place of its own, `root`.
    fn drill(&self, root: &Path) -> Walden {
        let drill = self.live.walden().args(["drill", "--json", "--scratch"]).arg(root);
        drill.arg("--pg-bin").arg(harness::installation(ANY_MAJOR).bin)
    }
}

fn source() -> Arc<Source> {
    static SOURCE: Mutex<Weak<Source>> = Mutex::new(Weak::new());
    let mut kept = SOURCE.lock().unwrap_or_else(PoisonError::into_inner);
    kept.upgrade().unwrap_or_else(|| {
        let source = Arc::new(Source::live());
        *kept = Arc::downgrade(&source);
        source
    })
}

#[track_caller]
fn back_up(cluster: &Cluster, mode: &str, kind: &str) {
    cluster.walden().args(["backup", "--mode", mode, kind]).run().succeeds();
}

#[test]
fn drills_of_random_commits_reach_them_and_the_rows_are_those_of_the_books() {
    let source = source();
    let mut random = Rng::with_seed(harness::seed());
    for round in 0..harness::amount("WALDEN_TEST_DRILL_ROUNDS", 2) {
        let (place, seed) = (Scratch::new(), random.u32(..));
        let checks = place.join("checks.sql");
        fs::write(&checks, format!("{AGREEMENT};\n")).unwrap();
        let drill = source.drill(place.path()).arg("--sql").arg(&checks);
        let drill = drill.args(["--random", "--seed", &seed.to_string()]);
        // Every other one stays, to be asked what it could not know before.
        let is_kept = round % 2 == 0;
        let drill = if is_kept { drill.arg("--keep") } else { drill };

        let output = drill.run().succeeds();

        let record = json(&output);
        assert_eq!(record["verdict"], "passed", "seed {seed}: {record:#}");
        expect_check(&record, "target");
        expect_check(&record, "sql");
        if is_kept {
            let kept = Kept::of(&record);
            expect_commit(&source.entries, &record, &kept);
        } else {
            expect_nothing_left(place.path(), &["checks.sql"]);
        }
    }
}

#[track_caller]
fn expect_check(record: &Value, kind: &str) {
    let checks = record["checks"].as_array().unwrap();
    let of_kind: Vec<&Value> = checks.iter().filter(|check| check["kind"] == kind).collect();
    let all_passed = of_kind.iter().all(|check| check["verdict"] == "passed");
    assert!(!of_kind.is_empty() && all_passed, "{kind}: {record:#}");
}

/// The commit that the record names is there, and what its clerk did next is not.
#[track_caller]
fn expect_commit(entries: &Entries, record: &Value, kept: &Kept) {
    let mut session = kept.session();
    let xid = record["target"]["last_commit"]["xid"].as_u64().unwrap() as u32;
    assert_eq!(first(&mut session, AGREEMENT), "t");
    // It may be of somebody who keeps no books: a backup, a tablespace.
    let Some((clerk, number)) = entries.get(&xid) else { return };
    let last = format!("SELECT max(n) FROM books WHERE clerk = {clerk}");
    assert_eq!(first(&mut session, &last), number.to_string(), "{record:#}");
    let own = format!("SELECT xid FROM books WHERE clerk = {clerk} AND n = {number}");
    assert_eq!(first(&mut session, &own), xid.to_string());
}

fn first(session: &mut Session, sql: &str) -> String {
    let rows = session.query(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
    rows.into_iter().flatten().flatten().next().unwrap_or_else(|| panic!("{sql}: nothing"))
}

/// A drill's server that was told to stay; gone when dropped.
struct Kept {
    directory: PathBuf,
    connect: String,
    stop: String,
}

impl Kept {
    #[track_caller]
    fn of(record: &Value) -> Kept {
        let text = |key: &str| record["kept"][key].as_str().expect("it was kept").to_owned();
        let directory = PathBuf::from(text("directory"));
        Kept { directory, connect: text("connect"), stop: text("stop") }
    }

    /// By the line that a person would paste.
    fn session(&self) -> Session {
        let words: Vec<&str> = self.connect.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "-h").expect("a socket's directory");
        let socket = words[at + 1].trim_matches(['\'', '"']);
        Session::open(Path::new(socket), harness::cluster::PORT, "postgres").unwrap()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &self.stop]).current_dir("/");
        // PostgreSQL's programs refuse to work for root.
        let user = privileges::server_user().unwrap();
        let stopped = privileges::run_as(&mut shell, user.as_ref()).output();
        let _ = fs::remove_dir_all(&self.directory);
        if !thread::panicking() {
            assert!(stopped.is_ok_and(|output| output.status.success()), "{}", self.stop);
        }
    }
}

/// Nothing that a server changes by itself, when nothing is asked of it, may change meanwhile.
#[test]
fn a_live_cluster_beside_a_drill_is_not_touched() {
    let source = source();
    let place = Scratch::new();
    let live = &source.live;
    let archiver = "SELECT archived_count, failed_count, last_archived_wal FROM pg_stat_archiver";
    let archived = live.sql(archiver);
    let still = Still::of(live);
    let objects = fingerprint(source.repository.path());
    let files = fingerprint(live.pgdata());
    assert!(files.len() > 900, "only {} files", files.len());
    let spaces = fingerprint(source.places.path());
    let connections = live.log().matches("connection received").count();

    for words in [&["--latest"][..], &["--random", "--seed", "7"]] {
        let output = source.drill(place.path()).args(words).run().succeeds();
        assert_eq!(json(&output)["verdict"], "passed", "{output}");
    }

    assert_eq!(live.log().matches("connection received").count(), connections);
    assert_eq!(differences(&files, &fingerprint(live.pgdata())), [""; 0]);
    assert_eq!(differences(&spaces, &fingerprint(source.places.path())), [""; 0]);
    let after = differences(&objects, &fingerprint(source.repository.path()));
    let is_evidence = |line: &String| {
        line.starts_with("+ ") && (line.contains("/drill/") || line.contains("/audit/"))
    };
    assert!(after.iter().all(is_evidence), "{after:#?}");
    assert!(after.len() >= 4, "each leaves a record and an audit entry: {after:#?}");
    drop(still);
    assert_eq!(live.sql(archiver), archived);
    expect_nothing_left(place.path(), &[]);
}

/// Those of its processes that write by themselves now and then stand still.
struct Still(Vec<Pid>);

impl Still {
    #[track_caller]
    fn of(cluster: &Cluster) -> Still {
        let pid = fs::read_to_string(cluster.pgdata().join("postmaster.pid")).unwrap();
        let postmaster: u32 = pid.lines().next().unwrap().parse().unwrap();
        let writes = |words: &[String]| {
            let writers = ["checkpointer", "background writer", "walwriter"];
            words.first().is_some_and(|title| writers.iter().any(|writer| title.contains(writer)))
        };
        let tree = processes::tree(postmaster);
        let writers = tree.iter().filter(|process| writes(&process.words));
        let writers: Vec<Pid> = writers.filter_map(|process| Pid::from_raw(process.id)).collect();
        assert_eq!(writers.len(), 3);
        writers.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
        Still(writers)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

type Fingerprint = std::collections::BTreeMap<PathBuf, (u64, u32)>;

/// What is new, gone, or another, as lines.
fn differences(before: &Fingerprint, after: &Fingerprint) -> Vec<String> {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let gone = gone.map(|name| format!("- {}", name.display()));
    let other = after.iter().filter_map(|(name, now)| match before.get(name) {
        None => Some(format!("+ {}", name.display())),
        Some(then) if then != now => Some(format!("! {}", name.display())),
        Some(_) => None,
    });
    gone.chain(other).collect()
}

#[test]
fn a_drill_killed_at_any_instant_leaves_nothing() {
    let source = source();
    let mut random = Rng::with_seed(harness::seed());
    let place = Scratch::new();
    let began = Instant::now();
    source.drill(place.path()).arg("--latest").run().succeeds();
    let whole = began.elapsed();
    let mut caught = 0;
    for round in 0..harness::amount("WALDEN_TEST_DRILL_KILLS", 4) {
        let mut running = source.drill(place.path()).arg("--latest").spawn();
        thread::sleep(whole.mul_f64(random.f64()));
        caught += usize::from(!running.has_ended());
        if round % 2 == 0 {
            running.kill();
        } else {
            running.terminate();
        }
        drop(running.wait());
        let is_gone = || left_in(place.path(), &[]).is_empty();
        assert!(
            within(Duration::from_secs(30), is_gone),
            "round {round}: {:#?}",
            left_in(place.path(), &[])
        );
    }
    println!("{caught} were under way");
}

/// With its guard: what is left then the next drill sweeps.
#[test]
fn what_was_killed_together_with_its_guard_is_swept_by_the_next_drill() {
    let source = source();
    let place = Scratch::new();
    let running = source.drill(place.path()).arg("--latest").spawn();
    let is_up = || files_below(place.path()).iter().any(|file| file.ends_with("postmaster.pid"));
    assert!(within(Duration::from_secs(60), is_up), "no server was started");
    let tree = processes::tree(running.process_id());
    let is_walden = |process: &&processes::Process| {
        let program = process.words.first().map(|word| word.rsplit('/').next().unwrap());
        program == harness::program::binary().file_name().and_then(|name| name.to_str())
    };
    let ours: Vec<&processes::Process> = tree.iter().filter(is_walden).collect();
    assert!(ours.len() >= 2, "the drill and its guard: {tree:?}");
    ours.iter().for_each(|process| process.kill());
    drop(running.wait());

    source.drill(place.path()).arg("--latest").run().succeeds();

    let is_gone = || left_in(place.path(), &[]).is_empty();
    assert!(within(Duration::from_secs(30), is_gone), "{:#?}", left_in(place.path(), &[]));
}

#[track_caller]
fn expect_nothing_left(place: &Path, but: &[&str]) {
    let left = left_in(place, but);
    assert!(left.is_empty(), "{left:#?}");
}

/// Files and directories in `place`, and processes that have to do with it; sockets are files.
fn left_in(place: &Path, but: &[&str]) -> Vec<String> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut left: Vec<String> = names.filter(|name| !but.contains(&name.as_str())).collect();
    left.extend(processes::that_name(place).iter().map(|process| format!("{process:?}")));
    left
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"))
}

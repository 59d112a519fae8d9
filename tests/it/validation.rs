//! `push` reads the WAL it archives: what is damaged is refused, or marked; what is right is
//! digested, and the digest is what PostgreSQL says.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use walden::codec::Header;
use walden::commands::App;
use walden::commands::archive::push;
use walden::config::{Overrides, Settings};
use walden::error::ErrorKind;
use walden::postgres::wal::{Digest, Digester};
use walden::postgres::{Lsn, MajorVersion, SegmentName};

use crate::harness::site::{self, files_below};
use crate::harness::{self, ANY_MAJOR, Cluster, Scratch, Site};

const SEGMENT_BYTES: u64 = site::SEGMENT_BYTES as u64;
const PAGE_BYTES: u64 = 8192;
/// On each of the four versions.
const TRIALS: u64 = 250;
const FIRST: &str = "0000000100000000000000A1";
const SECOND: &str = "0000000100000000000000A2";

/// A record as PostgreSQL itself reads it.
struct Record {
    start: Lsn,
    length: u64,
    resource_manager: String,
    kind: String,
}

impl Record {
    /// Where its bytes lie: it leaves out the headers of the pages it crosses.
    fn places(&self) -> Vec<u64> {
        let mut places = Vec::new();
        let mut at = self.start.0;
        while (places.len() as u64) < self.length {
            let header = match (at % SEGMENT_BYTES, at % PAGE_BYTES) {
                (0, _) => 40,
                (_, 0) => 24,
                _ => 0,
            };
            at += header;
            places.push(at);
            at += 1;
        }
        places
    }

    fn segment(&self) -> u64 {
        self.start.0 / SEGMENT_BYTES
    }

    fn is_whole_in_its_segment(&self) -> bool {
        self.places().last().is_some_and(|last| last / SEGMENT_BYTES == self.segment())
    }
}

/// A cluster with a bit of everything in its WAL.
fn busy(major: MajorVersion, archive_to: Option<&str>) -> Cluster {
    let builder = Cluster::builder(major).setting("wal_keep_size", "'1GB'");
    let builder = builder.setting("track_commit_timestamp", "on").setting("wal_level", "logical");
    let builder = builder.setting("max_prepared_transactions", "5");
    let cluster = match archive_to {
        Some(repository) => builder.archive_to(repository, "main").start(),
        None => builder.start(),
    };
    cluster.sql("CREATE EXTENSION pg_walinspect");
    cluster.sql("CREATE TABLE t (n int PRIMARY KEY, what text)");
    cluster.sql("CREATE TABLE gone AS SELECT md5(n::text) FROM generate_series(1, 2000) n");
    for round in 0..30 {
        cluster.sql(&format!(
            "INSERT INTO t SELECT {round} * 1000 + n, repeat(md5(n::text), n % 9) \
             FROM generate_series(1, 500) n"
        ));
        cluster.sql("UPDATE t SET what = what || 'x' WHERE random() < 0.1");
        cluster.sql("BEGIN; DELETE FROM t WHERE random() < 0.02; ROLLBACK");
        cluster.sql(
            "BEGIN; SAVEPOINT s; DELETE FROM t WHERE random() < 0.02; RELEASE s; \
             SELECT nextval('pg_catalog.pg_class'::regclass::oid) WHERE false; COMMIT",
        );
    }
    cluster.sql("SELECT pg_create_restore_point('here')");
    cluster.sql("BEGIN; INSERT INTO t VALUES (-1, ''); PREPARE TRANSACTION 'two'");
    cluster.sql("COMMIT PREPARED 'two'");
    cluster.sql("DROP TABLE gone");
    cluster.write_wal(2);
    cluster
}

/// All records since the cluster began, in whole segments.
fn records(cluster: &Cluster) -> Vec<Record> {
    let now = cluster.current_lsn().0 / SEGMENT_BYTES * SEGMENT_BYTES;
    let first =
        cluster.column("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'");
    let first = u64::from_str_radix(&first[0][16..], 16).unwrap().max(1) * SEGMENT_BYTES;
    let rows = cluster.sql(&format!(
        "SELECT start_lsn, record_length, resource_manager, record_type \
         FROM pg_get_wal_records_info('{}', '{}')",
        Lsn(first),
        Lsn(now)
    ));
    let record = |row: Vec<Option<String>>| {
        let mut columns = row.into_iter().flatten();
        let mut column = || columns.next().unwrap();
        Record {
            start: column().parse().unwrap(),
            length: column().parse().unwrap(),
            resource_manager: column(),
            kind: column(),
        }
    };
    rows.into_iter().map(record).collect()
}

fn name(segment: u64) -> String {
    format!("0000000100000000{segment:08X}")
}

/// An archive of nothing yet, asked by the library's own `push`: a process for each of a thousand
/// trials would take long.
struct Archive {
    scratch: Scratch,
    app: App,
}

impl Archive {
    fn of(cluster: &Cluster) -> Archive {
        let scratch = Scratch::new();
        scratch.directory("pg_wal");
        let repository = scratch.directory("repository").display().to_string();
        let state = scratch.directory("state").display().to_string();
        let variables = [
            ("WALDEN_REPOSITORY_URL", repository.as_str()),
            ("WALDEN_STATE_DIR", &state),
            ("WALDEN_PGDATA", cluster.pgdata().to_str().unwrap()),
            ("WALDEN_PUSH_LOOK_AHEAD", "0"),
        ];
        let variables = variables.map(|(name, value)| (OsString::from(name), value.into()));
        let nowhere = Path::new("/nonexistent/walden.toml");
        let settings =
            Settings::resolve_from(&Overrides::default(), variables.into_iter(), nowhere).unwrap();
        Archive { scratch, app: App::new(settings) }
    }

    fn push(&self, name: &str, content: &[u8]) -> walden::error::Result<()> {
        let path = self.scratch.join("pg_wal").join(name);
        fs::write(&path, content).unwrap();
        push::run(&self.app, &path)
    }

    fn objects(&self) -> Vec<PathBuf> {
        files_below(&self.scratch.join("repository"))
    }
}

#[test]
fn a_flipped_byte_in_any_whole_record_is_refused_with_15() {
    flipped_bytes_are_refused(MajorVersion(15));
}

#[test]
fn a_flipped_byte_in_any_whole_record_is_refused_with_16() {
    flipped_bytes_are_refused(MajorVersion(16));
}

#[test]
fn a_flipped_byte_in_any_whole_record_is_refused_with_17() {
    flipped_bytes_are_refused(MajorVersion(17));
}

#[test]
fn a_flipped_byte_in_any_whole_record_is_refused_with_18() {
    flipped_bytes_are_refused(MajorVersion(18));
}

fn flipped_bytes_are_refused(major: MajorVersion) {
    let cluster = busy(major, None);
    let records = records(&cluster);
    let whole: Vec<&Record> = records.iter().filter(|one| one.is_whole_in_its_segment()).collect();
    assert!(whole.len() > 10_000, "only {} records", whole.len());
    let segment = |number: u64| fs::read(cluster.pgdata().join("pg_wal").join(name(number)));
    let mut segments = BTreeMap::new();
    for record in &whole {
        segments.entry(record.segment()).or_insert_with(|| segment(record.segment()).unwrap());
    }
    let archive = Archive::of(&cluster);
    let mut random = fastrand::Rng::with_seed(harness::seed());
    for trial in 0..harness::amount("WALDEN_TEST_TRIALS", TRIALS) {
        // Every tenth of them in a length, which says how far the record goes.
        let record = whole[random.usize(..whole.len())];
        let places = record.places();
        let place = if trial % 10 == 0 { random.usize(..4) } else { random.usize(..places.len()) };
        let at = (places[place] % SEGMENT_BYTES) as usize;
        let mut content = segments[&record.segment()].clone();
        content[at] ^= random.u8(1..);
        let pushed = archive.push(&name(record.segment()), &content);
        let Record { start, length, resource_manager, kind } = record;
        let what = format!("{resource_manager} {kind} at {start}, {length} bytes: byte {place}");
        match pushed {
            Ok(()) => panic!("accepted: {what}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidSource, "{what}: {error}"),
        }
    }
    assert_eq!(archive.objects(), [] as [PathBuf; 0]);
    lengths_that_lead_out_of_the_segment_are_noticed(&whole, &segments);
    let (number, content) = segments.first_key_value().unwrap();
    archive.push(&name(*number), content).unwrap();
}

/// By a flipped byte in its length a record may claim to go on in the next segment, where this call
/// cannot look.
fn lengths_that_lead_out_of_the_segment_are_noticed(
    whole: &[&Record],
    segments: &BTreeMap<u64, Vec<u8>>,
) {
    for (&number, content) in segments {
        let last = whole.iter().rfind(|record| record.segment() == number);
        let Some(Record { start, resource_manager, kind, .. }) = last else { continue };
        for (byte, bit) in (0..4).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut content = content.clone();
            content[(start.0 % SEGMENT_BYTES) as usize + byte] ^= 1 << bit;
            let mut digester = Digester::new(SegmentName::parse(&name(number)).unwrap());
            digester.write(&content);
            let digest = digester.finish().unwrap();
            let what = format!("{resource_manager} {kind} at {start}: byte {byte}, bit {bit}");
            assert!(digest.invalid.is_some(), "accepted: {what}");
        }
    }
}

fn digest_of(object: &Path) -> Digest {
    let object = fs::read(object).unwrap_or_else(|why| panic!("{}: {why}", object.display()));
    *Header::split(&object).unwrap().0.digest.expect("a digest")
}

/// One byte of a record in the middle of the segment.
fn damaged(site: &Site, name: &str) -> Vec<u8> {
    let mut bytes = site.segment(name, 1);
    bytes[500_000] ^= 4;
    site.file(name, &bytes);
    bytes
}

#[test]
fn a_damaged_segment_is_refused_in_one_line_that_names_the_record() {
    let site = Site::new();
    let good = site.segment(FIRST, 1);
    damaged(&site, FIRST);
    let refused = site.push(FIRST).run().exits(10).complains_in_one_line();
    for words in [FIRST, "record at 0/A1", "hint", "push.on_invalid"] {
        assert!(refused.stderr.contains(words), "{refused}");
    }
    assert_eq!(files_below(&site.repository_directory()), [] as [PathBuf; 0]);
    site.file(FIRST, &good);
    site.push(FIRST).run().succeeds().is_silent();
    assert_eq!(digest_of(&site.object(FIRST)).invalid, None);
}

#[test]
fn told_to_archive_it_all_the_same_push_marks_it_and_fetch_says_so() {
    let site = Site::new();
    let in_a_record = damaged(&site, FIRST);
    let mut in_a_page_header = site.segment(SECOND, 1);
    in_a_page_header[9 * 8192 + 8] ^= 1;
    site.file(SECOND, &in_a_page_header);
    for (name, content) in [(FIRST, in_a_record), (SECOND, in_a_page_header)] {
        let push = site.push(name).env("WALDEN_PUSH_ON_INVALID", "archive");
        let pushed = push.run().succeeds();
        assert_eq!(pushed.stderr.lines().count(), 1, "{pushed}");
        pushed.stderr_has("walden: warning: archived with a mark");
        assert!(digest_of(&site.object(name)).invalid.is_some());
        // Not by way of the spool, where nobody would speak of it.
        let fetched = site.fetch(name).run().succeeds();
        fetched.stderr_has("walden: error: archived with a mark, recovery ends at 0/A");
        assert!(site.fetched() == Some(content), "{name}");
    }
    // The same again is the same, and still what the settings say of it.
    site.push(FIRST).env("WALDEN_PUSH_ON_INVALID", "archive").run().succeeds();
    site.push(FIRST).run().exits(10);
    // Another file is refused whatever they say.
    site.file(FIRST, &site::segment(SECOND, 1, site::SYSTEM_IDENTIFIER));
    let other = site.push(FIRST).env("WALDEN_PUSH_ON_INVALID", "archive");
    other.run().exits(10).complains_in_one_line();
}

#[test]
fn a_damaged_segment_ahead_is_not_acknowledged_and_its_own_call_says_why() {
    let site = Site::new();
    site.ready_segment(FIRST, 1);
    damaged(&site, SECOND);
    site.ready(SECOND);
    site.push(FIRST).patiently().run().succeeds().is_silent();
    assert!(!site.object(SECOND).exists());
    site.done(FIRST);
    site.push(SECOND).run().exits(10).complains_in_one_line();
}

#[test]
fn one_archived_ahead_with_a_mark_is_told_of_once() {
    let site = Site::new();
    site.ready_segment(FIRST, 1);
    damaged(&site, SECOND);
    site.ready(SECOND);
    let archiving = |name| {
        let push = site.push(name).patiently().env("WALDEN_PUSH_ON_INVALID", "archive");
        push.env("WALDEN_PUSH_LOOK_AHEAD_DEADLINE", "30s").run().succeeds()
    };
    let told = archiving(FIRST);
    assert_eq!(told.stderr.matches("archived with a mark").count(), 1, "{told}");
    assert!(told.stderr.contains(SECOND), "{told}");
    site.done(FIRST);
    archiving(SECOND).is_silent();
    assert!(digest_of(&site.object(SECOND)).invalid.is_some());
}

#[test]
fn digests_agree_with_the_server_on_15() {
    digests_agree(MajorVersion(15));
}

#[test]
fn digests_agree_with_the_server_on_16() {
    digests_agree(MajorVersion(16));
}

#[test]
fn digests_agree_with_the_server_on_17() {
    digests_agree(MajorVersion(17));
}

#[test]
fn digests_agree_with_the_server_on_18() {
    digests_agree(MajorVersion(18));
}

/// The server archives by `walden push`; what it then says of its own WAL is in the headers.
fn digests_agree(major: MajorVersion) {
    let scratch = Scratch::new();
    let repository = scratch.directory("repository");
    let cluster = busy(major, Some(&format!("file://{}", repository.display())));
    cluster.wait_archived();
    let mut by_segment: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
    for record in records(&cluster) {
        by_segment.entry(record.segment()).or_default().push(record);
    }
    let objects = files_below(&repository);
    let object = |segment: u64| {
        let wanted = format!("{}.zst", name(segment));
        objects.iter().find(|object| object.ends_with(&wanted)).expect("it is archived")
    };
    let mut commits_in_all = 0;
    for (&number, records) in &by_segment {
        let digest = digest_of(object(number));
        let whole = records.iter().filter(|record| record.is_whole_in_its_segment());
        let whole: Vec<&Record> = whole.collect();
        let ends = |kinds: [&str; 2]| {
            let is_one = |record: &&&Record| {
                record.resource_manager == "Transaction" && kinds.contains(&record.kind.as_str())
            };
            whole.iter().filter(is_one).map(|record| record.start).collect::<Vec<Lsn>>()
        };
        let commits = ends(["COMMIT", "COMMIT_PREPARED"]);
        assert_eq!(digest.invalid, None);
        assert_eq!(digest.segment_size, SEGMENT_BYTES as u32);
        assert_eq!(digest.records, whole.len() as u64, "{}", name(number));
        assert_eq!(digest.first_record, records.first().map(|record| record.start));
        assert_eq!(digest.commits, commits.len() as u64, "{}", name(number));
        assert_eq!(digest.aborts, ends(["ABORT", "ABORT_PREPARED"]).len() as u64);
        assert_eq!(digest.first_commit.map(|end| end.lsn), commits.first().copied());
        assert_eq!(digest.last_commit.map(|end| end.lsn), commits.last().copied());
        for end in [digest.first_commit, digest.last_commit].into_iter().flatten() {
            let time = cluster.value(&format!(
                "SELECT to_char(pg_xact_commit_timestamp('{}'::xid), \
                 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
                end.xid
            ));
            // Before the settings above were read there was nobody to remember it.
            if !time.is_empty() {
                assert_eq!(end.time, time.parse().unwrap(), "xid {}", end.xid);
            }
        }
        commits_in_all += digest.commits;
    }
    assert!(commits_in_all > 90, "{commits_in_all}");
}

/// A record that the server began, and that a crash tore: it says so in the next segment
/// (`XLOG_OVERWRITE_CONTRECORD`), and both are archived.
#[test]
fn a_record_that_a_crash_cut_off_is_archived_as_it_is() {
    let scratch = Scratch::new();
    let repository = scratch.directory("repository");
    let url = format!("file://{}", repository.display());
    // Not before the file that is lost is gone.
    let builder = Cluster::builder(ANY_MAJOR).archive_to(url, "main");
    let mut cluster = builder.setting("archive_command", "'false'").start();
    cluster.sql("CREATE TABLE t (n int)");
    cluster.sql("CREATE EXTENSION pg_walinspect");
    cluster.sql("SELECT pg_switch_wal()");
    let before = cluster.current_lsn();
    cluster.sql("SELECT pg_logical_emit_message(true, 'test', repeat('xyzxz', 250000))");
    let lost = cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())");
    cluster.crash();
    fs::remove_file(cluster.pgdata().join("pg_wal").join(&lost)).unwrap();
    let archive = format!(
        "'{} --repository {} --cluster main push \"%p\"'",
        harness::program::binary().display(),
        repository.display()
    );
    cluster.configure("archive_command", &archive);
    cluster.start_again();
    cluster.sql("INSERT INTO t VALUES (1)");
    let overwritten = cluster.value(&format!(
        "SELECT count(*) FROM pg_get_wal_records_info('{before}', pg_current_wal_lsn()) \
         WHERE record_type = 'OVERWRITE_CONTRECORD'"
    ));
    assert_eq!(overwritten, "1");
    cluster.archive_everything();
    let objects = files_below(&repository);
    let segments: Vec<&PathBuf> =
        objects.iter().filter(|object| !object.ends_with("cluster.json")).collect();
    assert!(segments.len() >= 3, "{segments:?}");
    assert!(segments.iter().all(|object| digest_of(object).invalid.is_none()));
    assert!(segments.iter().any(|object| object.ends_with(format!("{lost}.zst"))));
}

/// A standby that archives, and follows another one that is promoted, ends the segment it was
/// receiving where the timeline ends, and archives it.
#[test]
fn the_segment_in_which_a_standbys_timeline_ended_is_archived() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.directory("first"), scratch.directory("second"));
    let builder = Cluster::builder(ANY_MAJOR).setting("wal_keep_size", "'1GB'");
    let mut primary = builder.archive_to(format!("file://{}", first.display()), "main").start();
    primary.sql("CREATE TABLE t (n int)");
    let following = |cluster: &Cluster, upstream: &Cluster| {
        cluster.configure("restore_command", "'false'");
        let place = upstream.socket_directory().display();
        cluster.configure("primary_conninfo", &format!("'host={place} user=postgres'"));
        cluster.signal("standby.signal");
    };
    let mut heir = Cluster::copy_of(&primary);
    following(&heir, &primary);
    heir.start_again();
    let mut follower = Cluster::copy_of(&primary);
    following(&follower, &heir);
    follower.configure("archive_mode", "always");
    let binary = harness::program::binary().display();
    let push = format!("{binary} --repository {} --cluster main push \"%p\"", second.display());
    follower.configure("archive_command", &format!("'{push}'"));
    follower.start_again();

    primary.sql("INSERT INTO t VALUES (1)");
    let here = primary.current_lsn();
    follower.wait_until(&format!("pg_last_wal_replay_lsn() >= '{here}'"));
    let segment = primary.value("SELECT pg_walfile_name(pg_current_wal_lsn())");
    primary.crash();
    heir.promote();
    heir.sql("INSERT INTO t VALUES (2)");
    follower.wait_until("(SELECT count(*) FROM t) = 2");
    follower.wait_archived();
    let objects = files_below(&second);
    let object = objects.iter().find(|object| object.ends_with(format!("{segment}.zst")));
    let object = object.unwrap_or_else(|| panic!("no {segment} in {objects:?}"));
    let invalid = digest_of(object).invalid.expect("a mark");
    assert_eq!(invalid.what, "the WAL goes on with timeline 2");
    assert!(invalid.is_end_of_timeline);
    assert!(invalid.lsn >= here, "{invalid:?}");
    assert!(!follower.log().contains("warning"), "{}", follower.log());
}

//! What PostgreSQL makes of `fetch` in real recovery: trouble never ends in a promotion with rows
//! missing, and after repair recovery goes on. Each case is a row of the table "restore_command
//! result" of the PostgreSQL sources.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::harness::{ANY_MAJOR, Bucket, Cluster, ClusterBuilder, Fault, Scratch};

/// A cluster whose copy of an earlier moment can be recovered over and over, each time with other
/// trouble.
struct Accident {
    primary: Cluster,
    base: Cluster,
    /// The segments of the rows 1 to 6, one each.
    segments: Vec<String>,
    /// Where the objects are, if the repository is a directory.
    directory: Scratch,
}

impl Accident {
    fn in_a_directory() -> Accident {
        let directory = Scratch::new();
        let url = format!("file://{}", directory.path().display());
        Accident::prepare(&url, &[], directory)
    }

    fn in_a_bucket(bucket: &Bucket) -> Accident {
        let mut environment = bucket.environment();
        environment.push(("WALDEN_S3_REQUEST_TIMEOUT", "2s".to_owned()));
        Accident::prepare(&bucket.url(), &environment, Scratch::new())
    }

    fn prepare(url: &str, environment: &[(&str, String)], directory: Scratch) -> Accident {
        let builder = Cluster::builder(ANY_MAJOR).archive_to(url, "main");
        let with =
            |builder: ClusterBuilder, (name, value): &(&str, String)| builder.env(name, value);
        let primary = environment.iter().fold(builder, with).start();
        primary.sql("CREATE TABLE t (n int)");
        primary.archive_everything();
        let base = Cluster::copy_of(&primary);
        let mut segments = Vec::new();
        for n in 1..=6 {
            primary.sql(&format!("INSERT INTO t VALUES ({n})"));
            segments.extend(primary.write_wal(1));
        }
        primary.wait_archived();
        Accident { primary, base, segments, directory }
    }

    /// A copy that will recover to the end of the archive and promote.
    fn recovering(&self) -> Cluster {
        let mut copy = Cluster::copy_of(&self.base);
        copy.signal("recovery.signal");
        copy.set_env("WALDEN_FETCH_RETRY_FOR", "1s");
        copy
    }

    /// Timeline 2 comes to be, with the row 100 on it.
    fn promote_a_copy(&self) {
        let mut promoted = Cluster::copy_of(&self.base);
        promoted.signal("recovery.signal");
        promoted.archive_again();
        promoted.start_again();
        promoted.wait_until("NOT pg_is_in_recovery()");
        promoted.sql("INSERT INTO t VALUES (100)");
        promoted.archive_everything();
    }

    fn object(&self, file: &str) -> PathBuf {
        let home = self.directory.path().join("main").join(self.primary.system_identifier());
        if file.ends_with(".history") {
            return home.join(format!("history/{file}.zst"));
        }
        home.join(format!("wal/{}/{}/{file}.zst", &file[..8], &file[..16]))
    }
}

/// Recovery must stop, not promote; after `repair` it must go on and find every row.
#[track_caller]
fn stops_and_goes_on_after(repair: impl FnOnce(), mut copy: Cluster, rows: &str) {
    let started = copy.try_start();
    let stopped = started.is_err() || copy.ends_by_itself();
    assert!(stopped, "it must not go on\n{}", copy.log());
    assert!(copy.log().contains("FATAL"), "{}", copy.log());
    assert!(copy.pgdata().join("recovery.signal").exists(), "it promoted\n{}", copy.log());
    assert!(copy.log().contains("walden: "), "the log says why\n{}", copy.log());
    repair();
    // Now it must succeed, on a busy machine too.
    copy.set_env("WALDEN_FETCH_RETRY_FOR", "60s");
    copy.set_env("WALDEN_S3_REQUEST_TIMEOUT", "60s");
    copy.start_again();
    copy.wait_until("NOT pg_is_in_recovery()");
    assert_eq!(copy.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t"), rows);
}

const ALL_ROWS: &str = "1 2 3 4 5 6";

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    // In the content: half of a small object is its header, which tells people where it came from.
    let at = bytes.len() * 4 / 5;
    bytes[at] ^= 0x04;
    fs::write(path, bytes).unwrap();
}

#[test]
fn without_trouble_every_row_is_there() {
    let accident = Accident::in_a_directory();
    let mut copy = accident.recovering();
    copy.start_again();
    copy.wait_until("NOT pg_is_in_recovery()");
    assert_eq!(copy.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t"), ALL_ROWS);
}

#[test]
fn trouble_with_a_directory_stops_recovery_until_it_is_mended() {
    let accident = Accident::in_a_directory();
    let object = accident.object(&accident.segments[3]);
    let good = fs::read(&object).unwrap();

    flip(&object);
    let repair = || fs::write(&object, &good).unwrap();
    stops_and_goes_on_after(repair, accident.recovering(), ALL_ROWS);

    fs::write(&object, &good[..good.len() / 2]).unwrap();
    stops_and_goes_on_after(repair, accident.recovering(), ALL_ROWS);

    let mode = |mode| fs::set_permissions(&object, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    stops_and_goes_on_after(|| mode(0o644), accident.recovering(), ALL_ROWS);

    let (here, away) = (accident.directory.join("main"), accident.directory.join("away"));
    fs::rename(&here, &away).unwrap();
    let mount = || fs::rename(&away, &here).unwrap();
    stops_and_goes_on_after(mount, accident.recovering(), ALL_ROWS);
}

/// What goes wrong with an unreadable history file otherwise: PostgreSQL believes that the timeline
/// does not exist, follows the old one, and takes the number of the new one a second time.
#[test]
fn trouble_with_a_history_file_stops_recovery_until_it_is_mended() {
    let accident = Accident::in_a_directory();
    accident.promote_a_copy();

    let object = accident.object("00000002.history");
    let good = fs::read(&object).unwrap();
    flip(&object);
    let repair = || fs::write(&object, &good).unwrap();
    stops_and_goes_on_after(repair, accident.recovering(), "1 2 3 4 5 6 100");
}

#[test]
fn a_standby_heals_by_itself() {
    let accident = Accident::in_a_directory();
    let object = accident.object(&accident.segments[3]);
    let good = fs::read(&object).unwrap();
    flip(&object);
    let mut standby = Cluster::copy_of(&accident.base);
    standby.signal("standby.signal");
    standby.set_env("WALDEN_FETCH_RETRY_FOR", "1s");
    standby.start_again();
    standby.wait_until("(SELECT max(n) FROM t) = 3");
    fs::write(&object, &good).unwrap();
    standby.wait_until("(SELECT max(n) FROM t) = 6");
    assert_eq!(standby.value("SELECT pg_is_in_recovery()"), "t");
}

/// Every way a store can fail to answer, on a segment in the middle and on a history file.
fn troubles() -> [(&'static str, Fault); 7] {
    [
        ("time-out", Fault::Hang),
        ("403", Fault::error(403, "AccessDenied")),
        ("500", Fault::status(500)),
        ("503", Fault::error(503, "SlowDown")),
        ("no such bucket", Fault::error(404, "NoSuchBucket")),
        ("truncated", Fault::Truncate),
        ("flipped", Fault::FlipByte),
    ]
}

#[test]
fn trouble_with_a_bucket_stops_recovery_until_it_is_mended() {
    let bucket = Bucket::start();
    let accident = Accident::in_a_bucket(&bucket);
    for (what, fault) in troubles() {
        println!("{what}");
        bucket.proxy.fault(None, &accident.segments[3], fault);
        stops_and_goes_on_after(|| bucket.proxy.heal(), accident.recovering(), ALL_ROWS);
    }
    bucket.proxy.refuse_connections();
    stops_and_goes_on_after(|| bucket.proxy.accept_connections(), accident.recovering(), ALL_ROWS);
}

#[test]
fn trouble_with_a_history_file_in_a_bucket_stops_recovery_until_it_is_mended() {
    let bucket = Bucket::start();
    let accident = Accident::in_a_bucket(&bucket);
    accident.promote_a_copy();
    for (what, fault) in troubles() {
        println!("{what}");
        bucket.proxy.fault(None, "00000002.history", fault);
        let repair = || bucket.proxy.heal();
        stops_and_goes_on_after(repair, accident.recovering(), "1 2 3 4 5 6 100");
    }
}

#[test]
fn a_standby_of_a_bucket_heals_by_itself() {
    let bucket = Bucket::start();
    let accident = Accident::in_a_bucket(&bucket);
    bucket.proxy.fault(None, &accident.segments[3], Fault::error(403, "AccessDenied"));
    let mut standby = Cluster::copy_of(&accident.base);
    standby.signal("standby.signal");
    standby.set_env("WALDEN_FETCH_RETRY_FOR", "1s");
    standby.start_again();
    standby.wait_until("(SELECT max(n) FROM t) = 3");
    bucket.proxy.refuse_connections();
    std::thread::sleep(std::time::Duration::from_secs(3));
    bucket.proxy.accept_connections();
    bucket.proxy.heal();
    standby.wait_until("(SELECT max(n) FROM t) = 6");
    assert_eq!(standby.value("SELECT pg_is_in_recovery()"), "t");
}

//! Repositories of varied history with nothing wrong in them: `verify` finds no damage, however
//! deep it looks.
//!
//! `WALDEN_TEST_HEALTHY` says of how many; those that come last have servers of their own.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use walden::postgres::MajorVersion;

use super::landscape::{Landscape, before, object};
use super::{in_threads, landscape};
use crate::harness::cluster::within;
use crate::harness::saboteur::Copy;
use crate::harness::{self, ANY_MAJOR, Bucket, Cluster, Load, Scratch, Site, Walden};

const USUAL: u64 = 16;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Looks as deep as is said.
type Verify<'a> = &'a dyn Fn(&Walden);

type History = fn(Verify<'_>);

const HISTORIES: &[(&str, History)] = &[
    ("WAL and no backup", |verify| chapter(0, verify)),
    ("a backup and nothing after it", |verify| chapter(1, verify)),
    ("an incremental backup", |verify| chapter(2, verify)),
    ("just failed over", |verify| chapter(3, verify)),
    ("two timelines", |verify| chapter(4, verify)),
    ("a backup that was killed long ago", |verify| killed_backup(3 * DAY, verify)),
    ("a backup under way", |verify| killed_backup(Duration::from_secs(5), verify)),
    ("a gap before the oldest backup", gap_before_all),
    ("old WAL removed", old_wal_removed),
    ("an old timeline removed", old_timeline_removed),
    ("an incremental backup removed", incremental_removed),
    ("a write that never ended", unfinished_write),
    ("no names", no_names),
    ("a verification that was killed", killed_verification),
    ("WAL by hand on two timelines, over the edge of a log file", edge_of_a_log_file),
    ("WAL by hand on S3", on_s3_by_hand),
    ("a server of 15, streamed, under load", |verify| under_load(15, verify)),
    ("a server of 16, streamed, under load", |verify| under_load(16, verify)),
    ("a server of 18, streamed, under load", |verify| under_load(18, verify)),
    ("S3, 16 MiB, idle, failed over", on_s3),
    ("a backup from a standby, promoted later", from_standby),
    ("recovered to a point in time, twice, and adopted", adopted),
    ("crashed in the middle of a segment, and recovered on another timeline", crashed),
];

#[test]
fn on_healthy_repositories_of_varied_history_nothing_is_damaged() {
    let count = harness::amount("WALDEN_TEST_HEALTHY", USUAL) as usize;
    let _shared = landscape::shared();
    let wanted = std::env::var("WALDEN_TEST_WAY").unwrap_or_default();
    let histories = HISTORIES.iter().take(count).filter(|(name, _)| name.contains(&wanted));
    let histories: Vec<_> = histories.collect();
    let wrong = in_threads(&histories, |(name, tell)| {
        let complaints = std::sync::Mutex::new(Vec::new());
        let verify = |walden: &Walden| {
            for words in [&["verify", "--json"][..], &["verify", "--json", "--deep"]] {
                complaints.lock().unwrap().extend(expect_no_damage(&walden.clone().args(words)));
            }
        };
        tell(&verify);
        let complaints = complaints.into_inner().unwrap();
        (!complaints.is_empty()).then(|| format!("--- {name}\n{}", complaints.join("\n")))
    });
    let (count, of) = (wrong.len(), histories.len());
    assert!(wrong.is_empty(), "{count} of {of} histories:\n{}", wrong.join("\n"));
}

fn expect_no_damage(verify: &Walden) -> Option<String> {
    let output = verify.run();
    let report = serde_json::from_str::<Value>(&output.stdout).unwrap_or_default();
    let findings = report["findings"].as_array();
    let is_healthy = output.code() == Some(0)
        && findings.is_some_and(|all| all.iter().all(|finding| finding["severity"] == "note"));
    (!is_healthy).then(|| output.to_string())
}

fn chapter(number: usize, verify: Verify<'_>) {
    let landscape = landscape::shared();
    verify(&landscape.copy_of(&landscape.chapters[number]).walden());
}

fn changed(verify: Verify<'_>, change: impl FnOnce(&Landscape, &Copy)) {
    let landscape = landscape::shared();
    let copy = landscape.copy();
    change(&landscape, &copy);
    verify(&copy.walden());
}

/// Packs and no manifest.
fn killed_backup(age: Duration, verify: Verify<'_>) {
    changed(verify, |landscape, copy| {
        let began = jiff::Timestamp::now() - jiff::SignedDuration::try_from(age).unwrap();
        let id = format!("{}-DEAD", began.strftime("%Y%m%dT%H%M%SZ"));
        for name in ["data-00000.tar.zst", "names.json.zst"] {
            let key = format!("backup/{id}/{name}");
            copy.write(&key, &copy.read(&landscape.full.object(name)));
            let file = fs::File::options().write(true).open(copy.path(&key)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
    });
}

fn gap_before_all(verify: Verify<'_>) {
    changed(verify, |landscape, copy| {
        copy.remove(&object(before(landscape.full.first_wal, 2)));
    });
}

/// As by retention: what is before the oldest backup.
fn old_wal_removed(verify: Verify<'_>) {
    changed(verify, |landscape, copy| {
        remove_wal_before(copy, &landscape.full.first_wal.to_string());
    });
}

fn old_timeline_removed(verify: Verify<'_>) {
    changed(verify, |landscape, copy| {
        fs::remove_dir_all(copy.path("wal/00000001")).unwrap();
        for backup in [&landscape.full, &landscape.incremental] {
            fs::remove_dir_all(copy.path(&backup.object(""))).unwrap();
        }
        remove_wal_before(copy, &landscape.second.first_wal.to_string());
    });
}

fn remove_wal_before(copy: &Copy, first: &str) {
    let folder = format!("wal/{}/{}", &first[..8], &first[..16]);
    for name in copy.names(&folder).into_iter().filter(|name| name.as_str() < first) {
        copy.remove(&format!("{folder}/{name}"));
    }
}

fn incremental_removed(verify: Verify<'_>) {
    changed(verify, |landscape, copy| {
        fs::remove_dir_all(copy.path(&landscape.incremental.object(""))).unwrap();
    });
}

fn unfinished_write(verify: Verify<'_>) {
    changed(verify, |landscape, copy| {
        let folder = object(landscape.segment(0)).rsplit_once('/').unwrap().0.to_owned();
        copy.write(&format!("{folder}/.walden-7fA3.tmp"), b"half a segment");
        copy.write(&landscape.full.object(".walden-7fA4.tmp"), b"half a pack");
    });
}

/// Who takes the backup may not read them.
fn no_names(verify: Verify<'_>) {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let source = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    for database in source.column("SELECT datname FROM pg_database") {
        source.sql(&format!("REVOKE CONNECT ON DATABASE \"{database}\" FROM PUBLIC"));
    }
    source.sql("CREATE ROLE streaming LOGIN REPLICATION");
    source.archive_everything();
    let backup = source.walden().args(["backup", "--mode", "stream"]).env("PGUSER", "streaming");
    backup.run().succeeds().stderr_has("names of tables were not saved");
    source.archive_everything();
    verify(&source.walden());
}

fn killed_verification(verify: Verify<'_>) {
    changed(verify, |_, copy| {
        for after in [100, 300] {
            let mut running = copy.walden().args(["verify", "--deep"]).spawn();
            std::thread::sleep(Duration::from_millis(after));
            running.kill();
            drop(running.wait());
            let mut running = copy.walden().args(["verify", "--deep"]).spawn();
            std::thread::sleep(Duration::from_millis(after));
            running.terminate();
            drop(running.wait());
        }
    });
}

fn edge_of_a_log_file(verify: Verify<'_>) {
    let site = Site::new();
    let pushed = by_hand(&site);
    // So that nothing can come to the log files any more, and they get an index.
    for name in &pushed {
        let file = fs::File::options().write(true).open(site.object(name)).unwrap();
        file.set_modified(SystemTime::now() - DAY).unwrap();
    }
    site.walden().arg("window").run().succeeds();
    verify(&site.walden());
}

fn on_s3_by_hand(verify: Verify<'_>) {
    let bucket = Bucket::start();
    let site = Site::on(&bucket.url(), bucket.environment());
    by_hand(&site);
    verify(&site.walden());
}

/// Timeline 2 branches off where a segment ends.
pub fn by_hand(site: &Site) -> Vec<String> {
    let of = |timeline: u8, log: u8, segment: u16| format!("{timeline:08X}{log:08X}{segment:08X}");
    let first = (0xFF8..0xFFC).map(|segment| of(1, 0, segment));
    let second = (0xFFC..0x1000).map(|segment| of(2, 0, segment));
    let names: Vec<String> =
        first.chain(second).chain((0..3).map(|segment| of(2, 1, segment))).collect();
    for (seed, name) in names.iter().enumerate() {
        site.segment(name, seed as u8);
        site.push(name).patiently().run().succeeds();
    }
    site.file("00000002.history", b"1\t0/FFC00000\tno recovery target specified\n");
    site.push("00000002.history").patiently().run().succeeds();
    names
}

fn under_load(major: u16, verify: Verify<'_>) {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let builder = Cluster::builder(MajorVersion(major)).archive_to(url, "main");
    let source = builder.tablespace("space").start();
    source.sql("CREATE TABLE there TABLESPACE space AS SELECT 1 AS one");
    let load = Load::start(&source, 2, 4);
    source.walden().args(["backup", "--mode", "stream"]).run().succeeds();
    source.walden().args(["backup", "--mode", "stream", "--full"]).run().succeeds();
    source.write_wal(2);
    load.finish();
    source.archive_everything();
    verify(&source.walden());
}

fn on_s3(verify: Verify<'_>) {
    let bucket = Bucket::start();
    let mut builder = Cluster::builder(ANY_MAJOR).segment_size_mib(16);
    for (name, value) in bucket.environment() {
        builder = builder.env(name, value);
    }
    let mut source = builder.archive_to(bucket.url(), "main").start();
    source.walden().arg("backup").run().succeeds();
    source.sql("SELECT pg_switch_wal(); CHECKPOINT; SELECT pg_switch_wal()");
    landscape::fail_over(&mut source);
    source.archive_everything();
    verify(&source.walden());
}

fn from_standby(verify: Verify<'_>) {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let primary = Cluster::builder(ANY_MAJOR).data_checksums().archive_to(url, "main").start();
    primary.archive_everything();
    let mut standby = Cluster::standby_of(&primary);
    let running = standby.walden().args(["backup", "--mode", "local"]).spawn();
    let is_there = || {
        primary.write_wal(1);
        let files = harness::site::files_below(repository.path());
        files.iter().any(|file| file.ends_with("manifest.json.zst"))
    };
    assert!(within(Duration::from_secs(60), is_there), "{}", standby.log());
    running.wait().succeeds();
    let reached = primary.current_lsn();
    primary.archive_everything();
    standby.archive_again();
    standby.stop();
    standby.start_again();
    standby.wait_until(&format!("pg_last_wal_replay_lsn() >= '{reached}'"));
    standby.promote();
    standby.archive_everything();
    // The old one goes on for a while.
    primary.archive_everything();
    verify(&primary.walden());
}

/// Each goes on from the middle of a segment, and so does the one it left.
fn adopted(verify: Verify<'_>) {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let source = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    source.walden().arg("backup").run().succeeds();
    source.write_wal(2);
    source.sql("SELECT pg_create_restore_point('here')");
    source.archive_everything();
    let place = Scratch::new();
    for number in 0..2 {
        let directory = place.join(&format!("copy-{number}"));
        let restore = source.walden().arg("restore").arg(&directory).arg("--adopt");
        let restore = restore.args(["--target-name", "here", "--target-timeline", "1"]);
        restore.args(["--target-action", "promote"]).run().succeeds();
        let mut copy = Cluster::over(ANY_MAJOR, &directory).archiving_as(&source);
        copy.start_again();
        copy.wait_until("NOT pg_is_in_recovery()");
        copy.archive_everything();
        source.archive_everything();
    }
    source.walden().arg("backup").run().succeeds();
    verify(&source.walden());
}

fn crashed(verify: Verify<'_>) {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let mut source = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    source.walden().arg("backup").run().succeeds();
    // What is not archived yet such a recovery loses (`XLogArchiveCheckDone`, xlogarchive.c), and
    // then it is damage.
    source.archive_everything();
    source.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 5000) n");
    source.crash();
    landscape::recover_again(&mut source);
    source.archive_everything();
    verify(&source.walden());
}

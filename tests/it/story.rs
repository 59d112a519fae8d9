//! The whole story, on every supported version, on a directory and on S3: archive, back up, suffer
//! an accident, prove that the moment before can be had, recover to it.

use std::process::Command;

use serde_json::Value;
use walden::postgres::MajorVersion;

use crate::harness::{self, Bucket, Cluster, Scratch, Walden};

const ACTS: usize = 20;

#[test]
fn on_a_directory_with_15() {
    on_a_directory(MajorVersion(15));
}

#[test]
fn on_a_directory_with_16() {
    on_a_directory(MajorVersion(16));
}

#[test]
fn on_a_directory_with_17() {
    on_a_directory(MajorVersion(17));
}

#[test]
fn on_a_directory_with_18() {
    on_a_directory(MajorVersion(18));
}

#[test]
fn on_s3_with_15() {
    on_s3(MajorVersion(15));
}

#[test]
fn on_s3_with_16() {
    on_s3(MajorVersion(16));
}

#[test]
fn on_s3_with_17() {
    on_s3(MajorVersion(17));
}

#[test]
fn on_s3_with_18() {
    on_s3(MajorVersion(18));
}

fn on_a_directory(major: MajorVersion) {
    let scratch = Scratch::new();
    let url = format!("file://{}", scratch.directory("repository").display());
    tell(major, &url, &[]);
}

fn on_s3(major: MajorVersion) {
    let bucket = Bucket::start();
    tell(major, &bucket.url(), &bucket.environment());
}

fn tell(major: MajorVersion, repository: &str, environment: &[(&str, String)]) {
    let mut builder = Cluster::builder(major).data_checksums().archive_to(repository, "main");
    for (name, value) in environment {
        builder = builder.env(name, value);
    }
    let source = builder.tablespace("extra").start();
    source.sql("CREATE TABLE account (id int PRIMARY KEY, name text)");
    source.sql("CREATE TABLE note (id int PRIMARY KEY) TABLESPACE extra");
    source.sql("INSERT INTO account SELECT n, md5(n::text) FROM generate_series(1, 1000) n");
    source.walden().arg("backup").run().succeeds();

    for n in 1..=ACTS {
        source.sql(&format!("INSERT INTO note VALUES ({n})"));
        if n % 5 == 0 {
            source.write_wal(1);
        }
    }
    source.sql("UPDATE account SET name = 'changed' WHERE id <= 10");
    let before =
        source.value("SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    source.sql("INSERT INTO note VALUES (1000)");
    source.sql("DROP TABLE account");
    source.archive_everything();
    prove(&source, &before);

    let place = Scratch::new();
    let target = place.join("restored");
    let spaces = place.directory("tablespaces");
    let mut restore = source.walden().arg("restore").arg(&target);
    restore = restore.arg("--target-time").arg(&before).args(["--target-action", "promote"]);
    restore.arg("--tablespace-root").arg(&spaces).run().succeeds();

    let mut recovered = Cluster::over(major, &target);
    for (name, value) in environment {
        recovered.set_env(name, value);
    }
    recovered.start_again();
    recovered.wait_until("NOT pg_is_in_recovery()");
    assert_eq!(recovered.value("SELECT count(*) FROM account"), "1000");
    assert_eq!(recovered.value("SELECT count(*) FROM account WHERE name = 'changed'"), "10");
    assert_eq!(recovered.value("SELECT count(*) FROM note"), ACTS.to_string());
    assert_eq!(recovered.value("SELECT count(*) FROM note WHERE id = 1000"), "0");
    assert_eq!(recovered.value("SHOW archive_mode"), "off");
    nothing_is_wrong_with(&mut recovered);
}

/// All that is stored is read, the recovery is rehearsed, and the report says what came of both.
fn prove(source: &Cluster, time: &str) {
    let answer = |walden: Walden| -> Value {
        let output = walden.arg("--json").run().succeeds();
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
    };
    let verified = answer(source.walden().args(["verify", "--deep"]));
    assert_eq!(verified["outcome"], "sound", "{verified:#}");
    assert_eq!(verified["segments"], verified["segments_read"], "{verified:#}");

    let place = Scratch::new();
    let bin = harness::installation(source.major()).bin;
    let drill = source.walden().args(["drill", "--target-time", time]);
    let drill = drill.arg("--scratch").arg(place.path()).arg("--pg-bin").arg(bin);
    let drilled = answer(drill);
    assert_eq!(drilled["verdict"], "passed", "{drilled:#}");

    let report = source.walden().arg("report").arg("--output").arg(place.join("report.html"));
    let report = answer(report);
    assert_eq!(report["verdict"]["answer"], "recoverable", "{:#}", report["verdict"]);
}

/// amcheck on every index and table, every page read with its checksum, and every record of the new
/// WAL.
fn nothing_is_wrong_with(cluster: &mut Cluster) {
    cluster.sql("CREATE EXTENSION amcheck");
    cluster.sql(
        "SELECT bt_index_check(index => oid, heapallindexed => true) FROM pg_class \
         WHERE relkind = 'i' AND relam = (SELECT oid FROM pg_am WHERE amname = 'btree') \
         AND relpersistence = 'p'",
    );
    let wrong = cluster.sql(
        "SELECT c.relname, v.* FROM pg_class c, LATERAL verify_heapam(c.oid) v \
         WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p'",
    );
    assert_eq!(wrong, Vec::<Vec<Option<String>>>::new());
    assert_eq!(cluster.value("SELECT sum(checksum_failures) FROM pg_stat_database"), "0");

    cluster.sql("CREATE EXTENSION pg_walinspect");
    let start = cluster.value("SELECT redo_lsn FROM pg_control_checkpoint()");
    let records = cluster.value(&format!(
        "SELECT count(*) FROM pg_get_wal_records_info('{start}', pg_current_wal_flush_lsn())"
    ));
    assert_ne!(records, "0");
    waldump_agrees(cluster);
}

/// Only distributions package pg_waldump, each one version of it: that one must be there, so that
/// the story is read by it at least once.
#[test]
fn pg_waldump_is_installed_for_one_version() {
    let found = harness::every_major().find(|major| harness::pg_waldump(*major).is_some());
    assert!(found.is_some(), "run: tests/setup/packages.sh test");
}

/// Where pg_waldump of this version is installed, it reads the WAL of the recovered cluster to its
/// end.
fn waldump_agrees(cluster: &mut Cluster) {
    let Some(waldump) = harness::pg_waldump(cluster.major()) else { return };
    let segment = cluster.value("SELECT pg_walfile_name(pg_switch_wal())");
    let read = Command::new(waldump).arg(cluster.pgdata().join("pg_wal").join(segment)).output();
    let read = read.expect("run pg_waldump");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}

/// Each kind of target ends where PostgreSQL's manual says, inclusive and exclusive.
#[test]
fn every_kind_of_target_is_reached() {
    let scratch = Scratch::new();
    let url = format!("file://{}", scratch.directory("repository").display());
    let source = Cluster::builder(harness::ANY_MAJOR).archive_to(url, "main").start();
    source.sql("CREATE TABLE t (n int)");
    source.sql("INSERT INTO t VALUES (0)");
    source.walden().arg("backup").run().succeeds();
    let mut ends = Vec::new();
    let mut xids = Vec::new();
    for n in 1..=4 {
        let rows =
            source.sql(&format!("WITH i AS (INSERT INTO t VALUES ({n})) SELECT txid_current()"));
        xids.push(rows[0][0].clone().unwrap());
        ends.push(source.current_lsn().to_string());
        source.sql(&format!("SELECT pg_create_restore_point('after {n}')"));
    }
    source.archive_everything();

    let up_to = |wanted: &str, flags: &[&str]| {
        let place = Scratch::new();
        let target = place.join("restored");
        let restore: Walden = source.walden().arg("restore").arg(&target).args(flags);
        restore.args(["--target-action", "promote"]).run().succeeds();
        let mut recovered = Cluster::over(harness::ANY_MAJOR, &target);
        recovered.start_again();
        recovered.wait_until("NOT pg_is_in_recovery()");
        let rows = recovered.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t");
        assert_eq!(rows, wanted, "{flags:?}");
    };
    up_to("0", &["--target-immediate"]);
    up_to("0 1 2", &["--target-xid", &xids[1]]);
    up_to("0 1", &["--target-xid", &xids[1], "--target-exclusive"]);
    up_to("0 1 2 3", &["--target-name", "after 3"]);
    up_to("0 1 2", &["--target-lsn", &ends[1], "--target-exclusive"]);
    up_to("0 1 2 3 4", &["--target-latest"]);
}

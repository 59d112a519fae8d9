//! The harness keeps its own promises: clusters of every version start, crash, stop and leave
//! nothing behind.

use crate::harness::{ANY_MAJOR, Cluster, Scratch, Walden, every_major};

#[test]
fn a_cluster_of_every_version_writes_wal_crashes_and_comes_back() {
    for major in every_major() {
        let mut cluster = Cluster::start(major);
        assert!(cluster.value("SHOW server_version").starts_with(&major.to_string()));
        assert_eq!(cluster.value("SHOW wal_segment_size"), "1MB");
        cluster.sql("CREATE TABLE kept AS SELECT 1 AS one");
        let before = cluster.current_lsn();
        let segments = cluster.write_wal(3);
        assert_eq!(segments.len(), 3);
        assert!(cluster.pgdata().join("pg_wal").join(&segments[2]).exists());
        assert!(cluster.current_lsn() > before);
        cluster.crash();
        cluster.start_again();
        assert_eq!(cluster.column("SELECT one FROM kept"), ["1"]);
        cluster.stop();
    }
}

#[test]
fn a_cluster_takes_its_tablespaces_settings_and_segment_size() {
    let cluster = Cluster::builder(ANY_MAJOR)
        .segment_size_mib(2)
        .data_checksums()
        .setting("work_mem", "'5MB'")
        .tablespace("fast")
        .start();
    assert_eq!(cluster.value("SHOW wal_segment_size"), "2MB");
    assert_eq!(cluster.value("SHOW data_checksums"), "on");
    assert_eq!(cluster.value("SHOW work_mem"), "5MB");
    cluster.sql("CREATE TABLE there (n int) TABLESPACE fast");
    assert!(cluster.tablespace("fast").read_dir().is_ok_and(|mut found| found.next().is_some()));
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let mut cluster = Cluster::start(ANY_MAJOR);
    cluster.stop();
    cluster.configure("shared_buffers", "'nonsense'");
    let why = cluster.try_start().unwrap_err();
    assert!(why.contains("postgresql.conf"), "{why}");
    assert!(cluster.log().contains("shared_buffers"), "{}", cluster.log());
}

#[test]
fn a_dropped_cluster_leaves_no_server_and_no_directory() {
    let mut cluster = Cluster::start(ANY_MAJOR);
    let pgdata = cluster.pgdata().to_owned();
    let process = cluster.server().process_id();
    drop(cluster);
    assert!(!pgdata.exists());
    assert!(!std::path::Path::new("/proc").join(process.to_string()).exists());
}

#[test]
fn a_statement_that_fails_is_told_apart_from_one_without_rows() {
    let cluster = Cluster::start(ANY_MAJOR);
    assert!(cluster.sql("SELECT 1 WHERE false").is_empty());
    assert_eq!(cluster.sql("SELECT NULL, 'x'"), [[None, Some("x".to_owned())]]);
    let why = cluster.try_sql("SELECT * FROM nowhere").unwrap_err();
    assert!(why.contains("nowhere"), "{why}");
}

#[test]
fn the_program_is_run_as_the_servers_user_and_its_words_are_caught() {
    let output = Walden::new().arg("--version").as_server_user().run().succeeds();
    assert_eq!(output.stdout.trim(), format!("walden {}", env!("CARGO_PKG_VERSION")));
    Walden::new().arg("no-such-command").run().exits(2).stderr_has("no-such-command");
}

#[test]
fn a_standby_follows_its_primary_through_the_archive_and_can_be_promoted() {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let primary = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    primary.sql("CREATE TABLE seen AS SELECT 1 AS n");
    primary.archive_everything();
    let standby = Cluster::standby_of(&primary);
    primary.sql("INSERT INTO seen VALUES (2)");
    primary.archive_everything();
    standby.wait_until("(SELECT count(*) FROM seen) = 2");
    standby.promote();
    standby.sql("INSERT INTO seen VALUES (3)");
    assert_eq!(standby.column("SELECT n FROM seen ORDER BY n"), ["1", "2", "3"]);
}

//! A data directory made by hand, with all that must not be copied.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::commands::backup::local::plan::Content;
use crate::commands::backup::local::walk::{Ground, Walked, walk};
use crate::postgres::MajorVersion;

fn lay_out(root: &Path, files: &[&str]) {
    for file in files {
        let path = root.join(file);
        let folder = if file.ends_with('/') { path.as_path() } else { path.parent().unwrap() };
        fs::create_dir_all(folder).unwrap();
        if !file.ends_with('/') {
            fs::write(&path, file).unwrap();
        }
    }
}

fn walked(pgdata: &Path, major: u16) -> Walked {
    let version_directory = "PG_17_1".to_owned();
    walk(&Ground { pgdata, major: MajorVersion(major), version_directory, jobs: 2 }).unwrap()
}

fn paths(walked: &Walked) -> Vec<String> {
    let slash = |content: &Content| if *content == Content::Directory { "/" } else { "" };
    let name = |item: &super::Item| format!("{}{}", item.path, slash(&item.content));
    walked.items.iter().map(name).collect()
}

#[test]
fn what_a_backup_holds_is_found_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let (pgdata, space) = (scratch.path().join("data"), scratch.path().join("space"));
    lay_out(
        &pgdata,
        &[
            "PG_VERSION",
            "postmaster.pid",
            "backup_label",
            "base/5/16384",
            "base/5/16384_init",
            "base/5/16384_fsm",
            "base/5/16384.1",
            "base/5/16385_vm",
            "base/5/t3_16390",
            "base/5/pg_internal.init",
            "base/5/PG_VERSION",
            "base/pgsql_tmp/pgsql_tmp1.0",
            "global/pg_control",
            "global/1262",
            "log/t3_16390",
            "pg_replslot/slot/state",
            "pg_notify/0000",
            "pg_xact/0000",
            "pg_tblspc/16500/PG_17_1/5/16501",
            "pg_wal/000000010000000000000001",
            "pg_wal/archive_status/000000010000000000000001.done",
        ],
    );
    lay_out(&space, &["PG_17_1/5/16401", "PG_17_1/5/t3_16402", "PG_16_1/5/16401", "stray"]);
    symlink(&space, pgdata.join("pg_tblspc/16400")).unwrap();
    symlink("/etc/hostname", pgdata.join("linked.conf")).unwrap();
    let found = walked(&pgdata, 17);
    assert_eq!(found.linked, [16400]);
    assert_eq!(
        paths(&found),
        [
            "pg_tblspc/16400/",
            "pg_tblspc/16400/PG_17_1/",
            "pg_tblspc/16400/PG_17_1/5/",
            "pg_tblspc/16400/PG_17_1/5/16401",
            "base/",
            "base/5/",
            "base/5/16384_init",
            "base/5/16385_vm",
            "base/5/PG_VERSION",
            "global/",
            "global/1262",
            "log/",
            "log/t3_16390",
            "pg_notify/",
            "pg_replslot/",
            "pg_tblspc/",
            "pg_tblspc/16500/",
            "pg_tblspc/16500/PG_17_1/",
            "pg_tblspc/16500/PG_17_1/5/",
            "pg_tblspc/16500/PG_17_1/5/16501",
            "pg_wal/",
            "pg_wal/archive_status/",
            "pg_wal/summaries/",
            "pg_xact/",
            "pg_xact/0000",
            "PG_VERSION",
        ]
    );
    let without = paths(&walked(&pgdata, 16));
    assert!(!without.contains(&"pg_wal/summaries/".to_owned()));
}

#[test]
fn linked_directories_of_wal_and_a_tablespace_inside_are_told_apart() {
    let scratch = tempfile::tempdir().unwrap();
    let (pgdata, wal) = (scratch.path().join("data"), scratch.path().join("wal"));
    lay_out(&pgdata, &["PG_VERSION", "pg_tblspc/", "mine/space/PG_17_1/5/16401", "global/1262"]);
    lay_out(&wal, &["000000010000000000000001", "archive_status/x.done"]);
    symlink(&wal, pgdata.join("pg_wal")).unwrap();
    symlink(pgdata.join("mine/space"), pgdata.join("pg_tblspc/16400")).unwrap();
    symlink(scratch.path(), pgdata.join("pg_stat_tmp")).unwrap();
    let found = paths(&walked(&pgdata, 15));
    let below = |folder: &str| -> Vec<&String> {
        found.iter().filter(|path| path.starts_with(folder)).collect()
    };
    assert_eq!(below("pg_wal"), ["pg_wal/", "pg_wal/archive_status/"]);
    assert_eq!(below("mine"), ["mine/", "mine/space/"]);
    assert_eq!(below("pg_stat_tmp"), ["pg_stat_tmp/"]);
    assert_eq!(found.iter().filter(|path| path.ends_with("/16401")).count(), 1);
}

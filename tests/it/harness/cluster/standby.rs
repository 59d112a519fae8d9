//! A standby, made as the manual's low-level backup says: start, copy, stop, write the label.

use std::fs;
use std::path::Path;

use walden::host::privileges;

use super::{Cluster, launch, quoted};
use crate::harness::Scratch;

impl Cluster {
    /// A standby made from a copy of the primary; it gets its WAL by `walden fetch` from where the
    /// primary archives.
    #[track_caller]
    pub fn standby_of(primary: &Cluster) -> Cluster {
        let archive = primary.archive.clone().expect("the primary archives somewhere");
        let scratch = Scratch::new();
        let environment = primary.launch.environment.clone();
        let major = primary.major();
        let launch = launch(major, &scratch, scratch.join("data"), environment);
        let standby = Cluster { server: None, launch, archive: Some(archive.clone()), scratch };
        primary.copy_while_running(standby.pgdata());
        standby.configure("hot_standby", "on");
        standby.configure("archive_mode", "off");
        let fetch = archive.command(r#"fetch "%f" "%p""#);
        standby.configure("restore_command", &quoted(&fetch));
        fs::write(standby.pgdata().join("standby.signal"), "").expect("write standby.signal");
        privileges::give_tree(standby.pgdata(), standby.launch.user.as_ref())
            .expect("give it away");
        let mut standby = standby;
        standby.start_again();
        standby
    }

    /// The low-level backup of the manual: start, copy, stop, write the label.
    #[track_caller]
    fn copy_while_running(&self, target: &Path) {
        let mut session = self.session("postgres").unwrap_or_else(|why| panic!("{why}"));
        let mut ask = |sql: &str| session.query(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
        ask("SELECT pg_backup_start('standby', true)");
        copy_tree(self.pgdata(), target);
        let label = ask("SELECT labelfile FROM pg_backup_stop(false)");
        let label = label.into_iter().flatten().flatten().next().expect("a backup label");
        fs::write(target.join("backup_label"), label).expect("write the backup label");
    }
}

/// Without what a base backup leaves out and a running server would trip over.
fn copy_tree(source: &Path, target: &Path) {
    fs::create_dir(target).expect("make a directory");
    fs::set_permissions(target, fs::metadata(source).expect("look at it").permissions())
        .expect("keep its permissions");
    for entry in fs::read_dir(source).expect("read a directory").flatten() {
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let is_wal = source.ends_with("pg_wal") && from.is_file();
        let name = entry.file_name();
        if is_wal || ["postmaster.pid", "postmaster.opts"].iter().any(|skip| name == *skip) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_tree(&from, &to),
            Ok(_) => {
                // Files come and go under a running server; recovery brings back what matters.
                let _ = fs::copy(&from, &to);
            }
            Err(_) => {}
        }
    }
}

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
        let mut standby = Cluster::copy_of(primary);
        standby.signal("standby.signal");
        standby.start_again();
        standby
    }

    /// A copy of a data directory, not started: of a running cluster as a backup would be, of a
    /// stopped one as it is. It has no WAL of its own, archives nothing, and gets what it needs by
    /// `walden fetch`.
    #[track_caller]
    pub fn copy_of(source: &Cluster) -> Cluster {
        let archive = source.archive.clone().expect("the source archives somewhere");
        let scratch = Scratch::new();
        let environment = source.launch.environment.clone();
        let launch = launch(source.major(), &scratch, scratch.join("data"), environment);
        let copy = Cluster { server: None, launch, archive: Some(archive.clone()), scratch };
        match source.server {
            Some(_) => source.copy_while_running(copy.pgdata()),
            None => copy_tree(source.pgdata(), copy.pgdata()),
        }
        copy.configure("hot_standby", "on");
        copy.configure("archive_mode", "off");
        let fetch = archive.command(r#"fetch "%f" "%p""#);
        copy.configure("restore_command", &quoted(&fetch));
        privileges::give_tree(copy.pgdata(), copy.launch.user.as_ref()).expect("give it away");
        copy
    }

    /// `recovery.signal` or `standby.signal`, for the next start.
    pub fn signal(&self, name: &str) {
        fs::write(self.pgdata().join(name), "").expect("write the signal file");
    }

    /// For the next start: `copy` gets its WAL from another place.
    pub fn restore_from(&mut self, repository: &str) {
        let archive = self.archive.as_mut().expect("it was made with an archive");
        repository.clone_into(&mut archive.repository);
        let fetch = archive.command(r#"fetch "%f" "%p""#);
        self.configure("restore_command", &quoted(&fetch));
    }

    /// From the next start on, a copy archives to where its source did.
    pub fn archive_again(&self) {
        let archive = self.archive.as_ref().expect("it was made with an archive");
        self.configure("archive_mode", "on");
        self.configure("archive_command", &quoted(&archive.command(r#"push "%p""#)));
    }

    /// For the next start, in the server's environment.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.launch.environment.retain(|(known, _)| known != name);
        self.launch.environment.push((name.into(), value.into()));
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

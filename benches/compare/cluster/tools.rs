//! Who backs up and restores a cluster, and how each is told: zstd at level 1, two processes.

use std::fs;
use std::path::{Path, PathBuf};

use super::stage::{Stage, remove};
use crate::setup::scratch;
use crate::setup::stopwatch::{Call, is_installed};

/// One way to back up, and to restore where it has one.
#[derive(Clone, Copy)]
pub struct Tool {
    pub name: &'static str,
    needs: Option<&'static str>,
    pub backup: fn(&Stage) -> Call,
    pub incremental: Option<fn(&Stage) -> Call>,
    pub restore: Option<fn(&Stage, &Path) -> Call>,
    /// Over what lies there.
    pub delta: Option<fn(&Stage, &Path) -> Call>,
    /// Reads all it has, and says whether it is right.
    pub verify: Option<fn(&Stage) -> Call>,
    /// Where its backups lie.
    kept: fn(&Stage) -> Option<PathBuf>,
    /// Keeps the newest backup at most.
    pub forget: fn(&Stage),
}

pub const WALDEN_LOCAL: Tool = Tool {
    name: "`walden backup --mode local`",
    needs: None,
    backup: |stage| stage.walden(&["--quiet", "backup", "--mode", "local", "--full"]),
    incremental: Some(|stage| {
        stage.walden(&["--quiet", "backup", "--mode", "local", "--incremental"])
    }),
    restore: Some(|stage, to| stage.walden(&RESTORE).arg(to)),
    delta: Some(|stage, to| stage.walden(&RESTORE).arg("--delta").arg(to)),
    verify: Some(|stage| stage.walden(&["--quiet", "verify", "--deep"])),
    kept: walden_backups,
    forget: forget_walden,
};

pub const WALDEN_STREAM: Tool = Tool {
    name: "`walden backup --mode stream`",
    needs: None,
    backup: |stage| stage.walden(&["--quiet", "backup", "--mode", "stream", "--full"]),
    incremental: None,
    restore: None,
    delta: None,
    verify: None,
    kept: walden_backups,
    forget: forget_walden,
};

const RESTORE: [&str; 3] = ["--quiet", "restore", "--target-immediate"];

pub const PGBACKREST: Tool = Tool {
    name: "pgBackRest",
    needs: Some("pgbackrest"),
    backup: |stage| stage.pgbackrest(&["--repo=1", "--type=full", "backup"]),
    incremental: Some(|stage| stage.pgbackrest(&["--repo=1", "--type=incr", "backup"])),
    restore: Some(|stage, to| restore_by_pgbackrest(stage, to, "--repo=1")),
    delta: Some(|stage, to| restore_by_pgbackrest(stage, to, "--repo=1").arg("--delta")),
    verify: Some(|stage| stage.pgbackrest(&["--repo=1", "verify"])),
    kept: |stage| Some(stage.join("single/backup")),
    forget: |stage| expire_by_pgbackrest(stage, "--repo=1"),
};

pub const PGBACKREST_BUNDLED: Tool = Tool {
    name: "pgBackRest, `repo-bundle`",
    needs: Some("pgbackrest"),
    backup: |stage| stage.pgbackrest(&["--repo=2", "--type=full", "backup"]),
    incremental: Some(|stage| stage.pgbackrest(&["--repo=2", "--type=incr", "backup"])),
    restore: Some(|stage, to| restore_by_pgbackrest(stage, to, "--repo=2")),
    delta: Some(|stage, to| restore_by_pgbackrest(stage, to, "--repo=2").arg("--delta")),
    verify: Some(|stage| stage.pgbackrest(&["--repo=2", "verify"])),
    kept: |stage| Some(stage.join("bundled/backup")),
    forget: |stage| expire_by_pgbackrest(stage, "--repo=2"),
};

/// Into tar files, compressed by the server's walsender, synced.
pub const PG_BASEBACKUP: Tool = Tool {
    name: "`pg_basebackup --compress=server-zstd:1`",
    needs: Some("pg_basebackup"),
    backup: |stage| {
        let call = stage.reaching_the_server().program(["pg_basebackup", "-Ft", "-Xnone", "-D"]);
        let call = call.arg(stage.join("basebackup"));
        call.arg("--checkpoint=fast").arg("--compress=server-zstd:level=1")
    },
    incremental: None,
    restore: None,
    delta: None,
    // Until 17 pg_verifybackup reads no tar files: what is left is whether they decompress.
    verify: Some(|stage| {
        let every = format!("find '{}' -name '*.zst' -exec zstd -tq {{}} +", place(stage));
        stage.reaching_the_server().program(["sh", "-c"]).arg(every)
    }),
    kept: |stage| Some(stage.join("basebackup")),
    forget: |stage| remove(&stage.join("basebackup")),
};

impl Tool {
    pub fn stored(&self, stage: &Stage) -> u64 {
        (self.kept)(stage).map_or(0, |place| scratch::bytes_below(&place))
    }
}

fn place(stage: &Stage) -> String {
    stage.join("basebackup").display().to_string()
}

/// Those that are installed; another place than a directory of this disk is for walden alone.
pub fn present(stage: &Stage) -> Vec<Tool> {
    let tools =
        [WALDEN_LOCAL, WALDEN_STREAM, PGBACKREST, PGBACKREST_BUNDLED, PG_BASEBACKUP].into_iter();
    let takes_part = |tool: &Tool| {
        let missing = tool.needs.filter(|program| !is_installed(program));
        if let Some(program) = missing {
            println!("({}: `{program}` is not installed; left out.)\n", tool.name);
        }
        missing.is_none() && (tool.needs.is_none() || stage.own_repository().is_some())
    };
    tools.filter(takes_part).collect()
}

fn walden_backups(stage: &Stage) -> Option<PathBuf> {
    let clusters = fs::read_dir(stage.own_repository()?.join("bench")).ok()?;
    clusters.flatten().map(|entry| entry.path().join("backup")).find(|path| path.is_dir())
}

fn forget_walden(stage: &Stage) {
    if let Some(backups) = walden_backups(stage) {
        remove(&backups);
    }
}

fn restore_by_pgbackrest(stage: &Stage, to: &Path, repository: &str) -> Call {
    let path = format!("--pg1-path={}", to.display());
    // It restores into a directory that is there.
    scratch::directory(to.to_owned());
    scratch::give(to);
    let immediate = ["--type=immediate", "--target-action=promote"];
    let call = stage.pgbackrest(&[repository, &path, "restore"]);
    immediate.iter().fold(call, Call::arg)
}

fn expire_by_pgbackrest(stage: &Stage, repository: &str) {
    let expire = stage.pgbackrest(&[repository, "expire"]);
    expire.measure().unwrap_or_else(|why| panic!("expire: {why}"));
}

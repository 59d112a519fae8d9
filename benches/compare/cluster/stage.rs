//! What the tools find: a server that archives for each of them, and a place for what they keep.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::source::Kind;
use crate::setup::scratch::{self, Scratch};
use crate::setup::server::{Bench, PORT};
use crate::setup::stopwatch::{Call, Measured, is_installed};
use crate::setup::{peers, table};

pub struct Stage {
    pub bench: Bench,
    pub pgdata: PathBuf,
    pub walden: PathBuf,
    /// A directory, or what `BENCH_REPOSITORY` names.
    pub repository: String,
    pub bytes: f64,
    // Last: the server archives into it.
    scratch: Scratch,
}

pub const STANZA: &str = "bench";

impl Stage {
    pub fn start(kind: Kind) -> Stage {
        let pgdata = kind.prepare();
        let scratch = Scratch::new();
        for name in ["repository", "restored", "bundled", "single", "locks", "spool"] {
            scratch::directory(scratch.join(name));
        }
        let walden = peers::binary(scratch.path());
        let repository = std::env::var("BENCH_REPOSITORY")
            .unwrap_or_else(|_| scratch.join("repository").display().to_string());
        fs::write(scratch.join("pgbackrest.conf"), pgbackrest_settings(&scratch, &pgdata))
            .expect("write its configuration");
        scratch::give(scratch.path());
        let mut archive =
            format!("{} --cluster bench --repository {repository} push \"%p\"", walden.display());
        if is_installed("pgbackrest") {
            let conf = scratch.join("pgbackrest.conf");
            let push = format!("pgbackrest --config={} --stanza={STANZA}", conf.display());
            archive = format!("{archive} && {push} archive-push \"%p\"");
        }
        let settings = [
            ("fsync", "off"),
            ("autovacuum", "off"),
            ("max_wal_size", "8GB"),
            ("shared_buffers", "256MB"),
            ("max_locks_per_transaction", "1024"),
            ("archive_mode", "on"),
            ("archive_command", &archive),
        ];
        let bench = Bench::start(&pgdata, &settings);
        let sizes = "SELECT sum(pg_database_size(oid))::bigint FROM pg_database";
        let bytes = bench.value(sizes).parse().expect("a size");
        let stage = Stage { bench, pgdata, walden, repository, bytes, scratch };
        if is_installed("pgbackrest") {
            let create = stage.pgbackrest(&[]).arg("stanza-create");
            create.measure().unwrap_or_else(|why| panic!("stanza-create: {why}"));
        }
        stage
    }

    pub fn title(&self) -> String {
        table::size(self.bytes)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Where walden's own repository is a directory.
    pub fn own_repository(&self) -> Option<PathBuf> {
        let own = self.scratch.join("repository");
        (Path::new(&self.repository) == own).then_some(own)
    }

    pub fn walden(&self, words: &[&str]) -> Call {
        let call = self.reaching_the_server().program([&self.walden]);
        let call = call.env("WALDEN_STATE_DIR", self.scratch.join("state"));
        let call = call.arg("--cluster").arg("bench").arg("--repository").arg(&self.repository);
        words.iter().fold(call, Call::arg)
    }

    /// With two processes, as walden has two threads on two cores.
    pub fn pgbackrest(&self, options: &[&str]) -> Call {
        let conf = format!("--config={}", self.scratch.join("pgbackrest.conf").display());
        let stanza = format!("--stanza={STANZA}");
        let call = self.reaching_the_server().program(["pgbackrest", &conf, &stanza]);
        options.iter().fold(call, Call::arg)
    }

    pub fn reaching_the_server(&self) -> Call {
        let socket = self.pgdata.parent().expect("it has a parent");
        let call = Call::within(self.scratch.path()).env("PGHOST", socket);
        call.env("PGPORT", PORT.to_string()).env("PGUSER", "postgres")
    }

    /// From a cold cache where we may empty it; the server's own work counts as the call's.
    pub fn measure(&self, call: &Call) -> Result<Measured, String> {
        empty_caches();
        self.measure_warm(call)
    }

    /// With whatever the cache holds.
    pub fn measure_warm(&self, call: &Call) -> Result<Measured, String> {
        let before = self.bench.cpu();
        let mut measured = call.measure()?;
        measured.cpu += self.bench.cpu().saturating_sub(before);
        Ok(measured)
    }

    /// One in a hundred pages changes: of every two hundredth of the table a row, and for it a page
    /// of the index.
    pub fn change_a_hundredth(&self) {
        self.bench.sql(
            "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid IN \
             (SELECT min(aid) FROM pgbench_accounts WHERE (ctid::text::point)[0]::int % 200 = 0 \
             GROUP BY (ctid::text::point)[0]::int)",
        );
        self.bench.sql("CHECKPOINT");
    }
}

/// The cache holds nothing of what comes; only root may do so, and it is the same for all.
pub fn empty_caches() -> bool {
    scratch::settle();
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

pub fn remove(place: &Path) {
    if place.exists() {
        // Thousands of files go faster this way.
        let removed = Command::new("rm").arg("-rf").arg(place).status().expect("run rm");
        assert!(removed.success(), "rm -rf {}", place.display());
    }
}

/// Two repositories of one stanza: with and without bundles.
fn pgbackrest_settings(scratch: &Scratch, pgdata: &Path) -> String {
    let path = |name: &str| scratch.join(name).display().to_string();
    format!(
        "[global]\ncompress-type=zst\ncompress-level=1\nprocess-max=2\nstart-fast=y\n\
         expire-auto=n\nlog-level-file=off\nlog-level-console=warn\nlock-path={}\nspool-path={}\n\
         repo1-path={}\nrepo1-retention-full=1\nrepo2-path={}\nrepo2-bundle=y\n\
         repo2-retention-full=1\n[{STANZA}]\npg1-path={}\npg1-port={PORT}\npg1-user=postgres\n\
         pg1-socket-path={}\n",
        path("locks"),
        path("spool"),
        path("single"),
        path("bundled"),
        pgdata.display(),
        pgdata.parent().expect("it has a parent").display(),
    )
}

//! The clusters that are backed up: made once, kept under target/ from run to run.

use std::path::{Path, PathBuf};

use walden::host::privileges;
use walden::postgres::installation::Installation;
use walden::postgres::server;

use crate::setup::scratch;
use crate::setup::server::{Bench, Settings, installation};

/// Loading, nothing is archived and nothing survives a power cut. Everything goes through the WAL
/// nevertheless: with `wal_level = minimal` the pages of an index would have no LSN, which no
/// cluster has that was filled in the usual way.
const LOADING: Settings<'_> = &[
    ("fsync", "off"),
    ("autovacuum", "off"),
    ("max_wal_size", "4GB"),
    ("shared_buffers", "256MB"),
    ("maintenance_work_mem", "256MB"),
    ("max_locks_per_transaction", "1024"),
];

/// Of pgbench's accounts, with their index: about 15 MiB.
const ACCOUNTS_PER_SCALE: u64 = 100_000;
const SCALES_PER_GIB: f64 = 68.0;

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `BENCH_CLUSTER_GIB` in size, `BENCH_CLUSTER_FILLER` of it hardly compressible.
    Pgbench,
    /// 100,000 tables of one row.
    Relations,
}

impl Kind {
    /// The data directory, with a cluster that was stopped cleanly.
    pub fn prepare(self) -> PathBuf {
        let place = place(&self.name());
        let pgdata = place.join("data");
        let is_made = place.join("made");
        if is_made.exists() {
            return pgdata;
        }
        println!("(making {}, once)\n", place.display());
        std::fs::remove_dir_all(&place).ok();
        scratch::directory(place.clone());
        scratch::give(&place);
        initialize(&installation(), &pgdata);
        let bench = Bench::start(&pgdata, LOADING);
        match self {
            Kind::Pgbench => fill_as_pgbench(&bench),
            Kind::Relations => fill_with_relations(&bench),
        }
        bench.sql("VACUUM (FREEZE, ANALYZE)");
        bench.stop();
        std::fs::write(is_made, "").expect("note that it is made");
        pgdata
    }

    fn name(self) -> String {
        match self {
            Kind::Pgbench => format!("logged-pgbench-{}-{}", gib(), filler()),
            Kind::Relations => format!("relations-{RELATIONS}"),
        }
    }
}

const RELATIONS: u64 = 100_000;

fn gib() -> f64 {
    number("BENCH_CLUSTER_GIB", 1.0)
}

/// Which part of the cluster is as good as random.
fn filler() -> f64 {
    number("BENCH_CLUSTER_FILLER", 0.0).clamp(0.0, 1.0)
}

fn number(variable: &str, usual: f64) -> f64 {
    std::env::var(variable).map_or(usual, |text| {
        text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}"))
    })
}

/// Under target/, or where the server's user can reach it.
fn place(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let parent = if !privileges::is_root() || privileges::everybody_can_read(&target) {
        target
    } else {
        PathBuf::from("/var/tmp")
    };
    parent.join(format!("bench-cluster-{name}"))
}

/// With checksums, as who cares for backups has them.
fn initialize(installation: &Installation, pgdata: &Path) {
    let arguments = ["--data-checksums".to_owned()];
    let user = scratch::user();
    server::initialize(installation, pgdata, &arguments, user.as_ref()).expect("initdb");
}

/// What `pgbench -i` makes, by SQL alone, in steps that a checkpoint can follow.
fn fill_as_pgbench(bench: &Bench) {
    const STEP: u64 = 2_000_000;
    let scale = (gib() * (1.0 - filler()) * SCALES_PER_GIB).ceil() as u64;
    let accounts = scale * ACCOUNTS_PER_SCALE;
    bench.sql(
        "CREATE TABLE pgbench_accounts (aid int NOT NULL, bid int, abalance int, filler char(84))",
    );
    for first in (1..=accounts).step_by(STEP as usize) {
        let last = (first + STEP - 1).min(accounts);
        bench.sql(&format!(
            "INSERT INTO pgbench_accounts SELECT n, (n - 1) / {ACCOUNTS_PER_SCALE} + 1, 0, '' \
             FROM generate_series({first}, {last}) n"
        ));
    }
    bench.sql("ALTER TABLE pgbench_accounts ADD PRIMARY KEY (aid)");
    // 31 rows of four digests fill a page to 8 KiB.
    let rows = (gib() * filler() * f64::from(1 << 17) * 29.0) as u64;
    for first in (1..=rows).step_by(STEP as usize / 4) {
        let last = (first + STEP / 4 - 1).min(rows);
        bench.sql(&format!(
            "CREATE TABLE IF NOT EXISTS filler (n int, a bytea, b bytea, c bytea, d bytea); \
             INSERT INTO filler SELECT n, sha512(n::text::bytea), sha512((-n)::text::bytea), \
             sha512((n * 7::bigint)::text::bytea), sha512((n * 9::bigint)::text::bytea) \
             FROM generate_series({first}, {last}) n"
        ));
    }
}

fn fill_with_relations(bench: &Bench) {
    const STEP: u64 = 10_000;
    for first in (1..=RELATIONS).step_by(STEP as usize) {
        let last = first + STEP - 1;
        bench.sql(&format!(
            "DO $$ BEGIN FOR i IN {first}..{last} LOOP \
             EXECUTE format('CREATE TABLE r%s AS SELECT %s AS n', i, i); \
             IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$"
        ));
    }
}

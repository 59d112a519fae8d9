//! What the tests speak: clusters, the walden program, places to put things.
#![allow(dead_code, unused_imports, reason = "a vocabulary: not every test needs every word")]
#![allow(clippy::wrong_self_convention, reason = "builders and assertions read as sentences")]

/// Who writes, and keeps the books of it in the same transactions.
pub mod books;
/// A store that speaks S3, in this process.
pub mod bucket;
pub mod cluster;
/// What a chain of backups is, by other means than walden's.
pub mod combiner;
/// A second make of store, to be sure it is S3 that is spoken and not one server's dialect.
pub mod moto;
/// A third make, built on demand, that ignores conditional requests.
#[cfg(feature = "test-stores")]
pub mod garage;
/// Who writes, for as long as a test wants.
pub mod load;
/// Who changes what a cluster is made of, meanwhile.
pub mod mischief;
/// What was called and what it left running.
pub mod prefetcher;
pub mod processes;
pub mod program;
/// What stands between a program and its store, and breaks as told.
pub mod proxy;
/// Copies of what PostgreSQL handed over, to compare with.
pub mod reference;
/// Who damages repositories.
pub mod saboteur;
pub mod scratch;
pub mod session;
pub mod site;
/// What a recovered cluster must pass.
pub mod soundness;
pub mod wal;

use std::path::{Path, PathBuf};

use walden::postgres::MajorVersion;
use walden::postgres::installation::Installation;

pub use bucket::Bucket;
pub use cluster::{Cluster, ClusterBuilder};
pub use load::{Ledger, Load, Pgbench};
pub use mischief::Mischief;
pub use program::{Output, Running, Walden};
pub use proxy::{Fault, Proxy};
pub use reference::Reference;
pub use scratch::Scratch;
pub use site::Site;

/// The version a test uses when any will do.
pub const ANY_MAJOR: MajorVersion = MajorVersion(17);

/// The versions the whole story is told on.
pub fn every_major() -> impl Iterator<Item = MajorVersion> {
    (MajorVersion::OLDEST.0..=MajorVersion::NEWEST.0).map(MajorVersion)
}

/// What a test draws its chances from; said, so that a failure can be repeated. Instants are not
/// repeated, so it may take a few attempts.
pub fn seed() -> u64 {
    const SEED: &str = "WALDEN_TEST_SEED";
    let seed = std::env::var(SEED).map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().unwrap_or_else(|error| panic!("{SEED}={seed}: {error}")),
    );
    println!("{SEED}={seed}");
    seed
}

/// How long or how often, as the variable says; what is usual where it says nothing.
pub fn amount(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |amount| {
        amount.parse().unwrap_or_else(|error| panic!("{variable}={amount}: {error}"))
    })
}

/// The programs `tests/setup/postgres.sh` installed; without them a test fails, it is never
/// skipped.
#[track_caller]
pub fn installation(major: MajorVersion) -> Installation {
    let bin = installed_in().join(major.to_string()).join("bin");
    // Canonical: for root the link in target/ may lead out of a directory that is closed to others.
    let found = bin.canonicalize().map_err(|error| error.to_string());
    match found.and_then(|bin| Installation::at(&bin).map_err(|error| error.one_line())) {
        Ok(installation) => installation,
        Err(why) => panic!(
            "no PostgreSQL {major} in {}: {why}\nrun: tests/setup/postgres.sh {major}",
            bin.display()
        ),
    }
}

fn installed_in() -> PathBuf {
    match std::env::var_os("WALDEN_TEST_POSTGRESQL") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgresql"),
    }
}

/// One of PostgreSQL's client programs, as `tests/setup/clients.sh` brings them.
#[track_caller]
pub fn client(major: MajorVersion, program: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let path = tools.join(format!("postgresql-{major}/bin/{program}"));
    assert!(path.exists(), "no {}\nrun: tests/setup/clients.sh {major}", path.display());
    path
}

/// `pg_waldump` of this major version, which only distributions package; `None` where it is not
/// installed.
pub fn pg_waldump(major: MajorVersion) -> Option<PathBuf> {
    let packaged = walden::postgres::installation::installed();
    let programs = packaged.iter().filter(|found| found.major == major);
    programs.map(|found| found.program("pg_waldump")).find(|program| program.exists())
}

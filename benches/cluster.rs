//! A cluster of about 1 GiB backed up and restored: how long, and how much memory at most.
//!
//! Into a directory, or into what `BENCH_REPOSITORY` names, reached by what else is in the
//! environment (`WALDEN_S3_ENDPOINT`, `AWS_ACCESS_KEY_ID` ...).

mod setup;

use std::path::PathBuf;
use std::process::Command;

use setup::{Bench, PORT, Took, run};
use walden::host::privileges;

/// Rows that hardly compress, so that memory is held by what is on its way.
const ROWS: u64 = 3_600_000;

fn main() {
    let directory = tempfile::Builder::new().prefix("walden-bench-").tempdir_in("/tmp");
    let directory = directory.expect("make a temporary directory");
    let user = privileges::server_user().expect("find the server's user");
    privileges::give(directory.path(), user.as_ref()).expect("give the directory away");
    let own = directory.path().join("repository");
    std::fs::create_dir(&own).expect("make a directory");
    privileges::give(&own, user.as_ref()).expect("give the directory away");
    let repository = std::env::var("BENCH_REPOSITORY");
    let repository = repository.unwrap_or_else(|_| own.display().to_string());

    let walden = env!("CARGO_BIN_EXE_walden");
    let archive = format!("{walden} --cluster bench --repository {repository} push \"%p\"");
    let settings = [
        ("fsync", "off"),
        ("autovacuum", "off"),
        ("max_wal_size", "8GB"),
        ("archive_mode", "on"),
        ("archive_command", &archive),
    ];
    let bench = Bench::start(&settings);
    bench.sql(&format!(
        "CREATE TABLE t AS SELECT n, sha512(n::text::bytea) a, sha512((-n)::text::bytea) b, \
         sha512((n * 7)::text::bytea) c, sha512((n * 9)::text::bytea) d FROM generate_series(1, \
         {ROWS}) n"
    ));
    let size = bench.sql("SELECT sum(pg_database_size(oid))::bigint FROM pg_database");
    let size: u64 = size[0][0].as_deref().and_then(|size| size.parse().ok()).expect("a size");
    println!("cluster of {} MiB, repository {repository}", size >> 20);

    let call = || {
        let mut command = Command::new(walden);
        command.args(["--cluster", "bench", "--repository"]).arg(&repository);
        command.env("PGHOST", bench.directory.path()).env("PGPORT", PORT.to_string());
        command.env("PGUSER", "postgres");
        command
    };
    report("walden backup", size, run(call().args(["backup", "--quiet"])));
    let target: PathBuf = directory.path().join("restored");
    let mut restore = call();
    restore.arg("restore").arg(&target).args(["--target-immediate", "--quiet"]);
    report("walden restore", size, run(&mut restore));
}

fn report(what: &str, size: u64, took: Took) {
    let seconds = took.wall.as_secs_f64();
    println!(
        "{what}: {seconds:.1} s, {:.0} MiB/s, {:.1} s of CPU, at most {} MiB of memory",
        (size >> 20) as f64 / seconds,
        took.cpu.as_secs_f64(),
        took.peak_kib >> 10
    );
}

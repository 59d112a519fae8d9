//! A cluster of about 1 GiB backed up and restored: how long, and how much memory at most.
//!
//! Into a directory, or into what `BENCH_REPOSITORY` names, reached by what else is in the
//! environment (`WALDEN_S3_ENDPOINT`, `AWS_ACCESS_KEY_ID` ...).

use std::path::Path;

use crate::setup::peers;
use crate::setup::scratch::{self, Scratch};
use crate::setup::server::{Bench, PORT};
use crate::setup::stopwatch::Call;
use crate::setup::table::{Table, seconds, size};

/// Rows that hardly compress, so that memory is held by what is on its way.
const ROWS: u64 = 3_600_000;

pub fn run() {
    let scratch = Scratch::new();
    let own = scratch::directory(scratch.join("repository"));
    scratch::give(scratch.path());
    let repository = std::env::var("BENCH_REPOSITORY");
    let repository = repository.unwrap_or_else(|_| own.display().to_string());
    let walden = peers::binary(scratch.path());
    let archive =
        format!("{} --cluster bench --repository {repository} push \"%p\"", walden.display());
    let settings = [
        ("fsync", "off"),
        ("autovacuum", "off"),
        ("max_wal_size", "8GB"),
        ("archive_mode", "on"),
        ("archive_command", &archive),
    ];
    let bench = Bench::start(&scratch.join("data"), &settings);
    bench.sql(&format!(
        "CREATE TABLE t AS SELECT n, sha512(n::text::bytea) a, sha512((-n)::text::bytea) b, \
         sha512((n * 7)::text::bytea) c, sha512((n * 9)::text::bytea) d FROM generate_series(1, \
         {ROWS}) n"
    ));
    let bytes = bench.value("SELECT sum(pg_database_size(oid))::bigint FROM pg_database");
    let bytes: f64 = bytes.parse().expect("a size");

    println!("## A cluster\n");
    let title = format!("{} in {}", size(bytes), kind_of(&repository));
    let mut table = Table::new(&[&title, "wall", "a second", "CPU", "peak memory"]);
    let call = |words: &[&str]| {
        let call = Call::within(scratch.path()).env("PGHOST", scratch.path());
        let call = call.env("PGPORT", PORT.to_string()).env("PGUSER", "postgres");
        let call = call.program([&walden]).arg("--cluster").arg("bench");
        let call = call.arg("--repository").arg(&repository).arg("--quiet");
        words.iter().fold(call, Call::arg)
    };
    let restore = |target: &Path| call(&["restore", "--target-immediate"]).arg(target);
    let mut report = |what: &str, timed: Call, asked: Call| {
        let took = timed.time().unwrap_or_else(|why| panic!("{what}: {why}"));
        let peak = asked.peak_kib().unwrap_or_else(|why| panic!("{what}: {why}"));
        table.row(vec![
            what.to_owned(),
            seconds(took.wall),
            size(bytes / took.wall.as_secs_f64()),
            seconds(took.cpu),
            peak.map_or("?".to_owned(), |kib| size(kib as f64 * 1024.0)),
        ]);
    };
    report("`walden backup`", call(&["backup"]), call(&["backup"]));
    let targets = ["restored", "restored-again"].map(|name| scratch.join(name));
    report("`walden restore`", restore(&targets[0]), restore(&targets[1]));
    table.print();
}

fn kind_of(repository: &str) -> &str {
    if repository.starts_with("s3://") { "S3" } else { "a directory" }
}

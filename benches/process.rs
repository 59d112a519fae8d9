//! What a call costs from start to exit, beside what people use today: `make bench`.
//!
//! Every round runs every command once, in turn, on the same segment, so that a noisy machine is
//! noisy for all; read the ratios, not the milliseconds.

mod setup;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use setup::{Bench, Took, median, run};

const ROUNDS: usize = 24;

type MakeCommand = Box<dyn Fn(&Place) -> Command>;

struct Contender {
    name: &'static str,
    command: MakeCommand,
    took: Vec<Took>,
}

/// Where one call works: a segment, and a directory of its own to store it in.
struct Place {
    segment: PathBuf,
    target: PathBuf,
}

fn main() {
    let bench = Bench::start(&[("fsync", "off"), ("wal_keep_size", "4GB"), ("autovacuum", "off")]);
    let kinds = [("uuid and jsonb", mixed(&bench)), ("mostly empty", empty(&bench))];
    println!(
        "whole process, median of {ROUNDS} rounds, 16 MiB segments, directory on the same disk\n"
    );
    for (kind, segments) in kinds {
        let mut contenders = contenders();
        for round in 0..ROUNDS {
            for (number, contender) in contenders.iter_mut().enumerate() {
                let target = bench.directory.path().join(format!("target-{round}-{number}"));
                fs::create_dir_all(&target).expect("make a directory");
                let place = Place { segment: segments[round % segments.len()].clone(), target };
                contender.took.push(run(&mut (contender.command)(&place)));
                fs::remove_dir_all(&place.target).expect("remove it again");
            }
        }
        report(kind, &contenders);
    }
}

fn report(kind: &str, contenders: &[Contender]) {
    let wall =
        |contender: &Contender| median(contender.took.iter().map(|took| took.wall).collect());
    let base = wall(&contenders[0]).as_secs_f64();
    println!("| {kind} | wall | to cp + sync | CPU | peak memory |\n|---|---|---|---|---|");
    for contender in contenders {
        let wall = wall(contender);
        let cpu: Duration = contender.took.iter().map(|took| took.cpu).sum();
        let peak = contender.took.iter().map(|took| took.peak_kib).max().unwrap_or(0);
        println!(
            "| {} | {:.1} ms | {:.2} | {:.1} ms | {:.1} MiB |",
            contender.name,
            wall.as_secs_f64() * 1e3,
            wall.as_secs_f64() / base,
            cpu.as_secs_f64() * 1e3 / contender.took.len() as f64,
            peak as f64 / 1024.0
        );
    }
    println!();
}

fn contenders() -> Vec<Contender> {
    let contender = |name, command| Contender { name, command, took: Vec::new() };
    vec![
        contender("cp, sync FILE", shell(r#"cp "$1" "$2/copy" && sync "$2/copy""#)),
        contender(
            "zstd -1 --check, sync FILE",
            shell(r#"zstd -q -1 --check "$1" -o "$2/copy.zst" && sync "$2/copy.zst""#),
        ),
        contender("walden push", Box::new(push)),
        contender(
            "walden --version",
            Box::new(|_| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_walden"));
                command.arg("--version");
                command
            }),
        ),
        contender("/bin/true", Box::new(|_| Command::new("/bin/true"))),
    ]
}

fn push(place: &Place) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walden"));
    command.args(["--cluster", "bench", "--repository"]).arg(&place.target);
    command.env("WALDEN_STATE_DIR", place.target.join("state"));
    command.arg("push").arg(&place.segment);
    command
}

fn shell(script: &'static str) -> MakeCommand {
    Box::new(move |place| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&place.segment).arg(&place.target);
        command
    })
}

/// Segments of rows with uuids, hashes and jsonb and their indexes: WAL that compresses as real WAL
/// does.
fn mixed(bench: &Bench) -> Vec<PathBuf> {
    bench.sql("CREATE TABLE t (id uuid PRIMARY KEY, hash text, document jsonb)");
    bench.sql("CREATE INDEX ON t (hash)");
    let first = current_segment(bench);
    for _ in 0..8 {
        bench.sql(
            "INSERT INTO t SELECT gen_random_uuid(), md5(random()::text), \
             jsonb_build_object('n', n, 'name', md5(n::text), 'tags', array[n % 7, n % 11]) \
             FROM generate_series(1, 20000) n",
        );
        bench.sql("UPDATE t SET document = document || '{\"seen\": true}' WHERE random() < 0.2");
    }
    segments_since(bench, &first)
}

/// Segments that a switch ended at once, as archive_timeout does on a quiet server.
fn empty(bench: &Bench) -> Vec<PathBuf> {
    bench.sql("SELECT pg_switch_wal()");
    let first = current_segment(bench);
    for _ in 0..4 {
        bench.sql("INSERT INTO t VALUES (gen_random_uuid(), 'a', '{}')");
        bench.sql("SELECT pg_switch_wal()");
    }
    segments_since(bench, &first)
}

fn current_segment(bench: &Bench) -> String {
    let rows = bench.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    rows[0][0].clone().expect("a name")
}

fn segments_since(bench: &Bench, first: &str) -> Vec<PathBuf> {
    let last = current_segment(bench);
    let wal = bench.pgdata().join("pg_wal");
    let mut segments: Vec<PathBuf> = fs::read_dir(wal)
        .expect("read pg_wal")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_between(path, first, &last))
        .collect();
    segments.sort();
    assert!(!segments.is_empty(), "no segment was filled");
    segments
}

fn is_between(path: &Path, first: &str, last: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == 24 && name > first && name < last
}

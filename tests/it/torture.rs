//! A backup taken while the server writes flat out and changes all its files: recovered, it is
//! whole by every check there is.
//!
//! `make torture` does it fifty times on each version; the short form is in every run of the tests.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use walden::postgres::MajorVersion;

use crate::harness::mischief::{self, Mischief};
use crate::harness::{self, Cluster, Load, Pgbench, Scratch, Walden, soundness};

const ROUNDS: &str = "WALDEN_TEST_TORTURE_ROUNDS";
/// `stream`, `local` or both, with a comma.
const MODES: &str = "WALDEN_TEST_TORTURE_MODES";
/// How many incremental backups follow each full one, where the server or the mode can.
const LINKS: &str = "WALDEN_TEST_TORTURE_LINKS";
/// `all`: each backup is recovered to every target, not to one of them in turn.
const TARGETS: &str = "WALDEN_TEST_TORTURE_TARGETS";
/// What a backup may hold in memory at any size.
const MEMORY_BYTES_MAX: u64 = 512 << 20;

#[test]
fn a_backup_of_15_under_all_kinds_of_changes_is_whole() {
    torture(MajorVersion(15));
}

#[test]
fn a_backup_of_16_under_all_kinds_of_changes_is_whole() {
    torture(MajorVersion(16));
}

#[test]
fn a_backup_of_17_under_all_kinds_of_changes_is_whole() {
    torture(MajorVersion(17));
}

#[test]
fn a_backup_of_18_under_all_kinds_of_changes_is_whole() {
    torture(MajorVersion(18));
}

#[track_caller]
fn torture(major: MajorVersion) {
    let rounds = harness::amount(ROUNDS, 1);
    let modes = std::env::var(MODES).unwrap_or_else(|_| "stream,local".to_owned());
    let modes: Vec<&str> = modes.split(',').collect();
    let mut random = fastrand::Rng::with_seed(harness::seed());
    for round in 1..=rounds {
        let seed = random.u64(..);
        println!("PostgreSQL {major}, round {round} of {rounds}, seed {seed}");
        let victim = Victim::begin(major);
        let backups = victim.back_up_under_load(seed, &modes);
        victim.expect_recovery_from(&backups, round);
    }
}

struct Victim {
    source: Cluster,
    // Gone last.
    _repository: Scratch,
}

/// What was taken, and what must be in it.
struct Taken {
    id: String,
    mode: String,
    /// Of each tablespace, where it lay.
    tablespaces: Vec<String>,
    /// Rows whose commit was acknowledged before the backup began.
    ledger_rows: u64,
}

/// All backups of a load, and what the source had in the end.
struct Past {
    taken: Vec<Taken>,
    contents: soundness::Contents,
    /// In the ledger when a restore point of this name was made, after all backups.
    ledger_rows_at_point: u64,
}

const POINT: &str = "after all backups";

impl Victim {
    #[track_caller]
    fn begin(major: MajorVersion) -> Victim {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let mut builder = Cluster::builder(major)
            .segment_size_mib(16)
            .data_checksums()
            .archive_to(url, "main")
            .setting("max_wal_size", "64MB")
            .setting("max_prepared_transactions", "2")
            .setting("max_connections", "40");
        if major >= MajorVersion(17) {
            builder = builder.setting("summarize_wal", "on");
        }
        let source = builder.start();
        soundness::bring_amcheck(&source);
        Victim { source, _repository: repository }
    }

    #[track_caller]
    fn back_up_under_load(&self, seed: u64, modes: &[&str]) -> Past {
        let source = &self.source;
        let mischief = Mischief::start(source, seed);
        let pgbench = Pgbench::start(source, 1, 2);
        assert!(pgbench.is_some(), "no pgbench: run tests/setup/clients.sh 17");
        let load = Load::start(source, 1, 4);
        thread::sleep(Duration::from_millis(500));
        let taken = modes.iter().flat_map(|mode| self.back_up_in_a_chain(mode)).collect();
        let ledger_rows_at_point = self.ledger_rows();
        source.sql(&format!("SELECT pg_create_restore_point('{POINT}')"));
        thread::sleep(Duration::from_millis(500));

        let ledger = load.finish();
        drop(pgbench);
        let tally = mischief.finish();
        println!("{tally:#?}");
        assert!(tally.total() > 20, "too little happened to prove anything");
        source.wait_until(
            "NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pgbench')",
        );
        ledger.expect_all_in(source);
        let contents = soundness::contents(source, false);
        source.archive_everything();
        Past { taken, contents, ledger_rows_at_point }
    }

    /// A full one and those that rest on it, each on the one before.
    #[track_caller]
    fn back_up_in_a_chain(&self, mode: &str) -> Vec<Taken> {
        let mut chain = vec![self.back_up(mode, None)];
        let can = mode == "local" || self.source.major() >= MajorVersion(17);
        for _ in 0..if can { harness::amount(LINKS, 1) } else { 0 } {
            let parent = chain.last().map(|taken: &Taken| taken.id.clone());
            chain.push(self.back_up(mode, parent.as_deref()));
        }
        chain
    }

    #[track_caller]
    fn back_up(&self, mode: &str, parent: Option<&str>) -> Taken {
        let ledger_rows = self.ledger_rows();
        let backup = self.source.walden().args(["backup", "--json", "--mode", mode]);
        let backup = match parent {
            Some(parent) => backup.args(["--incremental", "--parent", parent]),
            None => backup,
        };
        let (output, peak_bytes) =
            backup.timeout(Duration::from_secs(300)).spawn().wait_and_weigh();
        let output = output.succeeds();
        assert!(peak_bytes < MEMORY_BYTES_MAX, "{mode}: {} MiB", peak_bytes >> 20);
        let report: Value = serde_json::from_str(&output.stdout).expect("a report");
        assert_eq!(report["parent"].as_str(), parent, "{output}");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let spaces = report["tablespaces"].as_array().expect("a list");
        println!(
            "{mode}: {} MiB, {} ms",
            report["size"].as_u64().unwrap() >> 20,
            report["duration_ms"]
        );
        Taken {
            id: text(&report["id"]),
            mode: if parent.is_some() { format!("{mode}, incremental") } else { mode.to_owned() },
            tablespaces: spaces.iter().map(|space| text(&space["path"])).collect(),
            ledger_rows,
        }
    }

    fn ledger_rows(&self) -> u64 {
        self.source.value("SELECT count(*) FROM ledger").parse().expect("a number")
    }

    /// Each backup to the earliest point it can be recovered to, to a point under load, and to the
    /// end, where everything must be as the source left it: to one of these in turn, or to all.
    #[track_caller]
    fn expect_recovery_from(mut self, past: &Past, round: u64) {
        self.source.stop();
        let to_all = std::env::var(TARGETS).is_ok_and(|targets| targets == "all");
        for (number, taken) in past.taken.iter().enumerate() {
            let turn = (number as u64 + round) % 3;
            for target in (0..3).filter(|target| to_all || *target == turn) {
                self.expect_recovery_to(target, taken, past);
            }
        }
    }

    #[track_caller]
    fn expect_recovery_to(&self, target: u64, taken: &Taken, past: &Past) {
        let words: &[&str] = match target {
            0 => &["--target-latest"],
            1 => &["--target-name", POINT],
            _ => &["--target-immediate"],
        };
        let recovered = self.recover(taken, words);
        let at_least = if target == 2 { taken.ledger_rows } else { past.ledger_rows_at_point };
        expect_whole(&recovered, at_least);
        if target == 0 {
            let contents = soundness::contents(&recovered, true);
            assert_eq!(contents, past.contents, "{}", recovered.log());
        }
        end(recovered);
    }

    #[track_caller]
    fn recover(&self, taken: &Taken, target: &[&str]) -> Cluster {
        // Replay makes tablespaces where the source had them.
        for place in mischief::places(&self.source) {
            empty(&place);
        }
        let place = self.source.scratch();
        place.directory("recovered");
        empty(&place.join("recovered"));
        let directory = place.join("recovered/data");
        let mut restore = self.source.walden().arg("restore").arg(&directory);
        restore = restore.args(["--backup", &taken.id]).args(target);
        if target != ["--target-latest"] {
            restore = restore.args(["--target-action", "promote"]);
        }
        for (number, space) in taken.tablespaces.iter().enumerate() {
            let to = place.join(&format!("recovered/space-{number}"));
            restore = restore.arg("--tablespace-map").arg(format!("{space}={}", to.display()));
        }
        run_lightly(&restore.timeout(Duration::from_secs(300)));
        let mut recovered = Cluster::over(self.source.major(), &directory);
        recovered.start_again();
        recovered.wait_until("NOT pg_is_in_recovery()");
        println!("{} recovered: {target:?}", taken.mode);
        recovered
    }
}

#[track_caller]
fn run_lightly(walden: &Walden) {
    let (output, peak_bytes) = walden.spawn().wait_and_weigh();
    output.succeeds();
    assert!(peak_bytes < MEMORY_BYTES_MAX, "{} MiB", peak_bytes >> 20);
}

#[track_caller]
fn expect_whole(recovered: &Cluster, ledger_rows: u64) {
    // What was prepared and not decided holds its locks.
    for name in recovered.column("SELECT gid FROM pg_prepared_xacts") {
        recovered.sql(&format!("ROLLBACK PREPARED '{name}'"));
    }
    soundness::expect_sound(recovered);
    soundness::expect_pgbench_balanced(recovered);
    // Rows are numbered, each a transaction after the one before it.
    let found = recovered.sql("SELECT count(*), coalesce(max(n), 0) FROM ledger");
    let [Some(count), Some(last)] = &found[0][..] else { panic!("{found:?}") };
    assert_eq!(count, last, "a commit without the one before it");
    assert!(count.parse::<u64>().unwrap() >= ledger_rows, "{count} of {ledger_rows} rows");
}

/// Stopped, every page of it has the checksum it should have.
#[track_caller]
fn end(mut recovered: Cluster) {
    recovered.stop();
    let pages = soundness::expect_right_checksums(recovered.pgdata());
    assert!(pages > 3000, "only {pages} pages");
}

fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
}

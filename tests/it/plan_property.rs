//! A plan is accepted if and only if PostgreSQL then reaches the target: random histories, random
//! targets, real servers.
//!
//! `WALDEN_TEST_HISTORIES` and `WALDEN_TEST_TARGETS` say how many; `WALDEN_TEST_SEED` repeats one.

mod history;
mod oracle;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use walden::postgres::Lsn;

use crate::harness::cluster::within;
use crate::harness::{ANY_MAJOR, Cluster, Scratch, amount, seed};

use history::History;
use oracle::{Kind, Wish};

const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn a_plan_is_accepted_if_and_only_if_postgresql_reaches_the_target() {
    let mut chance = fastrand::Rng::with_seed(seed());
    for _ in 0..amount("WALDEN_TEST_HISTORIES", 1) {
        let history = History::live(&mut chance);
        println!("{history}");
        let mut outcomes = [0, 0];
        for _ in 0..amount("WALDEN_TEST_TARGETS", 8) {
            let wish = Wish::draw(&mut chance, &history);
            outcomes[usize::from(check(&history, &wish))] += 1;
        }
        println!("{} refused, {} accepted", outcomes[0], outcomes[1]);
    }
}

/// Whether the plan was accepted.
fn check(history: &History, wish: &Wish) -> bool {
    let place = Scratch::new();
    let directory = place.join("new");
    let restore = || history.walden().arg("restore").arg(&directory).args(wish.flags());
    let planned = restore().args(["--dry-run", "--json"]).run();
    match planned.code() {
        Some(0) => {
            let plan: serde_json::Value = serde_json::from_str(&planned.stdout).unwrap();
            let timeline = u32::try_from(plan["timeline"].as_u64().unwrap()).unwrap();
            let backup_end = plan["backup"]["end_lsn"].as_str().unwrap().parse().unwrap();
            let expected = oracle::rows(history, timeline, &wish.kind, backup_end);
            let expected = expected.unwrap_or_else(|| panic!("{wish}: accepted\n{planned}"));
            expect_one_meaning(history, wish, timeline, &expected);
            restore().args(["--target-action", "promote"]).run().succeeds();
            let reached = recover(&directory);
            assert_eq!(reached.as_ref(), Ok(&expected), "{wish}: {plan:#}");
            true
        }
        Some(4) => {
            let why = planned.stderr.clone();
            println!("{wish}: {}", why.lines().next().unwrap_or_default());
            let is_of_choice = why.contains("branches of this cluster")
                || why.contains("was rolled back")
                || why.contains("restore points have the name");
            if !is_of_choice {
                expect_unreachable(history, wish, &place.join("forced"), &why);
            }
            false
        }
        _ => panic!("{wish}: {planned}"),
    }
}

/// Unless a timeline was named, the target means the same on every branch that has it.
fn expect_one_meaning(history: &History, wish: &Wish, timeline: u32, rows: &BTreeSet<i64>) {
    let Kind::Time { .. } = wish.kind else { return };
    if wish.timeline.is_some() {
        return;
    }
    for other in history.timelines().filter(|other| *other != timeline) {
        if oracle::is_archived(history, other, &wish.kind) {
            let there = oracle::rows(history, other, &wish.kind, Lsn(0));
            assert_eq!(there.as_ref(), Some(rows), "{wish}: another meaning on {other}");
        }
    }
}

/// PostgreSQL, told so by hand, fails or ends with other rows than were asked for.
fn expect_unreachable(history: &History, wish: &Wish, directory: &Path, why: &str) {
    let timeline = wish.timeline.unwrap_or_else(|| history.newest());
    let Some(backup) = oracle::backup_for(history, timeline, &wish.kind) else { return };
    // What happened while it was taken cannot be told from what did not: nothing, it may be.
    if matches!(wish.kind, Kind::Time { time, .. } if time < backup.ended) {
        return;
    }
    let placed = history
        .walden()
        .arg("restore")
        .arg(directory)
        .args(["--target-immediate", "--backup", &backup.id])
        .args(["--target-timeline", &timeline.to_string()])
        .run();
    if placed.code() != Some(0) {
        // WAL that the backup itself needs is missing.
        assert_eq!(placed.code(), Some(4), "{placed}");
        return;
    }
    let file = directory.join("postgresql.auto.conf");
    let written = std::fs::read_to_string(&file).unwrap();
    let kept = written.lines().filter(|line| {
        !line.starts_with("recovery_target") || line.starts_with("recovery_target_timeline")
    });
    let by_hand = kept.map(|line| format!("{line}\n")).collect::<String>() + &wish.settings();
    std::fs::write(&file, by_hand).unwrap();
    let expected = oracle::rows(history, timeline, &wish.kind, backup.end);
    match (recover(directory), expected) {
        (Ok(rows), Some(expected)) => {
            assert_ne!(rows, expected, "{wish}: refused, and reached from {}\n{why}", backup.id);
        }
        (Ok(rows), None) => panic!("{wish}: refused, and reached with {rows:?}\n{why}"),
        (Err(_), _) => {}
    }
}

/// The rows once it is promoted, or the last words of a server that ended before.
fn recover(directory: &Path) -> Result<BTreeSet<i64>, String> {
    let mut server = Cluster::over(ANY_MAJOR, directory);
    server.try_start()?;
    let is_promoted = |server: &Cluster| {
        server.try_sql("SELECT 1 WHERE NOT pg_is_in_recovery()").is_ok_and(|rows| !rows.is_empty())
    };
    let ended = within(PATIENCE, || server.server().has_ended() || is_promoted(&server));
    assert!(ended, "neither promoted nor ended\n{}", server.log());
    if server.server().has_ended() {
        return Err(server.log());
    }
    Ok(server.column("SELECT id FROM t").iter().map(|id| id.parse().unwrap()).collect())
}

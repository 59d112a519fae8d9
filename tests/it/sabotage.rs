//! A repository damaged in every way there is: `verify --deep` finds each, names it and what it
//! costs, and calls nothing damaged that is not.
//!
//! A wrong key is not among them: nothing is encrypted yet.

mod backup_ways;
mod drills;
mod expected;
mod healthy;
mod index_ways;
pub mod landscape;
mod wal_ways;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde_json::Value;

use crate::harness::Output;
use crate::harness::saboteur::Copy;

use landscape::Landscape;
use wal_ways::Deed;

/// As many at once as are worth it beside other tests.
const THREADS: usize = 3;

#[test]
fn every_way_to_damage_a_repository_is_found_named_and_its_price_said() {
    let landscape = landscape::shared();
    let wanted = std::env::var("WALDEN_TEST_WAY").unwrap_or_default();
    let ways: Vec<&(&str, Deed)> = wal_ways::WAYS
        .iter()
        .chain(backup_ways::WAYS)
        .filter(|(name, _)| name.contains(&wanted))
        .collect();
    let wrong = in_threads(&ways, |(name, deed)| {
        let complaints = spoil_and_verify(&landscape, *deed);
        complaints.map(|why| format!("--- {name}\n{why}"))
    });
    let (count, of) = (wrong.len(), ways.len());
    assert!(wrong.is_empty(), "{count} of {of} ways:\n{}", wrong.join("\n"));
}

/// What is wrong with the answer.
fn spoil_and_verify(landscape: &Landscape, deed: Deed) -> Option<String> {
    let copy = landscape.copy();
    let expected = deed(landscape, &copy);
    let output = verify(&copy, &["--deep"]);
    let code = if expected.is_damage() { 5 } else { 0 };
    let mut wrong = Vec::new();
    if output.code() != Some(code) {
        wrong.push(format!("exit code {code} was expected"));
    }
    match serde_json::from_str::<Value>(&output.stdout) {
        Ok(report) => wrong.extend(expected.compare(&report)),
        Err(error) => wrong.push(format!("no JSON: {error}")),
    }
    (!wrong.is_empty()).then(|| format!("{}\n{output}", wrong.join("\n")))
}

fn verify(copy: &Copy, words: &[&str]) -> Output {
    copy.walden().args(["verify", "--json"]).args(words).run()
}

/// The complaints.
fn in_threads<T: Sync>(items: &[T], check: impl Fn(&T) -> Option<String> + Sync) -> Vec<String> {
    let (next, complaints) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let complaint = check(item);
                    let mut found = complaints.lock().unwrap_or_else(PoisonError::into_inner);
                    found.extend(complaint);
                }
            });
        }
    });
    complaints.into_inner().unwrap_or_else(PoisonError::into_inner)
}

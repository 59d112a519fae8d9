//! What was proven when: how much of what is there today has been read, and how long ago.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::Inventory;
use crate::commands::list::Listed;
use crate::commands::report::days_before;
use crate::postgres::SegmentName;
use crate::repository::audit::{AuditEntry, Outcome};
use crate::repository::verification::{self, proven_by};

/// Of what a verification found, enough to see what it is about.
const FINDINGS_MAX: usize = 20;
/// Days within which something counts as proven lately, and the two steps after that.
const STEPS: [i64; 3] = [7, 31, 92];
/// What is younger need not have been read yet.
const YOUNG_DAYS: i64 = 7;
/// And what is older must have been, so many days ago at most.
pub const FRESH_DAYS: i64 = 31;

#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// In the time told of, oldest first.
    pub runs: Vec<Run>,
    /// Whatever it looked at.
    pub last: Option<Timestamp>,
    /// Something wrong was found, and everything has not been found right since.
    pub is_wrong: bool,
    /// By content: every byte of a backup, every record of a segment.
    pub backups: Coverage,
    pub wal: Coverage,
    /// Everything older than a week was read within the last 31 days.
    pub is_fresh: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub ended: Timestamp,
    pub outcome: Outcome,
    /// Whether content was read, not only names, sizes and headers.
    pub deep: bool,
    /// The part of everything that was read, 1.0 for all of it.
    pub sample: f64,
    pub backups: u64,
    /// Of those that are there today, how many it read.
    pub segments: u64,
    pub read_bytes: u64,
    pub found: u64,
    /// The first of them.
    pub findings: Vec<String>,
    pub host: String,
    pub os_user: String,
}

/// How much of one kind there is, by when its content was last read.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    pub count: u64,
    pub bytes: u64,
    /// Each counts once, where it fits first; the last, without `days`, was never read.
    pub shares: Vec<Share>,
    /// Read at any time.
    pub read_count: u64,
    pub read_bytes: u64,
    /// Older than a week, and not read within the last 31 days.
    pub overdue_count: u64,
    pub overdue_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Share {
    /// Read so many days ago at most; 0: longer ago; `None`: never.
    pub days: Option<i64>,
    pub count: u64,
    pub bytes: u64,
}

/// One backup or segment.
struct Item {
    stored: Timestamp,
    bytes: u64,
    read: Option<Timestamp>,
}

impl Verification {
    /// `entries` are all verifications there ever were, oldest first.
    pub fn of(
        entries: &[AuditEntry],
        backups: &[Listed],
        inventory: &Inventory,
        (since, now): (Timestamp, Timestamp),
    ) -> Verification {
        let known: Vec<(Timestamp, verification::Verification)> =
            entries.iter().filter_map(|it| Some((it.ended, details(it)?))).collect();
        let proven = proven_by(&known);
        let backups = backups.iter().filter_map(|backup| {
            let (stored, bytes) = (backup.ended?, backup.stored?);
            Some(Item { stored, bytes, read: proven.get(&backup.id).copied() })
        });
        let read = read_segments(&known, inventory);
        let segments = inventory.segments.values().zip(read).map(|(segment, read)| Item {
            stored: segment.stored,
            bytes: segment.size,
            read,
        });
        let backups = Coverage::of(backups, now);
        let wal = Coverage::of(segments, now);
        let recent = entries.iter().filter(|entry| entry.ended >= since);
        Verification {
            runs: recent.filter_map(|entry| Run::of(entry, inventory)).collect(),
            last: known.last().map(|(ended, _)| *ended),
            is_wrong: entries.iter().fold(false, is_wrong_after),
            is_fresh: backups.overdue_count == 0 && wal.overdue_count == 0,
            backups,
            wal,
        }
    }
}

/// Some findings are of no weight: the outcome tells.
fn is_wrong_after(wrong: bool, entry: &AuditEntry) -> bool {
    let is_everything = details(entry).is_some_and(|it| it.deep && it.sample >= 1.0);
    match entry.outcome {
        Outcome::FoundWrong => true,
        Outcome::Done => wrong && !is_everything,
        Outcome::CouldNotCheck | Outcome::Failed => wrong,
    }
}

fn details(entry: &AuditEntry) -> Option<verification::Verification> {
    serde_json::from_value(entry.details.clone()).ok()
}

impl Run {
    fn of(entry: &AuditEntry, inventory: &Inventory) -> Option<Run> {
        let details = details(entry)?;
        let deep = details.wal.iter().filter(|run| run.deep);
        let segments = deep.map(|run| inventory.segments.range(run.first..=run.last).count());
        Some(Run {
            ended: entry.ended,
            outcome: entry.outcome,
            deep: details.deep,
            sample: details.sample,
            backups: details.backups.len() as u64,
            segments: segments.sum::<usize>() as u64,
            read_bytes: details.read_bytes,
            found: details.found,
            findings: details.findings.into_iter().take(FINDINGS_MAX).collect(),
            host: entry.host.clone(),
            os_user: entry.os_user.clone(),
        })
    }
}

/// When every record of each segment was last read, in the order of the inventory.
fn read_segments(
    known: &[(Timestamp, verification::Verification)],
    inventory: &Inventory,
) -> Vec<Option<Timestamp>> {
    let names: Vec<SegmentName> = inventory.segments.keys().copied().collect();
    let mut read = vec![None; names.len()];
    for (ended, verification) in known {
        for run in verification.wal.iter().filter(|run| run.deep) {
            let from = names.partition_point(|name| *name < run.first);
            let to = names.partition_point(|name| *name <= run.last);
            if from < to {
                read[from..to].fill(Some(*ended));
            }
        }
    }
    // What was stored after it was read is another object.
    for (read, segment) in read.iter_mut().zip(inventory.segments.values()) {
        *read = read.filter(|read| *read >= segment.stored);
    }
    read
}

impl Coverage {
    fn of(items: impl Iterator<Item = Item>, now: Timestamp) -> Coverage {
        let mut shares: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let mut coverage = Coverage {
            count: 0,
            bytes: 0,
            shares: Vec::new(),
            read_count: 0,
            read_bytes: 0,
            overdue_count: 0,
            overdue_bytes: 0,
        };
        let limits = STEPS.map(|days| days_before(now, days));
        let (young, fresh) = (days_before(now, YOUNG_DAYS), days_before(now, FRESH_DAYS));
        for item in items {
            coverage.count += 1;
            coverage.bytes += item.bytes;
            let step = match item.read {
                Some(read) => limits.iter().position(|limit| read >= *limit).unwrap_or(3),
                None => 4,
            };
            let share = shares.entry(step).or_default();
            *share = (share.0 + 1, share.1 + item.bytes);
            if item.read.is_some() {
                coverage.read_count += 1;
                coverage.read_bytes += item.bytes;
            }
            if item.stored < young && item.read.is_none_or(|read| read < fresh) {
                coverage.overdue_count += 1;
                coverage.overdue_bytes += item.bytes;
            }
        }
        let days = [Some(STEPS[0]), Some(STEPS[1]), Some(STEPS[2]), Some(0), None];
        let share = |(step, days): (usize, Option<i64>)| {
            let (count, bytes) = shares.get(&step).copied().unwrap_or_default();
            Share { days, count, bytes }
        };
        coverage.shares = days.into_iter().enumerate().map(share).collect();
        coverage
    }
}

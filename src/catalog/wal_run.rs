//! Runs and gaps: where the WAL on the way to a timeline is unbroken, and what breaks it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::catalog::inventory::{Inventory, Segment, SegmentWal};
use crate::catalog::timeline_tree::TimelinePath;
use crate::postgres::wal::digest::TransactionEnd;
use crate::postgres::{Lsn, SegmentName};

/// WAL that a server can replay from one end to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRun {
    pub first: SegmentName,
    pub last: SegmentName,
    pub segments: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
    pub begin: Lsn,
    /// Exclusive: where the last segment ends, or before that what is not valid begins.
    pub cover: Lsn,
    /// Where its last whole record ends, as far as is known; never beyond `cover`.
    pub end: Lsn,
    /// When the newest of it was stored: no commit in it is later.
    pub stored: Timestamp,
    /// As far as the digests tell.
    pub commits: u64,
    pub first_commit: Option<TransactionEnd>,
    /// The last one that is known.
    pub last_commit: Option<TransactionEnd>,
    /// Whether there is no commit after `last_commit`: nothing after it is without a digest.
    pub is_known_to_its_end: bool,
}

/// What no recovery gets past. A backup that begins after it does not need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub cause: Cause,
    pub first: SegmentName,
    /// How many are missing, damaged or not valid.
    pub segments: u64,
    pub from: Lsn,
    /// Exclusive.
    pub to: Lsn,
    /// The last commit known before it, and the first after it.
    pub after: Option<Timestamp>,
    pub before: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The store does not list them.
    Missing,
    /// Archived although a record in it is not valid.
    Invalid,
    /// Its object cannot be read.
    Damaged,
    /// A backup needs it to become consistent, and it is not archived.
    NeededByBackup,
}

/// In the order of the WAL. What comes before the first segment and after the last is no gap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    pub runs: Vec<WalRun>,
    pub gaps: Vec<Gap>,
}

impl Runs {
    pub fn on(path: &TimelinePath, inventory: &Inventory) -> Runs {
        let mut walk = Walk::new(path, inventory.segment_size);
        if inventory.segment_size > 0 {
            for (start, (name, segment)) in on_path(path, inventory) {
                walk.take(start, name, segment);
            }
        }
        walk.finish()
    }

    /// The run that holds all of this, where there is one.
    pub fn holding(&self, begin: Lsn, end: Lsn) -> Option<&WalRun> {
        self.runs.iter().find(|run| run.begin <= begin && end <= run.cover)
    }
}

/// The segments that recovery reads, by where they start. The segment in which a timeline branches
/// off is read from the branch: it begins with a copy of what the parent wrote there.
fn on_path<'a>(
    path: &TimelinePath,
    inventory: &'a Inventory,
) -> BTreeMap<Lsn, (SegmentName, &'a Segment)> {
    let size = inventory.segment_size;
    let mut by_start = BTreeMap::new();
    for step in path.steps() {
        let first = SegmentName::containing(step.timeline, step.begin, size);
        let last = SegmentName { log: u32::MAX, segment: u32::MAX, ..first };
        for (name, segment) in inventory.segments.range(first..=last) {
            let start = name.start(size);
            // Up to the segment of the fork, which is the branch's.
            if step.end.is_some_and(|end| start.0 + u64::from(size) > end.0) {
                break;
            }
            by_start.insert(start, (*name, segment));
        }
    }
    by_start
}

struct Walk<'a> {
    path: &'a TimelinePath,
    size: u32,
    done: Runs,
    run: Option<WalRun>,
    /// Where the next segment should start.
    expected: Option<Lsn>,
    /// The last segment ends before its end. That is damage only if another one follows.
    end_in_zeros: Option<(SegmentName, Lsn, Lsn)>,
}

impl<'a> Walk<'a> {
    fn new(path: &'a TimelinePath, size: u32) -> Walk<'a> {
        let (run, expected, end_in_zeros) = (None, None, None);
        Walk { path, size, done: Runs::default(), run, expected, end_in_zeros }
    }

    fn take(&mut self, start: Lsn, name: SegmentName, segment: &Segment) {
        let end = Lsn(start.0 + u64::from(self.size));
        if let Some((name, from, to)) = self.end_in_zeros.take() {
            self.break_off(Cause::Invalid, name, from, to);
        }
        if let Some(missing) = self.expected.filter(|expected| *expected < start) {
            let first = self.path.segment(missing, self.size);
            self.break_off(Cause::Missing, first, missing, start);
        }
        self.expected = Some(end);
        if segment.is_damaged {
            return self.break_off(Cause::Damaged, name, start, end);
        }
        let invalid = segment.wal.and_then(|wal| wal.invalid);
        self.add(name, segment, segment.wal.as_ref(), start..invalid.unwrap_or(end));
        if let Some(invalid) = invalid {
            if segment.wal.is_some_and(|wal| wal.only_zeros_follow) {
                self.end_in_zeros = Some((name, invalid, end));
                return;
            }
            self.break_off(Cause::Invalid, name, invalid, end);
            // What follows the record can be replayed, by a backup that begins after it; but
            // nobody has read it.
            self.add(name, segment, None, Lsn(invalid.0 + 1)..end);
        }
    }

    fn add(
        &mut self,
        name: SegmentName,
        segment: &Segment,
        wal: Option<&SegmentWal>,
        range: std::ops::Range<Lsn>,
    ) {
        let run = self.run.get_or_insert_with(|| WalRun::beginning(name, range.start));
        run.last = name;
        run.segments += 1;
        run.stored_bytes += segment.size;
        run.stored = run.stored.max(segment.stored);
        run.cover = range.end;
        run.learn(wal);
    }

    fn break_off(&mut self, cause: Cause, first: SegmentName, from: Lsn, to: Lsn) {
        self.done.runs.extend(self.run.take());
        let segments = (to.0 - from.0).div_ceil(u64::from(self.size));
        let gap = Gap { cause, first, segments, from, to, after: None, before: None };
        self.done.gaps.push(gap);
    }

    /// Only now it is known what comes after a gap.
    fn finish(mut self) -> Runs {
        self.done.runs.extend(self.run.take());
        let Runs { runs, gaps } = &mut self.done;
        for gap in gaps {
            let before = runs.iter().filter(|run| run.cover <= gap.from);
            gap.after = before.rev().find_map(|run| run.last_commit).map(|commit| commit.time);
            let after = runs.iter().filter(|run| run.begin >= gap.from);
            gap.before = after.into_iter().find_map(|run| run.first_commit).map(|c| c.time);
        }
        self.done
    }
}

impl WalRun {
    fn beginning(name: SegmentName, begin: Lsn) -> WalRun {
        WalRun {
            first: name,
            last: name,
            segments: 0,
            stored_bytes: 0,
            begin,
            cover: begin,
            end: begin,
            stored: Timestamp::UNIX_EPOCH,
            commits: 0,
            first_commit: None,
            last_commit: None,
            is_known_to_its_end: true,
        }
    }

    /// `cover` is set already.
    fn learn(&mut self, wal: Option<&SegmentWal>) {
        let Some(wal) = wal else {
            self.end = self.cover;
            self.is_known_to_its_end = false;
            return;
        };
        self.end = wal.end.unwrap_or(self.end).min(self.cover);
        self.commits += u64::from(wal.commits);
        // The record that opens it ends before its first commit, which is then known to be later.
        self.is_known_to_its_end &= !wal.opens_unknown;
        if wal.last_commit.is_some() {
            self.first_commit = self.first_commit.or(wal.first_commit);
            self.last_commit = wal.last_commit;
            self.is_known_to_its_end = true;
        }
    }
}

#[cfg(test)]
mod tests;

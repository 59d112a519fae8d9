//! The WAL of one timeline path: which segments PostgreSQL would read, up to where each counts, and
//! where the chain breaks.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::catalog::inventory::{Inventory, Segment, SegmentWal};
use crate::catalog::wal_run::Cause;
use crate::catalog::{BackupSummary, TimelinePath};
use crate::postgres::{Lsn, SegmentName};

pub struct PathWal {
    /// In bytes.
    size: u32,
    /// By where they start.
    pub stretches: Vec<Stretch>,
    path: TimelinePath,
}

/// What counts of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub name: SegmentName,
    pub start: Lsn,
    /// Exclusive. Before the segment's end where the path leaves this timeline in the middle of it
    /// and the next timeline's copy, with what follows, is not archived.
    pub to: Lsn,
    pub segment: Segment,
}

/// Stretches that follow each other, from the start of a backup on, by their places in `stretches`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub first: usize,
    /// Inclusive.
    pub last: usize,
    /// Exclusive; nothing behind it can be replayed.
    pub end: Lsn,
    /// Why it ends although later WAL is there.
    pub gap: Option<Gap>,
    /// The path leaves the last segment's timeline here, and no WAL of the next one is archived:
    /// PostgreSQL would replay what lies behind it too, and that is of another branch.
    pub fork: Option<Lsn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub segment: SegmentName,
    pub cause: Cause,
    /// Where what is missing or not valid begins.
    pub from: Lsn,
}

/// `Run` for people: names and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRange {
    pub first: SegmentName,
    pub last: SegmentName,
    /// Exclusive.
    pub end: Lsn,
    /// When the newest of it was stored.
    pub stored: Timestamp,
    pub gap: Option<Gap>,
}

impl Stretch {
    /// What is known of its transactions, if it has a digest.
    pub fn wal(&self) -> Option<SegmentWal> {
        self.segment.wal
    }

    /// WAL that just ends, unless more of it follows.
    fn ends_in_zeros(&self) -> bool {
        self.segment.wal.is_some_and(|wal| wal.only_zeros_follow)
    }

    /// What recovery does not get past, and where that begins.
    fn fault(&self) -> Option<(Cause, Lsn)> {
        if self.segment.is_damaged {
            return Some((Cause::Damaged, self.start));
        }
        let invalid = self.segment.wal.and_then(|wal| wal.invalid);
        invalid.filter(|lsn| *lsn < self.to).map(|lsn| (Cause::Invalid, lsn))
    }
}

impl PathWal {
    /// Of two segments with one place that of the newer timeline counts, as PostgreSQL reads it
    /// (`XLogFileReadAnyTLI`).
    pub fn new(path: &TimelinePath, inventory: &Inventory, size: u32) -> PathWal {
        let mut by_start = BTreeMap::new();
        for step in path.steps() {
            let first = SegmentName::containing(step.timeline, step.begin, size);
            let last = SegmentName { timeline: step.timeline, log: u32::MAX, segment: u32::MAX };
            for (name, segment) in inventory.segments.range(first..=last) {
                let start = name.start(size);
                if step.end.is_some_and(|end| end <= start) {
                    break;
                }
                let end = Lsn(start.0 + u64::from(size));
                let to = step.end.map_or(end, |fork| fork.min(end));
                by_start.insert(start, Stretch { name: *name, start, to, segment: *segment });
            }
        }
        PathWal { size, stretches: by_start.into_values().collect(), path: path.clone() }
    }

    /// Of a segment, in bytes.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The stretch whose segment has this byte.
    pub fn place_of(&self, lsn: Lsn) -> Option<usize> {
        let place =
            self.stretches.partition_point(|stretch| stretch.start <= lsn).checked_sub(1)?;
        (lsn.0 < self.stretches[place].start.0 + u64::from(self.size)).then_some(place)
    }

    /// The segment in front of it, if it is archived: a record may begin there.
    pub fn before(&self, place: usize) -> Option<SegmentName> {
        let before = self.stretches.get(place.checked_sub(1)?)?;
        self.follows(before, &self.stretches[place]).then_some(before.name)
    }

    /// Whether only a part of the segment counts.
    pub fn is_clipped(&self, stretch: &Stretch) -> bool {
        stretch.to.0 < stretch.start.0 + u64::from(self.size)
    }

    /// The run from the backup's first segment on; else that segment.
    pub fn run_from(&self, backup: &BackupSummary) -> Result<Run, SegmentName> {
        let missing = SegmentName::containing(backup.timeline, backup.start_lsn, self.size);
        let first = self.place_of(backup.start_lsn).ok_or(missing)?;
        let mut last = first;
        let (gap, fork) = loop {
            let stretch = &self.stretches[last];
            if let Some((cause, from)) = stretch.fault() {
                let is_last = self.stretches.get(last + 1).is_none();
                let gap = Gap { segment: stretch.name, cause, from };
                break ((!is_last || !stretch.ends_in_zeros()).then_some(gap), None);
            }
            let next = self.stretches.get(last + 1);
            if next.is_some_and(|next| self.follows(stretch, next)) {
                last += 1;
                continue;
            }
            let from = stretch.to;
            let segment = self.path.segment(from, self.size);
            let gap = next.map(|_| Gap { segment, cause: Cause::Missing, from });
            break (gap, self.is_clipped(stretch).then_some(stretch.to));
        };
        let end = match gap {
            Some(gap) if gap.cause != Cause::Missing => gap.from,
            _ => self.end_of(first, last),
        };
        Ok(Run { first, last, end, gap, fork })
    }

    pub fn describe(&self, run: &Run) -> WalRange {
        let stretches = &self.stretches[run.first..=run.last];
        WalRange {
            first: self.stretches[run.first].name,
            last: self.stretches[run.last].name,
            end: run.end,
            stored: stretches.iter().map(|s| s.segment.stored).max().unwrap_or_default(),
            gap: run.gap,
        }
    }

    fn follows(&self, before: &Stretch, after: &Stretch) -> bool {
        before.start.0 + u64::from(self.size) == after.start.0 && !self.is_clipped(before)
    }

    /// Where the last whole record ends; a segment that lies within one long record has none.
    fn end_of(&self, first: usize, last: usize) -> Lsn {
        let ends = self.stretches[first..=last].iter().rev().map(|stretch| {
            let end = stretch.segment.wal.map_or(Some(stretch.to), |wal| wal.end);
            end.map(|end| end.min(stretch.to))
        });
        ends.flatten().next().unwrap_or(self.stretches[first].start)
    }
}

//! The timelines as a picture has them: a lane each, with what can be recovered, gaps, backups.

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{Inventory, TimelineTree};
use crate::commands::list::{Listed, Type};
use crate::commands::window::TimelineReport;
use crate::postgres::{Lsn, SegmentName, TimelineId};

/// Times are those of commits, as far as there were any.
#[derive(Debug, Clone, Serialize)]
pub struct Lane {
    pub timeline: TimelineId,
    pub parent: Option<TimelineId>,
    /// When the last commit was made that it has in common with its parent.
    pub forked: Option<Timestamp>,
    /// Its own WAL; `None`: none is archived.
    pub begins: Option<Timestamp>,
    pub ends: Option<Timestamp>,
    /// Of its own time, what can be recovered; oldest first.
    pub windows: Vec<Stretch>,
    /// What no recovery gets past, on this timeline itself.
    pub gaps: Vec<Stretch>,
    pub backups: Vec<Mark>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Stretch {
    pub from: Timestamp,
    pub to: Timestamp,
}

#[derive(Debug, Clone, Serialize)]
pub struct Mark {
    pub id: String,
    pub ended: Timestamp,
    pub is_full: bool,
    pub is_usable: bool,
}

pub fn lanes(
    timelines: &[TimelineReport],
    inventory: &Inventory,
    tree: &TimelineTree,
    backups: &[Listed],
) -> Vec<Lane> {
    let lane = |timeline: &TimelineReport| lane(timeline, timelines, inventory, tree, backups);
    timelines.iter().map(lane).collect()
}

fn lane(
    report: &TimelineReport,
    all: &[TimelineReport],
    inventory: &Inventory,
    tree: &TimelineTree,
    backups: &[Listed],
) -> Lane {
    let timeline = report.timeline;
    let (begins, ends) = own_time(timeline, report.switch_lsn, inventory);
    let backups: Vec<Mark> =
        backups.iter().filter(|it| it.timeline == Some(timeline)).filter_map(mark).collect();
    let taken = backups.iter().map(|backup| backup.ended);
    let begins = begins.into_iter().chain(taken.clone()).min();
    let ends = ends.into_iter().chain(taken).chain(report.latest).max();
    let clipped = |from: Option<Timestamp>, to: Option<Timestamp>| {
        let (from, to) = (from?.max(begins?), to?.min(ends?));
        (from <= to).then_some(Stretch { from, to })
    };
    let windows =
        report.windows.iter().filter_map(|window| clipped(window.earliest, window.latest));
    // A descendant tells of the gaps of its ancestors again.
    let mut gaps: Vec<_> = all.iter().flat_map(|other| &other.gaps).collect();
    gaps.retain(|gap| gap.timeline == timeline);
    gaps.sort_by_key(|gap| gap.from_lsn);
    gaps.dedup_by_key(|gap| gap.from_lsn);
    let gaps = gaps.iter().filter_map(|gap| clipped(gap.after.or(begins), gap.before.or(ends)));
    Lane {
        timeline,
        parent: report.parent,
        forked: forked(timeline, inventory, tree),
        begins,
        ends,
        windows: windows.collect(),
        gaps: gaps.collect(),
        backups,
    }
}

fn mark(backup: &Listed) -> Option<Mark> {
    Some(Mark {
        id: backup.id.to_string(),
        ended: backup.ended?,
        is_full: backup.kind == Some(Type::Full),
        is_usable: backup.usable,
    })
}

/// From its first commit behind the fork to its last.
fn own_time(
    timeline: TimelineId,
    fork: Option<Lsn>,
    inventory: &Inventory,
) -> (Option<Timestamp>, Option<Timestamp>) {
    let own = || inventory.segments.range(all_of(timeline)).map(|(_, segment)| segment);
    let commit_behind = own().filter_map(|segment| segment.wal).find_map(|wal| {
        let commits = wal.first_commit.into_iter().chain(wal.last_commit);
        commits.filter(|commit| fork.is_none_or(|fork| commit.lsn >= fork)).map(|it| it.time).next()
    });
    let begins = commit_behind.or_else(|| own().next().map(|segment| segment.stored));
    let last = own().rev().filter_map(|segment| segment.wal).find_map(|wal| wal.last_commit);
    let ends = last.map(|last| last.time).or_else(|| own().next_back().map(|it| it.stored));
    (begins, ends)
}

fn forked(timeline: TimelineId, inventory: &Inventory, tree: &TimelineTree) -> Option<Timestamp> {
    let (_, fork) = tree.parent(timeline)?;
    let path = tree.path(timeline).ok()?;
    let size = u64::from(inventory.segment_size);
    // Quiet hours have no commits: so far back one looks for them.
    const SEGMENTS_MAX: u64 = 4096;
    (0..SEGMENTS_MAX).find_map(|back| {
        let at = Lsn(fork.0.checked_sub(1 + back * size)?);
        let segment = path.segment(at, inventory.segment_size);
        // The fork has a copy of the segment in which they part.
        let copy = SegmentName { timeline, ..segment };
        let wals =
            [segment, copy].into_iter().filter_map(|name| inventory.segments.get(&name)?.wal);
        let commits = wals.flat_map(|wal| wal.first_commit.into_iter().chain(wal.last_commit));
        commits.filter(|commit| commit.lsn < fork).map(|commit| commit.time).max()
    })
}

fn all_of(timeline: TimelineId) -> std::ops::RangeInclusive<SegmentName> {
    let name = |log, segment| SegmentName { timeline, log, segment };
    name(0, 0)..=name(u32::MAX, u32::MAX)
}

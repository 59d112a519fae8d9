//! The window: from when until when each timeline can be recovered, and what is missing.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::catalog::chain::Broken;
use crate::catalog::wal_run::{Cause, Gap, Runs, WalRun};
use crate::catalog::{BackupSummary, Chain, Inventory, TimelinePath, TimelineTree};
use crate::postgres::{Lsn, SegmentName, TimelineId};

/// What recovery to one timeline can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineWindow {
    pub timeline: TimelineId,
    /// The timeline it branched off, and where.
    pub parent: Option<(TimelineId, Lsn)>,
    /// Its own segments.
    pub segments: u64,
    /// Times between two of them cannot be reached. Oldest first; only those that reach into this
    /// timeline itself.
    pub windows: Vec<Window>,
    /// Those on the way to it that end before it begins: its ancestors' to tell of.
    pub on_the_way: Vec<Window>,
    /// On the whole way to it, in the order of the WAL.
    pub gaps: Vec<Gap>,
    /// Gaps that end before this harm nobody: no backup needs what is missing.
    pub needed_from: Option<Lsn>,
    /// Backups of this timeline that cannot be used.
    pub unusable: Vec<(String, Lack)>,
    /// It cannot be recovered, whatever its WAL: its history file is not there.
    pub lacks_history: bool,
}

/// Why a backup cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// The first segment it needs and has not.
    Segment(SegmentName),
    Chain(Broken),
}

/// One stretch of time of which every moment can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The end of the oldest backup in it.
    pub earliest: Timestamp,
    pub earliest_lsn: Lsn,
    pub earliest_backup: String,
    /// How many backups it has.
    pub backups: u64,
    /// The time of the last commit, or the end of the backup where none came after it.
    pub latest: Timestamp,
    /// Where the record of that commit begins, or where the backup ends.
    pub latest_lsn: Lsn,
    /// `None`: no commit came after the backup.
    pub latest_xid: Option<u32>,
    /// Whether nothing later can be reached; where not, there is WAL of which nobody knows the
    /// commits, and the last of them may be as late as `run.stored`.
    pub is_exact: bool,
    pub run: WalRun,
}

impl TimelineWindow {
    /// Whether a gap takes anything away: no backup lies before its end.
    pub fn is_harmful(&self, gap: &Gap) -> bool {
        self.needed_from.is_some_and(|begin| begin < gap.to)
    }

    /// The newest one: the answer to "until when".
    pub fn newest(&self) -> Option<&Window> {
        self.windows.last()
    }
}

/// Of every timeline that has WAL, a backup or a history file, lowest first.
pub fn windows(
    backups: &[BackupSummary],
    tree: &TimelineTree,
    inventory: &Inventory,
) -> Vec<TimelineWindow> {
    let mut timelines: BTreeSet<TimelineId> = tree.branches().collect();
    timelines.extend(backups.iter().map(|backup| backup.timeline));
    timelines.extend(archived(inventory));
    timelines.into_iter().map(|timeline| window(timeline, backups, tree, inventory)).collect()
}

fn window(
    timeline: TimelineId,
    backups: &[BackupSummary],
    tree: &TimelineTree,
    inventory: &Inventory,
) -> TimelineWindow {
    let segments = inventory.segments.range(all_of(timeline)).count() as u64;
    let mut window = TimelineWindow {
        timeline,
        parent: tree.parent(timeline),
        segments,
        windows: Vec::new(),
        on_the_way: Vec::new(),
        gaps: Vec::new(),
        needed_from: None,
        unusable: Vec::new(),
        lacks_history: false,
    };
    let Ok(path) = tree.path(timeline) else {
        window.lacks_history = true;
        return window;
    };
    let Runs { runs, gaps } = Runs::on(&path, inventory);
    let mut on_path: Vec<&BackupSummary> =
        backups.iter().filter(|backup| path.contains(backup.timeline, backup.end_lsn)).collect();
    on_path.retain(|backup| match Chain::of(backup, backups, tree) {
        Ok(_) => true,
        Err(broken) => {
            if backup.timeline == timeline {
                window.unusable.push((backup.id.clone(), Lack::Chain(broken)));
            }
            false
        }
    });
    for run in &runs {
        let is_own = run.last.timeline == timeline;
        let of_kind = if is_own { &mut window.windows } else { &mut window.on_the_way };
        of_kind.extend(Window::of(run, &on_path));
    }
    window.gaps = gaps;
    window.needed_from = on_path.iter().map(|backup| backup.start_lsn).min();
    let runs = Runs { runs, gaps: Vec::new() };
    for backup in on_path.iter().filter(|backup| backup.timeline == timeline) {
        if let Some(gap) = lack_of(backup, &runs, &path, inventory) {
            window.unusable.push((backup.id.clone(), Lack::Segment(gap.first)));
            window.take_in(gap);
        }
    }
    window
}

impl TimelineWindow {
    /// Unless what is missing is told of already.
    fn take_in(&mut self, gap: Gap) {
        if !self.gaps.iter().any(|known| known.from < gap.to && gap.from < known.to) {
            self.gaps.push(gap);
            self.gaps.sort_by_key(|gap| gap.from);
        }
    }
}

impl Window {
    fn of(run: &WalRun, backups: &[&BackupSummary]) -> Option<Window> {
        let usable = |backup: &&&BackupSummary| is_usable(backup, run);
        let usable: Vec<&BackupSummary> = backups.iter().filter(usable).copied().collect();
        let oldest = usable.iter().min_by_key(|backup| (backup.end_lsn, backup.ended))?;
        // A backup is no earlier than its end, whatever happened last before it.
        let commit = run.last_commit.filter(|commit| commit.lsn >= oldest.end_lsn);
        let latest = commit.map_or(oldest.ended, |commit| commit.time.max(oldest.ended));
        Some(Window {
            earliest: oldest.ended,
            earliest_lsn: oldest.end_lsn,
            earliest_backup: oldest.id.clone(),
            backups: usable.len() as u64,
            latest,
            latest_lsn: commit.map_or(oldest.end_lsn, |commit| commit.lsn),
            latest_xid: commit.map(|commit| commit.xid),
            is_exact: run.is_known_to_its_end,
            run: *run,
        })
    }
}

fn is_usable(backup: &BackupSummary, run: &WalRun) -> bool {
    run.begin <= backup.start_lsn && backup.end_lsn <= run.cover
}

/// What of its own WAL a backup lacks; `None` for one that can be used.
fn lack_of(
    backup: &BackupSummary,
    runs: &Runs,
    path: &TimelinePath,
    inventory: &Inventory,
) -> Option<Gap> {
    if runs.holding(backup.start_lsn, backup.end_lsn).is_some() {
        return None;
    }
    let size = match inventory.segment_size {
        0 => backup.wal_segment_size,
        known => known,
    };
    let floor = |lsn: Lsn| Lsn(lsn.0 - lsn.0 % u64::from(size));
    // From where on it is lacking, if it has a beginning at all.
    let begun =
        runs.runs.iter().find(|run| run.begin <= backup.start_lsn && backup.start_lsn < run.cover);
    let from = begun.map_or(floor(backup.start_lsn), |run| run.cover);
    let next = runs.runs.iter().map(|run| run.begin).filter(|begin| *begin > from).min();
    let needed = Lsn(floor(Lsn(backup.end_lsn.0.saturating_sub(1))).0 + u64::from(size));
    let to = next.unwrap_or(needed).min(needed).max(from);
    let before = runs.runs.iter().filter(|run| run.cover <= from);
    let after = runs.runs.iter().filter(|run| run.begin >= to);
    Some(Gap {
        cause: Cause::NeededByBackup,
        first: path.segment(from, size),
        segments: (to.0 - from.0).div_ceil(u64::from(size)),
        from,
        to,
        after: before.rev().find_map(|run| run.last_commit).map(|commit| commit.time),
        before: after.into_iter().find_map(|run| run.first_commit).map(|commit| commit.time),
    })
}

/// The timelines that have segments.
fn archived(inventory: &Inventory) -> Vec<TimelineId> {
    let mut timelines: Vec<TimelineId> = Vec::new();
    let mut segments = inventory.segments.range(..);
    while let Some((name, _)) = segments.next() {
        timelines.push(name.timeline);
        segments = inventory.segments.range((
            std::ops::Bound::Excluded(*all_of(name.timeline).end()),
            std::ops::Bound::Unbounded,
        ));
    }
    timelines
}

fn all_of(timeline: TimelineId) -> std::ops::RangeInclusive<SegmentName> {
    let first = SegmentName { timeline, log: 0, segment: 0 };
    first..=SegmentName { log: u32::MAX, segment: u32::MAX, ..first }
}

#[cfg(test)]
mod tests;

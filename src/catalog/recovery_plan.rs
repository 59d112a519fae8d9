//! Target to backup, timeline path and WAL: the choice a restore makes, or the reason why there is
//! none.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::catalog::{Target, TargetTimeline, TimelinePath, TimelineTree};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, SegmentName, TimelineId};

/// Stores keep the time of an object to the second, rounded down.
const STORED_TIME_SLACK: SignedDuration = SignedDuration::from_secs(1);

/// What a choice needs to know of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSummary {
    pub id: String,
    pub timeline: TimelineId,
    pub start_lsn: Lsn,
    pub end_lsn: Lsn,
    pub ended: Timestamp,
    /// In bytes.
    pub wal_segment_size: u32,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub target: Target,
    /// Stop just before the target instead of just after it.
    pub exclusive: bool,
    pub timeline: TargetTimeline,
    /// This backup and no other.
    pub backup: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub backup: BackupSummary,
    pub path: TimelinePath,
    /// What the person should know, as sentences.
    pub notes: Vec<String>,
}

/// The segments of the path that the store lists, with the time each was stored.
pub type ArchivedWal = BTreeMap<SegmentName, Timestamp>;

/// The unbroken WAL from the start of a backup on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRun {
    pub first: SegmentName,
    pub last: SegmentName,
    /// Exclusive.
    pub end: Lsn,
    /// When the newest of it was stored: no commit in it is later.
    pub stored: Timestamp,
    /// The first segment that is missing although later ones are there.
    pub gap: Option<SegmentName>,
}

/// The newest backup that ended before the target and lies on the way to the wanted timeline.
pub fn choose(
    backups: &[BackupSummary],
    tree: &TimelineTree,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Choice> {
    if wanted.exclusive && !wanted.target.can_be_exclusive() {
        return Err(Error::new(ErrorKind::Usage, "--target-exclusive has no meaning here")
            .hint("It goes with --target-time, --target-lsn and --target-xid."));
    }
    if let Target::Time(time) = wanted.target
        && time > now
    {
        return Err(refused(format!("the target {time} lies in the future: it is {now:.0}"))
            .hint("Use --target-latest for everything that is archived."));
    }
    let considered = considered(backups, wanted)?;
    let path = path(&considered, tree, wanted)?;
    let on_path: Vec<&BackupSummary> = considered
        .iter()
        .copied()
        .filter(|backup| path.contains(backup.timeline, backup.end_lsn))
        .collect();
    if on_path.is_empty() {
        return Err(off_the_path(&considered, &path));
    }
    let backup = newest(on_path.iter().copied().filter(|b| reaches(b, &wanted.target)))
        .ok_or_else(|| too_early(&on_path, wanted))?
        .clone();
    let notes = notes(&backup, &path, tree, wanted);
    Ok(Choice { backup, path, notes })
}

/// Whether the archived WAL can lead from the backup to the target, as far as names and times can
/// tell.
pub fn check_wal(choice: &Choice, target: &Target, archived: &ArchivedWal) -> Result<WalRun> {
    let run = WalRun::from(choice, archived)?;
    if run.end < choice.backup.end_lsn {
        let missing = run.gap.unwrap_or(run.last.next(choice.backup.wal_segment_size));
        return Err(missing_segment(&choice.backup, missing));
    }
    let reached = match target {
        Target::Lsn(lsn) => *lsn < run.end,
        Target::Time(time) => *time <= run.stored + STORED_TIME_SLACK,
        // A server would take the gap for the end, and promote without what lies behind it.
        Target::Latest => run.gap.is_none(),
        Target::Xid(_) | Target::Name(_) | Target::Immediate => true,
    };
    if reached {
        return Ok(run);
    }
    let short = format!("the archived WAL ends at {} (stored at {})", run.end, run.stored);
    match run.gap {
        Some(gap) => Err(refused(format!(
            "the target cannot be reached: {gap} is missing; {short}"
        ))
        .hint(format!(
            "Archive {gap} if a server still has it in pg_wal, or recover to before the gap: \
                 --target-time '{}'.",
            run.stored
        ))),
        None => Err(refused(format!("{target} lies behind the last possible target: {short}"))
            .hint("Use --target-latest; or run pg_switch_wal() on the source and try again.")),
    }
}

impl WalRun {
    fn from(choice: &Choice, archived: &ArchivedWal) -> Result<WalRun> {
        let backup = &choice.backup;
        let size = backup.wal_segment_size;
        let by_start = on_path(&choice.path, archived, size);
        let first = SegmentName::containing(backup.timeline, backup.start_lsn, size).start(size);
        let mut run: Option<WalRun> = None;
        let mut at = first;
        while let Some((name, stored)) = by_start.get(&at) {
            at = Lsn(at.0 + u64::from(size));
            let (begin, newest) = run.map_or((*name, *stored), |run| (run.first, run.stored));
            let stored = newest.max(*stored);
            run = Some(WalRun { first: begin, last: *name, end: at, stored, gap: None });
        }
        let missing = SegmentName::containing(timeline_at(&choice.path, at), at, size);
        let mut run = run.ok_or_else(|| missing_segment(backup, missing))?;
        run.gap = by_start.range(at..).next().map(|_| missing);
        Ok(run)
    }
}

/// The segments recovery would read, by where they start; of two, that of the newer timeline, as
/// PostgreSQL does (`XLogFileReadAnyTLI`).
fn on_path(
    path: &TimelinePath,
    archived: &ArchivedWal,
    size: u32,
) -> BTreeMap<Lsn, (SegmentName, Timestamp)> {
    let mut by_start = BTreeMap::new();
    for step in path.steps() {
        for (name, stored) in archived.iter().filter(|(name, _)| name.timeline == step.timeline) {
            let start = name.start(size);
            let begins_before = step.end.is_none_or(|end| start < end);
            if begins_before && start.0 + u64::from(size) > step.begin.0 {
                by_start.insert(start, (*name, *stored));
            }
        }
    }
    by_start
}

fn timeline_at(path: &TimelinePath, lsn: Lsn) -> TimelineId {
    let holds = |end: Option<Lsn>| end.is_none_or(|end| lsn < end);
    path.steps().iter().find(|step| holds(step.end)).map_or(path.last(), |step| step.timeline)
}

fn considered<'a>(backups: &'a [BackupSummary], wanted: &Wanted) -> Result<Vec<&'a BackupSummary>> {
    if backups.is_empty() {
        return Err(refused("there is no backup in the repository".to_owned())
            .hint("Take one with: walden backup."));
    }
    let Some(id) = &wanted.backup else { return Ok(backups.iter().collect()) };
    let found: Vec<_> = backups.iter().filter(|backup| backup.id == *id).collect();
    if found.is_empty() {
        let ids: Vec<&str> = backups.iter().rev().take(5).map(|b| b.id.as_str()).collect();
        return Err(refused(format!("backup {id} is not in the repository"))
            .hint(format!("The newest are: {}.", ids.join(", "))));
    }
    Ok(found)
}

fn path(backups: &[&BackupSummary], tree: &TimelineTree, wanted: &Wanted) -> Result<TimelinePath> {
    match wanted.timeline {
        TargetTimeline::Number(timeline) => tree.path(timeline),
        TargetTimeline::Current => {
            let usable = backups.iter().copied().filter(|b| reaches(b, &wanted.target));
            let backup = newest(usable).ok_or_else(|| too_early(backups, wanted))?;
            tree.path(backup.timeline)
        }
        TargetTimeline::Latest => newest_reachable(backups, tree),
    }
}

/// The path to the highest timeline that some backup can follow.
fn newest_reachable(backups: &[&BackupSummary], tree: &TimelineTree) -> Result<TimelinePath> {
    let mut timelines: Vec<TimelineId> = tree.branches().collect();
    timelines.extend(backups.iter().map(|backup| backup.timeline));
    timelines.sort();
    for timeline in timelines.into_iter().rev() {
        let path = tree.path(timeline)?;
        if backups.iter().any(|backup| path.contains(backup.timeline, backup.end_lsn)) {
            return Ok(path);
        }
    }
    Err(Error::new(ErrorKind::Bug, "a backup does not lie on its own timeline"))
}

fn reaches(backup: &BackupSummary, target: &Target) -> bool {
    match target {
        Target::Time(time) => backup.ended <= *time,
        Target::Lsn(lsn) => backup.end_lsn <= *lsn,
        Target::Xid(_) | Target::Name(_) | Target::Immediate | Target::Latest => true,
    }
}

/// By place in the WAL first: clocks of two servers may differ, the WAL of one path does not.
fn newest<'a>(backups: impl Iterator<Item = &'a BackupSummary>) -> Option<&'a BackupSummary> {
    backups.max_by_key(|backup| (backup.end_lsn, backup.ended))
}

fn notes(
    backup: &BackupSummary,
    path: &TimelinePath,
    tree: &TimelineTree,
    wanted: &Wanted,
) -> Vec<String> {
    let mut notes = Vec::new();
    if matches!(wanted.target, Target::Xid(_) | Target::Name(_)) {
        notes.push(format!(
            "{} is looked for from {} on, the end of this backup; if it lies before, choose an \
             older backup with --backup.",
            wanted.target, backup.ended
        ));
    }
    let known: BTreeSet<TimelineId> =
        path.steps().iter().map(|step| step.timeline).chain(tree.branches()).collect();
    let others: Vec<String> = known
        .into_iter()
        .filter(|timeline| *timeline != path.last())
        .map(|timeline| timeline.to_string())
        .collect();
    if wanted.timeline == TargetTimeline::Latest
        && wanted.target != Target::Immediate
        && !others.is_empty()
    {
        notes.push(format!(
            "recovery follows timeline {} to its end; for what happened on timeline {} after the \
             fork, name it with --target-timeline.",
            path.last(),
            others.join(" or ")
        ));
    }
    notes
}

fn too_early(backups: &[&BackupSummary], wanted: &Wanted) -> Error {
    let what = match wanted.backup {
        Some(_) => "the end of this backup",
        None => "the earliest possible target, the end of the oldest backup",
    };
    let Some(oldest) = backups.iter().min_by_key(|backup| (backup.end_lsn, backup.ended)) else {
        return refused("there is no backup".to_owned());
    };
    let BackupSummary { id, ended, end_lsn, .. } = oldest;
    refused(format!("{} lies before {what}", wanted.target)).hint(format!(
        "Backup {id} ended at {ended}, LSN {end_lsn}: --target-time '{ended}' or \
         --target-immediate --backup {id}."
    ))
}

fn off_the_path(backups: &[&BackupSummary], path: &TimelinePath) -> Error {
    let places: Vec<String> = backups
        .iter()
        .rev()
        .take(5)
        .map(|backup| {
            format!("{} on timeline {} up to {}", backup.id, backup.timeline, backup.end_lsn)
        })
        .collect();
    refused(format!("no backup lies on the way to timeline {} ({path})", path.last()))
        .hint(format!("Choose another --target-timeline. The backups: {}.", places.join("; ")))
}

fn missing_segment(backup: &BackupSummary, missing: SegmentName) -> Error {
    refused(format!("{missing} is missing, and backup {} needs it", backup.id)).hint(
        "Archive it if a server still has it in pg_wal, or choose another backup with --backup.",
    )
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, message)
}

#[cfg(test)]
mod tests;

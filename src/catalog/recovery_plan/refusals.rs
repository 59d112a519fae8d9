//! What is said where a target cannot be reached: why, and the line that can be used instead.

use jiff::Timestamp;

use crate::catalog::chain::Broken;
use crate::catalog::recovery_plan::Wanted;
use crate::catalog::recovery_plan::path_wal::{Stretch, WalRange};
use crate::catalog::wal_run::Cause;
use crate::catalog::{BackupSummary, Target, TimelinePath};
use crate::error::{Error, ErrorKind};
use crate::postgres::wal::digest::{Ending, RestorePoint, TransactionEnd};
use crate::postgres::{Lsn, SegmentName};

pub const NOT_TO_THE_COMMIT: &str = "some of the WAL has no digest (an older walden archived it, \
                                     or it is of an unknown version): what is reached cannot be \
                                     told to the commit.";
/// Of lists in hints.
const LISTED_MAX: usize = 5;

pub fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, message)
}

pub fn too_early(backups: &[&BackupSummary], wanted: &Wanted) -> Error {
    let what = match wanted.backup {
        Some(_) => "the end of this backup",
        None => "the earliest possible target, the end of the oldest backup",
    };
    let Some(oldest) = backups.iter().min_by_key(|backup| (backup.end_lsn, backup.ended)) else {
        return refused("there is no backup".to_owned());
    };
    let BackupSummary { id, ended, end_lsn, .. } = oldest;
    refused(format!("{} lies before {what}", wanted.target)).hint(format!(
        "Backup {id} ended at {ended}, LSN {end_lsn}: --target-immediate --backup {id} is as far \
         back as it goes."
    ))
}

pub fn off_the_path(backups: &[&BackupSummary], path: &TimelinePath) -> Error {
    let place = |backup: &&BackupSummary| {
        format!("{} on timeline {} up to {}", backup.id, backup.timeline, backup.end_lsn)
    };
    let places: Vec<String> = backups.iter().rev().take(LISTED_MAX).map(place).collect();
    refused(format!("no backup lies on the way to timeline {} ({path})", path.last()))
        .hint(format!("Choose another --target-timeline. The backups: {}.", places.join("; ")))
}

pub fn missing_segment(backup: &BackupSummary, segment: SegmentName, cause: Cause) -> Error {
    let needs = format!("and backup {} needs it", backup.id);
    match cause {
        Cause::Missing | Cause::NeededByBackup => refused(format!("{segment} is missing, {needs}"))
            .hint(
                "Archive it if a server still has it in pg_wal, or choose another backup with \
                 --backup.",
            ),
        Cause::Invalid => refused(format!("{segment} has a record that is not valid, {needs}"))
            .hint("Choose another backup with --backup."),
        Cause::Damaged => refused(format!("{segment} is damaged in the repository, {needs}"))
            .hint("Put the object back from a copy, or choose another backup with --backup."),
    }
}

/// As a sentence for the plan.
pub fn passed_over(backup: &BackupSummary, broken: &Broken) -> String {
    format!("backup {}, which is newer, is passed over: {broken}.", backup.id)
}

pub fn broken_chain(backup: &BackupSummary, broken: &Broken) -> Error {
    refused(format!("backup {} cannot be used: {broken}", backup.id)).hint(
        "Put the missing backup back from a copy, or choose one with a whole chain: walden list \
         shows them, --backup names it.",
    )
}

/// The last target before a gap: a time after the end of the backup, or that end.
pub fn earlier(backup: &BackupSummary, time: Option<Timestamp>) -> String {
    match time {
        Some(time) => format!("--target-time '{time}'"),
        None => format!("--target-immediate --backup {}", backup.id),
    }
}

/// The target lies behind a gap, and `earlier` is what can be had.
pub fn broken(run: WalRange, last: Option<TransactionEnd>, earlier: &str) -> Error {
    let Some(gap) = run.gap else {
        return refused(format!("the archived WAL ends at {}", run.end));
    };
    let until = last.map_or_else(
        || format!("the archived WAL ends at {} (stored at {})", run.end, run.stored),
        |last| format!("the last commit before it is {}", commit(&last)),
    );
    let segment = gap.segment;
    let (what, hint) = match gap.cause {
        Cause::Missing | Cause::NeededByBackup => (
            format!("{segment} is missing"),
            format!(
                "Archive {segment} if a server still has it in pg_wal, or recover to before the \
                 gap: {earlier}."
            ),
        ),
        Cause::Invalid => (
            format!("the record at {} in {segment} is not valid", gap.from),
            format!("Recover to before it: {earlier}."),
        ),
        Cause::Damaged => (
            format!("{segment} is damaged in the repository"),
            format!("Put the object back from a copy, or recover to before it: {earlier}."),
        ),
    };
    refused(format!("the target cannot be reached: {what}; {until}")).hint(hint)
}

pub fn after_the_last_commit(time: Timestamp, last: Option<TransactionEnd>) -> Error {
    let again = "If there were commits since, run pg_switch_wal() on the source and try again.";
    match last {
        Some(last) => refused(format!(
            "time {time} lies after the last commit that is archived, {}",
            commit(&last)
        ))
        .hint(format!("Use --target-time '{}' or --target-latest. {again}", last.time)),
        None => refused(format!("time {time} lies after all archived WAL, which has no commit"))
            .hint(format!("Use --target-immediate or --target-latest. {again}")),
    }
}

/// As far as names and times of objects can tell.
pub fn behind(target: &Target, run: &WalRange) -> Error {
    refused(format!(
        "{target} lies behind the last possible target: the archived WAL ends at {} (stored at {})",
        run.end, run.stored
    ))
    .hint("Use --target-latest; or run pg_switch_wal() on the source and try again.")
}

pub fn behind_the_last_record(lsn: Lsn, run: &WalRange, last: Option<Lsn>) -> Error {
    let instead = last.map_or(String::new(), |last| format!("--target-lsn {last} or "));
    refused(format!(
        "LSN {lsn} lies behind the last possible target: the archived WAL ends at {}{}",
        run.end,
        last.map_or(String::new(), |last| format!(", its last record begins at {last}")),
    ))
    .hint(format!(
        "Use {instead}--target-latest; or run pg_switch_wal() on the source and try again."
    ))
}

pub fn aborted(ending: &Ending) -> Error {
    let TransactionEnd { lsn, xid, time } = ending.at;
    refused(format!("transaction {xid} was rolled back, at {time}, LSN {lsn}")).hint(format!(
        "There is nothing of it to recover to. PostgreSQL would stop there all the same: \
         --target-lsn {lsn}."
    ))
}

pub fn subtransaction(xid: u32, ending: &Ending, segment: &SegmentName) -> Error {
    let TransactionEnd { lsn, xid: parent, time } = ending.at;
    let ended = if ending.is_commit { "committed" } else { "was rolled back" };
    refused(format!(
        "transaction {xid} is a subtransaction of {parent}, which {ended} at {time}, LSN {lsn} \
         ({segment})"
    ))
    .hint(format!("It has no end of its own to stop at: use --target-xid {parent}."))
}

pub fn never_ended(xid: u32, searched: &[Stretch]) -> Error {
    let (Some(first), Some(last)) = (searched.first(), searched.last()) else {
        return refused(format!("transaction {xid} is not found: no WAL is archived"));
    };
    refused(format!(
        "transaction {xid} did not end in the archived WAL from {} to {}",
        first.name, last.name
    ))
    .hint(
        "It may have ended before the oldest backup, on another branch (--target-timeline), or \
         after what is archived: then run pg_switch_wal() on the source.",
    )
}

pub fn not_among_nearest(xid: u32, searched: usize) -> Error {
    refused(format!(
        "transaction {xid} was not found in the {searched} segments whose commits are nearest to it"
    ))
    .hint("Look it up with walden find --xid, and use its --target-lsn.")
}

pub fn no_restore_point<'a>(name: &str, known: impl Iterator<Item = &'a RestorePoint>) -> Error {
    let mut known: Vec<&RestorePoint> = known.collect();
    known.sort_by_key(|point| std::cmp::Reverse((likeness(name, &point.name), point.lsn)));
    let near: Vec<String> = known
        .iter()
        .take(LISTED_MAX)
        .map(|point| format!("{:?} ({}, LSN {})", point.name, point.time, point.lsn))
        .collect();
    let hint = match near.is_empty() {
        true => "No restore point is in the archived WAL of this branch.".to_owned(),
        false => format!("The nearest names on this branch: {}.", near.join(", ")),
    };
    // What a digest does not keep, it cannot deny.
    let hint = hint
        + " One whose record lies across two segments, or with more than 32 others in its \
           segment, is not listed: use --target-lsn for such.";
    refused(format!("restore point {name:?} is not in the archived WAL")).hint(hint)
}

pub fn several_restore_points<'a>(
    name: &str,
    points: impl Iterator<Item = &'a RestorePoint>,
) -> Error {
    let lines: Vec<String> =
        points.map(|point| format!("{}: --target-lsn {}", point.time, point.lsn)).collect();
    refused(format!("{} restore points have the name {name:?}", lines.len()))
        .hint(format!("Say which is meant. {}.", lines.join("; ")))
}

/// `2026-11-21T10:15:30.123456Z (LSN 0/3000028, transaction 745)`
pub fn commit(end: &TransactionEnd) -> String {
    format!("{} (LSN {}, transaction {})", end.time, end.lsn, end.xid)
}

/// How many pairs of neighbouring letters of `one`, in any case, are in the other too.
fn likeness(one: &str, other: &str) -> usize {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    let letters: Vec<char> = one.chars().collect();
    letters.windows(2).filter(|pair| other.contains(&pair.iter().collect::<String>())).count()
}

#[cfg(test)]
mod tests {
    use crate::catalog::Target;
    use crate::catalog::recovery_plan::samples::{World, wanted};

    #[test]
    fn what_is_suggested_at_a_gap_is_not_refused_in_its_turn() {
        let suggestion = |world: World| {
            let world = world.commit(1, 25, 702, "02:30").commit(1, 35, 703, "03:30");
            let world = world.archived(1, 0..=3).without(1, 2);
            let refusal = world.outcome(&wanted(Target::Latest));
            refusal.rsplit_once("before the gap: ").expect("a suggestion").1.to_owned()
        };
        let world = || World::default().backup("A", 1, (11, 13), "01:00");
        // Before the backup, while it was taken, none at all: its end is all that is left.
        let end = "--target-immediate --backup A)";
        assert_eq!(suggestion(world().commit(1, 9, 700, "00:30")), end);
        assert_eq!(suggestion(world().commit(1, 12, 700, "00:50")), end);
        assert_eq!(suggestion(world()), end);
        let time = "--target-time '2026-11-21T01:30:00Z')";
        assert_eq!(suggestion(world().commit(1, 15, 700, "01:30")), time);
    }
}

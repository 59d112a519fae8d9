//! Which timeline is meant: a target that several branches of the cluster's history have, with
//! different content, is refused with the branches.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::recovery_plan::course::Course;
use crate::catalog::recovery_plan::decision::Decision;
use crate::catalog::recovery_plan::refusals::{self, refused};
use crate::catalog::recovery_plan::{Known, Wanted};
use crate::catalog::{BackupSummary, Target, TargetTimeline, TimelinePath, TimelineTree};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, TimelineId};

/// What a recovery leads to: the last record that matters, and the timeline that wrote it.
type Content = (TimelineId, Option<Lsn>);

pub fn decide(known: &Known<'_>, wanted: &Wanted, backups: &[&BackupSummary]) -> Result<Decision> {
    let on = |path: TimelinePath| Course::new(known, wanted, path).decide(backups);
    match wanted.timeline {
        TargetTimeline::Number(timeline) => on(known.tree.path(timeline)?),
        TargetTimeline::Current => current(known, wanted, backups),
        TargetTimeline::Latest => {
            let newest = newest_reachable(backups, known.tree)?;
            let is_one_point = !matches!(wanted.target, Target::Latest | Target::Immediate);
            let timeline = newest.last();
            let decided = on(newest);
            let others = others(known, backups, timeline)?;
            match decided {
                Ok(decision) if !is_one_point || decision.stop.place.is_none() => {
                    Ok(with_note(decision, wanted, &others))
                }
                Err(error) if !is_one_point || error.kind() != ErrorKind::Refused => Err(error),
                decided => unambiguous(decided, timeline, wanted, others, &on),
            }
        }
    }
}

/// The newest backup before the target decides for its own timeline.
fn current(known: &Known<'_>, wanted: &Wanted, backups: &[&BackupSummary]) -> Result<Decision> {
    let mut newest_first = backups.to_vec();
    newest_first.sort_by_key(|backup| std::cmp::Reverse((backup.end_lsn, backup.ended)));
    let mut tried = BTreeSet::new();
    let mut refusal = None;
    for backup in newest_first {
        if !tried.insert(backup.timeline) {
            continue;
        }
        let own: Vec<_> =
            backups.iter().copied().filter(|other| other.timeline == backup.timeline).collect();
        match Course::new(known, wanted, known.tree.path(backup.timeline)?).decide(&own) {
            Err(error) if error.kind() == ErrorKind::Refused => {
                refusal.get_or_insert(error);
            }
            outcome => return outcome,
        }
    }
    Err(refusal.unwrap_or_else(|| refusals::too_early(backups, wanted)))
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

/// The paths to all other timelines that some backup can follow.
fn others(
    known: &Known<'_>,
    backups: &[&BackupSummary],
    newest: TimelineId,
) -> Result<Vec<TimelinePath>> {
    let first = TimelineId::new(1)?;
    let mut timelines: BTreeSet<TimelineId> = known.tree.branches().collect();
    timelines.extend(backups.iter().map(|backup| backup.timeline));
    timelines.insert(first);
    timelines.remove(&newest);
    let follows = |path: &TimelinePath| {
        backups.iter().any(|backup| path.contains(backup.timeline, backup.end_lsn))
    };
    let paths = timelines.into_iter().filter_map(|timeline| known.tree.path(timeline).ok());
    Ok(paths.filter(follows).collect())
}

fn unambiguous(
    decided: Result<Decision>,
    newest: TimelineId,
    wanted: &Wanted,
    others: Vec<TimelinePath>,
    on: &dyn Fn(TimelinePath) -> Result<Decision>,
) -> Result<Decision> {
    let mut contents: BTreeMap<Content, Decision> = BTreeMap::new();
    for path in others {
        match on(path) {
            Ok(decision) => {
                let content = content(&decision, wanted);
                // Of two ways to the same content that of the lower timeline is the shorter.
                contents.entry(content).or_insert(decision);
            }
            Err(error) if error.kind() == ErrorKind::Refused => {}
            Err(error) => return Err(error),
        }
    }
    match decided {
        Ok(decision) => {
            let content = content(&decision, wanted);
            if contents.keys().all(|other| *other == content) {
                return Ok(decision);
            }
            contents.insert(content, decision);
            Err(several(wanted, &contents))
        }
        Err(error) if contents.is_empty() => Err(error),
        Err(error) => Err(elsewhere(&error, newest, wanted, &contents)),
    }
}

/// For a time only commits count: between two of them every record is as good.
fn content(decision: &Decision, wanted: &Wanted) -> Content {
    let lsn = match wanted.target {
        Target::Time(_) => decision.last_commit.map(|commit| commit.lsn),
        _ => decision.stop.place.map(|place| place.lsn),
    };
    let holds = |end: Option<Lsn>| end.is_none_or(|end| lsn.unwrap_or_default() < end);
    let step = decision.path.steps().iter().find(|step| holds(step.end));
    (step.map_or(decision.path.last(), |step| step.timeline), lsn)
}

fn several(wanted: &Wanted, contents: &BTreeMap<Content, Decision>) -> Error {
    refused(format!(
        "{} lies on {} branches of this cluster's history, with different content",
        wanted.target,
        contents.len()
    ))
    .hint(format!("Say which is meant. {}.", lines(contents)))
}

/// On the newest timeline it cannot be had, and why; on others it can.
fn elsewhere(
    why: &Error,
    newest: TimelineId,
    wanted: &Wanted,
    contents: &BTreeMap<Content, Decision>,
) -> Error {
    let target = &wanted.target;
    refused(format!("{target} cannot be reached on timeline {newest}, the newest: {why}"))
        .hint(format!("If another branch is meant, say so. {}.", lines(contents)))
}

fn lines(contents: &BTreeMap<Content, Decision>) -> String {
    let line = |decision: &Decision| {
        let last = decision.last_commit.as_ref();
        let last = last.map_or("no commit is known before it".to_owned(), |commit| {
            format!("its last commit is then {}", refusals::commit(commit))
        });
        format!("--target-timeline {}: {last}", decision.path.last())
    };
    let mut decisions: Vec<&Decision> = contents.values().collect();
    decisions.sort_by_key(|decision| decision.path.last());
    decisions.into_iter().map(line).collect::<Vec<_>>().join("; ")
}

fn with_note(mut decision: Decision, wanted: &Wanted, others: &[TimelinePath]) -> Decision {
    let path = &decision.path;
    let others: Vec<String> = others
        .iter()
        .map(TimelinePath::last)
        .chain(path.steps().iter().map(|step| step.timeline))
        .filter(|timeline| *timeline != path.last())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|timeline| timeline.to_string())
        .collect();
    if wanted.target != Target::Immediate && !others.is_empty() {
        let note = format!(
            "recovery follows timeline {} to its end; for what happened on timeline {} after the \
             fork, name it with --target-timeline.",
            path.last(),
            others.join(" or ")
        );
        decision.notes.push(note);
    }
    decision
}

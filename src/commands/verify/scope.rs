//! What is to be looked at: everything, or what one backup or one timeline needs.

use std::collections::BTreeSet;

use crate::catalog::{BackupSummary, Inventory, TimelinePath, TimelineTree};
use crate::commands::survey;
use crate::commands::verify::Request;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, SegmentName, TimelineId, WalFileName};
use crate::repository::{BackupFacts, BackupId, Contents, Home, Kept};

/// Leaves of all that is listed only what was asked for.
pub fn narrow(home: &Home, request: &Request, contents: &mut Contents) -> Result<()> {
    let (backups, segments): (BTreeSet<BackupId>, Box<dyn Fn(SegmentName) -> bool>) =
        match (&request.backup, request.timeline) {
            (None, None) => return Ok(()),
            (Some(id), _) => {
                let chain = chain(&facts(home)?, id, home)?;
                // Of those it rests on only the files are needed.
                let needed: BTreeSet<SegmentName> = chain[0].wal_needed().collect();
                let ids = chain.into_iter().map(|facts| facts.id).collect();
                (ids, Box::new(move |name| needed.contains(&name)))
            }
            (None, Some(timeline)) => {
                let facts = facts(home)?;
                let tree = survey::tree(home, &mut Vec::new())?;
                let path = tree.path(timeline)?;
                expect_known(home, contents, &tree, timeline)?;
                let mut ids = BTreeSet::new();
                for one in facts.iter().filter(|it| path.contains(it.timeline, it.end_lsn)) {
                    ids.insert(one.id.clone());
                    let chain = chain(&facts, &one.id, home)?;
                    ids.extend(chain.into_iter().map(|facts| facts.id));
                }
                let size = facts.last().map(|facts| facts.wal_segment_size);
                (ids, Box::new(move |name| lies_on(&path, name, size)))
            }
        };
    contents.unknown.clear();
    contents.objects.retain(|object| match &object.kept {
        Kept::Proof | Kept::Wal(WalFileName::History(_)) => true,
        Kept::Wal(WalFileName::Segment(name)) => segments(*name),
        kept => kept.backup().is_some_and(|id| backups.contains(id)),
    });
    Ok(())
}

/// Where one backup was asked for: takes for there what nobody looked at of the WAL of those it
/// rests on.
pub fn assume_the_rest(
    id: &BackupId,
    backups: &[BackupSummary],
    tree: &TimelineTree,
    inventory: &mut Inventory,
) {
    let size = inventory.segment_size;
    let wanted = backups.iter().find(|backup| backup.id == id.as_str());
    let (Some(wanted), true) = (wanted, size > 0) else { return };
    let Ok(path) = tree.path(wanted.timeline) else { return };
    let first = backups.iter().map(|backup| backup.start_lsn).min().unwrap_or(wanted.start_lsn);
    let floor = |lsn: Lsn| lsn.0 - lsn.0 % u64::from(size);
    for start in (floor(first)..floor(wanted.start_lsn)).step_by(size as usize) {
        inventory.segments.entry(path.segment(Lsn(start), size)).or_default();
    }
}

/// Those that can be read; the others are found when they are looked at.
fn facts(home: &Home) -> Result<Vec<BackupFacts>> {
    Ok(home.all_backup_facts()?.into_iter().filter_map(|(_, facts)| facts.ok()).collect())
}

/// The backup and all that it rests on, as far as they are there.
fn chain(all: &[BackupFacts], id: &BackupId, home: &Home) -> Result<Vec<BackupFacts>> {
    let find = |id: &BackupId| all.iter().find(|facts| facts.id == *id).cloned();
    let first = find(id).ok_or_else(|| {
        let message = format!("backup {id} is not in {}, or cannot be read", home.url());
        Error::new(ErrorKind::Refused, message)
            .hint("walden list shows those that are; walden verify looks at all of them.")
    })?;
    let mut chain = vec![first];
    while let Some(parent) = chain.last().and_then(|last| last.parent.clone()) {
        match find(&parent).filter(|parent| !chain.contains(parent)) {
            Some(parent) => chain.push(parent),
            None => break,
        }
    }
    Ok(chain)
}

fn expect_known(
    home: &Home,
    contents: &Contents,
    tree: &TimelineTree,
    timeline: TimelineId,
) -> Result<()> {
    let is_of_it = |kept: &Kept| match kept {
        Kept::Wal(name) => name.timeline() == timeline,
        _ => false,
    };
    let has_any = contents.objects.iter().any(|object| is_of_it(&object.kept));
    if has_any || tree.branches().any(|branch| branch == timeline) {
        return Ok(());
    }
    let message = format!("nothing of timeline {timeline} is in {}", home.url());
    Err(Error::new(ErrorKind::Refused, message).hint("walden window shows the timelines there."))
}

/// Whether recovery along the path reads of this segment.
fn lies_on(path: &TimelinePath, name: SegmentName, size: Option<u32>) -> bool {
    let Some(size) = size else {
        return path.steps().iter().any(|step| step.timeline == name.timeline);
    };
    let start = name.start(size);
    let end = Lsn(start.0 + u64::from(size));
    path.steps().iter().any(|step| {
        step.timeline == name.timeline
            && step.begin < end
            && step.end.is_none_or(|until| end <= until)
    })
}

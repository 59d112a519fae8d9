//! All backups, one after the other: each looked at, and its packs read where they are to be.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::BackupSummary;
use crate::commands::survey;
use crate::commands::verify::backups::{self, Folder, Looked};
use crate::commands::verify::packs::{self, Means};
use crate::commands::verify::problem::{Cost, Notebook, Problem};
use crate::commands::verify::report::CheckedBackup;
use crate::commands::verify::{Task, sample};
use crate::repository::audit::{AuditEntry, Verb};
use crate::repository::{BackupId, Home, Manifest};

/// What was learned of them.
#[derive(Default)]
pub struct SeenBackups {
    /// Of those whose manifest or header can be read, oldest first.
    pub summaries: Vec<BackupSummary>,
    pub checked: Vec<CheckedBackup>,
    /// The packs that were read and are sound.
    pub read: BTreeMap<BackupId, BTreeSet<u32>>,
    /// Stored bytes.
    pub read_bytes: u64,
}

pub fn look(means: &Means<'_>, task: &Task<'_>, book: &mut Notebook) -> SeenBackups {
    let mut seen = SeenBackups::default();
    let published = published(means.home, book);
    for (id, folder) in backups::folders(&task.contents.objects) {
        if folder.has_manifest {
            means.progress.enter(format!("looking at backup {id}"));
            look_at_one(means, task, (&id, &folder), &mut seen, book);
        } else {
            let was_published = published.contains(&id);
            backups::without_manifest(means.home, &id, &folder, was_published, book);
        }
    }
    seen.summaries.sort_by_key(|backup| (backup.began, backup.id.clone()));
    seen
}

fn look_at_one(
    means: &Means<'_>,
    task: &Task<'_>,
    (id, folder): (&BackupId, &Folder<'_>),
    seen: &mut SeenBackups,
    book: &mut Notebook,
) {
    let (problems, unchecked) = (book.problems.len(), book.unchecked.len());
    let none = BTreeSet::new();
    let wanted = task.selection.packs.get(id).unwrap_or(&none);
    let looked = backups::look(means.home, id, folder, wanted, book);
    let mut checked = CheckedBackup {
        id: id.clone(),
        packs: folder.packs.len() as u64,
        packs_read: 0,
        whole: false,
        sound: false,
        stored_bytes: folder.packs.values().map(|pack| pack.size).sum(),
    };
    if let Some(manifest) = &looked.manifest {
        let read = read(means, task, &looked, manifest, book);
        let mut proven = sample::read_since_whole(id, &task.past.history);
        proven.extend(&read.sound);
        checked.packs = manifest.packs.len() as u64;
        checked.packs_read = read.sound.len() as u64;
        checked.whole =
            task.is_deep && (0..manifest.packs.len() as u32).all(|number| proven.contains(&number));
        seen.read_bytes += read.bytes;
        seen.read.insert(id.clone(), read.sound);
    }
    let costs_it = |problem: &Problem| problem.cost == Cost::Backup(id.clone());
    checked.sound = looked.manifest.is_some()
        && !book.problems[problems..].iter().any(costs_it)
        && book.unchecked.len() == unchecked;
    seen.checked.push(checked);
    seen.summaries.extend(looked.facts.map(survey::summary));
}

/// From where an earlier run stopped; what that one read counts as read.
fn read(
    means: &Means<'_>,
    task: &Task<'_>,
    looked: &Looked,
    manifest: &Manifest,
    book: &mut Notebook,
) -> packs::ReadPacks {
    let id = &manifest.id;
    let all = task.selection.packs.get(id).into_iter().flatten().copied();
    // What is missing is told of, and what is too much is nobody's.
    let all: BTreeSet<u32> = all.filter(|it| (*it as usize) < manifest.packs.len()).collect();
    let next = task
        .past
        .before
        .as_ref()
        .and_then(|before| before.packs.get(id))
        .copied()
        .unwrap_or_default();
    let begin = packs::beginning_of_file(manifest, next);
    let rest = all.range(begin..).copied().collect();
    let sound_so_far = book.problems.len() + book.unchecked.len();
    let told = |book: &Notebook, has_faults: bool, number: u32| {
        let found = book.problems.len() + book.unchecked.len() > sound_so_far || has_faults;
        if !found {
            task.past.memory.packs(id, number + 1);
        }
    };
    let part = packs::Part { manifest, sums: looked.sums.as_ref(), wanted: &rest };
    let mut read = packs::read(means, &part, book, told);
    for number in all.range(..begin) {
        let stored = manifest.packs[*number as usize].stored;
        means.progress.add(stored);
        read.sound.insert(*number);
        read.bytes += stored;
    }
    read
}

/// The backups that were complete once, as the audit trail says.
fn published(home: &Home, book: &mut Notebook) -> BTreeSet<BackupId> {
    let entries = match home.audit(Some(Verb::Backup), None) {
        Ok(entries) => entries,
        Err(error) => {
            book.skip(home.audits_key(), error);
            return BTreeSet::new();
        }
    };
    // One that was not published has no id there.
    let id = |entry: AuditEntry| entry.details.get("id")?.as_str()?.parse().ok();
    entries.into_iter().flatten().filter_map(id).collect()
}

//! All backups, one after the other: each looked at, and its packs read where they are to be.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::catalog::BackupSummary;
use crate::commands::survey;
use crate::commands::verify::backups::{self, Folder, Looked};
use crate::commands::verify::packs::{self, Means};
use crate::commands::verify::problem::{Cost, Notebook, Problem};
use crate::commands::verify::report::CheckedBackup;
use crate::commands::verify::{Task, sample};
use crate::postgres::{Lsn, MajorVersion, TimelineId};
use crate::repository::audit::{AuditEntry, Verb};
use crate::repository::{BackupId, Home, Manifest};

/// PostgreSQL's default.
const WAL_SEGMENT_BYTES: u32 = 16 << 20;

/// What was learned of them.
#[derive(Default)]
pub struct SeenBackups {
    /// Of those whose manifest or header can be read, or of which the audit trail knows what they
    /// were; oldest first.
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
    let mut lost: Vec<BackupId> = Vec::new();
    for (id, folder) in backups::folders(&task.contents.objects) {
        if folder.has_manifest {
            means.progress.enter(format!("looking at backup {id}"));
            look_at_one(means, task, (&id, &folder), &mut seen, book);
            let is_known = seen.summaries.iter().any(|backup| backup.id == id.as_str());
            lost.extend((!is_known).then_some(id));
        } else {
            let was_published = published.contains_key(&id);
            backups::without_manifest(means.home, &id, &folder, was_published, book);
            lost.push(id);
        }
    }
    let traces = lost.iter().filter_map(|id| published.get(id));
    let known: Vec<BackupSummary> = traces.map(|trace| trace.summary(&seen.summaries)).collect();
    seen.summaries.extend(known);
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
    let before = task.past.before.as_ref();
    let next = before.map_or(0, |before| before.first_pack(id, task.contents));
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

/// The backups that were complete once, as the audit trail has them.
fn published(home: &Home, book: &mut Notebook) -> BTreeMap<BackupId, Trace> {
    let entries = match home.audit(Some(Verb::Backup), None) {
        Ok(entries) => entries,
        Err(error) => {
            book.skip(home.audits_key(), error);
            return BTreeMap::new();
        }
    };
    // One that was not published has no id there.
    let trace = |entry: AuditEntry| {
        let (began, ended) = (entry.began, entry.ended);
        let written: Written = serde_json::from_value(entry.details).ok()?;
        Some((written.id.clone(), Trace { began, ended, written }))
    };
    entries.into_iter().flatten().filter_map(trace).collect()
}

/// What the audit trail tells of a backup.
struct Trace {
    began: Timestamp,
    ended: Timestamp,
    written: Written,
}

#[derive(serde::Deserialize)]
struct Written {
    id: BackupId,
    parent: Option<String>,
    began: Option<Timestamp>,
    ended: Option<Timestamp>,
    server_version_num: u32,
    timeline: TimelineId,
    start_lsn: Lsn,
    end_lsn: Lsn,
}

impl Trace {
    /// For what its loss costs. The size of segments is not there, and nobody asks this for it.
    fn summary(&self, siblings: &[BackupSummary]) -> BackupSummary {
        let Written { id, parent, timeline, start_lsn, end_lsn, .. } = &self.written;
        let segment_size = siblings.first().map(|sibling| sibling.wal_segment_size);
        BackupSummary {
            id: id.to_string(),
            timeline: *timeline,
            start_lsn: *start_lsn,
            end_lsn: *end_lsn,
            began: self.written.began.unwrap_or(self.began),
            ended: self.written.ended.unwrap_or(self.ended),
            wal_segment_size: segment_size.unwrap_or(WAL_SEGMENT_BYTES),
            major: MajorVersion::from_server_version_num(self.written.server_version_num),
            parent: parent.clone(),
            stored: 0,
        }
    }
}

//! `verify`: proves what a repository holds. Every backup and every segment is looked at; with
//! `deep` every byte is read. A damaged object never ends it, and what could not be looked at is
//! never called sound.

mod backups;
mod files;
mod packs;
mod segments;
mod wal;
mod histories;
mod strays;
mod in_order;
mod problem;
mod judge;
mod conclude;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use crate::catalog::loss::World;
use crate::catalog::{BackupSummary, Inventory, TimelineTree};
use crate::commands::audit::Deed;
use crate::commands::window::{self, Unarchived};
use crate::commands::{App, Retries, survey};
use crate::error::{Error, ErrorKind, Result};
use crate::host::bandwidth::Bandwidth;
use crate::host::{self, data_directory};
use crate::postgres::{SegmentName, SystemIdentifier, WalFileName};
use crate::repository::audit::{AuditEntry, Outcome::Done, Verb};
use crate::repository::{BackupId, Contents, Home, Kept, Object};

pub use crate::commands::progress::Progress;
pub use problem::{Severity, Unchecked};
pub use report::{CheckedBackup, CheckedTimeline, Finding, Outcome, Report};

use judge::{Court, judge};
use packs::Means;
use problem::{Cost, Notebook, Problem};
use wal::SeenWal;

const RETRY_FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Reads every byte, not only names, sizes and headers.
    pub deep: bool,
    /// Where several clusters archive under one name.
    pub system_identifier: Option<SystemIdentifier>,
    /// `None`: one per processor.
    pub jobs: Option<NonZeroUsize>,
    /// In bytes a second; `None`: no limit.
    pub max_rate: Option<u64>,
}

/// What was learned of the backups.
#[derive(Default)]
struct SeenBackups {
    summaries: Vec<BackupSummary>,
    checked: Vec<CheckedBackup>,
    read: BTreeMap<BackupId, BTreeSet<u32>>,
    read_bytes: u64,
}

/// All that was looked at.
struct Looked {
    contents: Contents,
    backups: SeenBackups,
    wal: SeenWal,
    timelines: Vec<CheckedTimeline>,
    unarchived: Option<Unarchived>,
    findings: Vec<Finding>,
    unchecked: Vec<Unchecked>,
}

pub fn run(app: &App, request: &Request, progress: &Progress) -> Result<Report> {
    let repository = app.repository(Retries::PerCall(RETRY_FOR))?;
    let pgdata = data_directory::find(None, app.settings.pgdata.as_deref());
    let home = window::find_home(&repository, request.system_identifier, pgdata.as_deref())?;
    let deed = Deed::begin(Verb::Verify);
    let looked = look(&home, request, pgdata.as_deref(), progress)?;
    let mut report = conclude::report(&looked, request, deed.began());
    report.cluster = app.settings.cluster.to_string();
    report.repository = home.url();
    report.system_identifier = home.system_identifier();
    conclude::record(&home, &deed, &looked, &report);
    Ok(report)
}

fn look(
    home: &Home,
    request: &Request,
    pgdata: Option<&Path>,
    progress: &Progress,
) -> Result<Looked> {
    let bandwidth = Bandwidth::new(request.max_rate);
    let jobs = request.jobs.map_or_else(host::processors, NonZeroUsize::get);
    let means = Means { home, jobs, bandwidth: &bandwidth, progress };
    let mut book = Notebook::default();
    progress.enter("listing the repository");
    let contents = home.contents().map_err(not_listed)?;
    if request.deep {
        progress.expect(deep_bytes(&contents));
    }
    place(home, &mut book);
    let histories = histories::read(home, &contents.objects, &mut book);
    let backups = look_at_backups(&means, request, &contents, &mut book);
    let listed = wal::listed(&contents.objects);
    progress.enter(format!("looking at {} WAL segments", listed.len()));
    let tree = TimelineTree::new(histories.all().cloned());
    let is_deep = |_: SegmentName| request.deep;
    let mut wal = wal::look_at_all(&means, &tree, &listed, &is_deep, &mut book, |_, _| {});
    progress.enter("looking at what else is there");
    let ids: BTreeSet<BackupId> = backups.checked.iter().map(|it| it.id.clone()).collect();
    strays::look(home, &contents, &ids, &mut book);
    let needed = listed.iter().map(|segment| segment.name.timeline);
    let needed = needed.chain(backups.summaries.iter().map(|backup| backup.timeline)).collect();
    let tree = TimelineTree::new(histories.judge(home, &needed, &wal.switches, &mut book));
    let segment_size =
        backups.summaries.last().map_or(wal.segment_size, |backup| backup.wal_segment_size);
    let inventory = Inventory::new(std::mem::take(&mut wal.parts), &tree, segment_size);
    let timelines = conclude::timelines(&inventory, &wal);
    let unarchived = window::look_at_unarchived(home, pgdata, &inventory);
    let world = World { backups: backups.summaries.clone(), tree, inventory };
    let sources = |name: &WalFileName| sources(pgdata, name);
    let court = Court { home, world, invalid: &wal.invalid, sources: &sources };
    let findings = judge(court, &mut book);
    let unchecked = book.unchecked;
    Ok(Looked { contents, backups, wal, timelines, unarchived, findings, unchecked })
}

/// Without the list nothing can be said.
fn not_listed(error: Error) -> Error {
    error.with_kind(ErrorKind::CouldNotCheck).hint("Nothing was looked at.")
}

fn deep_bytes(contents: &Contents) -> u64 {
    let is_read = |object: &&Object| {
        matches!(object.kept, Kept::Pack(..) | Kept::Wal(WalFileName::Segment(_)))
    };
    contents.objects.iter().filter(is_read).map(|object| object.size).sum()
}

/// `cluster.json`: without it no absence is believed.
fn place(home: &Home, book: &mut Notebook) {
    let Err(error) = home.prove() else { return };
    let key = home.proof_key();
    if !matches!(error.kind(), ErrorKind::WrongPlace | ErrorKind::ForeignCluster) {
        return book.skip(key, error);
    }
    let cost = "no recovery comes to the end of the archive: fetch does not say that a file is \
                absent (exit 200), and nothing is pushed";
    let problem = Problem::damage(key, error.to_string(), Cost::Said(cost.to_owned()));
    book.problems.push(problem.advise(
        "Bring it back from a copy of the repository; or remove it if it is there, and the next \
         push writes it anew.",
    ));
}

fn look_at_backups(
    means: &Means<'_>,
    request: &Request,
    contents: &Contents,
    book: &mut Notebook,
) -> SeenBackups {
    let home = means.home;
    let mut seen = SeenBackups::default();
    let published = published(home, book);
    for (id, folder) in backups::folders(&contents.objects) {
        if !folder.has_manifest {
            backups::without_manifest(home, &id, &folder, published.contains(&id), book);
            continue;
        }
        means.progress.enter(format!("looking at backup {id}"));
        let problems = book.problems.len();
        let unchecked = book.unchecked.len();
        let deep: BTreeSet<u32> = match request.deep {
            true => folder.packs.keys().copied().collect(),
            false => BTreeSet::new(),
        };
        let looked = backups::look(home, &id, &folder, &deep, book);
        let mut checked = CheckedBackup {
            id: id.clone(),
            packs: folder.packs.len() as u64,
            packs_read: 0,
            whole: false,
            sound: false,
            stored_bytes: folder.packs.values().map(|pack| pack.size).sum(),
        };
        if let Some(manifest) = &looked.manifest {
            // What is missing is told of, and what is too much is nobody's.
            let deep = deep.iter().copied().filter(|it| (*it as usize) < manifest.packs.len());
            let deep: BTreeSet<u32> = deep.collect();
            let read =
                packs::read(means, manifest, looked.sums.as_ref(), &deep, book, |_, _, _| {});
            checked.packs = manifest.packs.len() as u64;
            checked.packs_read = read.sound.len() as u64;
            checked.whole = request.deep && checked.packs_read == checked.packs;
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
    seen.summaries.sort_by_key(|backup| (backup.began, backup.id.clone()));
    seen
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
    let done = entries.into_iter().flatten().filter(|entry| entry.outcome == Done);
    let id = |entry: AuditEntry| entry.details.get("id")?.as_str()?.parse().ok();
    done.filter_map(id).collect()
}

/// Where a WAL file may be brought back from.
fn sources(pgdata: Option<&Path>, name: &WalFileName) -> String {
    let path = pgdata.map(|pgdata| pgdata.join("pg_wal").join(name.to_string()));
    match path.filter(|path| path.is_file()) {
        Some(path) => {
            let path = path.display();
            format!(
                "It is still on this host: remove what is left of the object, and walden push {path}."
            )
        }
        None => format!(
            "Bring the object back from another repository or a copy of this one; or, if a server \
             still has {name} in pg_wal, remove what is left of the object and push it again."
        ),
    }
}

impl Looked {
    fn has_damage(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Damage)
    }
}

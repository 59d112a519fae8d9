//! `verify`: proves what a repository holds. Every backup and every segment is looked at; with
//! `deep` every byte is read. A damaged object never ends it, and what could not be looked at is
//! never called sound.

mod scope;
mod sample;
mod memory;
mod all_backups;
mod backups;
mod packs;
mod files;
mod wal;
mod segments;
mod histories;
mod strays;
mod lost_end;
mod leftovers;
mod in_order;
mod problem;
mod judge;
mod conclude;
mod report;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::catalog::loss::World;
use crate::catalog::{Inventory, TimelineTree};
use crate::commands::audit::Deed;
use crate::commands::window::{self, Unarchived};
use crate::commands::{App, Retries};
use crate::error::{Error, ErrorKind, Result};
use crate::host::bandwidth::Bandwidth;
use crate::host::{self, data_directory};
use crate::postgres::{SegmentName, SystemIdentifier, TimelineId, WalFileName};
use crate::repository::audit::Verb;
use crate::repository::verification::Verification;
use crate::repository::{BackupId, Contents, Home, Object};

pub use crate::commands::progress::Progress;
pub use problem::{Severity, Unchecked};
pub use report::{CheckedBackup, CheckedTimeline, Finding, Outcome, Report};

use all_backups::SeenBackups;
use judge::{Court, Verdicts, judge};
use memory::{Done, Memory};
use packs::Means;
use problem::{Cost, Notebook, Problem};
use sample::Selection;
use wal::SeenWal;

const RETRY_FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Request {
    /// Reads content, not only names, sizes and headers.
    pub deep: bool,
    /// How much of it, 1.0 for all.
    pub sample: f64,
    /// This backup only, with what it rests on and needs.
    pub backup: Option<BackupId>,
    /// What recovery to this timeline reads only.
    pub timeline: Option<TimelineId>,
    /// Of the content what was stored since.
    pub since: Option<Timestamp>,
    /// Where several clusters archive under one name.
    pub system_identifier: Option<SystemIdentifier>,
    /// `None`: one per processor.
    pub jobs: Option<NonZeroUsize>,
    /// In bytes a second; `None`: no limit.
    pub max_rate: Option<u64>,
}

impl Request {
    /// Names, sizes and headers of everything.
    pub fn shallow() -> Request {
        Request {
            deep: false,
            sample: 1.0,
            backup: None,
            timeline: None,
            since: None,
            system_identifier: None,
            jobs: None,
            max_rate: None,
        }
    }

    fn is_of_all(&self) -> bool {
        self.backup.is_none() && self.timeline.is_none()
    }

    /// What tells a run that may go on with an interrupted one: `history` changes what a sample is.
    fn scope(&self, history: &[(Timestamp, Verification)]) -> String {
        let Request { sample, backup, timeline, since, .. } = self;
        let last = history.last().map(|(ended, _)| *ended);
        format!("{sample} {backup:?} {timeline:?} {since:?} {last:?}")
    }
}

/// What is to be done, and what was done already.
struct Task<'a> {
    contents: &'a Contents,
    is_deep: bool,
    selection: Selection,
    past: &'a Past,
}

/// What is known of earlier runs.
struct Past {
    /// Oldest first.
    history: Vec<(Timestamp, Verification)>,
    memory: Memory,
    /// What an interrupted run has read.
    before: Option<Done>,
}

/// All that was looked at.
struct Looked {
    contents: Contents,
    backups: SeenBackups,
    wal: SeenWal,
    /// Those that are there and not damaged, in the order of their names.
    segments: Vec<SegmentName>,
    timelines: Vec<CheckedTimeline>,
    unarchived: Option<Unarchived>,
    verdicts: Verdicts,
    unchecked: Vec<Unchecked>,
}

/// Looks at everything that was asked for; what it finds is no error.
pub fn run(app: &App, request: &Request, progress: &Progress) -> Result<Report> {
    let repository = app.repository(Retries::PerCall(RETRY_FOR))?;
    let pgdata = data_directory::find(None, app.settings.pgdata.as_deref());
    let home = window::find_home(&repository, request.system_identifier, pgdata.as_deref())
        .map_err(not_looked_at)?;
    let deed = Deed::begin(Verb::Verify);
    let mut book = Notebook::default();
    let past = past(app, &home, request, &mut book)?;
    let bandwidth = Bandwidth::new(request.max_rate);
    let jobs = request.jobs.map_or_else(host::processors, NonZeroUsize::get);
    let means = Means { home: &home, jobs, bandwidth: &bandwidth, progress };
    let looked = look(&means, request, &past, pgdata.as_deref(), book)?;
    let mut report = conclude::report(&looked, request, deed.began());
    report.resumed = past.before.map(|before| before.began);
    report.cluster = app.settings.cluster.to_string();
    report.repository = home.url();
    report.system_identifier = home.system_identifier();
    conclude::record(&home, &deed, &looked, &report);
    past.memory.forget();
    Ok(report)
}

/// Without its history a sample would read what another one read.
fn past(app: &App, home: &Home, request: &Request, book: &mut Notebook) -> Result<Past> {
    let history = home.verifications(None).unwrap_or_else(|error| {
        book.skip(home.audits_key(), error);
        Vec::new()
    });
    if !request.deep {
        return Ok(Past { history, memory: Memory::none(), before: None });
    }
    let (memory, before) = Memory::open(app, home, request.scope(&history))?;
    Ok(Past { history, memory, before })
}

fn look(
    means: &Means<'_>,
    request: &Request,
    past: &Past,
    pgdata: Option<&Path>,
    mut book: Notebook,
) -> Result<Looked> {
    let Means { home, progress, .. } = means;
    progress.enter("listing the repository");
    let mut contents = home.contents().map_err(not_looked_at)?;
    scope::narrow(home, request, &mut contents).map_err(not_looked_at)?;
    let selection = selection(request, &contents, &past.history);
    let task = Task { contents: &contents, is_deep: request.deep, selection, past };
    if request.deep {
        progress.expect(task.selection.bytes);
    }
    place(home, &mut book);
    let histories = histories::read(home, &contents.objects, &mut book);
    let backups = all_backups::look(means, &task, &mut book);
    let listed = wal::listed(&contents.objects);
    progress.enter(format!("looking at {} WAL segments", listed.len()));
    let tree = TimelineTree::new(histories.all().cloned());
    let mut wal = wal::look_at_all(means, &task, &tree, &listed, &mut book);
    if request.is_of_all() {
        progress.enter("looking at what else is there");
        let ids: BTreeSet<BackupId> = backups.checked.iter().map(|it| it.id.clone()).collect();
        strays::look(home, &contents, &ids, &wal.fingerprints, &mut book);
        leftovers::look(home, &mut book);
    }
    let needed = listed.iter().map(|segment| segment.name.timeline);
    let needed = needed.chain(backups.summaries.iter().map(|backup| backup.timeline)).collect();
    let tree = TimelineTree::new(histories.judge(home, &needed, &wal.switches, &mut book));
    let segment_size =
        backups.summaries.last().map_or(wal.segment_size, |backup| backup.wal_segment_size);
    let mut inventory = Inventory::new(std::mem::take(&mut wal.parts), &tree, segment_size);
    leave_out_the_lost(&mut inventory);
    if request.is_of_all() {
        lost_end::look(home, &inventory, &past.history, &mut book);
    }
    let timelines = conclude::timelines(&inventory, &wal);
    let sound = inventory.segments.iter().filter(|(_, segment)| !segment.is_damaged);
    let segments = sound.map(|(name, _)| *name).collect();
    let unarchived = window::look_at_unarchived(home, pgdata, &inventory);
    if let Some(id) = &request.backup {
        scope::assume_the_rest(id, &backups.summaries, &tree, &mut inventory);
    }
    let world = World { backups: backups.summaries.clone(), tree, inventory };
    let sources = |name: &WalFileName| sources(pgdata, name);
    let court = Court { home, world, invalid: &wal.invalid, sources: &sources };
    let verdicts = judge(court, &mut book);
    let unchecked = book.unchecked;
    Ok(Looked { contents, backups, wal, segments, timelines, unarchived, verdicts, unchecked })
}

/// A damaged segment that nothing stands beside is one that somebody put there, or lies in a gap:
/// it must not make one.
fn leave_out_the_lost(inventory: &mut Inventory) {
    let size = inventory.segment_size.max(1);
    let followed: BTreeSet<SegmentName> =
        inventory.segments.keys().map(|name| name.next(size)).collect();
    let known: BTreeSet<SegmentName> = inventory.segments.keys().copied().collect();
    inventory.segments.retain(|name, segment| {
        !segment.is_damaged || followed.contains(name) || known.contains(&name.next(size))
    });
}

fn selection(
    request: &Request,
    contents: &Contents,
    history: &[(Timestamp, Verification)],
) -> Selection {
    if !request.deep {
        return Selection::default();
    }
    let is_asked_for = |object: &&Object| request.since.is_none_or(|since| object.stored >= since);
    sample::select(contents.objects.iter().filter(is_asked_for), history, request.sample)
}

/// A store that cannot be listed is no damage: nothing was looked at. What was asked wrongly stays
/// that.
fn not_looked_at(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Refused | ErrorKind::Usage | ErrorKind::Bug => error,
        _ => error.with_kind(ErrorKind::CouldNotCheck).context("look at the repository"),
    }
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

/// Where a WAL file may be brought back from.
fn sources(pgdata: Option<&Path>, name: &WalFileName) -> String {
    let path = pgdata.map(|pgdata| pgdata.join("pg_wal").join(name.to_string()));
    match path.filter(|path| path.is_file()) {
        Some(path) => {
            let path = path.display();
            format!(
                "It is still on this host: remove what is left of the object, and walden push \
                 {path}."
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
        self.verdicts.findings.iter().any(|finding| finding.severity == Severity::Damage)
    }
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod parts_tests;

//! `find`: where in the WAL something happened, and the line that restores to just before it.
//!
//! walk (segments and digests along a timeline) → events (what transactions did) → names → points
//! (where to stop, and what that gives up).

pub mod walk;
pub mod search;
pub mod names;
pub mod read;
pub mod point;
pub mod report;

use jiff::{SignedDuration, Timestamp};

use crate::catalog::TargetTimeline;
use crate::catalog::events::{Pattern, What};
use crate::commands::survey;
use crate::error::Result;
use crate::postgres::SystemIdentifier;
use crate::postgres::connection::ConnectionOptions;
use crate::repository::{BackupFacts, Home, Repository};

pub use report::{Action, Event, Report, Searched};

use names::NameBook;
use point::Points;
use read::Segments;
use search::Search;
use walk::Walk;

/// Plain commits and aborts that are told around a time.
const ENDS_MAX: usize = 200;

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub kinds: Kinds,
    /// Deletes of fewer rows are not told.
    pub rows_min: u64,
    /// The lower 32 bits: WAL has no more of it.
    pub xid: Option<u32>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Every transaction that ended around here.
    pub around: Option<Around>,
    /// Any of them; all relations where there is none.
    pub tables: Vec<Pattern>,
    pub timeline: TargetTimeline,
    pub system_identifier: Option<SystemIdentifier>,
    /// Flags for the restore lines, so that they find the same repository.
    pub flags: Vec<String>,
    /// A server that may still know names; nothing depends on it.
    pub server: Option<ConnectionOptions>,
}

#[derive(Debug, Clone, Copy)]
pub struct Around {
    pub time: Timestamp,
    pub within: SignedDuration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    pub dropped: bool,
    pub truncated: bool,
    pub deleted: bool,
    pub restore_points: bool,
}

impl Kinds {
    pub const ALL: Kinds =
        Kinds { dropped: true, truncated: true, deleted: true, restore_points: true };
    pub const NONE: Kinds =
        Kinds { dropped: false, truncated: false, deleted: false, restore_points: false };

    pub fn want(self, what: What) -> bool {
        match what {
            What::Drop | What::DropDatabase => self.dropped,
            What::Truncate => self.truncated,
            What::Delete => self.deleted,
        }
    }
}

impl Request {
    /// Whether what ended then is looked for.
    fn is_in_time(&self, time: Timestamp) -> bool {
        self.begin().is_none_or(|begin| begin <= time) && self.end().is_none_or(|end| time <= end)
    }

    fn begin(&self) -> Option<Timestamp> {
        let around = self.around.map(|around| around.time - around.within);
        [self.since, around].into_iter().flatten().max()
    }

    fn end(&self) -> Option<Timestamp> {
        let around = self.around.map(|around| around.time + around.within);
        [self.until, around].into_iter().flatten().min()
    }
}

/// Whatever is missing or cannot be read is told in the report's notes, and the search goes on.
pub fn run(repository: &Repository, request: &Request) -> Result<Report> {
    let home = survey::find_archive(repository, request.system_identifier)?;
    let mut notes = Vec::new();
    let tree = survey::tree(&home, &mut notes)?;
    let backups = backups(&home, &mut notes)?;
    let segment_size = backups.last().map(|backup| backup.wal_segment_size);
    let walk = Walk::plan(&home, &tree, request.timeline, segment_size)?;
    let began: Vec<_> = backups.iter().map(|backup| (backup.id.clone(), backup.began)).collect();
    let mut names = NameBook::new(&home, &began, request.server.as_ref());
    let mut segments = Segments::new(&home);
    let mut found = Search::new(request, &walk, &mut segments, &mut names).run()?;
    if let Some(around) = request.around {
        let left_out = search::keep_nearest(&mut found.hits, around.time, ENDS_MAX);
        let told = format!("{left_out} more transactions ended then; the nearest are told.");
        notes.extend((left_out > 0).then_some(told));
    }
    let points = Points::new(&walk, &mut segments, &names, &request.flags);
    let mut events = points.events(&found)?;
    for event in &mut events {
        note_missing_backup(event, &walk, &backups);
    }
    notes.extend(walk.notes().iter().cloned());
    notes.append(&mut found.notes);
    notes.extend(names.notes());
    Ok(Report {
        walden: 1,
        repository: home.url(),
        system_identifier: home.system_identifier(),
        timeline: walk.timeline(),
        since: request.begin(),
        until: request.end(),
        searched: Searched { segments_read: segments.read(), ..found.searched },
        events,
        notes,
    })
}

/// Oldest first.
fn backups(home: &Home, notes: &mut Vec<String>) -> Result<Vec<BackupFacts>> {
    let mut backups = Vec::new();
    for (id, facts) in home.all_backup_facts()? {
        match facts {
            Ok(facts) => backups.push(facts),
            Err(error) => {
                notes.push(format!("backup {id} is left out, it cannot be read: {error}."));
            }
        }
    }
    Ok(backups)
}

fn note_missing_backup(event: &mut Event, walk: &Walk<'_>, backups: &[BackupFacts]) {
    let leads_there = |backup: &BackupFacts| {
        walk.contains(backup.timeline, backup.end_lsn) && backup.end_lsn <= event.restore_lsn
    };
    if !backups.iter().any(leads_there) {
        let note = "No backup is old enough to be restored to before this.";
        let known = event.note.take().map_or(String::new(), |known| known + " ");
        event.note = Some(known + note);
    }
}

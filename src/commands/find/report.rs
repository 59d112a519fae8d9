//! What a search found, as it is told.

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::events::What;
use crate::postgres::{Lsn, SystemIdentifier, TimelineId};

/// Version 1 of the shape; docs/json.md says it to programs.
#[derive(Debug, Serialize)]
pub struct Report {
    pub walden: u32,
    pub repository: String,
    pub system_identifier: SystemIdentifier,
    /// Searched to its end, with what it descends from.
    pub timeline: TimelineId,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub searched: Searched,
    pub events: Vec<Event>,
    pub notes: Vec<String>,
}

/// Which WAL was looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Searched {
    pub segments: usize,
    /// Of them, those of which the digest was not enough.
    pub segments_read: usize,
    pub first: Option<String>,
    pub last: Option<String>,
    /// Of the first and the last commit in them.
    pub first_commit: Option<Timestamp>,
    pub last_commit: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    pub action: Action,
    /// `database.schema.relation`; `None` where no name is known.
    pub relation: Option<String>,
    /// By its oid where no name is known.
    pub database: Option<String>,
    /// Table, index and so on, as the manual calls them.
    pub kind: Option<&'static str>,
    pub oid: Option<u32>,
    /// `tablespace/database/relfilenode`
    pub file: Option<String>,
    /// Of a restore point.
    pub name: Option<String>,
    pub rows: Option<u64>,
    pub xid: Option<u32>,
    pub time: Timestamp,
    /// It was written on.
    pub timeline: TimelineId,
    /// Where its commit record begins.
    pub commit_lsn: Option<Lsn>,
    /// For `--target-lsn … --target-exclusive`.
    pub restore_lsn: Lsn,
    /// Commits of others between the two: given up where they differ.
    pub restore_gives_up: Option<u64>,
    pub restore: String,
    /// Before its first AccessExclusiveLock: a server paused here lets the table be read.
    pub inspect_lsn: Option<Lsn>,
    pub inspect_gives_up: Option<u64>,
    pub inspect: Option<String>,
    /// Of a table: the line that brings it back alone, into a live database.
    pub extract: Option<String>,
    /// What else to know, as a sentence.
    pub note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Drop,
    Truncate,
    Delete,
    DropDatabase,
    RestorePoint,
    Commit,
    Abort,
}

impl From<What> for Action {
    fn from(what: What) -> Self {
        match what {
            What::Drop => Action::Drop,
            What::Truncate => Action::Truncate,
            What::Delete => Action::Delete,
            What::DropDatabase => Action::DropDatabase,
        }
    }
}

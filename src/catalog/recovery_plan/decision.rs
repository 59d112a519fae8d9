//! What was decided: the backup, the way, the record recovery stops at, and what that gives up.

use jiff::Timestamp;

use crate::catalog::recovery_plan::path_wal::WalRange;
use crate::catalog::{BackupSummary, Target, TimelinePath};
use crate::postgres::wal::digest::{Ending, TransactionEnd};
use crate::postgres::{Lsn, SegmentName};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub backup: BackupSummary,
    /// All that it rests on, the full one first, and itself last.
    pub chain: Vec<BackupSummary>,
    pub path: TimelinePath,
    pub run: WalRange,
    pub stop: Stop,
    /// The last one that the restored cluster will have, if the WAL tells.
    pub last_commit: Option<TransactionEnd>,
    /// `None`: it cannot be told.
    pub given_up: Option<GivenUp>,
    /// What is replayed, where that can be told; else all that is there.
    pub segments: Vec<SegmentName>,
    /// What the person should know, as sentences.
    pub notes: Vec<String>,
}

/// What PostgreSQL is told and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Mostly what was asked for; an LSN where PostgreSQL would end in FATAL by the time.
    pub target: Target,
    pub exclusive: bool,
    /// `None` at the end of the WAL, and where digests are missing.
    pub place: Option<Place>,
}

/// A record, and on which side of it recovery stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    pub side: Side,
    pub record: RecordKind,
    /// Where the record begins.
    pub lsn: Lsn,
    pub time: Option<Timestamp>,
    pub xid: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Before,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    Commit,
    Abort,
    RestorePoint,
    /// Where the backup is consistent.
    BackupEnd,
    /// Where the timeline begins that is followed.
    Fork,
    Other,
}

/// Commits on the same path that the restored cluster will not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct GivenUp {
    pub commits: u64,
    /// There is WAL without a digest among it: there may be more.
    pub at_least: bool,
    pub last: Option<TransactionEnd>,
}

impl Place {
    pub fn at(side: Side, ending: &Ending) -> Place {
        let record = if ending.is_commit { RecordKind::Commit } else { RecordKind::Abort };
        let TransactionEnd { lsn, xid, time } = ending.at;
        Place { side, record, lsn, time: Some(time), xid: Some(xid) }
    }

    /// Whether the record that begins here is replayed.
    pub fn includes(&self, lsn: Lsn) -> bool {
        lsn < self.lsn || (lsn == self.lsn && self.side == Side::After)
    }
}

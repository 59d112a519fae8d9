//! Target to backup, timeline path, WAL and the record to stop at: the choice a restore makes, or
//! the reason why there is none.

pub mod path_wal;
pub mod decision;
mod course;
mod time;
mod point;
mod branches;
mod refusals;
pub mod estimate;

use std::rc::Rc;

use jiff::Timestamp;

use crate::catalog::{Inventory, Target, TargetTimeline, TimelineTree};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::wal::digest::Ending;
use crate::postgres::{Lsn, MajorVersion, SegmentName, TimelineId};

pub use decision::{Decision, GivenUp, Place, RecordKind, Side, Stop};
pub use path_wal::{Gap, WalRange};

use refusals::refused;

/// What a choice needs to know of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSummary {
    pub id: String,
    pub timeline: TimelineId,
    pub start_lsn: Lsn,
    pub end_lsn: Lsn,
    pub began: Timestamp,
    pub ended: Timestamp,
    /// In bytes.
    pub wal_segment_size: u32,
    pub major: MajorVersion,
    /// The backup this one is the difference to; `None`: it is a full one.
    pub parent: Option<String>,
    /// Bytes of its own packs.
    pub stored: u64,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub target: Target,
    /// Stop just before the target instead of just after it.
    pub exclusive: bool,
    pub timeline: TargetTimeline,
    /// This backup and no other.
    pub backup: Option<String>,
}

/// What the repository holds, and how to look closer.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    pub backups: &'a [BackupSummary],
    pub tree: &'a TimelineTree,
    pub inventory: &'a Inventory,
    pub records: &'a dyn ReadRecords,
    pub now: Timestamp,
}

/// Reads the few segments of which the digest does not say enough.
pub trait ReadRecords {
    /// The whole records that end in `segment`; `before` is the segment in front of it, in which
    /// the first of them may begin.
    fn records(&self, segment: SegmentName, before: Option<SegmentName>) -> Result<Rc<Records>>;
}

/// In the order of the WAL.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Where each begins.
    pub starts: Vec<Lsn>,
    /// Those that end a transaction.
    pub endings: Vec<Ending>,
}

/// The newest backup from which PostgreSQL reaches the target on its timeline, and where it stops.
pub fn decide(known: &Known<'_>, wanted: &Wanted) -> Result<Decision> {
    if wanted.exclusive && !wanted.target.can_be_exclusive() {
        return Err(Error::new(ErrorKind::Usage, "--target-exclusive has no meaning here")
            .hint("It goes with --target-time, --target-lsn and --target-xid."));
    }
    if let Target::Time(time) = wanted.target
        && time > known.now
    {
        let message = format!("the target {time} lies in the future: it is {:.0}", known.now);
        return Err(refused(message).hint("Use --target-latest for everything that is archived."));
    }
    let considered = considered(known.backups, wanted)?;
    branches::decide(known, wanted, &considered)
}

fn considered<'a>(backups: &'a [BackupSummary], wanted: &Wanted) -> Result<Vec<&'a BackupSummary>> {
    if backups.is_empty() {
        return Err(refused("there is no backup in the repository".to_owned())
            .hint("Take one with: walden backup."));
    }
    let Some(id) = &wanted.backup else { return Ok(backups.iter().collect()) };
    let found: Vec<_> = backups.iter().filter(|backup| backup.id == *id).collect();
    if found.is_empty() {
        let ids: Vec<&str> = backups.iter().rev().take(5).map(|b| b.id.as_str()).collect();
        return Err(refused(format!("backup {id} is not in the repository"))
            .hint(format!("The newest are: {}.", ids.join(", "))));
    }
    Ok(found)
}

#[cfg(test)]
pub mod samples;
#[cfg(test)]
mod tests;

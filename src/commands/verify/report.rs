//! What `walden verify` tells, as a value; its JSON shape, version 1.

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::loss::Stretch;
use crate::commands::verify::problem::{Severity, Unchecked};
use crate::commands::window::Unarchived;
use crate::postgres::{SegmentName, SystemIdentifier, TimelineId};
use crate::repository::BackupId;

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub walden: u32,
    pub cluster: String,
    pub repository: String,
    pub system_identifier: SystemIdentifier,
    pub outcome: Outcome,
    /// One sentence for people.
    pub summary: String,
    /// Whether content was read, not only names, sizes and headers.
    pub deep: bool,
    /// The part of the content that was to be read, 1.0 for all of it; 0.0 unless deep.
    pub sample: f64,
    pub began: Timestamp,
    pub ended: Timestamp,
    /// When the run began that this one goes on with.
    pub resumed: Option<Timestamp>,
    /// Oldest first.
    pub backups: Vec<CheckedBackup>,
    /// Lowest first.
    pub timelines: Vec<CheckedTimeline>,
    /// WAL segments that were looked at, and those of which every record was read.
    pub segments: u64,
    pub segments_read: u64,
    /// Stored bytes whose content was read.
    pub read_bytes: u64,
    /// Of all that is there, backups and WAL.
    pub stored_bytes: u64,
    /// What is not archived yet; `None` where the server is not seen from here.
    pub unarchived: Option<Unarchived>,
    /// Damage first.
    pub findings: Vec<Finding>,
    /// What all the damage costs together, in words; `None`: nothing.
    pub consequence: Option<String>,
    pub lost_times: Vec<Stretch>,
    pub lost_backups: Vec<String>,
    /// What should have been looked at and could not be.
    pub unchecked: Vec<Unchecked>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All that was asked for was looked at, and is as it should be.
    Sound,
    Damage,
    /// Nothing wrong was found, but not all could be looked at.
    Unchecked,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub object: String,
    pub what: String,
    pub consequence: String,
    pub advice: String,
    /// Times that cannot be recovered to because of it.
    pub lost_times: Vec<Stretch>,
    /// Backups that cannot be restored because of it.
    pub lost_backups: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckedBackup {
    pub id: BackupId,
    pub packs: u64,
    /// Of which every byte was read, now.
    pub packs_read: u64,
    /// Whether all of them were read, now or since it was last proven whole.
    pub whole: bool,
    /// Whether nothing is wrong with it.
    pub sound: bool,
    /// Bytes of its packs as stored.
    pub stored_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckedTimeline {
    pub timeline: TimelineId,
    pub first_segment: SegmentName,
    /// Until here it is archived; what should come after it nobody can know here.
    pub last_segment: SegmentName,
    pub segments: u64,
    pub segments_read: u64,
    /// When its newest segment was stored.
    pub stored: Timestamp,
    /// The last commit in it that is known.
    pub last_commit: Option<Timestamp>,
}

//! What a verification has read, as its audit entry keeps it: so that the next sample takes what
//! was read longest ago, and so that others can say when something was last proven.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::error::Result;
use crate::postgres::SegmentName;
use crate::repository::audit::Verb;
use crate::repository::{BackupId, Home};

/// The `details` of an audit entry of `verify`.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Verification {
    /// Whether content was read, not only names, sizes and headers.
    pub deep: bool,
    /// The part of everything that was read, 1.0 for all of it.
    pub sample: f64,
    pub backups: Vec<VerifiedBackup>,
    /// Runs of segments, each without a break.
    pub wal: Vec<VerifiedWal>,
    /// Stored bytes that were read.
    pub read_bytes: u64,
    /// What was found, the first hundred, in words.
    pub findings: Vec<String>,
    /// How many there were.
    pub found: u64,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct VerifiedBackup {
    pub id: BackupId,
    /// Packs read whole, as runs of their numbers, both ends included.
    pub packs: Vec<(u32, u32)>,
    /// Whether all of its packs were read, now or since it was last whole.
    pub whole: bool,
    /// Whether nothing is wrong with it.
    pub sound: bool,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct VerifiedWal {
    pub first: SegmentName,
    pub last: SegmentName,
    /// Whether every record was read.
    pub deep: bool,
}

impl Home {
    /// The verifications on record, oldest first, with when each ended. What cannot be read is left
    /// out: it proves nothing.
    pub fn verifications(
        &self,
        since: Option<Timestamp>,
    ) -> Result<Vec<(Timestamp, Verification)>> {
        let entries = self.audit(Some(Verb::Verify), since)?.into_iter().flatten();
        let read = entries.filter_map(|entry| {
            let verification = serde_json::from_value(entry.details).ok()?;
            Some((entry.ended, verification))
        });
        Ok(read.collect())
    }

    /// When the content of each backup was last proven whole.
    pub fn proven(&self) -> Result<BTreeMap<BackupId, Timestamp>> {
        Ok(proven_by(&self.verifications(None)?))
    }
}

/// When the content of each backup was last proven whole, by all verifications, oldest first.
pub fn proven_by(verifications: &[(Timestamp, Verification)]) -> BTreeMap<BackupId, Timestamp> {
    let mut proven = BTreeMap::new();
    for (ended, verification) in verifications {
        for backup in &verification.backups {
            if backup.whole && backup.sound {
                proven.insert(backup.id.clone(), *ended);
            } else if !backup.sound {
                proven.remove(&backup.id);
            }
        }
    }
    proven
}

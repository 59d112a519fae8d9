//! What is stored beside the WAL segments, object by object: how much, since when, and what for.

use jiff::Timestamp;

use crate::error::{Context, Result};
use crate::repository::parallel::ask_all;
use crate::repository::{BackupId, Home, layout};
use crate::storage::ObjectInfo;

/// One object, as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    pub purpose: Purpose,
    /// In bytes.
    pub size: u64,
    pub stored: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Of this backup; whether it was ever published is not known here.
    Backup(BackupId),
    /// Timeline histories, partial segments, labels of backups.
    WalBeside,
    /// Caches of digests.
    Index,
    /// The audit trail, the records of drills.
    Evidence,
    /// Marks, and proofs of the place.
    Mark,
}

impl Home {
    /// Everything but the segments, which are many, and which a survey knows.
    pub fn contents_beside_segments(&self) -> Result<Vec<StoredObject>> {
        let mut contents = Vec::new();
        let mut take = |objects: Vec<ObjectInfo>, purpose: Purpose| {
            let stored = objects.into_iter().map(|object| StoredObject {
                purpose: layout::part_of(&object.key).map_or(purpose.clone(), Purpose::Backup),
                size: object.size,
                stored: object.modified,
            });
            contents.extend(stored);
        };
        take(self.storage.list_all(&self.backups_key(), None)?, Purpose::Mark);
        take(self.storage.list_all(&self.indexes_key(), None)?, Purpose::Index);
        take(self.storage.list(Some(&self.histories_key()))?.objects, Purpose::WalBeside);
        take(self.storage.list(Some(&self.audits_key()))?.objects, Purpose::Evidence);
        take(self.storage.list(Some(&self.drills_key()))?.objects, Purpose::Evidence);
        take(self.storage.list(Some(&self.holds_key()))?.objects, Purpose::Mark);
        let timelines = self.archived_timelines()?;
        let beside = ask_all(&timelines, |timeline| {
            Ok(self.storage.list(Some(&self.timeline_key(*timeline)))?.objects)
        })
        .context(|| "list what lies beside the segments")?;
        beside.into_iter().for_each(|objects| take(objects, Purpose::WalBeside));
        Ok(contents)
    }
}

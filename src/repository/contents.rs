//! All that lies in a cluster's home, told apart by its keys.

use jiff::Timestamp;

use crate::error::Result;
use crate::postgres::{TimelineId, WalFileName};
use crate::repository::audit::Verb;
use crate::repository::{BackupId, Home};
use crate::storage::ObjectInfo;

/// What an object is, by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// `cluster.json`
    Proof,
    Wal(WalFileName),
    Manifest(BackupId),
    Pack(BackupId, u32),
    Sums(BackupId),
    Names(BackupId),
    Configuration(BackupId),
    Index(TimelineId, u32),
    Hold(BackupId),
    Audit(Timestamp, Verb),
    Drill(BackupId),
}

/// One that has the key we would have given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub kept: Kept,
    /// Bytes as stored.
    pub size: u64,
    pub stored: Timestamp,
}

#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// In the order of their keys.
    pub objects: Vec<Object>,
    /// Under keys that nobody here would have made.
    pub unknown: Vec<ObjectInfo>,
}

impl Kept {
    /// The backup that it is a part of.
    pub fn backup(&self) -> Option<&BackupId> {
        match self {
            Kept::Manifest(id)
            | Kept::Pack(id, _)
            | Kept::Sums(id)
            | Kept::Names(id)
            | Kept::Configuration(id) => Some(id),
            _ => None,
        }
    }
}

impl Home {
    /// By one request for each thousand objects.
    pub fn contents(&self) -> Result<Contents> {
        let mut contents = Contents::default();
        for info in self.storage.list_all(&self.root_key(), None)? {
            match self.kept(&info.key) {
                Some(kept) => {
                    let (size, stored) = (info.size, info.modified);
                    contents.objects.push(Object { kept, size, stored });
                }
                None => contents.unknown.push(info),
            }
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::postgres::SystemIdentifier;
    use crate::repository::{ClusterName, Kept, Repository};
    use crate::storage::memory::Memory;
    use crate::storage::{Body, Key, Storage as _};

    #[test]
    fn objects_are_told_by_their_keys_and_those_in_a_wrong_place_are_unknown() {
        let storage = Arc::new(Memory::new());
        let known = [
            "audit/20261121T101530.000123Z-verify.json",
            "backup/20261121T101530Z-7F3A/configuration.tar.zst",
            "backup/20261121T101530Z-7F3A/data-00000.tar.zst",
            "backup/20261121T101530Z-7F3A/data-123456.tar.zst",
            "backup/20261121T101530Z-7F3A/manifest.json.zst",
            "backup/20261121T101530Z-7F3A/names.json.zst",
            "backup/20261121T101530Z-7F3A/sums.zst",
            "cluster.json",
            "drill/20261121T101530Z-7F3A.json",
            "history/00000002.history.zst",
            "hold/20261121T101530Z-7F3A.json",
            "index/00000001/000000010000000A.json.zst",
            "wal/00000001/000000010000000A/000000010000000A000000FF.zst",
            "wal/00000001/000000010000000A000000FF.00000028.backup.zst",
            "wal/00000001/000000010000000A000000FF.partial.zst",
        ];
        let strange = [
            "backup/20261121T101530Z-7F3A/data-1.tar.zst",
            "backup/20261121T101530Z-7F3A/notes.txt",
            "cluster.json.bak",
            "lost+found/x",
            "wal/00000001/000000010000000B/000000010000000A000000FF.zst",
            "wal/000000010000000A000000FF.zst",
        ];
        for rest in known.iter().chain(&strange) {
            let key = Key::new(format!("main/7/{rest}")).unwrap();
            storage.put_new(&key, &Body::new("x")).unwrap();
        }
        let other = Key::new("main/8/cluster.json").unwrap();
        storage.put_new(&other, &Body::new("x")).unwrap();
        let repository = Repository::new(storage, ClusterName::new("main").unwrap());
        let home = repository.home(SystemIdentifier(7));
        let contents = home.contents().unwrap();
        let keys = contents.objects.iter().map(|object| home.key_of(&object.kept).to_string());
        let expected: Vec<String> = known.iter().map(|rest| format!("main/7/{rest}")).collect();
        assert_eq!(keys.collect::<Vec<_>>(), expected);
        let unknown: Vec<String> =
            contents.unknown.iter().map(|info| info.key.to_string()).collect();
        let expected: Vec<String> = strange.iter().map(|rest| format!("main/7/{rest}")).collect();
        assert_eq!(unknown, expected);
        assert!(matches!(contents.objects[2].kept, Kept::Pack(_, 0)));
    }
}

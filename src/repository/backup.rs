//! Base backups in the repository: packs first, the manifest last; its presence is the backup.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::codec::{self, Compression, Header};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::parallel::ask_all;
use crate::repository::{Home, Manifest, layout, unopened};
use crate::storage::{Body, Key, ObjectInfo};

/// When the backup began, to the second in UTC, and four random digits: `20261121T101530Z-7F3A`.
/// Sorts by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

impl BackupId {
    /// `salt` keeps two backups of one second apart.
    pub fn new(began: jiff::Timestamp, salt: u16) -> Self {
        let time = began.strftime("%Y%m%dT%H%M%SZ");
        BackupId(format!("{time}-{salt:04X}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When the backup began, in digits.
    pub(super) fn second(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }
}

impl FromStr for BackupId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self> {
        let shape = b"00000000T000000Z-FFFF";
        let fits = |(found, wanted): (u8, &u8)| match wanted {
            b'0' => found.is_ascii_digit(),
            b'F' => found.is_ascii_digit() || (b'A'..=b'F').contains(&found),
            _ => found == *wanted,
        };
        if id.len() == shape.len() && id.bytes().zip(shape).all(fits) {
            return Ok(BackupId(id.to_owned()));
        }
        Err(Error::new(ErrorKind::Usage, format!("{id:?} is not a backup's id"))
            .hint("Ids look like 20261121T101530Z-7F3A."))
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for BackupId {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for BackupId {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(<D::Error as serde::de::Error>::custom)
    }
}

impl Home {
    /// Stores a sealed pack.
    pub fn put_pack(&self, id: &BackupId, number: u32, sealed: &Body) -> Result<()> {
        self.put_once(&self.pack_key(id, number), sealed)
    }

    /// Hands the raw bytes of a pack to `sink`, checked by the time this returns.
    pub fn get_pack(
        &self,
        id: &BackupId,
        number: u32,
        sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Header> {
        let key = self.pack_key(id, number);
        let sealed = self.storage.get(&key)?;
        codec::open(&sealed[..], sink).map_err(|error| unopened(error, &key))
    }

    /// Makes a backup real: from here on it can be restored.
    pub fn publish(&self, manifest: &Manifest, compression: Compression) -> Result<()> {
        let sealed = manifest.seal(compression)?;
        self.put_once(&self.manifest_key(&manifest.id), &Body::new(sealed))
    }

    /// For names that nobody else uses. A put that was repeated, because its answer was lost, meets
    /// its own first success as `AlreadyExists`: hours of copying must not end over that.
    pub(super) fn put_once(&self, key: &Key, sealed: &Body) -> Result<()> {
        match self.storage.put_new(key, sealed) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if sealed.to_bytes().ok() == Some(self.storage.get(key)?) {
                    return Ok(());
                }
                Err(error)
            }
            outcome => outcome,
        }
    }

    pub fn manifest(&self, id: &BackupId) -> Result<Manifest> {
        let key = self.manifest_key(id);
        let sealed = self.storage.get(&key)?;
        let manifest = Manifest::open(&sealed).map_err(|error| unopened(error, &key))?;
        if manifest.id == *id && manifest.system_identifier() == self.system_identifier {
            return Ok(manifest);
        }
        let (found, cluster) = (&manifest.id, manifest.system_identifier());
        Err(Error::new(ErrorKind::Corrupt, format!("{key} is of {found}, cluster {cluster}"))
            .hint("Somebody copied or moved objects: put the right one back."))
    }

    /// The backups that have a manifest, oldest first.
    pub fn backups(&self) -> Result<Vec<BackupId>> {
        let begun = self.backups_begun()?;
        let are_whole = ask_all(&begun, |id| match self.storage.head(&self.manifest_key(id)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })?;
        let found = begun.into_iter().zip(are_whole);
        Ok(found.filter_map(|(id, is_whole)| is_whole.then_some(id)).collect())
    }

    /// The packs of a backup that the store lists, with how many bytes each has there.
    pub fn packs(&self, id: &BackupId) -> Result<BTreeMap<u32, u64>> {
        let objects = self.storage.list(Some(&self.backup_key(id)))?.objects;
        let pack = |object: &ObjectInfo| Some((layout::pack_of(&object.key)?, object.size));
        Ok(objects.iter().filter_map(pack).collect())
    }

    /// The backups that somebody wants kept, whatever becomes too old.
    pub fn held(&self) -> Result<BTreeSet<BackupId>> {
        let objects = self.storage.list(Some(&self.holds_key()))?.objects;
        Ok(objects.iter().filter_map(|object| layout::held_by(&object.key)).collect())
    }

    /// What the store lists under the name of a backup, oldest first: some may have no manifest.
    pub(super) fn backups_begun(&self) -> Result<Vec<BackupId>> {
        let folders = self.storage.list(Some(&self.backups_key()))?.folders;
        let mut begun: Vec<BackupId> =
            folders.iter().filter_map(|folder| folder.parse().ok()).collect();
        begun.sort();
        Ok(begun)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::error::ErrorKind;
    use crate::postgres::SystemIdentifier;
    use crate::repository::{BackupId, ClusterName, Repository};
    use crate::storage::faulty::{Fault, Faulty};
    use crate::storage::memory::Memory;
    use crate::storage::retry::Retry;
    use crate::storage::{Body, Verb};

    #[test]
    fn a_pack_whose_first_answer_was_lost_is_stored_and_another_one_is_not() {
        let faulty = Faulty::new(Arc::new(Memory::new()));
        faulty.fail(Verb::PutNew, 1, Fault::After(ErrorKind::Unreachable));
        let storage = Retry::new(Arc::new(faulty), Duration::from_secs(10), None);
        let repository = Repository::new(Arc::new(storage), ClusterName::new("main").unwrap());
        let home = repository.home(SystemIdentifier(7));
        let id = BackupId::new("2026-11-21T10:15:30Z".parse().unwrap(), 7);
        home.put_pack(&id, 0, &Body::new(&b"pack"[..])).unwrap();
        let refused = home.put_pack(&id, 0, &Body::new(&b"other"[..])).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    }
}

//! Base backups in the repository: packs first, the manifest last; its presence is the backup.

use std::fmt;
use std::str::FromStr;

use crate::codec::{self, Header};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::{Home, Manifest, unopened};
use crate::storage::Body;

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
        self.storage.put_new(&self.pack_key(id, number), sealed)
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
        codec::open(&sealed, sink).map_err(|error| unopened(error, &key))
    }

    /// Makes a backup real: from here on it can be restored.
    pub fn publish(&self, manifest: &Manifest, level: codec::Compression) -> Result<()> {
        let sealed = manifest.seal(level)?;
        self.storage.put_new(&self.manifest_key(&manifest.id), &Body::new(sealed))
    }

    pub fn manifest(&self, id: &BackupId) -> Result<Manifest> {
        let key = self.manifest_key(id);
        let sealed = self.storage.get(&key)?;
        Manifest::open(&sealed).map_err(|error| unopened(error, &key))
    }

    /// The backups that have a manifest, oldest first.
    pub fn backups(&self) -> Result<Vec<BackupId>> {
        let folders = self.storage.list(Some(&self.backups_key()))?.folders;
        let mut whole = Vec::new();
        for id in folders.iter().filter_map(|folder| folder.parse::<BackupId>().ok()) {
            match self.storage.head(&self.manifest_key(&id)) {
                Ok(_) => whole.push(id),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        whole.sort();
        Ok(whole)
    }
}

//! WAL files in the repository: put one, get one, see which are there.

use std::collections::BTreeSet;

use crate::codec::{self, Header, Origin};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::{SegmentName, TimelineId, WalFileName};
use crate::repository::{Home, layout};
use crate::storage::Body;

/// How a push ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    New,
    /// The identical file was there already.
    Same,
}

impl Home {
    /// Stores a sealed WAL file under its name; `Conflict` where other content has that name.
    pub fn put_wal(&self, name: &WalFileName, sealed: &Body, origin: &Origin) -> Result<Stored> {
        match self.storage.put_new(&self.wal_key(name), sealed) {
            Ok(()) => Ok(Stored::New),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.expect_same(name, sealed, origin)
            }
            Err(error) => Err(error),
        }
    }

    /// Hands the content of a WAL file to `sink`, checked by the time this returns; `Absent` only with proof.
    pub fn get_wal(
        &self,
        name: &WalFileName,
        sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Header> {
        let key = self.wal_key(name);
        let sealed = match self.storage.get(&key) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.absent(error)),
            outcome => outcome?,
        };
        let header = codec::open(&sealed, sink).context(|| format!("open {key}"))?;
        if header.name != name.to_string() {
            return Err(Error::new(ErrorKind::Corrupt, format!("{key} holds {}", header.name)));
        }
        if header.origin.system_identifier != self.system_identifier {
            let foreign = format!("{key} is of cluster {}", header.origin.system_identifier);
            return Err(Error::new(ErrorKind::ForeignCluster, foreign));
        }
        Ok(header)
    }

    /// Whether a WAL file is here; false only with proof.
    pub fn has_wal(&self, name: &WalFileName) -> Result<bool> {
        match self.storage.head(&self.wal_key(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let absent = self.absent(error);
                if absent.kind() == ErrorKind::Absent { Ok(false) } else { Err(absent) }
            }
            Err(error) => Err(error),
        }
    }

    /// The segments of one log file (4 GiB of WAL) that the store lists.
    pub fn segments(&self, timeline: TimelineId, log: u32) -> Result<BTreeSet<SegmentName>> {
        let listing = self.storage.list(Some(&self.log_key(timeline, log)))?;
        Ok(listing.objects.iter().filter_map(|object| layout::segment_of(&object.key)).collect())
    }

    /// The timelines whose history files the store lists; timeline 1 has none.
    pub fn histories(&self) -> Result<BTreeSet<TimelineId>> {
        let listing = self.storage.list(Some(&self.histories_key()))?;
        Ok(listing.objects.iter().filter_map(|object| layout::history_of(&object.key)).collect())
    }

    fn expect_same(&self, name: &WalFileName, sealed: &Body, origin: &Origin) -> Result<Stored> {
        let key = self.wal_key(name);
        let there = self.storage.get(&key)?;
        let same = codec::same_content(&there, &sealed.bytes)
            .context(|| format!("compare with the archived {key}"))?;
        if same {
            return Ok(Stored::Same);
        }
        let (first, _) = Header::split(&there)?;
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{name} is archived with other content: archived by {}, refused from {origin}",
                first.origin
            ),
        )
        .hint(
            "Two servers write the same timeline into one place: stop the one that should not, \
             or give it its own cluster name. Nothing was overwritten.",
        ))
    }
}

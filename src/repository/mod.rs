//! What we keep, by its domain name: nouns above, bytes below.

pub mod layout;
pub mod cluster;
pub mod wal;
pub mod backup;
pub mod taken;
pub mod configuration;
pub mod pack_reader;
pub mod manifest;
pub mod backup_facts;
pub mod names;
pub mod sums;
pub mod index;
pub mod contents;
pub mod audit;
pub mod verification;
pub mod drill_record;
pub mod parallel;
mod object;

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::SystemIdentifier;
use crate::storage::{Key, Storage};

pub use backup::BackupId;
pub use backup_facts::BackupFacts;
pub use cluster::{Claim, ClusterName};
pub use contents::{Contents, Kept, Object};
pub use index::{IndexEntry, IndexFault, ListedLog, ListedSegment, LogIndex};
pub use manifest::Manifest;
pub use names::NamesFacts;
pub use pack_reader::{PackReader, PackSink};
pub use sums::{ChunkHasher, Sums};
pub use wal::Stored;

/// One repository, seen by one cluster name.
#[derive(Debug, Clone)]
pub struct Repository {
    storage: Arc<dyn Storage>,
    cluster: ClusterName,
}

/// The part of a repository that belongs to one cluster, told by its system identifier.
#[derive(Debug, Clone)]
pub struct Home {
    storage: Arc<dyn Storage>,
    cluster: ClusterName,
    system_identifier: SystemIdentifier,
}

impl Repository {
    pub fn new(storage: Arc<dyn Storage>, cluster: ClusterName) -> Self {
        Repository { storage, cluster }
    }

    /// The place as a person writes it.
    pub fn url(&self) -> String {
        self.storage.url()
    }

    pub fn home(&self, system_identifier: SystemIdentifier) -> Home {
        let (storage, cluster) = (self.storage.clone(), self.cluster.clone());
        Home { storage, cluster, system_identifier }
    }

    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The names that clusters have here; none where we may not ask.
    pub fn cluster_names(&self) -> Vec<ClusterName> {
        let folders = self.storage.list(None).map(|listing| listing.folders).unwrap_or_default();
        folders.into_iter().filter_map(|folder| ClusterName::new(folder).ok()).collect()
    }

    /// The clusters that archive here under this name, as the store lists them; `pg_upgrade` adds
    /// one.
    pub fn homes(&self) -> Result<Vec<Home>> {
        let listing = self.storage.list(Some(&layout::cluster(&self.cluster)))?;
        let identifiers = listing.folders.iter().filter_map(|folder| folder.parse().ok());
        Ok(identifiers.map(|identifier| self.home(identifier)).collect())
    }
}

impl Home {
    pub fn system_identifier(&self) -> SystemIdentifier {
        self.system_identifier
    }

    pub fn url(&self) -> String {
        format!("{}/{}/{}", self.storage.url(), self.cluster, self.system_identifier)
    }
}

/// What a damaged object means to a person. Errors of the sink pass unchanged.
fn unopened(error: Error, key: &Key) -> Error {
    if error.kind() != ErrorKind::Corrupt {
        return error;
    }
    error.context(format!("open {key}")).hint(
        "The object is damaged where it is stored, `zstd -t` shows it too: bring it back from a \
         copy of the repository, or from the server that wrote it if that still has the file.",
    )
}

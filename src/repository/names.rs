//! The names of a cluster, kept with each backup: what the numbers in its WAL are called.

use std::io;

use crate::codec::{self, Compression, Header, Kind, Origin, Sealer};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::Names;
use crate::repository::object::ObjectReader;
use crate::repository::{BackupId, Home, unopened};
use crate::storage::Body;

/// What the header says of the names, for lists.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NamesFacts {
    pub time: jiff::Timestamp,
    /// Whose relations are known.
    pub databases: usize,
    pub relations: usize,
    /// The databases whose relations are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// More databases than this would make the header long; their names stand in the content.
const UNREAD_MAX: usize = 100;
const HEADER_BYTES_MAX: u64 = 64 << 10;

impl NamesFacts {
    pub fn of(names: &Names) -> Self {
        let unread = names.unread().take(UNREAD_MAX).map(|(database, _)| database.to_owned());
        NamesFacts {
            time: names.time,
            databases: names.databases_read(),
            relations: names.relation_count(),
            unread: unread.collect(),
        }
    }
}

impl Home {
    /// Stores the names beside a backup that is not published yet.
    pub fn put_names(
        &self,
        id: &BackupId,
        names: &Names,
        origin: &Origin,
        compression: Compression,
    ) -> Result<NamesFacts> {
        let bug = |error| Error::new(ErrorKind::Bug, "write the names").source(error);
        let facts = NamesFacts::of(names);
        let summary = serde_json::to_value(&facts).map_err(bug)?;
        let mut sealer = Sealing(Sealer::new(compression, u64::MAX)?);
        serde_json::to_writer(io::BufWriter::new(&mut sealer), names).map_err(bug)?;
        let sealed = sealer.0.finish(|content| {
            Header::new(Kind::Names, id.as_str(), content, origin.clone()).with_summary(summary)
        })?;
        self.put_once(&self.names_key(id), &Body::new(sealed))?;
        Ok(facts)
    }

    /// The names saved with a backup; `None` where none were.
    pub fn names(&self, id: &BackupId) -> Result<Option<Names>> {
        let key = self.names_key(id);
        let sealed = match ObjectReader::begin(&*self.storage, &key) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            outcome => outcome?,
        };
        let mut json = Vec::new();
        let header = codec::open(sealed, |piece| {
            json.extend_from_slice(piece);
            Ok(())
        });
        let header = header.map_err(|error| unopened(error, &key))?;
        self.expect_names_of(id, &header)?;
        let names = serde_json::from_slice(&json).map_err(|error| {
            let damaged = Error::new(ErrorKind::Corrupt, "the names are not of their shape");
            unopened(damaged.source(error), &key)
        })?;
        Ok(Some(names))
    }

    /// What was saved, by one small request; `None` where nothing was.
    pub fn names_facts(&self, id: &BackupId) -> Result<Option<NamesFacts>> {
        let key = self.names_key(id);
        let start = match self.storage.get_start(&key, HEADER_BYTES_MAX) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            outcome => outcome?.0,
        };
        let (header, _) = Header::split(&start).map_err(|error| unopened(error, &key))?;
        self.expect_names_of(id, &header)?;
        let facts = serde_json::from_value(header.summary.unwrap_or_default());
        facts.map(Some).map_err(|error| {
            let damaged = Error::new(ErrorKind::Corrupt, "its summary is not of its shape");
            unopened(damaged.source(error), &key)
        })
    }

    fn expect_names_of(&self, id: &BackupId, header: &Header) -> Result<()> {
        let cluster = header.origin.system_identifier;
        let is_it = header.name == id.as_str() && cluster == self.system_identifier;
        if header.kind == Kind::Names && is_it {
            return Ok(());
        }
        let found = format!("{} is of {}, cluster {cluster}", self.names_key(id), header.name);
        Err(Error::new(ErrorKind::Corrupt, found)
            .hint("Somebody copied or moved objects: put the right one back."))
    }
}

/// JSON goes straight into the compressor: as text it would be many times larger.
struct Sealing(Sealer);

impl io::Write for Sealing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::codec::{Compression, Origin};
    use crate::error::ErrorKind;
    use crate::postgres::{Names, SystemIdentifier};
    use crate::repository::manifest::samples::manifest;
    use crate::repository::{ClusterName, Home, Repository};
    use crate::storage::memory::Memory;
    use crate::storage::{Body, Storage as _};

    const CLUSTER: SystemIdentifier = SystemIdentifier(7);

    fn home() -> (Arc<Memory>, Home) {
        let memory = Arc::new(Memory::new());
        let repository = Repository::new(memory.clone(), ClusterName::new("main").unwrap());
        (memory, repository.home(CLUSTER))
    }

    fn names(relations: usize) -> Names {
        let relation = |number: usize| {
            format!(
                r#"{{"oid":{number},"schema":"s","name":"t{number}","kind":"table",
                    "number":{number},"tablespace":1663}}"#
            )
        };
        let relations: Vec<String> = (1..=relations).map(relation).collect();
        let json = format!(
            r#"{{"walden":1,"time":"2026-11-21T10:00:00Z","databases":[
                {{"oid":5,"name":"postgres","relations":[{}]}},
                {{"oid":6,"name":"closed","unread":"no","relations":[]}}]}}"#,
            relations.join(",")
        );
        serde_json::from_str(&json).unwrap()
    }

    fn origin() -> Origin {
        manifest(CLUSTER, 1).origin
    }

    #[test]
    fn what_was_put_comes_back_and_its_header_says_how_much_it_is() {
        let (_, home) = home();
        let id = manifest(CLUSTER, 1).id;
        assert_eq!(home.names(&id).unwrap(), None);
        assert_eq!(home.names_facts(&id).unwrap(), None);
        let names = names(20_000);
        let put = home.put_names(&id, &names, &origin(), Compression::default()).unwrap();
        assert!(home.names(&id).unwrap().unwrap() == names);
        assert_eq!(home.names_facts(&id).unwrap().as_ref(), Some(&put));
        assert_eq!((put.databases, put.relations), (1, 20_000));
        assert_eq!(put.unread, ["closed"]);
    }

    #[test]
    fn names_of_another_backup_or_damaged_ones_are_not_taken() {
        let (memory, home) = home();
        let (id, other) = (manifest(CLUSTER, 1).id, manifest(CLUSTER, 2).id);
        home.put_names(&id, &names(3), &origin(), Compression::default()).unwrap();
        let sealed = memory.get(&home.names_key(&id)).unwrap();
        memory.put_new(&home.names_key(&other), &Body::new(sealed.clone())).unwrap();
        assert_eq!(home.names(&other).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(home.names_facts(&other).unwrap_err().kind(), ErrorKind::Corrupt);
        memory.delete(&home.names_key(&id)).unwrap();
        let mut damaged = sealed.to_vec();
        let middle = damaged.len() - 20;
        damaged[middle] ^= 0x40;
        memory.put_new(&home.names_key(&id), &Body::new(damaged)).unwrap();
        assert_eq!(home.names(&id).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

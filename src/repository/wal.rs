//! WAL files in the repository: put one, get one, see which are there.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::{self, Header, Origin};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::{SegmentName, TimelineId, WalFileName};
use crate::repository::object::{ObjectReader, read_body};
use crate::repository::parallel::ask_all;
use crate::repository::{Home, layout, unopened};
use crate::storage::Body;

/// A header with an ordinary digest; one that is longer takes a second request.
const HEADER_BYTES_USUAL: u64 = 16 << 10;

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

    /// Hands the content of a WAL file to `sink`, checked by the time this returns; `Absent` only
    /// with proof.
    pub fn get_wal(
        &self,
        name: &WalFileName,
        sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Header> {
        let key = self.wal_key(name);
        let sealed = match ObjectReader::begin(&*self.storage, &key) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.absent(name)),
            outcome => outcome?,
        };
        let header = codec::open(sealed, sink).map_err(|error| unopened(error, &key))?;
        self.expect_ours(&header, name)?;
        Ok(header)
    }

    /// What a WAL file's object says of itself, by one small request; whose it is the caller looks
    /// at. `NotFound` where there is none, `Corrupt` where it cannot be read.
    pub fn wal_header(&self, name: &WalFileName) -> Result<Header> {
        let key = self.wal_key(name);
        let mut asked = HEADER_BYTES_USUAL;
        loop {
            let (start, size) =
                self.storage.get_start(&key, asked).map_err(|error| unopened(error, &key))?;
            match Header::split(&start) {
                Ok((header, _)) => return Ok(header),
                Err(error) => {
                    let needed = Header::bytes(&start).filter(|needed| *needed > asked);
                    match needed.filter(|needed| *needed <= size) {
                        Some(needed) => asked = needed,
                        None => return Err(unopened(error, &key)),
                    }
                }
            }
        }
    }

    /// What a fetch would not serve, no push may take for archived.
    pub fn expect_ours(&self, header: &Header, name: &WalFileName) -> Result<()> {
        let key = self.wal_key(name);
        if header.name != name.to_string() {
            return Err(Error::new(ErrorKind::Corrupt, format!("{key} holds {}", header.name))
                .hint("Somebody renamed or copied objects: put the right one back."));
        }
        if header.origin.system_identifier != self.system_identifier {
            let foreign = format!("{key} is of cluster {}", header.origin.system_identifier);
            return Err(Error::new(ErrorKind::ForeignCluster, foreign)
                .hint("Somebody moved objects between clusters: put the right one back."));
        }
        Ok(())
    }

    /// Whether a WAL file is here; false only with proof.
    pub fn has_wal(&self, name: &WalFileName) -> Result<bool> {
        match self.storage.head(&self.wal_key(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => self.is_there_after_all(name),
            Err(error) => Err(error),
        }
    }

    /// The segments of a timeline that the store lists, from the log file `first_log` (4 GiB of WAL
    /// each) on, with the time each was stored.
    pub fn archived(
        &self,
        timeline: TimelineId,
        first_log: u32,
    ) -> Result<BTreeMap<SegmentName, jiff::Timestamp>> {
        let folders = self.storage.list(Some(&self.timeline_key(timeline)))?.folders;
        let logs = folders.iter().filter_map(|folder| layout::log_of(folder));
        let mut archived = BTreeMap::new();
        for log in logs.filter(|log| *log >= first_log) {
            for object in self.storage.list(Some(&self.log_key(timeline, log)))?.objects {
                if let Some(segment) = layout::segment_of(&object.key) {
                    archived.insert(segment, object.modified);
                }
            }
        }
        Ok(archived)
    }

    /// The segments that the store lists in these log files (4 GiB of WAL each).
    pub fn archived_in(&self, logs: &BTreeSet<(TimelineId, u32)>) -> Result<BTreeSet<SegmentName>> {
        let logs: Vec<_> = logs.iter().copied().collect();
        let ask = |(timeline, log): &(TimelineId, u32)| {
            self.storage.list(Some(&self.log_key(*timeline, *log)))
        };
        let listings = ask_all(&logs, ask)?;
        let objects = listings.iter().flat_map(|listing| &listing.objects);
        Ok(objects.filter_map(|object| layout::segment_of(&object.key)).collect())
    }

    /// The timelines whose history files the store lists; timeline 1 has none.
    pub fn histories(&self) -> Result<BTreeSet<TimelineId>> {
        let listing = self.storage.list(Some(&self.histories_key()))?;
        Ok(listing.objects.iter().filter_map(|object| layout::history_of(&object.key)).collect())
    }

    fn expect_same(&self, name: &WalFileName, sealed: &Body, origin: &Origin) -> Result<Stored> {
        let key = self.wal_key(name);
        let unopened = |error| unopened(error, &key);
        let there = ObjectReader::begin(&*self.storage, &key)?;
        let (first, _) = Header::split(there.start()).map_err(unopened)?;
        let same = codec::same_content(there, read_body(sealed))
            .map_err(unopened)
            .context(|| "compare with what is archived")?;
        if same {
            return self.expect_ours(&first, name).map(|()| Stored::Same);
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::codec::{Compression, Header, Kind, Origin, Sealer};
    use crate::error::{ErrorKind, Result};
    use crate::postgres::{SystemIdentifier, WalFileName};
    use crate::repository::{ClusterName, Home, Repository, Stored};
    use crate::storage::faulty::{Fault, Faulty};
    use crate::storage::memory::Memory;
    use crate::storage::{Body, Storage, Verb};

    const CLUSTER: SystemIdentifier = SystemIdentifier(7_710_620_488_620_347_611);

    fn origin(host: &str) -> Origin {
        Origin {
            host: host.into(),
            source: "/data".into(),
            system_identifier: CLUSTER,
            time: "2026-11-21T10:15:30Z".parse().unwrap(),
            version: "0.1.0".into(),
        }
    }

    fn name() -> WalFileName {
        WalFileName::parse("000000010000000A000000FF").unwrap()
    }

    fn sealed(content: &[u8], level: i32, host: &str) -> Body {
        let mut sealer = Sealer::new(Compression { level }, content.len() as u64).unwrap();
        sealer.write(content).unwrap();
        let describe =
            |content| Header::new(Kind::Segment, name().to_string(), content, origin(host));
        Body::new(sealer.finish(describe).unwrap())
    }

    fn empty() -> (Arc<Memory>, Home) {
        let storage = Arc::new(Memory::new());
        let repository = Repository::new(storage.clone(), ClusterName::new("main").unwrap());
        (storage, repository.home(CLUSTER))
    }

    fn get(home: &Home) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        home.get_wal(&name(), |piece| {
            content.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(content)
    }

    #[test]
    fn identical_content_is_the_same_however_it_was_compressed() {
        let (_, home) = empty();
        let put = |body| home.put_wal(&name(), &body, &origin("db1"));
        assert_eq!(put(sealed(&[7; 5000], 1, "db1")).unwrap(), Stored::New);
        assert_eq!(put(sealed(&[7; 5000], 9, "db2")).unwrap(), Stored::Same);
        assert_eq!(get(&home).unwrap(), [7; 5000]);
    }

    #[test]
    fn identical_content_is_the_same_with_and_without_a_digest() {
        let (_, home) = empty();
        let digested = |digest| {
            let content = crate::codec::Content::of(&[7; 5000]);
            let header = Header::new(Kind::Segment, name().to_string(), content, origin("db1"));
            let mut object = Header { digest, ..header }.to_frame();
            object.extend(zstd::stream::encode_all(&[7; 5000][..], 1).unwrap());
            home.put_wal(&name(), &Body::new(object), &origin("db1"))
        };
        assert_eq!(digested(None).unwrap(), Stored::New);
        assert_eq!(digested(Some(Box::default())).unwrap(), Stored::Same);
    }

    #[test]
    fn other_content_is_a_conflict_that_names_both_origins() {
        let (_, home) = empty();
        home.put_wal(&name(), &sealed(&[7; 5000], 1, "db1"), &origin("db1")).unwrap();
        for other in [&[8; 5000][..], &[7; 4999], &[7; 5001]] {
            let body = sealed(other, 1, "db2");
            let refused = home.put_wal(&name(), &body, &origin("db2")).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict);
            assert!(refused.to_string().contains("db1:/data"), "{refused}");
            assert!(refused.to_string().contains("db2:/data"), "{refused}");
        }
        assert_eq!(get(&home).unwrap(), [7; 5000]);
    }

    #[test]
    fn absence_needs_the_proof_of_cluster_json() {
        let (_, home) = empty();
        assert_eq!(get(&home).unwrap_err().kind(), ErrorKind::WrongPlace);
        assert_eq!(home.has_wal(&name()).unwrap_err().kind(), ErrorKind::WrongPlace);
        home.claim(&origin("db1")).unwrap();
        assert_eq!(get(&home).unwrap_err().kind(), ErrorKind::Absent);
        assert!(!home.has_wal(&name()).unwrap());
    }

    #[test]
    fn what_was_missing_for_a_moment_is_not_absent() {
        let memory = Arc::new(Memory::new());
        let faulty = Arc::new(Faulty::new(memory));
        let home = Repository::new(faulty.clone(), ClusterName::new("main").unwrap()).home(CLUSTER);
        home.claim(&origin("db1")).unwrap();
        home.put_wal(&name(), &sealed(&[7; 5000], 1, "db1"), &origin("db1")).unwrap();
        let next = faulty.calls(Verb::Get) + 1;
        faulty.fail(Verb::Get, next, Fault::Before(ErrorKind::NotFound));
        assert_eq!(get(&home).unwrap_err().kind(), ErrorKind::Unreachable, "the proof came after");
        assert_eq!(get(&home).unwrap(), [7; 5000]);
        // Who waits for a segment asks again and again, and meets it just as it arrives.
        faulty.fail(Verb::Head, faulty.calls(Verb::Head) + 1, Fault::Before(ErrorKind::NotFound));
        assert!(home.has_wal(&name()).unwrap());
    }

    #[test]
    fn an_object_under_the_wrong_name_is_not_served() {
        let (storage, home) = empty();
        home.claim(&origin("db1")).unwrap();
        let other = WalFileName::parse("000000010000000A000000FE").unwrap();
        storage.put_new(&home.wal_key(&other), &sealed(&[7; 5000], 1, "db1")).unwrap();
        let refused = home.get_wal(&other, |_| Ok(())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
        let pushed = home.put_wal(&other, &sealed(&[7; 5000], 1, "db1"), &origin("db1"));
        assert_eq!(pushed.unwrap_err().kind(), ErrorKind::Corrupt, "not archived either");
    }

    #[test]
    fn many_claims_agree_and_one_that_is_foreign_or_newer_is_noticed() {
        let (_, home) = empty();
        home.claim(&origin("db1")).unwrap();
        home.claim(&origin("db2")).unwrap();

        let foreign = Origin { system_identifier: SystemIdentifier(8), ..origin("db3") };
        for (format, first, expected) in
            [(1, foreign, ErrorKind::ForeignCluster), (2, origin("db3"), ErrorKind::WrongPlace)]
        {
            let (storage, elsewhere) = empty();
            let first = serde_json::to_string(&first).unwrap();
            let proof = format!(r#"{{"walden":{format},"cluster":"main","origin":{first}}}"#);
            storage.put_new(&elsewhere.proof_key(), &Body::new(proof)).unwrap();
            assert_eq!(elsewhere.claim(&origin("db1")).unwrap_err().kind(), expected);
        }
    }
}

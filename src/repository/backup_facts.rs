//! What is worth knowing of a backup without reading all of its manifest: it stands in the header.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::codec::{Header, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, SegmentName, TimelineId};
use crate::repository::manifest::Mode;
use crate::repository::manifest::is_zero;
use crate::repository::parallel::ask_all;
use crate::repository::{BackupId, Home, unopened};

/// The header is far shorter; a manifest may have a hundred megabytes.
const HEADER_BYTES_MAX: u64 = 64 << 10;

/// 256 TiB: no backup takes so long. What is believed here is asked for, log file by log file.
const WAL_BYTES_MAX: u64 = 1 << 48;

/// The manifest without its lists, and what they come to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackupFacts {
    /// Version of the manifest.
    pub walden: u32,
    pub id: BackupId,
    /// The backup this one is the difference to; `None`: it is a full one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// How its files were read; `None` in manifests of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
    /// As `server_version_num`, for example 170011.
    pub server_version_num: u32,
    /// In bytes.
    pub wal_segment_size: u32,
    /// The timeline the backup was taken on.
    pub timeline: TimelineId,
    /// Where replay must begin.
    pub start_lsn: Lsn,
    /// Replay must reach this to be consistent.
    pub end_lsn: Lsn,
    pub began: jiff::Timestamp,
    /// A target before it cannot be reached from this backup.
    pub ended: jiff::Timestamp,
    pub from_standby: bool,
    /// How many, beside those every cluster has.
    pub tablespaces: usize,
    /// Raw bytes of all files.
    pub size: u64,
    /// Bytes as stored, packs only.
    pub stored: u64,
    /// How many, without directories.
    pub files: usize,
    pub packs: usize,
    /// How many pages are damaged, on the source already.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub damaged: u64,
}

impl BackupFacts {
    /// The segments that replay needs to become consistent, first to last.
    pub fn wal_needed(&self) -> impl Iterator<Item = SegmentName> + use<> {
        wal_needed(self.timeline, self.start_lsn..self.end_lsn, self.wal_segment_size)
    }

    /// Of those that replay needs.
    pub fn first_and_last_wal(&self) -> (SegmentName, SegmentName) {
        first_and_last(self.timeline, self.start_lsn..self.end_lsn, self.wal_segment_size)
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.walden > 1 {
            return Err("its summary has a format newer than this walden knows");
        }
        if !self.wal_segment_size.is_power_of_two() {
            return Err("its summary has an impossible size of WAL segments");
        }
        if self.end_lsn < self.start_lsn {
            return Err("its summary ends before it begins");
        }
        if self.end_lsn.0 - self.start_lsn.0 > WAL_BYTES_MAX {
            return Err("its summary needs an impossible amount of WAL");
        }
        Ok(())
    }
}

/// And says nothing of the store.
fn is_of_the_object(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Corrupt)
}

/// The segments that hold what is replayed.
pub(super) fn wal_needed(
    timeline: TimelineId,
    replayed: Range<Lsn>,
    segment_size: u32,
) -> impl Iterator<Item = SegmentName> + use<> {
    let (first, last) = first_and_last(timeline, replayed, segment_size);
    std::iter::successors(Some(first), move |segment| Some(segment.next(segment_size)))
        .take_while(move |segment| *segment <= last)
}

fn first_and_last(
    timeline: TimelineId,
    replayed: Range<Lsn>,
    segment_size: u32,
) -> (SegmentName, SegmentName) {
    // `end` is where the next record would begin: the byte before it is the last one needed.
    let last = Lsn(replayed.end.0.saturating_sub(1)).max(replayed.start);
    let containing = |lsn| SegmentName::containing(timeline, lsn, segment_size);
    (containing(replayed.start), containing(last))
}

impl Home {
    /// By one small request; manifests of before have no facts in their header and are read whole.
    /// `NotFound` where there is no manifest.
    pub fn backup_facts(&self, id: &BackupId) -> Result<BackupFacts> {
        match self.facts_in_header(id)? {
            Some(facts) => Ok(facts),
            None => Ok(self.manifest(id)?.facts()),
        }
    }

    /// Of every backup that has a manifest, oldest first; one that cannot be read comes as its
    /// error, if it is the object that is at fault and not the store.
    pub fn all_backup_facts(&self) -> Result<Vec<(BackupId, Result<BackupFacts>)>> {
        let ids = self.backups_begun()?;
        let in_headers = ask_all(&ids, |id| match self.facts_in_header(id) {
            Err(error) if !is_of_the_object(error.kind()) => Err(error),
            answer => Ok(answer),
        })?;
        let mut all = Vec::with_capacity(ids.len());
        for (id, in_header) in ids.into_iter().zip(in_headers) {
            // One whole manifest at a time: each may need much memory.
            let facts = in_header.and_then(|facts| match facts {
                Some(facts) => Ok(facts),
                None => Ok(self.manifest(&id)?.facts()),
            });
            match facts {
                // Unfinished, or just removed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if !is_of_the_object(error.kind()) => return Err(error),
                facts => all.push((id, facts)),
            }
        }
        // Ids tell the time to the second only.
        let second = |id: &BackupId| id.second().to_owned();
        let began = |facts: &Result<BackupFacts>| facts.as_ref().ok().map(|facts| facts.began);
        all.sort_by_cached_key(|(id, facts)| (second(id), began(facts)));
        Ok(all)
    }

    fn facts_in_header(&self, id: &BackupId) -> Result<Option<BackupFacts>> {
        let key = self.manifest_key(id);
        let (start, size) = self.storage.get_start(&key, HEADER_BYTES_MAX)?;
        let header = match Header::split(&start) {
            Ok((header, _)) => header,
            // What was cut off may be the header's end.
            Err(_) if size > HEADER_BYTES_MAX => return Ok(None),
            Err(error) => return Err(unopened(error, &key)),
        };
        let cluster = header.origin.system_identifier;
        let is_it = header.name == id.as_str() && cluster == self.system_identifier;
        if header.kind != Kind::Manifest || !is_it {
            let found = format!("{key} is of {}, cluster {cluster}", header.name);
            return Err(Error::new(ErrorKind::Corrupt, found)
                .hint("Somebody copied or moved objects: put the right one back."));
        }
        let Some(summary) = header.summary else { return Ok(None) };
        let damaged = |what| unopened(Error::new(ErrorKind::Corrupt, what), &key);
        let facts: BackupFacts = serde_json::from_value(summary)
            .map_err(|error| damaged("its summary is not of its shape").source(error))?;
        facts.check().map_err(damaged)?;
        Ok(Some(facts))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::codec::{Compression, Header, Kind, Sealer};
    use crate::error::ErrorKind;
    use crate::postgres::{Lsn, SystemIdentifier};
    use crate::repository::manifest::samples::manifest;
    use crate::repository::{ClusterName, Home, Manifest, Repository};
    use crate::storage::faulty::{Fault, Faulty};
    use crate::storage::memory::Memory;
    use crate::storage::{Body, Storage, Verb};

    const CLUSTER: SystemIdentifier = SystemIdentifier(7);

    fn home() -> (Arc<Memory>, Arc<Faulty>, Home) {
        let memory = Arc::new(Memory::new());
        let faulty = Arc::new(Faulty::new(memory.clone()));
        let repository = Repository::new(faulty.clone(), ClusterName::new("main").unwrap());
        (memory, faulty, repository.home(CLUSTER))
    }

    /// As walden 0.1.0 stored it: the header has no summary.
    fn put_without_summary(storage: &Memory, home: &Home, manifest: &Manifest) {
        put(storage, home, manifest, |header| header);
    }

    fn put(
        storage: &Memory,
        home: &Home,
        manifest: &Manifest,
        describe: impl FnOnce(Header) -> Header,
    ) {
        let json = serde_json::to_vec(manifest).unwrap();
        let mut sealer = Sealer::new(Compression::default(), 0).unwrap();
        sealer.write(&json).unwrap();
        let id = manifest.id.as_str();
        let header = |content| Header::new(Kind::Manifest, id, content, manifest.origin.clone());
        let sealed = sealer.finish(|content| describe(header(content))).unwrap();
        storage.put_new(&home.manifest_key(&manifest.id), &Body::new(sealed)).unwrap();
    }

    #[test]
    fn they_take_one_small_request_and_say_what_the_manifest_says() {
        let (_, faulty, home) = home();
        let manifest = manifest(CLUSTER, 1);
        home.publish(&manifest, Compression::default()).unwrap();

        let facts = home.backup_facts(&manifest.id).unwrap();

        assert_eq!(facts, home.manifest(&manifest.id).unwrap().facts());
        assert_eq!((facts.size, facts.stored, facts.files, facts.packs), (8195, 3000, 2, 1));
        assert_eq!(facts.label.as_deref(), Some("before the upgrade"));
        let needed: Vec<String> = facts.wal_needed().map(|segment| segment.to_string()).collect();
        assert_eq!(needed, ["000000010000000000000002", "000000010000000000000003"]);
        // The second is that of `manifest`.
        assert_eq!(faulty.calls(Verb::Get), 2);
    }

    #[test]
    fn a_manifest_of_before_is_read_whole() {
        let (memory, _, home) = home();
        let manifest = Manifest { label: None, ..manifest(CLUSTER, 1) };
        put_without_summary(&memory, &home, &manifest);
        assert_eq!(home.backup_facts(&manifest.id).unwrap(), manifest.facts());
        assert_eq!(home.all_backup_facts().unwrap().len(), 1);
    }

    #[test]
    fn of_many_all_come_in_order_the_damaged_too_and_those_without_a_manifest_not() {
        let (memory, faulty, home) = home();
        for number in 0..40 {
            home.publish(&manifest(CLUSTER, number), Compression::default()).unwrap();
        }
        put_without_summary(&memory, &home, &manifest(CLUSTER, 40));
        home.put_pack(&manifest(CLUSTER, 41).id, 0, &Body::new(&b"begun"[..])).unwrap();
        let damaged = home.manifest_key(&manifest(CLUSTER, 7).id);
        memory.delete(&damaged).unwrap();
        memory.put_new(&damaged, &Body::new(&b"no manifest at all"[..])).unwrap();

        let all = home.all_backup_facts().unwrap();

        assert_eq!(all.len(), 41);
        for (number, (id, facts)) in all.iter().enumerate() {
            assert_eq!(*id, manifest(CLUSTER, number as u16).id);
            match facts {
                Ok(facts) => assert_eq!(facts.id, *id),
                Err(error) => assert_eq!((number, error.kind()), (7, ErrorKind::Corrupt)),
            }
        }
        assert_eq!(home.backups().unwrap().len(), 41);

        faulty.fail(Verb::Get, faulty.calls(Verb::Get) + 5, Fault::Before(ErrorKind::NotAllowed));
        assert_eq!(home.all_backup_facts().unwrap_err().kind(), ErrorKind::NotAllowed);
    }

    #[test]
    fn a_header_that_is_of_another_or_makes_no_sense_is_damage() {
        let of = |change: fn(Header) -> Header| {
            let (memory, _, home) = home();
            let manifest = manifest(CLUSTER, 1);
            let summary = serde_json::to_value(manifest.facts()).unwrap();
            put(&memory, &home, &manifest, |header| change(header.with_summary(summary)));
            home.backup_facts(&manifest.id).map_err(|error| error.kind())
        };
        let changed = |header: Header, key: &str, value: serde_json::Value| {
            let mut summary = header.summary.clone().unwrap();
            summary[key] = value;
            header.with_summary(summary)
        };
        assert!(of(|header| header).is_ok());
        let cases: [fn(Header) -> Header; 3] = [
            |header| Header { name: manifest(CLUSTER, 2).id.to_string(), ..header },
            |header| Header { kind: Kind::Pack, ..header },
            |mut header| {
                header.origin.system_identifier = SystemIdentifier(8);
                header
            },
        ];
        for case in cases {
            assert_eq!(of(case), Err(ErrorKind::Corrupt));
        }
        for (key, value) in [
            ("walden", 2.into()),
            ("wal_segment_size", 0.into()),
            ("end_lsn", Lsn(1).to_string().into()),
            ("end_lsn", Lsn(1 << 60).to_string().into()),
            ("timeline", 0.into()),
        ] {
            let (memory, _, home) = home();
            let manifest = manifest(CLUSTER, 1);
            let summary = serde_json::to_value(manifest.facts()).unwrap();
            put(&memory, &home, &manifest, |header| {
                changed(header.with_summary(summary), key, value)
            });
            let error = home.backup_facts(&manifest.id).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{key}");
        }
    }
}

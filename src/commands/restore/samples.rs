//! A small backup in a store in memory, made by hand, for the tests.

use std::path::Path;
use std::sync::Arc;

use crate::catalog::{Target, TargetTimeline, Wanted};
use crate::codec::{
    Compression, FrameSealer, Header, Kind, Origin, PackBuilder, SealedFrame, Sealer,
};
use crate::commands::restore::Request;
use crate::host::privileges;
use crate::postgres::{Lsn, SystemIdentifier, TimelineId, WalFileName};
use crate::repository::manifest::{FileEntry, FileKind, Manifest, Pack, Part, Tablespace};
use crate::repository::sums::CHUNK_BYTES;
use crate::repository::{BackupId, ClusterName, Home, Repository, layout};
use crate::storage::memory::Memory;
use crate::storage::{Body, Key, Storage};

pub const SEGMENT_BYTES: u32 = 1 << 20;
/// Tiny, so that files span packs.
pub const PACK_BYTES: u64 = 1000;
const CONTROL_BYTES: usize = 8192;

pub struct Sample {
    pub storage: Arc<Memory>,
    pub repository: Repository,
    pub home: Home,
    pub manifest: Manifest,
}

/// Content that differs everywhere.
pub fn content(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|at| (at / 7) as u8 ^ (at as u8).wrapping_mul(31) ^ seed).collect()
}

pub fn origin() -> Origin {
    Origin {
        host: "db1".into(),
        source: "/data".into(),
        system_identifier: SystemIdentifier(7),
        time: "2026-11-21T10:00:00Z".parse().unwrap(),
        version: "0.1.0".into(),
    }
}

impl Sample {
    /// Files as given, then `global/pg_control`; directories by a trailing slash.
    pub fn new(files: &[(&str, Vec<u8>)], tablespaces: &[(u32, &str)]) -> Sample {
        let storage = Arc::new(Memory::new());
        let repository = Repository::new(storage.clone(), ClusterName::new("main").unwrap());
        let home = repository.home(SystemIdentifier(7));
        home.claim(&origin()).unwrap();
        let manifest = store(&home, manifest(tablespaces), files, &[]);
        for name in ["000000010000000000000002", "000000010000000000000003"] {
            put_wal(&home, name, b"wal!");
        }
        Sample { storage, repository, home, manifest }
    }

    /// Takes a backup that is the difference to the last one: `parts` are the blocks that some
    /// files have, and how long these are; `files` come whole.
    pub fn go_on(&mut self, files: &[(&str, Vec<u8>)], parts: &[PartOf<'_>]) {
        let parent = &self.manifest;
        let label = format!(
            "START WAL LOCATION: 0/0\nINCREMENTAL FROM LSN: {}\nINCREMENTAL FROM TLI: {}\n",
            parent.start_lsn, parent.timeline
        );
        let (id, began) = (parent.id.clone(), parent.began + jiff::SignedDuration::from_secs(60));
        let start_lsn = Lsn(parent.start_lsn.0 + 0x100);
        let child = Manifest {
            id: BackupId::new(began, 0x7F3A),
            parent: Some(id),
            began,
            ended: began + jiff::SignedDuration::from_secs(5),
            start_lsn,
            end_lsn: Lsn(start_lsn.0 + 0x80),
            files: Vec::new(),
            packs: Vec::new(),
            ..parent.clone()
        };
        let mut all = vec![("backup_label", label.into_bytes())];
        all.extend_from_slice(files);
        self.manifest = store(&self.home, child, &all, parts);
    }

    /// Replaces a pack by what `change` makes of it.
    pub fn damage_pack(&self, number: u32, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let key: Key = self.home.pack_key(&self.manifest.id, number);
        let object = self.storage.get(&key).unwrap().to_vec();
        self.storage.delete(&key).unwrap();
        self.storage.put_new(&key, &Body::new(change(object))).unwrap();
    }
}

pub fn request(directory: &Path) -> Request {
    Request {
        directory: directory.to_owned(),
        wanted: Wanted {
            target: Target::Latest,
            exclusive: false,
            timeline: TargetTimeline::Latest,
            backup: None,
        },
        action: None,
        standby: false,
        adopt: false,
        tablespace_map: Vec::new(),
        tablespace_root: None,
        owner: privileges::is_root().then(|| "nobody".to_owned()),
        system_identifier: None,
        configuration: None,
        max_rate: None,
        deadline: None,
        delta: false,
        include_databases: Vec::new(),
        jobs: 3,
        fetch_call: vec!["/usr/bin/walden".to_owned()],
        pg_bin: None,
    }
}

/// A pack that holds `raw`, sealed.
pub fn pack(number: u32, raw: &[u8]) -> Vec<u8> {
    let frame: SealedFrame = FrameSealer::new(Compression::default()).unwrap().seal(raw).unwrap();
    let mut builder = PackBuilder::default();
    builder.push(frame);
    let name = layout::pack_name(number);
    builder.finish(|content| Header::new(Kind::Pack, name, content, origin()))
}

pub fn put_wal(home: &Home, name: &str, bytes: &[u8]) {
    let mut sealer = Sealer::new(Compression::default(), bytes.len() as u64).unwrap();
    sealer.write(bytes).unwrap();
    let sealed =
        sealer.finish(|content| Header::new(Kind::Segment, name, content, origin())).unwrap();
    home.put_wal(&WalFileName::parse(name).unwrap(), &Body::new(sealed), &origin()).unwrap();
}

/// A path, the truncation length, and blocks by their numbers.
pub type PartOf<'a> = (&'a str, u32, Vec<(u32, Vec<u8>)>);

/// Stores the packs, the checksums and the manifest.
fn store(
    home: &Home,
    mut manifest: Manifest,
    files: &[(&str, Vec<u8>)],
    parts: &[PartOf<'_>],
) -> Manifest {
    let mut sums = Vec::new();
    let mut stream = Vec::new();
    let mut append = |bytes: &[u8]| {
        // The place of a tar header, which must not end up in any file.
        stream.extend([0xEE; 512]);
        let offset = stream.len() as u64;
        stream.extend_from_slice(bytes);
        stream.resize(stream.len().next_multiple_of(512), 0xEE);
        offset
    };
    for (path, length, blocks) in parts {
        let header = if blocks.is_empty() { 12 } else { 8192 };
        let mut bytes = vec![0xDD; header];
        blocks.iter().for_each(|(_, block)| bytes.extend_from_slice(block));
        let mut part = entry(path, bytes.len() as u64, append(&bytes));
        let blocks = blocks.iter().map(|(number, _)| (*number, 1)).collect();
        part.part = Some(Part { length: *length, header: header as u32, blocks });
        manifest.files.push(part);
    }
    let control = ("global/pg_control", content(CONTROL_BYTES, 99));
    for (path, bytes) in files.iter().cloned().chain([control]) {
        manifest.files.push(entry(path, bytes.len() as u64, append(&bytes)));
        sums.extend(bytes.chunks(CHUNK_BYTES).map(crate::repository::sums::sum));
    }
    for (number, raw) in stream.chunks(PACK_BYTES as usize).enumerate() {
        let sealed = pack(number as u32, raw);
        manifest.packs.push(Pack { size: raw.len() as u64, stored: sealed.len() as u64 });
        home.put_pack(&manifest.id, number as u32, &Body::new(sealed)).unwrap();
    }
    home.put_sums(&manifest.id, &sums, &origin(), Compression::default()).unwrap();
    home.publish(&manifest, Compression::default()).unwrap();
    manifest
}

fn entry(path: &str, size: u64, offset: u64) -> FileEntry {
    let (kind, mode) = match path.ends_with('/') {
        true => (FileKind::Directory, 0o700),
        false => (FileKind::File, 0o600),
    };
    let path = path.trim_end_matches('/').to_owned();
    FileEntry { path, kind, mode, size, offset, modified: 1_700_000_000, part: None }
}

fn manifest(tablespaces: &[(u32, &str)]) -> Manifest {
    let time = |text: &str| text.parse().unwrap();
    Manifest {
        walden: 1,
        id: BackupId::new(time("2026-11-21T10:00:00Z"), 0x7F3A),
        origin: origin(),
        server_version_num: 150_018,
        wal_segment_size: SEGMENT_BYTES,
        timeline: TimelineId::new(1).unwrap(),
        start_lsn: Lsn(0x20_0028),
        end_lsn: Lsn(0x20_0100),
        began: time("2026-11-21T10:00:00Z"),
        ended: time("2026-11-21T10:00:05Z"),
        from_standby: false,
        time_zone: None,
        log_time_zone: None,
        parent: None,
        mode: None,
        label: None,
        notes: Default::default(),
        taken: None,
        names: false,
        configuration: Vec::new(),
        damaged_pages: Vec::new(),
        damaged: 0,
        chunk_bytes: Some(CHUNK_BYTES as u64),
        tablespaces: tablespaces
            .iter()
            .map(|(oid, path)| Tablespace { oid: *oid, path: (*path).to_owned() })
            .collect(),
        pack_bytes: PACK_BYTES,
        packs: Vec::new(),
        files: Vec::new(),
    }
}

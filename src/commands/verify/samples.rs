//! A small repository in memory, made by hand, for the tests: three backups, and WAL with a commit
//! every minute.

use std::num::NonZeroUsize;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::codec::{Compression, FrameSealer, Header, Kind, Origin, PackBuilder, Sealer};
use crate::commands::progress::Progress;
use crate::commands::verify::memory::{Done, Memory as Remembered};
use crate::commands::verify::packs::Means;
use crate::commands::verify::problem::Notebook;
use crate::commands::verify::{Looked, Past, Request, look};
use crate::host::bandwidth::Bandwidth;
use crate::postgres::backup_manifest::{ManifestWriter, WalRange};
use crate::postgres::wal::samples::{Pen, SEGMENT, commit, end, insert};
use crate::postgres::wal::{Digest, Digester};
use crate::postgres::{Lsn, MajorVersion, SegmentName, SystemIdentifier, TimelineId, WalFileName};
use crate::repository::manifest::{FileEntry, FileKind, Manifest, Pack};
use crate::repository::sums::{CHUNK_BYTES, sum};
use crate::repository::verification::Verification;
use crate::repository::{BackupId, ClusterName, Home, Repository, layout};
use crate::storage::memory::Memory;
use crate::storage::{Body, Key, Storage};

/// As the WAL written by hand has it.
pub const CLUSTER: SystemIdentifier = SystemIdentifier(7_710_620_488_620_347_611);
/// Small, so that files span packs.
pub const PACK_BYTES: u64 = 50_000;

pub struct Place {
    pub storage: Arc<Memory>,
    pub home: Home,
    /// A full one, one that rests on it, and a full one.
    pub backups: Vec<Manifest>,
    pub segments: Vec<(SegmentName, Vec<u8>)>,
}

pub fn origin() -> Origin {
    Origin {
        host: "db1".into(),
        source: "/data".into(),
        system_identifier: CLUSTER,
        time: at(5, 0),
        version: "0.1.0".into(),
    }
}

pub fn at(minute: i64, second: i64) -> Timestamp {
    let epoch: Timestamp = "2000-01-01T00:00:00Z".parse().unwrap();
    epoch + SignedDuration::from_secs(minute * 60 + second)
}

/// One segment a minute from the fifth on, the last records of each in the next one as well.
pub fn written(until: i64) -> Pen {
    let mut pen = Pen::new(17);
    for minute in 5..until {
        let micros = minute * 60_000_000;
        pen.record(&commit(minute as u32 * 100, micros));
        pen.fill_with(&insert(minute as u32 * 100 + 1));
        let subtransactions: Vec<u32> = (8000..9200).collect();
        pen.record(&end(minute as u32 * 100 + 1, 0, micros + 1, &subtransactions, &[]));
    }
    pen.switch();
    pen
}

impl Place {
    pub fn new() -> Place {
        let storage = Arc::new(Memory::new());
        let repository = Repository::new(storage.clone(), ClusterName::new("main").unwrap());
        let home = repository.home(CLUSTER);
        home.claim(&origin()).unwrap();
        let segments = written(13).segments();
        let mut place = Place { storage, home, backups: Vec::new(), segments };
        for (name, bytes) in place.segments.clone() {
            place.put_segment(name, &bytes, |digest| digest);
        }
        place.take_backup(6, None);
        place.take_backup(8, Some(0));
        place.take_backup(10, None);
        place
    }

    /// `change`: what the header says instead of the truth.
    pub fn put_segment(
        &self,
        name: SegmentName,
        bytes: &[u8],
        change: impl FnOnce(Digest) -> Digest,
    ) {
        let mut digester = Digester::new(name);
        digester.write(bytes);
        let digest = digester.finish().map(change).map(Box::new);
        self.put_wal(&WalFileName::Segment(name), bytes, Kind::Segment, |header| Header {
            digest,
            ..header
        });
    }

    pub fn put_wal(
        &self,
        name: &WalFileName,
        bytes: &[u8],
        kind: Kind,
        change: impl FnOnce(Header) -> Header,
    ) {
        let mut sealer = Sealer::new(Compression::default(), bytes.len() as u64).unwrap();
        sealer.write(bytes).unwrap();
        let sealed = sealer
            .finish(|content| change(Header::new(kind, name.to_string(), content, origin())))
            .unwrap();
        self.replace(&self.home.wal_key(name), sealed);
    }

    pub fn put_history(&self, timeline: u32, text: &str) {
        let name = WalFileName::History(TimelineId::new(timeline).unwrap());
        self.put_wal(&name, text.as_bytes(), Kind::History, |header| header);
    }

    fn take_backup(&mut self, minute: i64, parent: Option<usize>) {
        let parent = parent.map(|parent| self.backups[parent].id.clone());
        let manifest = Manifest { parent, ..self.blank_at(minute) };
        self.store(manifest, &files(minute as u8), true);
    }

    /// A full backup of the WAL of one minute.
    pub fn blank_at(&self, minute: i64) -> Manifest {
        let began = at(minute, 20);
        Manifest {
            id: BackupId::new(began, 0x7F3A),
            began,
            ended: at(minute, 30),
            start_lsn: Lsn(minute as u64 * SEGMENT + 0x28),
            end_lsn: Lsn(minute as u64 * SEGMENT + 0x100),
            ..self.blank()
        }
    }

    /// One before all others, without a digest and not valid: nobody reads it.
    pub fn put_segment_of(&self, minute: u64) {
        let timeline = TimelineId::new(1).unwrap();
        let lsn = Lsn(minute * SEGMENT);
        let name = SegmentName::containing(timeline, lsn, SEGMENT as u32);
        let mut pen = Pen::starting(17, lsn);
        pen.switch();
        self.put_segment(name, &pen.segments()[0].1, |digest| digest);
    }

    /// `is_true`: the server's list has the checksums of these files.
    pub fn store(&mut self, mut manifest: Manifest, files: &[(&str, Vec<u8>)], is_true: bool) {
        let (mut stream, mut sums) = (Vec::new(), Vec::new());
        let mut writer = ManifestWriter::new(MajorVersion(17), CLUSTER);
        for (path, bytes) in files {
            let crc32c = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32;
            let size = bytes.len() as u64;
            writer.file(path.as_bytes(), size, 0, if is_true { crc32c } else { !crc32c });
            manifest.files.push(append(&mut stream, path, bytes));
            sums.extend(bytes.chunks(CHUNK_BYTES).map(sum));
        }
        let (timeline, start, end) = (manifest.timeline, manifest.start_lsn, manifest.end_lsn);
        let own = writer.finish(&[WalRange { timeline, start, end }]);
        manifest.files.push(append(&mut stream, "backup_manifest", &own));
        sums.extend(own.chunks(CHUNK_BYTES).map(sum));
        for (number, raw) in (0..).zip(stream.chunks(PACK_BYTES as usize)) {
            let sealed = pack(number, raw, &manifest.origin);
            manifest.packs.push(Pack { size: raw.len() as u64, stored: sealed.len() as u64 });
            self.home.put_pack(&manifest.id, number, &Body::new(sealed)).unwrap();
        }
        let level = Compression::default();
        self.home.put_sums(&manifest.id, &sums, &manifest.origin, level).unwrap();
        self.home.publish(&manifest, level).unwrap();
        self.backups.push(manifest);
    }

    fn blank(&self) -> Manifest {
        Manifest {
            origin: origin(),
            server_version_num: 170_002,
            wal_segment_size: SEGMENT as u32,
            timeline: TimelineId::new(1).unwrap(),
            chunk_bytes: Some(CHUNK_BYTES as u64),
            pack_bytes: PACK_BYTES,
            packs: Vec::new(),
            files: Vec::new(),
            tablespaces: Vec::new(),
            configuration: Vec::new(),
            ..crate::repository::manifest::samples::manifest(CLUSTER, 1)
        }
    }

    pub fn replace(&self, key: &Key, bytes: impl Into<bytes::Bytes>) {
        self.storage.delete(key).unwrap();
        self.storage.put_new(key, &Body::new(bytes)).unwrap();
    }

    pub fn remove(&self, key: &Key) {
        self.storage.delete(key).unwrap();
    }

    /// Turns one bit, so many bytes from the end.
    pub fn flip(&self, key: &Key, from_end: usize) {
        let mut bytes = self.storage.get(key).unwrap().to_vec();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        self.replace(key, bytes);
    }

    /// Of the segment of this minute.
    pub fn key(&self, minute: usize) -> Key {
        self.home.wal_key(&WalFileName::Segment(self.segments[minute - 5].0))
    }

    pub fn look(&self, deep: bool) -> Looked {
        self.look_with(&Request { deep, ..Request::shallow() }, Vec::new(), None)
    }

    pub fn look_with(
        &self,
        request: &Request,
        history: Vec<(Timestamp, Verification)>,
        before: Option<Done>,
    ) -> Looked {
        let (bandwidth, progress) = (Bandwidth::new(request.max_rate), Progress::default());
        let jobs = request.jobs.map_or(3, NonZeroUsize::get);
        let means = Means { home: &self.home, jobs, bandwidth: &bandwidth, progress: &progress };
        let past = Past { history, memory: Remembered::none(), before };
        look(&means, request, &past, None, Notebook::default()).unwrap()
    }
}

/// One of them spans many packs and several chunks.
pub fn files(minute: u8) -> Vec<(&'static str, Vec<u8>)> {
    let seed = minute;
    let start = Lsn(u64::from(minute) * SEGMENT + 0x28);
    let label = format!("START WAL LOCATION: {start} (file x)\nSTART TIMELINE: 1\n");
    vec![
        ("backup_label", label.into_bytes()),
        ("base/5/16384", noise(300_000, seed)),
        ("base/5/16385", Vec::new()),
        ("global/pg_control", noise(8192, seed ^ 1)),
    ]
}

/// What does not compress.
pub fn noise(size: usize, seed: u8) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    (0..size).map(|_| random.u8(..)).collect()
}

fn append(stream: &mut Vec<u8>, path: &str, bytes: &[u8]) -> FileEntry {
    // The place of a tar header.
    stream.extend([0xEE; 512]);
    let (offset, size) = (stream.len() as u64, bytes.len() as u64);
    stream.extend_from_slice(bytes);
    stream.resize(stream.len().next_multiple_of(512), 0xEE);
    let (kind, mode, modified, part) = (FileKind::File, 0o600, 1_700_000_000, None);
    FileEntry { path: path.to_owned(), kind, mode, size, offset, modified, part }
}

fn pack(number: u32, raw: &[u8], origin: &Origin) -> Vec<u8> {
    let mut sealer = FrameSealer::new(Compression::default()).unwrap();
    let mut builder = PackBuilder::default();
    for piece in raw.chunks(20_000) {
        builder.push(sealer.seal(piece).unwrap());
    }
    let name = layout::pack_name(number);
    builder.finish(|content| Header::new(Kind::Pack, name, content, origin.clone()))
}

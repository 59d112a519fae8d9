//! What is computed for each file, without files: seal, open, check, and the manifest of a backup.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use walden::codec::{Compression, FRAME_BYTES, FrameSealer, Header, Kind, Origin, Sealer, open};
use walden::postgres::wal::record::{Checksum, HEADER_BYTES};
use walden::postgres::wal::{Digest, Digester};
use walden::postgres::{Lsn, SegmentName, SystemIdentifier, TimelineId};
use walden::repository::BackupId;
use walden::repository::manifest::{FileEntry, FileKind, Manifest, PACK_BYTES, Pack};

const SEGMENT_BYTES: usize = 16 << 20;
const PAGE_BYTES: usize = 8192;
const PIECE_BYTES: usize = 256 << 10;
const NAME: &str = "000000010000000000000003";
const FILES: u64 = 10_000;

/// A segment whose pages have the right headers; half of the rest repeats, half does not, as in WAL
/// of rows with keys.
fn content() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let words: Vec<[u8; 16]> = (0..256).map(|_| random.u128(..).to_le_bytes()).collect();
    let mut content = Vec::with_capacity(SEGMENT_BYTES + 24);
    while content.len() < SEGMENT_BYTES {
        content.extend_from_slice(&words[random.usize(..words.len())]);
        content.extend_from_slice(&random.u64(..).to_le_bytes());
    }
    content.truncate(SEGMENT_BYTES);
    for (number, page) in content.chunks_mut(PAGE_BYTES).enumerate() {
        let address = (3 * SEGMENT_BYTES + number * PAGE_BYTES) as u64;
        page[..2].copy_from_slice(&0xD116u16.to_le_bytes());
        page[2..4].copy_from_slice(&(if number == 0 { 2u16 } else { 0 }).to_le_bytes());
        page[4..8].copy_from_slice(&1u32.to_le_bytes());
        page[8..16].copy_from_slice(&address.to_le_bytes());
        page[16..24].fill(0);
    }
    content[24..32].copy_from_slice(&1u64.to_le_bytes());
    content[32..36].copy_from_slice(&(SEGMENT_BYTES as u32).to_le_bytes());
    content[36..40].copy_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
    content
}

/// A segment of many small records, as of pgbench: insertions into heaps and indexes, and a commit
/// for every six of them; and how many there are.
fn records() -> (Vec<u8>, u64) {
    let mut content = content();
    let start = (3 * SEGMENT_BYTES) as u64;
    let (mut previous, mut count, mut record) = (start - 64, 0, Vec::new());
    for number in 0..SEGMENT_BYTES / PAGE_BYTES {
        let page = number * PAGE_BYTES;
        let mut at = page + if number == 0 { 40 } else { 24 };
        // What no other record has room in is filled by one more, up to the end of the page.
        while at < page + PAGE_BYTES {
            let lengths = [88, 64, 80, 64, 88, 72, 40];
            let room = page + PAGE_BYTES - at;
            let length = if room < 160 { room } else { lengths[count as usize % lengths.len()] };
            let is_commit = length == 40;
            record.clear();
            record.extend_from_slice(&(length as u32).to_le_bytes());
            record.extend_from_slice(&(1000 + count as u32 / 7).to_le_bytes());
            record.extend_from_slice(&previous.to_le_bytes());
            record.extend_from_slice(&[0, if is_commit { 1 } else { 11 }, 0, 0, 0, 0, 0, 0]);
            record.extend_from_slice(&[255, (length - HEADER_BYTES - 2) as u8]);
            record.extend_from_slice(&content[at + record.len()..at + length]);
            if is_commit {
                record[26..34].copy_from_slice(&(count as i64).to_le_bytes());
            }
            let mut checksum = Checksum::default();
            checksum.data(&record[HEADER_BYTES..]);
            let checksum = checksum.finish(record.first_chunk().expect("a header"));
            record[20..24].copy_from_slice(&checksum.to_le_bytes());
            content[at..at + length].copy_from_slice(&record);
            (previous, count, at) = (start + at as u64, count + 1, at + length);
        }
    }
    (content, count)
}

fn digest(content: &[u8]) -> Option<Digest> {
    let name = SegmentName::parse(NAME).expect("a segment's name");
    let mut digester = Digester::new(name);
    for piece in content.chunks(PIECE_BYTES) {
        digester.write(piece);
    }
    digester.finish()
}

fn origin() -> Origin {
    Origin {
        host: "bench".into(),
        source: "/data".into(),
        system_identifier: SystemIdentifier(1),
        time: jiff::Timestamp::UNIX_EPOCH,
        version: "0".into(),
    }
}

fn seal(content: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(Compression::default(), content.len() as u64).expect("a sealer");
    for piece in content.chunks(PIECE_BYTES) {
        sealer.write(piece).expect("seal");
    }
    let describe = |content| Header::new(Kind::Segment, NAME, content, origin());
    sealer.finish(describe).expect("finish")
}

/// Of a cluster of 10,000 files of 1 MiB.
fn manifest() -> Manifest {
    let entry = |number: u64| FileEntry {
        path: format!("base/{}/{}", number % 7, 16384 + number),
        kind: FileKind::File,
        mode: 0o600,
        size: 1 << 20,
        offset: number << 20,
        modified: 1_700_000_000,
        part: None,
    };
    let packs = (FILES << 20).div_ceil(PACK_BYTES);
    Manifest {
        walden: 1,
        id: BackupId::new(jiff::Timestamp::UNIX_EPOCH, 1),
        origin: origin(),
        server_version_num: 170_011,
        wal_segment_size: SEGMENT_BYTES as u32,
        parent: None,
        mode: None,
        label: None,
        notes: Default::default(),
        taken: None,
        names: false,
        configuration: Vec::new(),
        damaged_pages: Vec::new(),
        damaged: 0,
        chunk_bytes: None,
        timeline: TimelineId::new(1).expect("not 0"),
        start_lsn: Lsn(3 << 24),
        end_lsn: Lsn(4 << 24),
        began: jiff::Timestamp::UNIX_EPOCH,
        ended: jiff::Timestamp::UNIX_EPOCH,
        from_standby: false,
        time_zone: None,
        log_time_zone: None,
        tablespaces: Vec::new(),
        pack_bytes: PACK_BYTES,
        packs: (0..packs).map(|_| Pack { size: PACK_BYTES, stored: 9_000_000 }).collect(),
        files: (0..FILES).map(entry).collect(),
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.sample_size(20);
    segment(&mut group);
    wal(&mut group);
    let manifest = manifest();
    let sealed = manifest.seal(Compression::default()).expect("seal");
    group.throughput(Throughput::Elements(FILES));
    group.bench_function("seal a manifest", |bench| {
        bench.iter(|| manifest.seal(Compression::default()).expect("seal"));
    });
    group.bench_function("open a manifest", |bench| {
        bench.iter(|| Manifest::open(&sealed).expect("open"));
    });
    group.finish();
}

fn segment(group: &mut BenchmarkGroup<'_, WallTime>) {
    let content = content();
    let sealed = seal(&content);
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("seal a segment", |bench| bench.iter(|| seal(&content)));
    group.bench_function("open a segment", |bench| {
        bench.iter(|| open(&sealed[..], |_| Ok(())).expect("open"));
    });
    group.bench_function("crc32 of a segment", |bench| bench.iter(|| crc32fast::hash(&content)));
    group.throughput(Throughput::Bytes(FRAME_BYTES as u64));
    let mut sealer = FrameSealer::new(Compression::default()).expect("a sealer");
    group.bench_function("seal a frame of a pack", |bench| {
        bench.iter(|| sealer.seal(&content[..FRAME_BYTES]).expect("seal"));
    });
}

fn wal(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (content, count) = records();
    let found = digest(&content).expect("a known version");
    assert_eq!((found.records, found.invalid), (count, None));
    group.throughput(Throughput::Elements(count));
    group.bench_function("digest a segment of small records", |bench| {
        bench.iter(|| digest(&content));
    });
    let (mut checksum, first) = (Checksum::default(), &content[40..40 + 88]);
    group.throughput(Throughput::Elements(1));
    group.bench_function("check a record", |bench| {
        bench.iter(|| {
            checksum.data(&first[HEADER_BYTES..]);
            checksum.finish(first.first_chunk().expect("a header"))
        });
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);

//! What is computed for each file, without files: seal, open, check, and the manifest of a backup.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use walden::codec::{Compression, FRAME_BYTES, FrameSealer, Header, Kind, Origin, Sealer, open};
use walden::postgres::wal_file_check::WalFileCheck;
use walden::postgres::{Lsn, SystemIdentifier, TimelineId, WalFileName};
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

fn check(name: &WalFileName, content: &[u8]) {
    let mut check = WalFileCheck::new(name);
    for piece in content.chunks(PIECE_BYTES) {
        check.write(piece).expect("its pages are in order");
    }
    check.finish().expect("it is what it is called");
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
    };
    let packs = (FILES << 20).div_ceil(PACK_BYTES);
    Manifest {
        walden: 1,
        id: BackupId::new(jiff::Timestamp::UNIX_EPOCH, 1),
        origin: origin(),
        server_version_num: 170_011,
        wal_segment_size: SEGMENT_BYTES as u32,
        label: None,
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
    let name = WalFileName::parse(NAME).expect("a segment's name");
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("seal a segment", |bench| bench.iter(|| seal(&content)));
    group.bench_function("open a segment", |bench| {
        bench.iter(|| open(&sealed[..], |_| Ok(())).expect("open"));
    });
    group.bench_function("check a segment's pages", |bench| bench.iter(|| check(&name, &content)));
    group.bench_function("crc32 of a segment", |bench| bench.iter(|| crc32fast::hash(&content)));
    group.throughput(Throughput::Bytes(FRAME_BYTES as u64));
    let mut sealer = FrameSealer::new(Compression::default()).expect("a sealer");
    group.bench_function("seal a frame of a pack", |bench| {
        bench.iter(|| sealer.seal(&content[..FRAME_BYTES]).expect("seal"));
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);

//! Sealing and opening, without files: bytes a second of the codec.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use walden::codec::{Compression, FRAME_BYTES, FrameSealer, Header, Kind, Origin, Sealer, open};
use walden::postgres::SystemIdentifier;

const SEGMENT_BYTES: usize = 16 << 20;

/// Half of it repeats, half does not, as in WAL of rows with keys.
fn content() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let words: Vec<[u8; 16]> = (0..256).map(|_| random.u128(..).to_le_bytes()).collect();
    let mut content = Vec::with_capacity(SEGMENT_BYTES);
    while content.len() < SEGMENT_BYTES {
        content.extend_from_slice(&words[random.usize(..words.len())]);
        content.extend_from_slice(&random.u64(..).to_le_bytes());
    }
    content.truncate(SEGMENT_BYTES);
    content
}

fn seal(content: &[u8]) -> Vec<u8> {
    let origin = Origin {
        host: "bench".into(),
        source: "/data".into(),
        system_identifier: SystemIdentifier(1),
        time: jiff::Timestamp::UNIX_EPOCH,
        version: "0".into(),
    };
    let mut sealer = Sealer::new(Compression::default(), content.len() as u64).expect("a sealer");
    for piece in content.chunks(256 << 10) {
        sealer.write(piece).expect("seal");
    }
    let describe = |content| Header::new(Kind::Segment, "segment", content, origin);
    sealer.finish(describe).expect("finish")
}

fn codec(criterion: &mut Criterion) {
    let content = content();
    let sealed = seal(&content);
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(content.len() as u64)).sample_size(20);
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
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);

//! What the digest costs: its share of the CPU time of a push.
//!
//! A push cannot be told to leave it out, so it is computed alone as well, over the same bytes as a
//! push reads them, and the rest is what a push without it would take.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walden::codec::FRAME_BYTES;
use walden::postgres::SegmentName;
use walden::postgres::wal::{Digest, Digester};

use crate::setup::knobs;
use crate::setup::peers::{Home, Place, WALDEN};
use crate::setup::race::{self, Lane, race};
use crate::setup::scratch::Scratch;
use crate::setup::table::{Table, milliseconds, ratio};
use crate::setup::wal::{Kind, Wal};

const ROUNDS: usize = 24;
const MEMORY_ROUNDS: usize = 3;

pub fn run() {
    let wal = Wal::ready();
    let rounds = knobs::rounds(ROUNDS);
    println!("## The digest in a push\n");
    println!("CPU time, mean of {rounds} segments.\n");
    let head = ["", "push", "digest", "without it", "digest to push", "records", "in the header"];
    let mut table = Table::new(&head);
    let scratch = Scratch::new();
    let home = Home::new(scratch.join("home"), &wal.control_file(), Place::Directory);
    let mut lanes = [Lane::new(WALDEN, home)];
    for kind in Kind::ALL {
        let segments = wal.segments(kind, MEMORY_ROUNDS + rounds);
        race(&mut lanes, &segments, MEMORY_ROUNDS);
        let alone = Alone::over(&segments[MEMORY_ROUNDS..]);
        let push = lanes[0].cpu();
        table.row(vec![
            kind.title().to_owned(),
            milliseconds(push),
            milliseconds(alone.digest),
            milliseconds(push.saturating_sub(alone.digest)),
            ratio(alone.digest, push),
            format!("{}", alone.records),
            format!("{:.1} KiB", alone.json_bytes / 1024.0),
        ]);
    }
    table.print();
}

/// A digest of one segment, in the mean.
struct Alone {
    digest: Duration,
    records: u64,
    json_bytes: f64,
}

impl Alone {
    fn over(segments: &[PathBuf]) -> Alone {
        let mut alone = Alone { digest: Duration::ZERO, records: 0, json_bytes: 0.0 };
        // Once for the caches.
        pieces(&segments[0], |_| {});
        for segment in segments {
            let name = SegmentName::parse(race::name(segment)).expect("a segment's name");
            let mut digester = Digester::new(name);
            let begun = cpu_time();
            pieces(segment, |_| {});
            let read = cpu_time();
            pieces(segment, |piece| digester.write(piece));
            let digest = digester.finish().expect("WAL of a known version");
            let digested = cpu_time();
            alone.digest += (digested - read).saturating_sub(read - begun);
            alone.records += digest.records;
            alone.json_bytes += bytes_of(&digest);
        }
        let count = u32::try_from(segments.len()).expect("not that many");
        alone.digest /= count;
        alone.records /= u64::from(count);
        alone.json_bytes /= f64::from(count);
        alone
    }
}

fn bytes_of(digest: &Digest) -> f64 {
    assert_eq!(digest.invalid, None, "the kept WAL is damaged: remove target/bench-wal-1");
    serde_json::to_vec(digest).expect("it has a JSON form").len() as f64
}

/// As push reads.
fn pieces(segment: &Path, mut take: impl FnMut(&[u8])) {
    let mut file = File::open(segment).expect("open a segment");
    let mut piece = vec![0; FRAME_BYTES];
    while let Ok(()) = file.read_exact(&mut piece) {
        take(&piece);
    }
}

/// Of this thread, as the scheduler counts it: in nanoseconds, first of three numbers.
fn cpu_time() -> Duration {
    let counted = fs::read_to_string("/proc/thread-self/schedstat").expect("read schedstat");
    let nanoseconds = counted.split_whitespace().next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

//! Parsers of WAL and of what is kept of it, on real WAL that was damaged at random: they end, they
//! do not panic, and what they say does not hang on how the bytes came.
//!
//! `WALDEN_TEST_FUZZ_SECONDS=600` for ten minutes of each. What failed is kept in a file, since
//! servers do not write the same WAL twice.

use std::fs;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use walden::codec::{Content, Header, Kind, Origin};
use walden::postgres::history_file::HistoryFile;
use walden::postgres::wal::digest::{Digest, Fragment, joint};
use walden::postgres::wal::record::{Checksum, HEADER_BYTES, Parts, Record, RecordHeader};
use walden::postgres::wal::{Digester, SegmentCheck, ending, read_segment};
use walden::postgres::wal_file_check::WalFileCheck;
use walden::postgres::{Lsn, MajorVersion, SegmentName, SystemIdentifier, TimelineId, WalFileName};

use crate::harness::{Cluster, amount, every_major, seed};

/// Of a segment, so that many rounds fit in little time.
const PAGES_MAX: usize = 12;
const PAGE_BYTES: usize = 8192;
const SEGMENT_BYTES: usize = 1 << 20;

/// A segment as its server wrote it.
struct Seed {
    version: MajorVersion,
    name: SegmentName,
    bytes: Vec<u8>,
}

/// Two segments of every version.
static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    thread::scope(|scope| {
        let servers: Vec<_> = every_major().map(|it| scope.spawn(move || segments(it))).collect();
        servers.into_iter().flat_map(|server| server.join().expect("a server's WAL")).collect()
    })
});

fn segments(major: MajorVersion) -> Vec<Seed> {
    let cluster = Cluster::builder(major)
        .setting("wal_level", "logical")
        .setting("wal_keep_size", "'1GB'")
        .setting("max_prepared_transactions", "5")
        .start();
    cluster.sql("SELECT pg_switch_wal()");
    let first = cluster.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY, what text)");
    cluster.sql("INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 3000) n");
    for round in 0..20 {
        cluster.sql(&format!("BEGIN; SAVEPOINT s; DELETE FROM t WHERE id % 50 = {round}; COMMIT"));
        cluster.sql("CREATE TABLE gone (id int PRIMARY KEY, what text)");
        cluster.sql("TRUNCATE gone");
        cluster.sql("DROP TABLE gone");
    }
    cluster.sql("SELECT pg_create_restore_point('here')");
    cluster.sql("BEGIN; DELETE FROM t WHERE id < 500; PREPARE TRANSACTION 'two'");
    cluster.sql("COMMIT PREPARED 'two'");
    cluster
        .sql("CHECKPOINT; INSERT INTO t SELECT -n, md5(n::text) FROM generate_series(1, 9000) n");
    cluster.sql("SELECT pg_switch_wal()");
    let first = SegmentName::parse(&first).expect("a segment's name");
    let names = [first, first.next(SEGMENT_BYTES as u32)];
    let read = |name: SegmentName| Seed {
        version: major,
        name,
        bytes: fs::read(cluster.pgdata().join("pg_wal").join(name.to_string())).expect("read WAL"),
    };
    names.map(read).into_iter().collect()
}

/// As often as is usual, or for as long as is asked.
fn rounds(usual: u32, mut round: impl FnMut(&mut Rng)) {
    let mut random = Rng::with_seed(seed());
    let seconds = amount("WALDEN_TEST_FUZZ_SECONDS", 0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0u64;
    while count < u64::from(usual) || Instant::now() < end {
        round(&mut random);
        count += 1;
    }
    println!("{count} rounds");
}

/// Damages bytes as disks, programs and enemies do.
fn damage(random: &mut Rng, bytes: &mut Vec<u8>, others: &[u8]) {
    for _ in 0..random.u32(1..5) {
        if bytes.is_empty() {
            return;
        }
        let at = random.usize(..bytes.len());
        let length = random.usize(..64).min(bytes.len() - at);
        match random.u32(..8) {
            0 => bytes[at] ^= 1 << random.u32(..8),
            1 => bytes[at] = random.u8(..),
            2 => bytes.truncate(at),
            3 => _ = bytes.drain(at..at + length),
            4 => bytes[at..at + length].fill(0),
            5 if !others.is_empty() => {
                let from = random.usize(..others.len());
                let part = &others[from..others.len().min(from + length)];
                bytes.splice(at..at, part.iter().copied());
            }
            6 if !others.is_empty() => {
                let from = random.usize(..others.len());
                let part = &others[from..others.len().min(from + length)];
                bytes[at..at + part.len()].copy_from_slice(part);
            }
            _ => {
                let at = at & !3;
                let edge = [0, 1, 23, 24, 25, 0x7FFF_FFFF, 0x8000_0000, u32::MAX, 1020 << 20];
                let word = if random.bool() {
                    edge[random.usize(..edge.len())]
                } else {
                    random.u32(..20_000)
                };
                if let Some(four) = bytes.get_mut(at..at + 4) {
                    four.copy_from_slice(&word.to_le_bytes());
                }
            }
        }
    }
}

fn any_seed(random: &mut Rng) -> &'static Seed {
    &SEEDS[random.usize(..SEEDS.len())]
}

/// Keeps the bytes that made a test panic.
struct Witness<'a>(SegmentName, &'a [u8]);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let path = std::env::temp_dir().join(format!("walden-fuzz-{}", self.0));
            println!("kept in {}: {:?}", path.display(), fs::write(&path, self.1));
        }
    }
}

/// Reads the bytes whole and in pieces; both must say the same.
fn read_both_ways(random: &mut Rng, name: SegmentName, bytes: &[u8]) {
    let _witness = Witness(name, bytes);
    let mut whole = Vec::new();
    let note = |record: &Record<'_>| (record.lsn, record.end, record.header, ending(record));
    let outcome = read_segment(name, [bytes], |record| whole.push(note(record)));
    assert!(whole.is_sorted_by_key(|record| record.0));
    let mut in_pieces = Vec::new();
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let longest = if random.bool() { 50 } else { 20_000 };
        let (piece, after) = rest.split_at(random.usize(1..longest).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    let again = read_segment(name, pieces.iter().copied(), |record| in_pieces.push(note(record)));
    assert_eq!(whole, in_pieces);
    assert_eq!(outcome, again);

    let mut digester = if random.bool() { Digester::new(name) } else { Digester::of_partial(name) };
    let mut check = SegmentCheck::new(name);
    for piece in pieces {
        digester.write(piece);
        let _ = check.write(piece);
    }
    let _ = check.finish();
    if let Some(digest) = digester.finish() {
        let json = serde_json::to_vec(&digest).expect("every digest has a JSON form");
        assert!(json.len() < 64 << 10);
        assert_eq!(serde_json::from_slice::<Digest>(&json).expect("what was written"), digest);
    }
}

#[test]
fn damaged_segments() {
    rounds(600, |random| {
        let seed = any_seed(random);
        let pages = random.usize(1..=PAGES_MAX);
        let mut bytes = seed.bytes[..pages * PAGE_BYTES].to_vec();
        let other = any_seed(random);
        damage(random, &mut bytes, &other.bytes);
        read_both_ways(random, seed.name, &bytes);
    });
}

/// Damage that a checksum was made over, so that it comes through to what is behind.
#[test]
fn nonsense_with_a_right_checksum() {
    rounds(400, |random| {
        let seed = any_seed(random);
        let first = random.usize(..SEGMENT_BYTES / PAGE_BYTES - PAGES_MAX);
        let mut bytes = seed.bytes[..(first + PAGES_MAX) * PAGE_BYTES].to_vec();
        let start = seed.name.start(SEGMENT_BYTES as u32).0;
        let mut places = Vec::new();
        read_segment(seed.name, [&bytes[..]], |record| {
            let at = (record.lsn.0 - start) as usize;
            let length = record.header.total as usize;
            if at / PAGE_BYTES == (at + length - 1) / PAGE_BYTES {
                places.push(at..at + length);
            }
        });
        for _ in 0..random.usize(1..200).min(places.len()) {
            let place = places[random.usize(..places.len())].clone();
            let mut record = bytes[place.clone()].to_vec();
            let mut body = record.split_off(HEADER_BYTES);
            damage(random, &mut body, &seed.bytes);
            body.resize(place.len() - HEADER_BYTES, 0);
            // Other resource managers' records, too.
            if random.u32(..4) == 0 {
                record[16] = random.u8(..);
                record[17] = random.u8(..22);
            }
            seal(&mut record, &body);
            bytes[place].copy_from_slice(&record);
        }
        read_both_ways(random, seed.name, &bytes);
    });
}

/// Puts the body behind the header, and the checksum of both into it.
fn seal(record: &mut Vec<u8>, body: &[u8]) {
    let mut checksum = Checksum::default();
    checksum.data(body);
    let head = record.first_chunk::<HEADER_BYTES>().expect("a header");
    let checksum = checksum.finish(head);
    record[20..].copy_from_slice(&checksum.to_le_bytes());
    record.extend_from_slice(body);
}

#[test]
fn damaged_records() {
    let mut records = Vec::new();
    for seed in SEEDS.iter() {
        read_segment(seed.name, [&seed.bytes[..]], |record| {
            // All ends of transactions, and some of the rest.
            if ending(record).is_some() || records.len() % 64 == 0 {
                records.push((seed.version, record.bytes.to_vec()));
            }
        });
    }
    rounds(20_000, |random| {
        let (version, record) = &records[random.usize(..records.len())];
        let others = &records[random.usize(..records.len())].1;
        let mut bytes = record.clone();
        damage(random, &mut bytes, others);
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return };
        let mut header = RecordHeader::parse(head);
        if random.bool() {
            header.total = bytes.len() as u32;
        }
        let _ = Parts::parse(header.total, &bytes);
        let (version, bytes) = (*version, &bytes[..]);
        let _ = ending(&Record { version, lsn: Lsn(8), end: Lsn(16), header, bytes });
    });
}

fn digests() -> Vec<Digest> {
    let digest = |seed: &Seed| {
        let mut digester = Digester::new(seed.name);
        digester.write(&seed.bytes);
        digester.finish().expect("a known version")
    };
    SEEDS.iter().map(digest).collect()
}

#[test]
fn damaged_digests() {
    let digests = digests();
    let header = |digest: &Digest| {
        let origin = Origin {
            host: "host".into(),
            source: "/data".into(),
            system_identifier: SystemIdentifier(1),
            time: jiff::Timestamp::UNIX_EPOCH,
            version: "0".into(),
        };
        let mut header = Header::new(Kind::Segment, "name", Content::default(), origin);
        header.digest = Some(Box::new(digest.clone()));
        header.to_frame()
    };
    let frames: Vec<Vec<u8>> = digests.iter().map(header).collect();
    rounds(3000, |random| {
        let frame = &frames[random.usize(..frames.len())];
        let mut json = frame[8..].to_vec();
        damage(random, &mut json, frame);
        let _ = serde_json::from_slice::<Digest>(&json);
        let mut damaged = frame[..4].to_vec();
        damaged.extend_from_slice(&(json.len() as u32).to_le_bytes());
        damaged.extend_from_slice(&json);
        if let Ok(header) = Header::read(&mut &damaged[..]) {
            assert!(header.digest.is_none_or(|digest| serde_json::to_vec(&digest).is_ok()));
        }
    });
}

/// A record that lies in two segments, in two digests that may be damaged.
#[test]
fn damaged_fragments() {
    let mut ends = Vec::new();
    for seed in SEEDS.iter() {
        read_segment(seed.name, [&seed.bytes[..]], |record| {
            if ending(record).is_some() && record.bytes.len() < 2048 {
                ends.push((seed.version, record.bytes.to_vec(), ending(record)));
            }
        });
    }
    let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    rounds(2000, |random| {
        let (version, bytes, expected) = &ends[random.usize(..ends.len())];
        let lsn = expected.as_ref().expect("an end").at.lsn;
        let split = random.usize(8..bytes.len());
        let version = *version;
        let fragment = |lsn: Lsn, total: usize, part: &[u8]| {
            Some(Fragment { lsn, version, total: total as u32, bytes: text(part) })
        };
        let (mut first, mut rest) = (
            fragment(lsn, bytes.len(), &bytes[..split]),
            fragment(Lsn(lsn.0 + 4096), bytes.len() - split, &bytes[split..]),
        );
        assert_eq!(&joint(&first, &rest), expected);
        let half = if random.bool() { &mut first } else { &mut rest };
        let fragment = half.as_mut().expect("it is there");
        let mut damaged = fragment.bytes.clone().into_bytes();
        damage(random, &mut damaged, b"0123456789abcdefABCDEF\xC3\xA9");
        let is_same = damaged == fragment.bytes.as_bytes();
        fragment.bytes = String::from_utf8_lossy(&damaged).into_owned();
        if random.u32(..4) == 0 {
            fragment.total = random.u32(..);
            let _ = joint(&first, &rest);
        } else if let (Some(ending), false) = (joint(&first, &rest), is_same) {
            // Capital digits are the same digits.
            assert_eq!(Some(ending), *expected);
        }
    });
}

#[test]
fn damaged_text_files() {
    let history = "1\t0/A000000\tno recovery target specified\n\n2\t0/B0000D8\tbefore 2026\n";
    let notes = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
                 STOP WAL LOCATION: 0/2000120 (file 000000010000000000000002)\n";
    let timeline = TimelineId::new(3).expect("not 0");
    let names = ["00000003.history", "000000010000000000000002.00000028.backup"];
    let names = names.map(|name| WalFileName::parse(name).expect("a name"));
    rounds(20_000, |random| {
        let mut text = if random.bool() { history } else { notes }.as_bytes().to_vec();
        damage(random, &mut text, notes.as_bytes());
        let _ = HistoryFile::parse(timeline, &String::from_utf8_lossy(&text));
        for name in &names {
            let mut check = WalFileCheck::new(name);
            let _ = check.write(&text);
            let _ = check.finish();
        }
        let _ = WalFileName::parse(&String::from_utf8_lossy(&text));
    });
}

/// Whatever byte changes of a record that is whole in its segment, the digester sees it.
#[test]
fn flipped_bytes() {
    let start = |seed: &Seed| seed.name.start(SEGMENT_BYTES as u32).0;
    let mut places = Vec::new();
    for (number, seed) in SEEDS.iter().enumerate() {
        read_segment(seed.name, [&seed.bytes[..]], |record| {
            let mut at = (record.lsn.0 - start(seed)) as usize;
            for _ in 0..record.header.total {
                if at.is_multiple_of(PAGE_BYTES) {
                    at += 24;
                }
                places.push((number, at));
                at += 1;
            }
        });
    }
    rounds(300, |random| {
        let (number, at) = places[random.usize(..places.len())];
        let seed = &SEEDS[number];
        let mut bytes = seed.bytes.clone();
        bytes[at] ^= random.u8(1..);
        let mut digester = Digester::new(seed.name);
        bytes.chunks(random.usize(1000..300_000)).for_each(|piece| digester.write(piece));
        let digest = digester.finish().expect("a known version");
        let name = seed.name;
        assert!(digest.invalid.is_some(), "PostgreSQL {}, {name}, byte {at}", seed.version);
    });
}

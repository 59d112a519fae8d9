//! Packs of several frames in a store in memory, read in all ways, whole and damaged.
#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some with one")]

use std::ops::Range;
use std::sync::Arc;

use super::{PackReader, PackSink};
use crate::codec::{Compression, FrameSealer, Header, Kind, PackBuilder};
use crate::error::{ErrorKind, Result};
use crate::postgres::SystemIdentifier;
use crate::repository::manifest::samples::manifest;
use crate::repository::manifest::{Manifest, Pack};
use crate::repository::{ClusterName, Home, Repository, layout};
use crate::storage::faulty::Faulty;
use crate::storage::memory::Memory;
use crate::storage::{Body, Storage, Verb};

const PACK_BYTES: u64 = 8 << 20;
const FRAME_BYTES: usize = 128 << 10;

struct Sample {
    memory: Arc<Memory>,
    faulty: Arc<Faulty>,
    home: Home,
    manifest: Manifest,
    stream: Vec<u8>,
}

/// Two packs and a half, of noise, so that what is stored is as long.
fn sample() -> Sample {
    let mut random = fastrand::Rng::with_seed(7);
    let stream: Vec<u8> =
        std::iter::repeat_with(|| random.u8(..)).take(PACK_BYTES as usize * 5 / 2).collect();
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(memory.clone()));
    let repository = Repository::new(faulty.clone(), ClusterName::new("main").unwrap());
    let home = repository.home(SystemIdentifier(7));
    let mut manifest = manifest(SystemIdentifier(7), 1);
    manifest.pack_bytes = PACK_BYTES;
    manifest.packs.clear();
    for (number, raw) in stream.chunks(PACK_BYTES as usize).enumerate() {
        let sealed = sealed(&manifest, number as u32, raw);
        manifest.packs.push(Pack { size: raw.len() as u64, stored: sealed.len() as u64 });
        home.put_pack(&manifest.id, number as u32, &Body::new(sealed)).unwrap();
    }
    Sample { memory, faulty, home, manifest, stream }
}

fn sealed(manifest: &Manifest, number: u32, raw: &[u8]) -> Vec<u8> {
    let mut sealer = FrameSealer::new(Compression::default()).unwrap();
    let mut pack = PackBuilder::default();
    raw.chunks(FRAME_BYTES).for_each(|frame| pack.push(sealer.seal(frame).unwrap()));
    let origin = manifest.origin.clone();
    pack.finish(|content| Header::new(Kind::Pack, layout::pack_name(number), content, origin))
}

impl Sample {
    fn read(&self, number: u32, wanted: &[Range<u64>]) -> Result<Taken> {
        let mut taken = Taken::default();
        let mut reader = PackReader::new(&self.home)?;
        taken.fetched = reader.read(&self.manifest, number, wanted, &mut taken)?;
        Ok(taken)
    }

    fn change(&self, number: u32, change: impl FnOnce(&mut Vec<u8>)) {
        let key = self.home.pack_key(&self.manifest.id, number);
        let mut object = self.memory.get(&key).unwrap().to_vec();
        change(&mut object);
        self.memory.delete(&key).unwrap();
        self.memory.put_new(&key, &Body::new(object)).unwrap();
    }
}

#[derive(Debug, Default)]
struct Taken {
    pieces: Vec<(u64, Vec<u8>)>,
    fetched: u64,
}

impl Taken {
    fn has(&self, stream: &[u8], pack: u64, wanted: &Range<u64>) -> bool {
        let right = |(at, piece): &(u64, Vec<u8>)| {
            let begin = (pack * PACK_BYTES + at) as usize;
            stream[begin..begin + piece.len()] == piece[..]
        };
        let is_covered = |byte: u64| {
            let holds =
                |(at, piece): &(u64, Vec<u8>)| (*at..at + piece.len() as u64).contains(&byte);
            self.pieces.iter().filter(|piece| holds(piece)).count() == 1
        };
        self.pieces.iter().all(right)
            && wanted.clone().step_by(1013).chain([wanted.end - 1]).all(is_covered)
    }
}

impl PackSink for Taken {
    fn take(&mut self, at: u64, piece: &[u8]) -> Result<()> {
        self.pieces.push((at, piece.to_vec()));
        Ok(())
    }

    fn owner(&self, raw: &Range<u64>) -> String {
        format!("bytes {} to {}", raw.start, raw.end)
    }
}

#[test]
fn what_is_wanted_comes_and_little_else() {
    let sample = sample();
    for (wanted, requests) in [
        (vec![0..PACK_BYTES], (1, 0)),
        (vec![5..6], (0, 2)),
        (vec![7_000_000..7_000_001], (0, 3)),
        (vec![10..200_000, 900_000..900_100], (0, 2)),
        (vec![10..20, 4_000_000..4_000_100, PACK_BYTES - 1..PACK_BYTES], (0, 4)),
        (vec![10..20, 2_000_000..2_000_100, 3_000_000..3_000_001, 4_500_000..4_500_001], (0, 4)),
        ((0..8).map(|n| n << 20..(n << 20) + 1).collect(), (1, 1)),
        (vec![], (0, 0)),
    ] {
        let before = (sample.faulty.calls(Verb::Get), sample.faulty.calls(Verb::GetRange));
        let taken = sample.read(1, &wanted).unwrap();
        let (gets, ranges) = (sample.faulty.calls(Verb::Get), sample.faulty.calls(Verb::GetRange));
        assert!(wanted.iter().all(|wanted| taken.has(&sample.stream, 1, wanted)), "{wanted:?}");
        assert_eq!((gets - before.0, ranges - before.1), requests, "{wanted:?}");
    }
    let one = sample.read(1, &[7_000_000..7_000_001]).unwrap();
    assert!(one.fetched < 2 * FRAME_BYTES as u64, "{}", one.fetched);
}

#[test]
fn a_file_is_read_across_packs() {
    let mut sample = sample();
    for (offset, size) in [(0, 10), (PACK_BYTES - 5, 10), (PACK_BYTES, 0), (5, 2 * PACK_BYTES)] {
        let file = &mut sample.manifest.files[1];
        (file.offset, file.size) = (offset, size);
        let content = sample.home.read_file(&sample.manifest, "base/1/1259").unwrap().unwrap();
        assert!(content == sample.stream[offset as usize..(offset + size) as usize], "{offset}");
    }
    assert_eq!(sample.home.read_file(&sample.manifest, "base").unwrap(), None);
    sample.manifest.files[1].offset = u64::MAX;
    let outside = sample.home.read_file(&sample.manifest, "base/1/1259").unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::Corrupt);
}

#[test]
fn damage_is_found_on_both_ways_and_named() {
    for wanted in [vec![0..PACK_BYTES], vec![3_000_000..3_000_001]] {
        let sample = sample();
        sample.change(1, |object| object[3_000_100] ^= 1);
        let error = sample.read(1, &wanted).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let said = error.to_string();
        let id = sample.manifest.id.as_str();
        assert!(said.contains("data-00001") && said.contains(id), "{said}");
        assert!(said.contains("bytes 2883584 to 3014656"), "{said}");
        assert!(error.hint_text().is_some());
        // Frames that are not wanted are not looked at.
        assert!(sample.read(1, &[10..20]).is_ok());
    }
}

#[test]
fn a_pack_of_another_place_or_backup_is_refused_on_both_ways() {
    for wanted in [vec![0..PACK_BYTES], vec![3_000_000..3_000_001]] {
        let sample = sample();
        let raw = &sample.stream[..PACK_BYTES as usize];
        let mut other = sample.manifest.clone();
        other.origin.host = "db2".to_owned();
        for object in [sealed(&sample.manifest, 0, raw), sealed(&other, 1, raw)] {
            sample.change(1, |place| *place = object);
            let error = sample.read(1, &wanted).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
        sample.change(1, |object| object.truncate(1000));
        assert_eq!(sample.read(1, &wanted).unwrap_err().kind(), ErrorKind::Corrupt);
        sample.memory.delete(&sample.home.pack_key(&sample.manifest.id, 1)).unwrap();
        assert_eq!(sample.read(1, &wanted).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

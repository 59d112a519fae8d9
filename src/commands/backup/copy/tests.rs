//! The pipeline on a store in memory, with faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::codec::{Compression, Origin};
use crate::commands::backup::copy::{self, Target};
use crate::commands::backup::halt::Halt;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::SystemIdentifier;
use crate::repository::manifest::{PACK_BYTES, Pack};
use crate::repository::{BackupId, ClusterName, Home, Repository};
use crate::storage::memory::Memory;
use crate::storage::{Body, Key, Listing, ObjectInfo, Storage};

/// Refuses every put from the nth on.
#[derive(Debug)]
struct FullAfter {
    memory: Memory,
    puts_left: AtomicUsize,
}

impl Storage for FullAfter {
    fn put_new(&self, key: &Key, body: &Body) -> Result<()> {
        let left =
            self.puts_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        left.map_err(|_| Error::new(ErrorKind::Full, "no space left"))?;
        self.memory.put_new(key, body)
    }

    fn get(&self, key: &Key) -> Result<Bytes> {
        self.memory.get(key)
    }

    fn get_start(&self, key: &Key, max: u64) -> Result<(Bytes, u64)> {
        self.memory.get_start(key, max)
    }

    fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes> {
        self.memory.get_range(key, range)
    }

    fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.memory.head(key)
    }

    fn list_all(&self, folder: &Key, after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        self.memory.list_all(folder, after)
    }

    fn list(&self, folder: Option<&Key>) -> Result<Listing> {
        self.memory.list(folder)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.memory.delete(key)
    }

    fn url(&self) -> String {
        self.memory.url()
    }
}

struct Place {
    home: Home,
    id: BackupId,
    origin: Origin,
}

impl Place {
    fn with_puts(puts: usize) -> Place {
        let storage = FullAfter { memory: Memory::new(), puts_left: puts.into() };
        let repository = Repository::new(Arc::new(storage), ClusterName::new("main").unwrap());
        let time: jiff::Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let system_identifier = SystemIdentifier(7);
        let origin = Origin {
            host: "db1".into(),
            source: "here".into(),
            system_identifier,
            time,
            version: "0".into(),
        };
        Place { home: repository.home(system_identifier), id: BackupId::new(time, 1), origin }
    }

    fn target(&self, jobs: usize) -> Target<'_> {
        Target {
            home: &self.home,
            id: &self.id,
            origin: &self.origin,
            compression: Compression::default(),
            jobs,
        }
    }

    fn raw(&self, packs: &[Pack]) -> Vec<u8> {
        let mut raw = Vec::new();
        for number in 0..packs.len() {
            let sink = |piece: &[u8]| {
                raw.extend_from_slice(piece);
                Ok(())
            };
            self.home.get_pack(&self.id, number as u32, sink).unwrap();
        }
        raw
    }
}

/// Hardly compressible, and each place tells where it is.
fn stream(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.u64(..).to_le_bytes()).flatten().take(size).collect()
}

#[test]
fn the_stream_comes_back_from_its_packs_in_order() {
    for (size, packs_expected) in
        [(0, 0), (1, 1), (PACK_BYTES as usize, 1), (2 * PACK_BYTES as usize + 5_000_001, 3)]
    {
        for jobs in [1, 4] {
            let place = Place::with_puts(100);
            let raw = stream(size);
            let halt = Halt::new(|| {});
            let feed = |writer: &mut copy::StreamWriter<'_>| {
                let mut pieces = raw.chunks(300_007);
                // Frames of many lengths, packs of one.
                let piece = |piece| writer.write(piece).and_then(|()| writer.flush());
                pieces.try_for_each(piece).map(|()| "fed")
            };
            let (fed, packs) = copy::run(&place.target(jobs), &halt, feed).unwrap();
            assert_eq!((fed, packs.len()), ("fed", packs_expected));
            assert!(packs.iter().rev().skip(1).all(|pack| pack.size == PACK_BYTES));
            assert_eq!(packs.iter().map(|pack| pack.size).sum::<u64>(), size as u64);
            assert!(place.raw(&packs) == raw, "{size} bytes with {jobs} jobs");
        }
    }
}

#[test]
fn a_full_store_stops_the_stream_and_wakes_the_server() {
    let place = Place::with_puts(1);
    let woken = AtomicUsize::new(0);
    let halt = Halt::new(|| {
        woken.fetch_add(1, Ordering::SeqCst);
    });
    let piece = stream(1 << 20);
    let mut written = 0_u64;
    // Without an end of its own: only the failure stops it.
    let endless = |writer: &mut copy::StreamWriter<'_>| -> Result<()> {
        loop {
            writer.write(&piece)?;
            written += piece.len() as u64;
        }
    };
    let error = copy::run(&place.target(2), &halt, endless).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    assert!(written < 8 * PACK_BYTES, "{written} bytes after the store was full");
}

#[test]
fn the_servers_own_error_is_the_one_reported() {
    let place = Place::with_puts(100);
    let halt = Halt::new(|| {});
    let broken = |writer: &mut copy::StreamWriter<'_>| -> Result<()> {
        writer.write(&stream(3 << 20))?;
        Err(Error::new(ErrorKind::Server, "PostgreSQL closed the connection"))
    };
    let error = copy::run(&place.target(2), &halt, broken).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
}

#[test]
fn somebody_elses_verdict_ends_the_stream() {
    let place = Place::with_puts(100);
    let halt = Halt::new(|| {});
    let doomed = |writer: &mut copy::StreamWriter<'_>| -> Result<()> {
        halt.fail(Error::new(ErrorKind::Refused, "no WAL arrives"));
        loop {
            writer.write(&[0; 4096])?;
        }
    };
    let error = copy::run(&place.target(2), &halt, doomed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

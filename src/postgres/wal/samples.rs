//! WAL written by hand for tests: records laid into pages and segments as a server does.

use crate::postgres::wal::page::{LONG_HEADER_BYTES, SHORT_HEADER_BYTES};
use crate::postgres::wal::record::{Checksum, HEADER_BYTES};
use crate::postgres::{Lsn, MajorVersion, SegmentName, TimelineId};

pub const SEGMENT: u64 = 1 << 20;
pub const PAGE: u64 = 8192;

/// Writes records one after the other from the beginning of a segment on.
pub struct Pen {
    pub timeline: u32,
    magic: u16,
    start: u64,
    bytes: Vec<u8>,
    previous: u64,
}

/// A record to write.
#[derive(Clone)]
pub struct Draft {
    pub xid: u32,
    pub resource_manager: u8,
    pub info: u8,
    /// What comes after the header.
    pub body: Vec<u8>,
}

impl Pen {
    pub fn new(version: u16) -> Self {
        let magic = match version {
            15 => 0xD110,
            16 => 0xD113,
            17 => 0xD116,
            _ => 0xD118,
        };
        Pen { timeline: 1, magic, start: 5 * SEGMENT, bytes: Vec::new(), previous: 4 * SEGMENT }
    }

    /// At the beginning of another segment.
    pub fn starting(version: u16, at: Lsn) -> Self {
        Pen { start: at.0, previous: at.0 - SEGMENT, ..Pen::new(version) }
    }

    pub fn version(&self) -> MajorVersion {
        MajorVersion::from_wal_magic(self.magic).unwrap()
    }

    /// Where the next record will begin.
    pub fn lsn(&self) -> Lsn {
        let at = self.start + self.bytes.len() as u64;
        Lsn(at + header_bytes_at(at))
    }

    pub fn record(&mut self, draft: &Draft) -> Lsn {
        let record = self.sealed(draft);
        self.raw(&record)
    }

    /// The bytes of a record that would come next, checksum and all.
    pub fn sealed(&self, draft: &Draft) -> Vec<u8> {
        let mut head = [0; HEADER_BYTES];
        head[..4].copy_from_slice(&((HEADER_BYTES + draft.body.len()) as u32).to_le_bytes());
        head[4..8].copy_from_slice(&draft.xid.to_le_bytes());
        head[8..16].copy_from_slice(&self.previous.to_le_bytes());
        head[16] = draft.info;
        head[17] = draft.resource_manager;
        let mut checksum = Checksum::default();
        checksum.data(&draft.body);
        let checksum = checksum.finish(&head);
        head[20..].copy_from_slice(&checksum.to_le_bytes());
        [&head[..], &draft.body].concat()
    }

    pub fn raw(&mut self, record: &[u8]) -> Lsn {
        if self.in_page() == 0 {
            self.page(0, 0);
        }
        let lsn = self.start + self.bytes.len() as u64;
        let mut rest = record;
        loop {
            let room = (PAGE - self.in_page()) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend_from_slice(now);
            rest = later;
            if rest.is_empty() {
                break;
            }
            self.page(1, rest.len() as u32);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.previous = lsn;
        Lsn(lsn)
    }

    /// Loses the last `pages` that were begun, as a crash does, and goes on over what they held.
    pub fn crash(&mut self, pages: u64, last_whole: Lsn) {
        let kept = (self.bytes.len() as u64).next_multiple_of(PAGE) - pages * PAGE;
        self.bytes.truncate(kept as usize);
        self.previous = last_whole.0;
        self.page(8, 0);
    }

    /// `XLOG_SWITCH`, and zeros to the end of the segment.
    pub fn switch(&mut self) -> Lsn {
        let lsn = self.record(&Draft { xid: 0, resource_manager: 0, info: 0x40, body: vec![] });
        self.fill();
        lsn
    }

    /// Zeros to the end of the segment.
    pub fn fill(&mut self) {
        let length = self.bytes.len().next_multiple_of(SEGMENT as usize);
        self.bytes.resize(length, 0);
    }

    /// Plain records to the end of the segment and a little further, but none if it is full.
    pub fn fill_with(&mut self, draft: &Draft) {
        while !(self.bytes.len() as u64).is_multiple_of(SEGMENT)
            && (self.bytes.len() as u64) % SEGMENT + 4096 < SEGMENT
        {
            self.record(draft);
        }
    }

    /// The segments begun, the last filled with zeros.
    pub fn segments(&self) -> Vec<(SegmentName, Vec<u8>)> {
        let timeline = TimelineId::new(self.timeline).unwrap();
        let segment = |(number, bytes): (usize, &[u8])| {
            let start = Lsn(self.start + number as u64 * SEGMENT);
            let mut bytes = bytes.to_vec();
            bytes.resize(SEGMENT as usize, 0);
            (SegmentName::containing(timeline, start, SEGMENT as u32), bytes)
        };
        self.bytes.chunks(SEGMENT as usize).enumerate().map(segment).collect()
    }

    fn in_page(&self) -> u64 {
        self.bytes.len() as u64 % PAGE
    }

    fn page(&mut self, flags: u16, remaining: u32) {
        let address = self.start + self.bytes.len() as u64;
        let is_long = header_bytes_at(address) == LONG_HEADER_BYTES as u64;
        let flags = if is_long { flags | 2 } else { flags };
        self.bytes.extend_from_slice(&self.magic.to_le_bytes());
        self.bytes.extend_from_slice(&flags.to_le_bytes());
        self.bytes.extend_from_slice(&self.timeline.to_le_bytes());
        self.bytes.extend_from_slice(&address.to_le_bytes());
        self.bytes.extend_from_slice(&remaining.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        if is_long {
            self.bytes.extend_from_slice(&7_710_620_488_620_347_611u64.to_le_bytes());
            self.bytes.extend_from_slice(&(SEGMENT as u32).to_le_bytes());
            self.bytes.extend_from_slice(&(PAGE as u32).to_le_bytes());
        }
    }
}

fn header_bytes_at(address: u64) -> u64 {
    match (address % SEGMENT, address % PAGE) {
        (0, _) => LONG_HEADER_BYTES as u64,
        (_, 0) => SHORT_HEADER_BYTES as u64,
        _ => 0,
    }
}

/// Main data alone.
pub fn main_data(main: &[u8]) -> Vec<u8> {
    match u8::try_from(main.len()) {
        Ok(length) => [&[255, length][..], main].concat(),
        Err(_) => [&[254][..], &(main.len() as u32).to_le_bytes(), main].concat(),
    }
}

/// An insertion into a heap, with data of its block and main data.
pub fn insert(xid: u32) -> Draft {
    let block = [&[0, 0x20, 40, 0][..], &words(&[1663, 5, 16384, 7]), &[255, 3], &[9; 40]];
    let body = [&block.concat()[..], &[1, 2, 3]].concat();
    Draft { xid, resource_manager: 10, info: 0, body }
}

/// One row deleted from a file.
pub fn delete(xid: u32, number: u32, flags: u8) -> Draft {
    let block = [&[0, 0, 0, 0][..], &words(&[1663, 5, number, 7]), &[255, 8]].concat();
    let main = [&xid.to_le_bytes()[..], &[1, 0, 0, flags]].concat();
    Draft { xid, resource_manager: 10, info: 0x10, body: [block, main].concat() }
}

pub fn lock(xid: u32, relation: u32) -> Draft {
    let body = main_data(&words(&[1, xid, 5, relation]));
    Draft { xid, resource_manager: 8, info: 0, body }
}

pub fn create(xid: u32, number: u32) -> Draft {
    Draft { xid, resource_manager: 2, info: 0x10, body: main_data(&words(&[1663, 5, number, 0])) }
}

pub fn restore_point(name: &str, time: i64) -> Draft {
    let mut main = [&time.to_le_bytes()[..], name.as_bytes()].concat();
    main.resize(72, 0);
    Draft { xid: 0, resource_manager: 0, info: 0x70, body: main_data(&main) }
}

/// COMMIT without details.
pub fn commit(xid: u32, time: i64) -> Draft {
    Draft { xid, resource_manager: 1, info: 0, body: main_data(&time.to_le_bytes()) }
}

/// The end of a transaction with subtransactions and dropped files; `operation` as in its record.
pub fn end(xid: u32, operation: u8, time: i64, subtransactions: &[u32], files: &[u32]) -> Draft {
    let mut main = time.to_le_bytes().to_vec();
    main.extend(words(&[1 | 2 | 4, 5, 1663, subtransactions.len() as u32]));
    main.extend(words(subtransactions));
    main.extend(words(&[files.len() as u32]));
    for number in files {
        main.extend(words(&[1663, 5, *number]));
    }
    Draft { xid, resource_manager: 1, info: operation | 0x80, body: main_data(&main) }
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

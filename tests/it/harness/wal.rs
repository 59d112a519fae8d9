//! WAL made by hand: whole segments of records that are valid and mean nothing.

use crc_fast::{CrcAlgorithm, Digest};
use walden::postgres::SegmentName;

const PAGE_BYTES: usize = 8192;
const LONG_HEADER_BYTES: usize = 40;
const SHORT_HEADER_BYTES: usize = 24;
/// Of a record, with its header; the last one of a segment has up to twice as much.
const RECORD_BYTES: usize = 40 << 10;
/// Before a record's data: its header, the block id of long data, the data's length.
const BEFORE_DATA: usize = 24 + 1 + 4;
const NOISE_BYTES: usize = 1 << 20;

/// The pages of a segment, one after the other: never the whole of it.
pub struct Pages {
    name: SegmentName,
    segment_bytes: usize,
    system_identifier: u64,
    noise: Vec<u8>,
    /// Where the next page begins in the segment.
    position: usize,
    /// What no record has taken yet.
    free: usize,
    record: Vec<u8>,
    /// Of the record, in pages already.
    written: usize,
    previous: u64,
    records: usize,
}

impl Pages {
    /// `seed` makes the content, which hardly compresses.
    pub fn of(name: SegmentName, segment_bytes: usize, seed: u8, system_identifier: u64) -> Pages {
        let mut random = fastrand::Rng::with_seed(u64::from(seed));
        let mut noise = vec![0; NOISE_BYTES];
        random.fill(&mut noise);
        Pages {
            name,
            segment_bytes,
            system_identifier,
            noise,
            position: 0,
            free: room(segment_bytes),
            record: Vec::new(),
            written: 0,
            previous: last_record_before(name.start(segment_bytes as u32).0, segment_bytes),
            records: 0,
        }
    }

    /// `XLogPageHeaderData`; the first is an `XLogLongPageHeaderData`.
    fn header(&self) -> Vec<u8> {
        let is_first = self.position == 0;
        let left = self.record.len() - self.written;
        let continues = left > 0 && self.written > 0;
        let flags = u16::from(continues) | if is_first { 2 } else { 0 };
        let mut header = Vec::with_capacity(PAGE_BYTES);
        header.extend_from_slice(&0xD116u16.to_le_bytes());
        header.extend_from_slice(&flags.to_le_bytes());
        header.extend_from_slice(&self.name.timeline.get().to_le_bytes());
        header.extend_from_slice(&(self.start() + self.position as u64).to_le_bytes());
        header.extend_from_slice(&(if continues { left as u32 } else { 0 }).to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        if is_first {
            header.extend_from_slice(&self.system_identifier.to_le_bytes());
            header.extend_from_slice(&(self.segment_bytes as u32).to_le_bytes());
            header.extend_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
        }
        header
    }

    fn start(&self) -> u64 {
        self.name.start(self.segment_bytes as u32).0
    }

    /// `XLOG_NOOP` with noise in it (`XLogRecord`, access/xlogrecord.h). The last one ends where
    /// the segment does.
    fn begin_record(&mut self, lsn: u64) {
        let length = next_length(self.free);
        let data = length - BEFORE_DATA;
        let from = self.records * 65_537 % (NOISE_BYTES - 2 * RECORD_BYTES);
        let mut record = Vec::with_capacity(length);
        record.extend_from_slice(&(length as u32).to_le_bytes());
        record.extend_from_slice(&[0; 4]);
        record.extend_from_slice(&self.previous.to_le_bytes());
        record.extend_from_slice(&[0x20, 0, 0, 0]);
        record.extend_from_slice(&[0; 4]);
        record.push(254);
        record.extend_from_slice(&(data as u32).to_le_bytes());
        record.extend_from_slice(&self.noise[from..from + data]);
        let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
        crc.update(&record[24..]);
        crc.update(&record[..20]);
        record[20..24].copy_from_slice(&(crc.finalize() as u32).to_le_bytes());
        self.free -= length;
        self.records += 1;
        (self.record, self.written, self.previous) = (record, 0, lsn);
    }
}

/// For records: all but the page headers.
fn room(segment_bytes: usize) -> usize {
    let headers = segment_bytes / PAGE_BYTES * SHORT_HEADER_BYTES;
    segment_bytes - headers - (LONG_HEADER_BYTES - SHORT_HEADER_BYTES)
}

fn next_length(free: usize) -> usize {
    if free < 2 * RECORD_BYTES { free } else { RECORD_BYTES }
}

/// Where the last record of the segment before begins, which is laid out as all are.
fn last_record_before(start: u64, segment_bytes: usize) -> u64 {
    let mut free = room(segment_bytes);
    while next_length(free) < free {
        free -= next_length(free);
    }
    let before = room(segment_bytes) - free;
    let on_first = PAGE_BYTES - LONG_HEADER_BYTES;
    let on_others = PAGE_BYTES - SHORT_HEADER_BYTES;
    let offset = match before.checked_sub(on_first) {
        None => LONG_HEADER_BYTES + before,
        Some(rest) => {
            let (pages, at) = (1 + rest / on_others, rest % on_others);
            pages * PAGE_BYTES + SHORT_HEADER_BYTES + at
        }
    };
    (start + offset as u64).saturating_sub(segment_bytes as u64)
}

impl Iterator for Pages {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.position == self.segment_bytes {
            return None;
        }
        let mut page = self.header();
        while page.len() < PAGE_BYTES {
            if self.written == self.record.len() {
                self.begin_record(self.start() + (self.position + page.len()) as u64);
            }
            let room = PAGE_BYTES - page.len();
            let rest = &self.record[self.written..];
            let taken = &rest[..rest.len().min(room)];
            page.extend_from_slice(taken);
            self.written += taken.len();
        }
        self.position += PAGE_BYTES;
        Some(page)
    }
}

#[test]
fn the_first_record_of_a_segment_names_the_last_of_the_one_before() {
    let name = |number: u32| SegmentName::parse(&format!("0000000100000000{number:08X}")).unwrap();
    let mut before = Pages::of(name(6), 1 << 20, 1, 7);
    while before.next().is_some() {}
    assert_eq!(Pages::of(name(7), 1 << 20, 1, 7).previous, before.previous);
}

//! Checks that a stream of bytes is the WAL segment it is named: its first page and its size.
//!
//! The first page tells the cluster, the place in the WAL and the sizes. What the later pages hold
//! is for the record reader to judge: after a segment switch that a crash interrupted, or after the
//! end of WAL in a `.partial`, lies what the recycled file held before, and nobody reads it. The
//! first segment of a new timeline begins with pages of the old one, so the first page may be of an
//! earlier timeline than the name, never of a later one.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::wal::page::{LONG_HEADER_BYTES, LongPageHeader};
use crate::postgres::{MajorVersion, SegmentName, SystemIdentifier};

const SEGMENT_SIZE_MIN: u32 = 1 << 20;
const SEGMENT_SIZE_MAX: u32 = 1 << 30;

/// Takes a segment in pieces of any length.
#[derive(Debug)]
pub struct SegmentCheck {
    name: SegmentName,
    position: u64,
    header: [u8; LONG_HEADER_BYTES],
    facts: Option<SegmentFacts>,
}

/// What a segment's first page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFacts {
    pub system_identifier: SystemIdentifier,
    /// In bytes.
    pub segment_size: u32,
    /// `None`: WAL of a version that this walden does not know.
    pub version: Option<MajorVersion>,
}

impl SegmentCheck {
    pub fn new(name: SegmentName) -> Self {
        SegmentCheck { name, position: 0, header: [0; LONG_HEADER_BYTES], facts: None }
    }

    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        if self.facts.is_none() {
            // Below the length of a header, which is 40.
            let at = self.position as usize;
            let taken = piece.len().min(LONG_HEADER_BYTES - at);
            self.header[at..at + taken].copy_from_slice(&piece[..taken]);
            if at + taken == LONG_HEADER_BYTES {
                self.facts = Some(self.check_first(&LongPageHeader::parse(&self.header))?);
            }
        }
        self.position += piece.len() as u64;
        Ok(())
    }

    /// The whole segment has come.
    pub fn finish(self) -> Result<SegmentFacts> {
        let Some(facts) = self.facts else {
            return Err(self.invalid(format!("has only {} bytes", self.position)));
        };
        if self.position != u64::from(facts.segment_size) {
            return Err(self.invalid(format!(
                "has {} bytes, its first page says {}",
                self.position, facts.segment_size
            )));
        }
        Ok(facts)
    }

    fn check_first(&self, first: &LongPageHeader) -> Result<SegmentFacts> {
        let magic = first.page.magic;
        if !(0xD000..=0xDFFF).contains(&magic) {
            return Err(self.invalid(format!("page magic {magic:04X} is not PostgreSQL's")));
        }
        if !first.page.is_long {
            return Err(self.invalid("its first page has no long header"));
        }
        let size = first.segment_size;
        if !is_possible_segment_size(size) || !is_possible_block_size(first.block_size) {
            return Err(self.invalid(format!("segment size {size} is not possible")));
        }
        let segments_per_log = (1u64 << 32) / u64::from(size);
        if u64::from(self.name.segment) >= segments_per_log {
            return Err(self.invalid(format!("no segment of {size} bytes has this name")));
        }
        let expected = self.name.start(size);
        if first.page.address != expected {
            let found = first.page.address;
            return Err(self.invalid(format!("page says {found} where {expected} should be")));
        }
        let timeline = first.page.timeline;
        if timeline == 0 || timeline > self.name.timeline.get() {
            return Err(self.invalid(format!("page is of timeline {timeline}")));
        }
        Ok(SegmentFacts {
            system_identifier: first.system_identifier,
            segment_size: size,
            version: MajorVersion::from_wal_magic(magic),
        })
    }

    fn invalid(&self, what: impl std::fmt::Display) -> Error {
        let message = format!("not valid WAL of {}: {what}", self.name);
        Error::new(ErrorKind::InvalidSource, message).hint(
            "The file is damaged, or is not the one of this name: look at the disk and the file \
             system, and at who else writes to pg_wal.",
        )
    }
}

pub fn is_possible_segment_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (SEGMENT_SIZE_MIN..=SEGMENT_SIZE_MAX).contains(&bytes)
}

pub fn is_possible_block_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (1 << 10..=1 << 16).contains(&bytes)
}

#[cfg(test)]
pub mod samples {
    use crate::postgres::SegmentName;
    use crate::postgres::wal::page::{LONG_HEADER_BYTES, SHORT_HEADER_BYTES};

    pub const SEGMENT_SIZE: u32 = 1 << 20;
    pub const SYSTEM_IDENTIFIER: u64 = 7_710_620_488_620_347_611;

    pub fn name() -> SegmentName {
        SegmentName::parse("000000020000000A000000FF").unwrap()
    }

    const PAGE: usize = 8192;

    /// A segment of `used` pages of records, the rest zeros as after a segment switch.
    pub fn segment(name: SegmentName, used: u32) -> Vec<u8> {
        segment_of(SEGMENT_SIZE, name, used)
    }

    pub fn segment_of(size: u32, name: SegmentName, used: u32) -> Vec<u8> {
        let start = name.start(size).0;
        let (records, begins) = records(start, used as usize);
        let mut bytes = vec![0; size as usize];
        let mut taken = 0;
        for page in 0..used as usize {
            let header = if page == 0 { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES };
            // The record that begins before this page and goes on in it.
            let ends = begins.iter().map(|&(at, length)| (at, at + length));
            let left = ends.filter(|&(at, end)| at < taken && end > taken).map(|(_, end)| end);
            let left = left.max().map_or(0, |end| end - taken);
            let flags = u16::from(left > 0) | if page == 0 { 2 } else { 0 };
            let at = page * PAGE;
            bytes[at..at + 2].copy_from_slice(&0xD116u16.to_le_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&flags.to_le_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&name.timeline.get().to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&(start + at as u64).to_le_bytes());
            bytes[at + 16..at + 20].copy_from_slice(&(left as u32).to_le_bytes());
            let room = PAGE - header;
            bytes[at + header..at + PAGE].copy_from_slice(&records[taken..taken + room]);
            taken += room;
        }
        bytes[24..32].copy_from_slice(&SYSTEM_IDENTIFIER.to_le_bytes());
        bytes[32..36].copy_from_slice(&size.to_le_bytes());
        bytes[36..40].copy_from_slice(&(PAGE as u32).to_le_bytes());
        bytes
    }

    /// As they lie in so many pages, without their headers, and where each begins with its length.
    /// `XLOG_NOOP` again and again, then a switch (`XLogRecord`, access/xlogrecord.h).
    fn records(start: u64, pages: usize) -> (Vec<u8>, Vec<(usize, usize)>) {
        let room = pages * (PAGE - SHORT_HEADER_BYTES) + SHORT_HEADER_BYTES - LONG_HEADER_BYTES;
        let first = PAGE - LONG_HEADER_BYTES;
        let place = |at: usize| match at.checked_sub(first) {
            None => start + (LONG_HEADER_BYTES + at) as u64,
            Some(later) => {
                let (page, rest) = (later / (PAGE - 24), later % (PAGE - 24));
                start + ((page + 1) * PAGE + SHORT_HEADER_BYTES + rest) as u64
            }
        };
        let (mut bytes, mut begins) = (Vec::with_capacity(room), Vec::new());
        let mut previous = start - 64;
        loop {
            let at = bytes.len();
            let is_last = room - at < 3_000;
            let data = if is_last { 0 } else { 200 + at % 2_000 };
            let mut record = vec![0; 24];
            if !is_last {
                record.push(254);
                record.extend_from_slice(&(data as u32).to_le_bytes());
                record.extend((0..data).map(|n| (at + n / 16) as u8));
            }
            let length = record.len();
            record[..4].copy_from_slice(&(length as u32).to_le_bytes());
            record[8..16].copy_from_slice(&previous.to_le_bytes());
            record[16] = if is_last { 0x40 } else { 0x20 };
            let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
            crc.update(&record[24..]);
            crc.update(&record[..20]);
            record[20..24].copy_from_slice(&(crc.finalize() as u32).to_le_bytes());
            begins.push((at, length));
            previous = place(at);
            record.resize(length.next_multiple_of(8), 0);
            bytes.extend_from_slice(&record);
            if is_last {
                bytes.resize(room, 0);
                return (bytes, begins);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{SEGMENT_SIZE, SYSTEM_IDENTIFIER, name, segment};
    use super::{SegmentCheck, SegmentFacts};
    use crate::error::{ErrorKind, Result};
    use crate::postgres::{MajorVersion, SegmentName};

    fn check_in(pieces: usize, bytes: &[u8], name: SegmentName) -> Result<SegmentFacts> {
        let mut check = SegmentCheck::new(name);
        for piece in bytes.chunks(pieces) {
            check.write(piece)?;
        }
        check.finish()
    }

    #[test]
    fn a_whole_segment_passes_in_pieces_of_any_length() {
        for used in [1, 3, SEGMENT_SIZE / 8192] {
            for pieces in [7, 8192, 8193, 1 << 18, 1 << 21] {
                let facts = check_in(pieces, &segment(name(), used), name()).unwrap();
                assert_eq!(facts.system_identifier.0, SYSTEM_IDENTIFIER);
                assert_eq!(facts.segment_size, SEGMENT_SIZE);
                assert_eq!(facts.version, Some(MajorVersion(17)));
            }
        }
    }

    #[test]
    fn the_first_page_may_be_copied_from_the_parent_timeline_and_not_from_a_later_one() {
        let mut bytes = segment(name(), 10);
        bytes[4] = 1;
        assert!(check_in(8192, &bytes, name()).is_ok());
        for timeline in [0, 3] {
            bytes[4] = timeline;
            assert!(check_in(8192, &bytes, name()).is_err());
        }
    }

    #[test]
    fn what_is_not_this_segment_is_refused() {
        let good = segment(name(), 10);
        let other = SegmentName::parse("000000020000000A000000FE").unwrap();
        assert_eq!(check_in(999, &good, other).unwrap_err().kind(), ErrorKind::InvalidSource);

        type Damage = fn(&mut Vec<u8>);
        let damages: [(&str, Damage); 8] = [
            ("truncated", |bytes| bytes.truncate(bytes.len() - 1)),
            ("too long", |bytes| bytes.push(0)),
            ("empty", Vec::clear),
            ("zeros", |bytes| bytes.fill(0)),
            ("magic", |bytes| bytes[1] = 0),
            ("address", |bytes| bytes[9] ^= 1),
            ("segment size", |bytes| bytes[33] = 3),
            ("no long header", |bytes| bytes[2] = 0),
        ];
        for (what, damage) in damages {
            let mut bytes = good.clone();
            damage(&mut bytes);
            let refused = check_in(8192, &bytes, name()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidSource, "{what}");
        }
    }

    #[test]
    fn it_may_end_in_what_the_recycled_file_held() {
        let mut bytes = segment(name(), 10);
        bytes[20 * 8192..].fill(0x55);
        assert!(check_in(8192, &bytes, name()).is_ok());
    }

    #[test]
    fn wal_of_a_version_to_come_passes_as_unknown() {
        let mut bytes = segment(name(), 10);
        bytes[0] = 0x20;
        bytes[1] = 0xD1;
        assert_eq!(check_in(8192, &bytes, name()).unwrap().version, None);
    }
}

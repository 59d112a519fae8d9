//! `CREATE TABLESPACE` in the WAL names a place by its literal path, and whoever replays it makes
//! directories there: on the host of the source, in the live cluster's own. For a rehearsal the
//! record is told to stay inside: with an empty path the server makes the tablespace a directory
//! of its data directory (`create_tablespace_directories`, tablespace.c, since 15).
//!
//! The first byte of the path becomes its end; the record keeps its length, and its checksum is put
//! right. That needs no other byte, since a CRC is linear: flipping bits of a record flips bits of
//! its checksum that depend on nothing but which bits they are.

use crate::postgres::SegmentName;
use crate::postgres::wal::page::{LONG_HEADER_BYTES, LongPageHeader, SHORT_HEADER_BYTES};
use crate::postgres::wal::reader::Reader;
use crate::postgres::wal::record::{HEADER_BYTES, Parts, RecordHeader, ResourceManager};

/// `RM_TBLSPC_ID`
const TABLESPACE: ResourceManager = ResourceManager(5);
/// `XLOG_TBLSPC_CREATE`; the other one drops.
const CREATE: u8 = 0x00;
/// In the main data (`xl_tblspc_create_rec`), after the oid.
const PATH_AT: u32 = 4;
/// Where a record has its checksum, and how many bytes of it the checksum covers after the data.
const CHECKSUM_AT: u32 = 20;
/// No path is longer (`MAXPGPATH`), and what else is in the record is little.
const RECORD_BYTES_MAX: u32 = 2 << 10;
/// With which every path of a tablespace begins.
const ROOT: u8 = b'/';
/// CRC-32C, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// What a segment must be changed by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// By the offset in the file; they overlap nowhere.
    pub bytes: Vec<(u64, Vec<u8>)>,
    /// From here on it is not valid WAL, which no server replays and nobody has read.
    pub nothing_from: Option<u64>,
    pub created: Vec<Created>,
    /// The part that is here of a record which goes on in the next segment and may matter there.
    pub begun: Option<Vec<u8>>,
}

/// A tablespace that the source was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub oid: u32,
    pub path: String,
}

/// `begun` is that of the segment before, where the server has replayed it. An error: nobody can
/// tell what is in it.
pub fn keep_inside(
    name: SegmentName,
    segment: &[u8],
    begun: Option<&[u8]>,
) -> Result<Changes, &'static str> {
    let first = segment.first_chunk::<LONG_HEADER_BYTES>().ok_or("it is too short")?;
    let block = u64::from(LongPageHeader::parse(first).block_size);
    let start = name.start(u32::try_from(segment.len()).map_err(|_| "it is too long")?);
    let mut changes = Changes::default();
    let mut reader = Reader::new(name);
    reader.write(segment, &mut |record| {
        if record.header.resource_manager == TABLESPACE && record.operation() == CREATE {
            changes.keep(&Draft {
                whole: record.bytes,
                here: 0,
                at: record.lsn.0 - start.0,
                block,
            });
        }
    });
    let outcome = reader.finish();
    if outcome.version.is_none() {
        return Err("it is WAL of a version that walden cannot read");
    }
    if let (Some(begun), Some(rest)) = (begun, outcome.continued.and_then(|rest| rest.bytes)) {
        let whole = [begun, &rest[..]].concat();
        let is_create = is_create(&whole) == Some(true);
        if is_create && RecordHeader::parse(head(&whole)).total as usize == whole.len() {
            let here = begun.len() as u32;
            changes.keep(&Draft { whole: &whole, here, at: LONG_HEADER_BYTES as u64, block });
        }
    }
    if let Some(unfinished) = outcome.unfinished
        && unfinished.total <= RECORD_BYTES_MAX
        // Too little of it to tell counts as well.
        && is_create(&unfinished.bytes) != Some(false)
    {
        let at = unfinished.lsn.0 - start.0;
        changes.keep_begun(&unfinished.bytes, unfinished.total, at, block);
        changes.begun = Some(unfinished.bytes);
    }
    let invalid = outcome.invalid.filter(|it| !it.only_zeros_follow && !it.goes_on);
    changes.nothing_from = invalid.map(|it| it.lsn.0.saturating_sub(start.0));
    Ok(changes)
}

/// A record, and which part of it lies in this segment.
struct Draft<'a> {
    whole: &'a [u8],
    /// Its bytes from here on are in this segment …
    here: u32,
    /// … beginning at this offset.
    at: u64,
    block: u64,
}

impl Changes {
    fn keep(&mut self, record: &Draft<'_>) {
        let header = RecordHeader::parse(head(record.whole));
        let Ok(parts) = Parts::parse(header.total, record.whole) else { return };
        let Some((oid, path)) = parts.main.split_first_chunk::<4>() else { return };
        let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
        if end == 0 {
            return;
        }
        let path_at = header.total - parts.main_bytes + PATH_AT;
        if path_at >= record.here {
            self.set(record, path_at, &[0]);
        }
        if CHECKSUM_AT >= record.here {
            let after = header.total - path_at - 1;
            let checksum = header.checksum ^ difference(path[0], after + CHECKSUM_AT);
            self.set(record, CHECKSUM_AT, &checksum.to_le_bytes());
        }
        let path = String::from_utf8_lossy(&path[..end]).into_owned();
        // Of one that lies in two segments the second tells.
        self.created.push(Created { oid: u32::from_le_bytes(*oid), path });
    }

    /// A record of which the end lies in the next segment: its checksum may be here, and must be
    /// right for a path of which nothing may be known yet but how it begins.
    fn keep_begun(&mut self, bytes: &[u8], total: u32, at: u64, block: u64) {
        if bytes.len() < HEADER_BYTES {
            return;
        }
        let main_bytes = match Parts::parse(total, bytes) {
            Ok(parts) => parts.main_bytes,
            // Nothing but the header of the main data stands before it: `CREATE TABLESPACE` runs
            // in no subtransaction.
            Err(_) if total - HEADER_BYTES as u32 - 2 <= 255 => total - HEADER_BYTES as u32 - 2,
            Err(_) => total - HEADER_BYTES as u32 - 5,
        };
        let path_at = total - main_bytes + PATH_AT;
        let first = bytes.get(path_at as usize).copied().unwrap_or(ROOT);
        if first == 0 {
            return;
        }
        let record = Draft { whole: bytes, here: 0, at, block };
        if (path_at as usize) < bytes.len() {
            self.set(&record, path_at, &[0]);
        }
        let after = total - path_at - 1;
        let checksum = RecordHeader::parse(head(bytes)).checksum;
        let checksum = checksum ^ difference(first, after + CHECKSUM_AT);
        self.set(&record, CHECKSUM_AT, &checksum.to_le_bytes());
    }

    /// Bytes of a record never part: they are at most four, aligned as records and pages are.
    fn set(&mut self, record: &Draft<'_>, index: u32, bytes: &[u8]) {
        let offset = offset(record.at, u64::from(index - record.here), record.block);
        self.bytes.push((offset, bytes.to_vec()));
    }
}

fn is_create(record: &[u8]) -> Option<bool> {
    let header = RecordHeader::parse(record.first_chunk::<HEADER_BYTES>()?);
    Some(header.resource_manager == TABLESPACE && header.info & 0xF0 == CREATE)
}

fn head(record: &[u8]) -> &[u8; HEADER_BYTES] {
    record.first_chunk::<HEADER_BYTES>().unwrap_or(&[0; HEADER_BYTES])
}

/// Where in the file the byte is that comes `bytes` after the one at `at`: pages begin with
/// headers.
fn offset(at: u64, bytes: u64, block: u64) -> u64 {
    let (mut at, mut left) = (at, bytes);
    loop {
        let room = block - at % block;
        if left < room {
            return at + left;
        }
        left -= room;
        at += room + SHORT_HEADER_BYTES as u64;
    }
}

/// What becomes of a CRC-32C when `byte`, with `after` more bytes behind it, becomes 0.
fn difference(byte: u8, after: u32) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    (0..8 * (u64::from(after) + 1)).fold(u32::from(byte), |crc, _| step(crc))
}

#[cfg(test)]
mod tests {
    use super::{Changes, Created, keep_inside};
    use crate::postgres::wal::reader::read_segment;
    use crate::postgres::wal::samples::{Draft, PAGE, Pen, insert, main_data};

    fn create(path: &str) -> Draft {
        let main = [&16390u32.to_le_bytes()[..], path.as_bytes(), &[0]].concat();
        Draft { xid: 7, resource_manager: 5, info: 0, body: main_data(&main) }
    }

    fn apply(segment: &mut [u8], changes: &Changes) {
        for (at, bytes) in &changes.bytes {
            segment[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The paths that a server would find, in segments whose records are all valid.
    fn replayed(segments: &[(crate::postgres::SegmentName, Vec<u8>)]) -> (Vec<Vec<u8>>, u64) {
        let (mut paths, mut records) = (Vec::new(), 0);
        for (name, bytes) in segments {
            let outcome = read_segment(*name, [&bytes[..]], |record| {
                if record.header.resource_manager.0 == 5 {
                    paths.push(record.main()[4..].to_vec());
                }
            });
            assert_eq!(outcome.invalid, None);
            records += outcome.records;
        }
        (paths, records)
    }

    #[test]
    fn the_path_is_emptied_wherever_the_record_lies() {
        // Over the boundary of a page at every possible place, and with short and long paths.
        for path in ["/t", "/srv/postgresql/tablespaces/fast", &format!("/{}", "x".repeat(600))] {
            for before in 0..40 {
                let mut pen = Pen::new(17);
                while pen.lsn().0 % PAGE < PAGE - 400 + 8 * before {
                    pen.record(&insert(3));
                }
                pen.record(&create(path));
                pen.record(&insert(4));
                pen.switch();
                let mut segments = pen.segments();
                let (name, bytes) = &mut segments[0];
                let changes = keep_inside(*name, bytes, None).unwrap();
                let created = Created { oid: 16390, path: path.to_owned() };
                assert_eq!(changes.created, [created]);
                let (_, records) = replayed(&[(*name, bytes.clone())]);
                apply(bytes, &changes);
                let (paths, same) = replayed(&[(*name, bytes.clone())]);
                assert_eq!((paths.len(), same), (1, records));
                assert_eq!(paths[0][0], 0);
                assert_eq!(paths[0].len(), path.len() + 1, "it keeps its length");
            }
        }
    }

    /// Over the end of a segment, with more and more of it in the first.
    #[test]
    fn a_record_across_two_segments_is_mended_in_both() {
        use crate::postgres::wal::samples::SEGMENT;
        for path in ["/srv/postgresql/tablespaces/fast", &format!("/{}", "x".repeat(600))] {
            let length = create(path).body.len() as u64 + 24;
            for here in (8..length).step_by(8) {
                let mut pen = Pen::new(18);
                while pen.lsn().0 % SEGMENT < SEGMENT - 4096 {
                    pen.record(&insert(3));
                }
                // Records of 8 bytes of data at least bring it to the place.
                while pen.lsn().0 % SEGMENT < SEGMENT - here {
                    let room = SEGMENT - here - pen.lsn().0 % SEGMENT;
                    let bytes = if room >= 80 { 8 } else { room as usize - 26 };
                    let main = main_data(&vec![0; bytes]);
                    pen.record(&Draft { xid: 3, resource_manager: 0, info: 0x20, body: main });
                }
                pen.record(&create(path));
                pen.record(&insert(4));
                pen.switch();
                let mut segments = pen.segments();
                assert_eq!(segments.len(), 2, "{here}");
                let first = keep_inside(segments[0].0, &segments[0].1, None).unwrap();
                let begun = first.begun.clone().unwrap();
                let second = keep_inside(segments[1].0, &segments[1].1, Some(&begun)).unwrap();
                assert_eq!(second.created.len(), 1, "{here}");
                apply(&mut segments[0].1, &first);
                apply(&mut segments[1].1, &second);
                let bytes = segments.iter().map(|(_, bytes)| bytes);
                let whole = joined(&bytes.cloned().collect::<Vec<_>>(), length as usize, here);
                let mut checksum = crate::postgres::wal::record::Checksum::default();
                checksum.data(&whole[24..]);
                let sum = checksum.finish(whole[..24].try_into().unwrap());
                assert_eq!(sum.to_le_bytes(), whole[20..24], "{here} of {length}");
                assert!(!whole.windows(2).any(|two| two == &path.as_bytes()[..2]), "{here}");
            }
        }
    }

    /// The record's own bytes, in segments whose pages have headers.
    fn joined(segments: &[Vec<u8>], length: usize, here: u64) -> Vec<u8> {
        let first = &segments[0][segments[0].len() - here as usize..];
        [first, &segments[1][40..40 + length - here as usize]].concat()
    }

    #[test]
    fn a_segment_without_any_stays_as_it_is() {
        let mut pen = Pen::new(15);
        pen.record(&insert(3));
        pen.record(&Draft { info: 0x10, ..create("/dropped") });
        pen.record(&create(""));
        pen.switch();
        let (name, bytes) = &pen.segments()[0];
        assert_eq!(keep_inside(*name, bytes, None), Ok(Changes::default()));
    }

    #[test]
    fn what_nobody_has_read_is_not_handed_on() {
        let mut pen = Pen::new(16);
        pen.record(&insert(3));
        let damaged = pen.record(&insert(4));
        pen.record(&create("/live"));
        pen.switch();
        let (name, mut bytes) = pen.segments().remove(0);
        let at = damaged.0 - name.start(bytes.len() as u32).0;
        bytes[at as usize + 30] ^= 1;
        let changes = keep_inside(name, &bytes, None).unwrap();
        assert_eq!(changes.nothing_from, Some(at));
        assert!(keep_inside(name, &bytes[..20], None).is_err());
        bytes[0] = 0x77;
        assert!(keep_inside(name, &bytes, None).is_err(), "an unknown version");
    }
}

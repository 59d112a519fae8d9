//! Packs read in part: the mirror image of `pack`. The seek table tells which frames hold what is
//! wanted, and each frame is opened without the others.

use std::ops::Range;

use crate::codec::pack::{SEEK_TABLE_MAGIC, SEEKABLE_MAGIC};
use crate::error::{Error, ErrorKind, Result};

/// What follows the entries: their number, a descriptor, the magic.
const FOOTER_BYTES: usize = 9;
/// Magic and length of a skippable frame.
const LEAD_BYTES: usize = 8;
const ENTRY_BYTES: usize = 8;
/// No frame of a pack holds more; one that says so is damaged, and must not cost memory.
const RAW_BYTES_MAX: u32 = 8 << 20;

/// One zstd frame of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where it lies in the object.
    pub stored: Range<u64>,
    /// What it holds, in raw bytes of the pack.
    pub raw: Range<u64>,
}

/// Which frames a pack has, its header's not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekTable {
    /// Bytes of the frame with the header, at the beginning of the object.
    pub header: u64,
    frames: Vec<Frame>,
}

impl SeekTable {
    /// How many bytes at the end of an object are its seek table, by the last bytes of it.
    pub fn length(tail: &[u8]) -> Result<u64> {
        let footer = tail.last_chunk::<FOOTER_BYTES>().ok_or_else(|| damaged("is cut off"))?;
        if number(footer, 5) != SEEKABLE_MAGIC {
            return Err(damaged("is not at the end"));
        }
        if footer[4] != 0 {
            return Err(damaged("is of a kind that is not known"));
        }
        let entries = u64::from(number(footer, 0)) * ENTRY_BYTES as u64;
        Ok(entries + (LEAD_BYTES + FOOTER_BYTES) as u64)
    }

    /// Reads it from the end of an object of `size` bytes; `tail` has all of it, and may have more.
    ///
    /// No length in it is believed before all of them together are those of the object.
    pub fn parse(tail: &[u8], size: u64) -> Result<SeekTable> {
        let length = SeekTable::length(tail)?;
        let begin = tail.len().checked_sub(usize::try_from(length).unwrap_or(usize::MAX));
        let table = begin.map(|begin| &tail[begin..]).ok_or_else(|| damaged("is cut off"))?;
        let announced = u64::from(number(table, 4)) + LEAD_BYTES as u64;
        if number(table, 0) != SEEK_TABLE_MAGIC || announced != length {
            return Err(damaged("does not begin where it should"));
        }
        let entries = &table[LEAD_BYTES..table.len() - FOOTER_BYTES];
        let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
        let mut all = Vec::with_capacity(entries.len());
        let (mut stored, mut raw) = (0u64, 0u64);
        for entry in entries {
            let (compressed, size) = (number(entry, 0), number(entry, 4));
            if size > RAW_BYTES_MAX {
                return Err(damaged("has a frame of an impossible length"));
            }
            let (begin, raw_begin) = (stored, raw);
            (stored, raw) = (stored + u64::from(compressed), raw + u64::from(size));
            all.push(Frame { stored: begin..stored, raw: raw_begin..raw });
        }
        if stored + length != size {
            return Err(damaged("is not of this object"));
        }
        let header = all.first().filter(|first| first.raw.is_empty());
        let header = header.ok_or_else(|| damaged("does not begin with the header"))?.stored.end;
        all.retain(|frame| !frame.raw.is_empty());
        Ok(SeekTable { header, frames: all })
    }

    /// In the order of the pack, which is that of the object.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Raw bytes of the whole pack.
    pub fn size(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.raw.end)
    }

    /// The frames that hold any of these raw bytes.
    pub fn frames_of(&self, raw: &Range<u64>) -> &[Frame] {
        let first = self.frames.partition_point(|frame| frame.raw.end <= raw.start);
        let end = self.frames.partition_point(|frame| frame.raw.start < raw.end);
        &self.frames[first..end.max(first)]
    }
}

/// Opens frames; one for each thread, since it keeps zstd's work space.
pub struct FrameOpener(zstd::bulk::Decompressor<'static>);

impl FrameOpener {
    pub fn new() -> Result<Self> {
        let opener = zstd::bulk::Decompressor::new();
        opener
            .map(FrameOpener)
            .map_err(|error| Error::new(ErrorKind::Bug, "begin to decompress").source(error))
    }

    /// Fills `raw` with the content of one frame, which must be as long; its checksum is compared.
    pub fn open(&mut self, stored: &[u8], raw: &mut [u8]) -> Result<()> {
        // RFC 8878, 3.1.1.1.1: bit 2 of the descriptor, which follows the magic. Without a checksum
        // of its own nothing would notice what is wrong in it.
        if stored.get(4).is_none_or(|descriptor| descriptor & 0b100 == 0) {
            return Err(Error::new(ErrorKind::Corrupt, "a frame has no checksum"));
        }
        let length = self.0.decompress_to_buffer(stored, raw).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "content does not decompress").source(error)
        })?;
        if length != raw.len() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "a frame is shorter than the seek table says",
            ));
        }
        Ok(())
    }
}

/// Little-endian; what is asked for is always inside.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |four| u32::from_le_bytes(*four))
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the seek table {what}"))
}

#[cfg(test)]
mod tests {
    use super::{Frame, FrameOpener, SeekTable};
    use crate::codec::header::samples::header;
    use crate::codec::{Compression, FrameSealer, Header, PackBuilder};
    use crate::error::ErrorKind;

    /// Frames of these lengths, and their content.
    fn pack(lengths: &[usize]) -> (Vec<u8>, Vec<u8>) {
        let mut sealer = FrameSealer::new(Compression::default()).unwrap();
        let (mut pack, mut raw) = (PackBuilder::default(), Vec::new());
        for length in lengths {
            let frame: Vec<u8> = (raw.len()..raw.len() + length).map(|n| (n / 5) as u8).collect();
            pack.push(sealer.seal(&frame).unwrap());
            raw.extend(frame);
        }
        (pack.finish(header), raw)
    }

    #[test]
    fn any_range_is_read_from_the_frames_that_hold_it() {
        let (object, raw) = pack(&[1000, 7, 0, 70_000, 512 << 10, 3]);
        for spare in [0, 100] {
            let length = SeekTable::length(&object).unwrap() as usize;
            let tail = &object[object.len() - length - spare..];
            let table = SeekTable::parse(tail, object.len() as u64).unwrap();
            assert_eq!((table.frames().len(), table.size()), (5, raw.len() as u64));
            let head = Header::split(&object).unwrap().1;
            assert_eq!(table.header, (object.len() - head.len()) as u64);
            let mut opener = FrameOpener::new().unwrap();
            for wanted in [0..1, 999..1000, 999..1001, 1000..1007, 2000..2000, 1006..500_000] {
                let mut read = Vec::new();
                let frames = table.frames_of(&wanted);
                for Frame { stored, raw } in frames {
                    let mut content = vec![0; (raw.end - raw.start) as usize];
                    let stored = &object[stored.start as usize..stored.end as usize];
                    opener.open(stored, &mut content).unwrap();
                    read.extend(content);
                }
                let begin = frames.first().map_or(0, |frame| frame.raw.start);
                let part = (wanted.start - begin) as usize..(wanted.end - begin) as usize;
                if !wanted.is_empty() {
                    assert_eq!(read[part], raw[wanted.start as usize..wanted.end as usize]);
                }
                let all = table.frames_of(&(0..raw.len() as u64)).len();
                assert!(frames.len() < all, "{wanted:?}");
            }
        }
    }

    #[test]
    fn a_damaged_table_is_never_believed() {
        let (object, _) = pack(&[1000, 2000]);
        let (size, length) = (object.len() as u64, SeekTable::length(&object).unwrap() as usize);
        let table = SeekTable::parse(&object, size).unwrap();
        for at in object.len() - length..object.len() {
            for bit in 0..8 {
                let mut bad = object.clone();
                bad[at] ^= 1 << bit;
                // Raw lengths alone are not covered by the sum; the frames themselves say them too.
                let Ok(read) = SeekTable::parse(&bad, size) else { continue };
                assert_ne!(read, table, "byte {at}");
                let mut opener = FrameOpener::new().unwrap();
                let opened = read.frames().iter().try_for_each(|frame| {
                    let stored = frame.stored.start as usize..frame.stored.end as usize;
                    let length = (frame.raw.end - frame.raw.start) as usize;
                    opener.open(&bad[stored], &mut vec![0; length])
                });
                let is_right = read.frames().len() == 2 && read.size() == 3000;
                assert!(opened.is_err() || !is_right, "byte {at}, bit {bit}");
            }
        }
        for cut in [0, 8, length - 1] {
            let tail = &object[object.len() - cut..];
            assert_eq!(SeekTable::parse(tail, size).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        assert!(SeekTable::parse(&object, size + 1).is_err());
    }

    #[test]
    fn every_flipped_byte_of_a_frame_is_noticed() {
        let (object, raw) = pack(&[3000]);
        let table = SeekTable::parse(&object, object.len() as u64).unwrap();
        let stored = table.frames()[0].stored.start as usize..table.frames()[0].stored.end as usize;
        let mut opener = FrameOpener::new().unwrap();
        for at in stored.clone() {
            let mut bad = object.clone();
            bad[at] ^= 0x40;
            let mut content = vec![0; 3000];
            if opener.open(&bad[stored.clone()], &mut content).is_ok() {
                assert_eq!(content, raw, "byte {at}");
            }
        }
        let mut content = vec![0; 3001];
        assert!(opener.open(&object[stored.clone()], &mut content).is_err());
        assert!(opener.open(&object[stored], &mut content[..2999]).is_err());
    }
}

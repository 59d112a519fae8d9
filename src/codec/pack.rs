//! Packs: slices of a tar stream in the zstd seekable format, so that one file can be had without
//! the rest.
//!
//! Format: contrib/seekable_format/zstd_seekable_compression_format.md of the zstd sources. Our
//! header frame is the first entry of the seek table, with no content. A pack opens like any other
//! object, by `open`.

use crate::codec::Compression;
use crate::codec::header::{Content, Header};
use crate::codec::seal::compressor_failed;
use crate::error::Result;

/// Raw bytes of each frame but the last: small enough to seek, large enough to compress well.
pub const FRAME_BYTES: usize = 1 << 20;

const SEEK_TABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;

/// One zstd frame, ready to stand in a pack.
pub struct SealedFrame {
    bytes: Vec<u8>,
    crc32: crc32fast::Hasher,
    size: u32,
}

/// Compresses frames; one for each thread, since it keeps zstd's work space.
pub struct FrameSealer(zstd::bulk::Compressor<'static>);

impl FrameSealer {
    pub fn new(compression: Compression) -> Result<Self> {
        let mut compressor =
            zstd::bulk::Compressor::new(compression.level).map_err(compressor_failed)?;
        compressor.include_checksum(true).map_err(compressor_failed)?;
        Ok(FrameSealer(compressor))
    }

    /// `raw`: at most `FRAME_BYTES`.
    pub fn seal(&mut self, raw: &[u8]) -> Result<SealedFrame> {
        debug_assert!(raw.len() <= FRAME_BYTES);
        let mut crc32 = crc32fast::Hasher::new();
        crc32.update(raw);
        let bytes = self.0.compress(raw).map_err(compressor_failed)?;
        Ok(SealedFrame { bytes, crc32, size: raw.len() as u32 })
    }
}

/// Collects frames in the order of the stream.
#[derive(Default)]
pub struct PackBuilder {
    frames: Vec<SealedFrame>,
    crc32: crc32fast::Hasher,
    size: u64,
}

impl PackBuilder {
    pub fn push(&mut self, frame: SealedFrame) {
        self.size += u64::from(frame.size);
        self.crc32.combine(&frame.crc32);
        self.frames.push(frame);
    }

    /// Raw bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The object: header, frames, seek table.
    pub fn finish(self, describe: impl FnOnce(Content) -> Header) -> Vec<u8> {
        let mut object =
            describe(Content { size: self.size, crc32: self.crc32.finalize() }).to_frame();
        let mut table = vec![(object.len() as u32, 0)];
        object.reserve_exact(
            self.frames.iter().map(|frame| frame.bytes.len() + 8).sum::<usize>() + 32,
        );
        for frame in self.frames {
            table.push((frame.bytes.len() as u32, frame.size));
            object.extend_from_slice(&frame.bytes);
        }
        append_seek_table(&mut object, &table);
        object
    }
}

/// Entries of (compressed size, raw size), then their number, a descriptor of 0 (no checksums), and
/// the magic.
fn append_seek_table(object: &mut Vec<u8>, table: &[(u32, u32)]) {
    let mut put = |number: u32| object.extend_from_slice(&number.to_le_bytes());
    put(SEEK_TABLE_MAGIC);
    put(table.len() as u32 * 8 + 9);
    for (compressed, raw) in table {
        put(*compressed);
        put(*raw);
    }
    put(table.len() as u32);
    object.push(0);
    object.extend_from_slice(&SEEKABLE_MAGIC.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::{FRAME_BYTES, FrameSealer, PackBuilder, SEEKABLE_MAGIC};
    use crate::codec::header::samples::header;
    use crate::codec::{Compression, open};

    fn pack(raw: &[u8]) -> Vec<u8> {
        let mut sealer = FrameSealer::new(Compression::default()).unwrap();
        let mut pack = PackBuilder::default();
        for frame in raw.chunks(FRAME_BYTES) {
            pack.push(sealer.seal(frame).unwrap());
        }
        pack.finish(header)
    }

    fn number(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_pack_opens_like_any_object_and_for_plain_zstd() {
        let raw: Vec<u8> = (0..900_000u32).flat_map(u32::to_le_bytes).collect();
        let object = pack(&raw);
        let mut opened = Vec::new();
        open(&object, |piece| {
            opened.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert_eq!(opened, raw);
        assert_eq!(zstd::stream::decode_all(&object[..]).unwrap(), raw);
    }

    #[test]
    fn the_seek_table_finds_each_frame() {
        let raw: Vec<u8> = (0..900_000u32).flat_map(u32::to_le_bytes).collect();
        let object = pack(&raw);
        let end = object.len();
        assert_eq!(number(&object, end - 4), SEEKABLE_MAGIC);
        let entries = number(&object, end - 9) as usize;
        assert_eq!(entries, 1 + raw.len().div_ceil(FRAME_BYTES));

        let table = end - 9 - entries * 8;
        let (mut at, mut raw_at) = (0, 0);
        for entry in 0..entries {
            let compressed = number(&object, table + entry * 8) as usize;
            let size = number(&object, table + entry * 8 + 4) as usize;
            let frame = zstd::stream::decode_all(&object[at..at + compressed]).unwrap();
            assert_eq!(frame, raw[raw_at..raw_at + size]);
            (at, raw_at) = (at + compressed, raw_at + size);
        }
        assert_eq!(raw_at, raw.len());
    }
}

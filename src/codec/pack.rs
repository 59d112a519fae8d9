//! Packs: slices of a tar stream in the zstd seekable format, so that one file can be had without
//! the rest.
//!
//! Format: contrib/seekable_format/zstd_seekable_compression_format.md of the zstd sources. Our
//! header frame is the first entry of the seek table, with no content. A pack opens like any other
//! object, by `open`.

use crate::codec::SealedFrame;
use crate::codec::header::{Content, Header};

pub(super) const SEEK_TABLE_MAGIC: u32 = 0x184D_2A5E;
pub(super) const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;

/// Collects frames in the order of the stream.
#[derive(Default)]
pub struct PackBuilder {
    frames: Vec<SealedFrame>,
    content: Content,
}

impl PackBuilder {
    pub fn push(&mut self, frame: SealedFrame) {
        self.content = self.content.followed_by(frame.content);
        self.frames.push(frame);
    }

    /// Raw bytes so far.
    pub fn size(&self) -> u64 {
        self.content.size
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The object: header, frames, seek table.
    pub fn finish(self, describe: impl FnOnce(Content) -> Header) -> Vec<u8> {
        let mut object = describe(self.content).to_frame();
        let mut table = vec![(object.len() as u32, 0)];
        object.reserve_exact(
            self.frames.iter().map(|frame| frame.bytes.len() + 8).sum::<usize>() + 32,
        );
        for frame in self.frames {
            table.push((frame.bytes.len() as u32, frame.content.size as u32));
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
    use super::{PackBuilder, SEEKABLE_MAGIC};
    use crate::codec::header::samples::header;
    use crate::codec::{Compression, FRAME_BYTES, FrameSealer, open};

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
        open(&object[..], |piece| {
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

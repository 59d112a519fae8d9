//! One zstd frame of an object: a piece of the content, sealed without the others.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::codec::{Compression, Content};
use crate::error::{Error, ErrorKind, Result};

/// Raw bytes of each frame but the last: small enough for several threads to share one segment,
/// large enough to compress well.
pub const FRAME_BYTES: usize = 512 << 10;

/// The most raw bytes in a frame of a pack: a restore in place fetches whole frames for what
/// changed, so they are small. Smaller ones would compress worse.
pub const PACK_FRAME_BYTES: usize = 128 << 10;

/// A full frame of nothing but zeros, for each level and length in use: most of a segment that a
/// switch ended early is made of it, and it is always the same.
static FRAMES_OF_ZEROS: Mutex<BTreeMap<(i32, usize), SealedFrame>> = Mutex::new(BTreeMap::new());

/// One zstd frame, ready to stand in an object, and what is in it.
#[derive(Debug, Clone)]
pub struct SealedFrame {
    pub bytes: Bytes,
    pub content: Content,
}

/// Compresses frames; one for each thread, since it keeps zstd's work space.
pub struct FrameSealer {
    compressor: zstd::bulk::Compressor<'static>,
    compression: Compression,
}

impl FrameSealer {
    pub fn new(compression: Compression) -> Result<Self> {
        let mut compressor =
            zstd::bulk::Compressor::new(compression.level).map_err(compressor_failed)?;
        compressor.include_checksum(true).map_err(compressor_failed)?;
        Ok(FrameSealer { compressor, compression })
    }

    /// `raw`: at most `FRAME_BYTES`.
    pub fn seal(&mut self, raw: &[u8]) -> Result<SealedFrame> {
        debug_assert!(raw.len() <= FRAME_BYTES);
        let is_full = matches!(raw.len(), FRAME_BYTES | PACK_FRAME_BYTES);
        if !is_full || !is_zeros(raw) {
            return self.compress(raw);
        }
        let key = (self.compression.level, raw.len());
        let mut known = FRAMES_OF_ZEROS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = known.get(&key) {
            return Ok(frame.clone());
        }
        let frame = self.compress(raw)?;
        known.insert(key, frame.clone());
        Ok(frame)
    }

    fn compress(&mut self, raw: &[u8]) -> Result<SealedFrame> {
        let content = Content::of(raw);
        let bytes = self.compressor.compress(raw).map_err(compressor_failed)?.into();
        Ok(SealedFrame { bytes, content })
    }
}

/// By comparing pages, which costs a fraction of reading them from the disk's cache; what is not
/// all zeros seldom begins with a page of them.
fn is_zeros(raw: &[u8]) -> bool {
    static PAGE: [u8; 4096] = [0; 4096];
    raw.chunks(PAGE.len()).all(|piece| *piece == PAGE[..piece.len()])
}

/// Memory is all that a compressor can lack.
fn compressor_failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Bug, "compress").source(error)
}

#[cfg(test)]
mod tests {
    use super::{FRAME_BYTES, FrameSealer};
    use crate::codec::{Compression, Content};

    fn seal(raw: &[u8]) -> super::SealedFrame {
        FrameSealer::new(Compression::default()).unwrap().seal(raw).unwrap()
    }

    #[test]
    fn a_frame_says_its_length_has_a_checksum_and_is_plain_zstd() {
        let raw = b"000000010000000A000000FF".repeat(500);
        let frame = seal(&raw);
        assert_eq!(zstd::stream::decode_all(&frame.bytes[..]).unwrap(), raw);
        assert_eq!(frame.content, Content::of(&raw));
        let size = zstd::zstd_safe::get_frame_content_size(&frame.bytes).unwrap();
        assert_eq!(size, Some(raw.len() as u64));
        // RFC 8878, 3.1.1.1.1: bit 2 of the descriptor, which follows the magic.
        assert_ne!(frame.bytes[4] & 0b100, 0, "content checksum");
    }

    #[test]
    fn zeros_are_compressed_once_and_what_only_looks_like_them_is_not_taken_for_them() {
        let mut raw = vec![0; FRAME_BYTES];
        let (first, second) = (seal(&raw), seal(&raw));
        assert_eq!(first.bytes.as_ptr(), second.bytes.as_ptr(), "the same memory");
        assert_eq!(first.content, Content::of(&raw));
        assert_eq!(zstd::stream::decode_all(&first.bytes[..]).unwrap(), raw);
        raw[FRAME_BYTES - 1] = 1;
        assert_eq!(zstd::stream::decode_all(&seal(&raw).bytes[..]).unwrap(), raw);
        let short = &vec![0; FRAME_BYTES - 1];
        assert_eq!(zstd::stream::decode_all(&seal(short).bytes[..]).unwrap(), *short);
    }
}

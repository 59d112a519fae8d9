//! Raw bytes to a sealed object, in pieces, so that a segment is read once and never held whole.

use std::io::Write as _;

use crate::codec::Compression;
use crate::codec::header::{Content, Header};
use crate::error::{Error, ErrorKind, Result};

/// Compresses and checksums what is written to it; `finish` puts the header before it.
pub struct Sealer {
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
    crc32: crc32fast::Hasher,
    size: u64,
}

impl Sealer {
    /// `size`: the raw content's length in bytes, which must then come; it stands in the zstd frame
    /// header.
    pub fn new(compression: Compression, size: u64) -> Result<Self> {
        let start = || -> std::io::Result<_> {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), compression.level)?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(size))?;
            Ok(encoder)
        };
        let encoder = start().map_err(compressor_failed)?;
        Ok(Sealer { encoder, crc32: crc32fast::Hasher::new(), size: 0 })
    }

    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.crc32.update(piece);
        self.size += piece.len() as u64;
        self.encoder.write_all(piece).map_err(compressor_failed)
    }

    /// The object: the header that `describe` makes of the content, then the compressed content.
    pub fn finish(self, describe: impl FnOnce(Content) -> Header) -> Result<Vec<u8>> {
        let compressed = self.encoder.finish().map_err(compressor_failed)?;
        let header = describe(Content { size: self.size, crc32: self.crc32.finalize() });
        let mut object = header.to_frame();
        object.reserve_exact(compressed.len());
        object.extend_from_slice(&compressed);
        Ok(object)
    }
}

/// Memory is all that a compressor can lack; a wrong pledge is a fault of ours.
pub(crate) fn compressor_failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Bug, "compress").source(error)
}

#[cfg(test)]
mod tests {
    use crate::codec::header::samples::header;
    use crate::codec::{Compression, Sealer, open};
    use crate::error::ErrorKind;

    fn sealed(raw: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(Compression::default(), raw.len() as u64).unwrap();
        for piece in raw.chunks(1000) {
            sealer.write(piece).unwrap();
        }
        sealer.finish(header).unwrap()
    }

    fn opened(object: &[u8]) -> crate::error::Result<Vec<u8>> {
        let mut raw = Vec::new();
        open(object, |piece| {
            raw.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(raw)
    }

    #[test]
    fn what_was_sealed_opens_again() {
        let raw: Vec<u8> = (0..100_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        assert_eq!(opened(&sealed(&raw)).unwrap(), raw);
        assert_eq!(opened(&sealed(b"")).unwrap(), b"");
    }

    #[test]
    fn plain_zstd_reads_it() {
        let raw = b"000000010000000A000000FF".repeat(500);
        assert_eq!(zstd::stream::decode_all(&sealed(&raw)[..]).unwrap(), raw);
    }

    #[test]
    fn every_flipped_byte_of_the_content_is_noticed() {
        let raw: Vec<u8> = (0..5_000u32).flat_map(|n| (n * 31).to_le_bytes()).collect();
        let good = sealed(&raw);
        let (_, body) = crate::codec::Header::split(&good).unwrap();
        for at in good.len() - body.len()..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            // A flip may turn the frame into one that decodes to the same bytes (an unused bit);
            // never to others.
            match opened(&bad) {
                Ok(content) => assert_eq!(content, raw, "byte {at}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}"),
            }
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let good = sealed(&b"some WAL".repeat(100));
        for length in 0..good.len() {
            assert_eq!(
                opened(&good[..length]).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "{length} bytes"
            );
        }
    }
}

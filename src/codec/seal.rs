//! Raw bytes that come in pieces to a sealed object, for what is small enough to be held whole.

use crate::codec::{Compression, Content, FRAME_BYTES, FrameSealer, Header};
use crate::error::Result;

/// Compresses and checksums what is written to it; `finish` puts the header before it.
pub struct Sealer {
    frames: FrameSealer,
    /// The beginning of the next frame.
    begun: Vec<u8>,
    sealed: Vec<u8>,
    content: Content,
}

impl Sealer {
    /// `size`: the raw content's length in bytes, as far as it is known.
    pub fn new(compression: Compression, size: u64) -> Result<Self> {
        let room = usize::try_from(size).unwrap_or(FRAME_BYTES).min(FRAME_BYTES);
        let (frames, begun) = (FrameSealer::new(compression)?, Vec::with_capacity(room));
        Ok(Sealer { frames, begun, sealed: Vec::new(), content: Content::default() })
    }

    pub fn write(&mut self, mut piece: &[u8]) -> Result<()> {
        while !piece.is_empty() {
            if self.begun.len() == FRAME_BYTES {
                self.end_frame()?;
            }
            let (now, later) = piece.split_at(piece.len().min(FRAME_BYTES - self.begun.len()));
            self.begun.extend_from_slice(now);
            piece = later;
        }
        Ok(())
    }

    /// The object: the header that `describe` makes of the content, then the compressed content;
    /// one frame at least, so that every object is one that plain zstd has an opinion on.
    pub fn finish(mut self, describe: impl FnOnce(Content) -> Header) -> Result<Vec<u8>> {
        self.end_frame()?;
        let mut object = describe(self.content).to_frame();
        object.reserve_exact(self.sealed.len());
        object.extend_from_slice(&self.sealed);
        Ok(object)
    }

    fn end_frame(&mut self) -> Result<()> {
        let frame = self.frames.seal(&self.begun)?;
        self.begun.clear();
        self.sealed.extend_from_slice(&frame.bytes);
        self.content = self.content.followed_by(frame.content);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::codec::header::samples::header;
    use crate::codec::{Compression, Content, FRAME_BYTES, Sealer, open};
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
    fn sizes_around_a_frame_open_again_whatever_they_hold() {
        let mut random = fastrand::Rng::with_seed(9);
        for size in [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES] {
            let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(size).collect();
            for raw in [noise, vec![0; size]] {
                let object = sealed(&raw);
                assert!(opened(&object).unwrap() == raw, "{size}");
                assert!(zstd::stream::decode_all(&object[..]).unwrap() == raw, "{size}");
            }
        }
    }

    #[test]
    fn a_damaged_frame_in_the_middle_a_missing_and_a_doubled_one_are_noticed() {
        let raw: Vec<u8> = (0..1_000_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let good = sealed(&raw);
        let mut starts = vec![good.len() - crate::codec::Header::split(&good).unwrap().1.len()];
        while let Some(rest) = good.get(starts[starts.len() - 1]..).filter(|rest| !rest.is_empty())
        {
            let length = zstd::zstd_safe::find_frame_compressed_size(rest).unwrap();
            starts.push(starts[starts.len() - 1] + length);
        }
        assert_eq!(starts.len(), 9, "eight frames and the end");
        let middle = starts[1]..starts[2];
        let damaged = |object: Vec<u8>| opened(&object).unwrap_err().kind();
        let mut flipped = good.clone();
        flipped[(middle.start + middle.end) / 2] ^= 1;
        assert_eq!(damaged(flipped), ErrorKind::Corrupt);
        let missing = [&good[..middle.start], &good[middle.end..]].concat();
        assert_eq!(damaged(missing), ErrorKind::Corrupt);
        let doubled = [&good[..middle.end], &good[middle.start..]].concat();
        assert_eq!(damaged(doubled), ErrorKind::Corrupt);
        let swapped =
            [&good[..middle.start], &good[starts[2]..starts[3]], &good[middle], &good[starts[3]..]];
        assert_eq!(damaged(swapped.concat()), ErrorKind::Corrupt);
    }

    /// Repositories hold objects whose content is one frame, however long.
    #[test]
    fn a_content_of_one_long_frame_opens_too() {
        let raw = b"a segment of before".repeat(200_000);
        let mut object = header(Content::of(&raw)).to_frame();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        std::io::Write::write_all(&mut encoder, &raw).unwrap();
        object.extend(encoder.finish().unwrap());
        assert!(opened(&object).unwrap() == raw);
        assert!(crate::codec::same_content(&object[..], &sealed(&raw)[..]).unwrap());
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

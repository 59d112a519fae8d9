//! A sealed object back to raw bytes: the mirror image of `seal`.

use std::io::{BufRead, Read as _};

use crate::codec::Content;
use crate::codec::header::Header;
use crate::error::{Error, ErrorKind, Result};

const PIECE_BYTES: usize = 256 << 10;
/// No level up to 19 needs a larger window; a frame that asks for more is damaged, and must not
/// cost memory.
const WINDOW_LOG_MAX: u32 = 23;

/// Hands the raw content to `sink` in pieces, and checks it: zstd's own checksums, length, CRC-32.
///
/// The last check comes after the last piece: what `sink` was given counts only once this returns.
/// An `Error` of ours inside an `io::Error` of `object` comes out unchanged.
pub fn open(object: impl BufRead, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<Header> {
    let mut opened = Opened::begin(object)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = opened.read(&mut piece)?;
        if length == 0 {
            return Ok(opened.header);
        }
        sink(&piece[..length])?;
    }
}

/// Whether two sealed objects hold the same raw content, however each was compressed. Both are read
/// to the end, and both are checked.
pub fn same_content(one: impl BufRead, other: impl BufRead) -> Result<bool> {
    let (mut one, mut other) = (Opened::begin(one)?, Opened::begin(other)?);
    let (mut piece, mut counterpart) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut same = one.header.size == other.header.size;
    loop {
        let (length, found) = (one.read(&mut piece)?, other.read(&mut counterpart)?);
        same = same && piece[..length] == counterpart[..found];
        if length == 0 && found == 0 {
            return Ok(same);
        }
    }
}

/// An object of which a part was read.
struct Opened<R: BufRead> {
    header: Header,
    decoder: zstd::stream::read::Decoder<'static, R>,
    crc32: crc32fast::Hasher,
    size: u64,
    has_ended: bool,
}

impl<R: BufRead> Opened<R> {
    fn begin(mut object: R) -> Result<Self> {
        let header = Header::read(&mut object)?;
        let mut decoder = zstd::stream::read::Decoder::with_buffer(object).map_err(damaged)?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(damaged)?;
        let crc32 = crc32fast::Hasher::new();
        Ok(Opened { header, decoder, crc32, size: 0, has_ended: false })
    }

    /// Fills `piece`, but for the last one; 0 when everything was read and is right.
    fn read(&mut self, piece: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < piece.len() && !self.has_ended {
            let length = self.decoder.read(&mut piece[filled..]).map_err(damaged)?;
            filled += length;
            self.has_ended = length == 0;
        }
        self.crc32.update(&piece[..filled]);
        self.size += filled as u64;
        self.check()?;
        Ok(filled)
    }

    fn check(&self) -> Result<()> {
        let wrong = |what| Err(Error::new(ErrorKind::Corrupt, what));
        let expected = Content { size: self.header.size, crc32: self.header.crc32 };
        if self.size > expected.size {
            return wrong("content is longer than its header says");
        }
        if !self.has_ended {
            return Ok(());
        }
        if self.size < expected.size {
            return wrong("content is shorter than its header says");
        }
        if self.crc32.clone().finalize() != expected.crc32 {
            return wrong("content does not match its CRC-32");
        }
        Ok(())
    }
}

fn damaged(error: std::io::Error) -> Error {
    match error.downcast() {
        Ok(ours) => ours,
        Err(error) => Error::new(ErrorKind::Corrupt, "content does not decompress").source(error),
    }
}

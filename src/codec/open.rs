//! A sealed object back to raw bytes: the mirror image of `seal`.

use std::io::Read as _;

use crate::codec::header::Header;
use crate::error::{Error, ErrorKind, Result};

const PIECE_BYTES: usize = 256 << 10;
/// No level up to 19 needs a larger window; a frame that asks for more is damaged, and must not
/// cost memory.
const WINDOW_LOG_MAX: u32 = 23;

/// Hands the raw content to `sink` in pieces, and checks it: zstd's own checksums, length, CRC-32.
///
/// The last check comes after the last piece: what `sink` was given counts only once this returns.
pub fn open(object: &[u8], mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<Header> {
    let (header, compressed) = Header::split(object)?;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(damaged)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(damaged)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut crc32 = crc32fast::Hasher::new();
    let mut size = 0;
    loop {
        let length = decoder.read(&mut piece).map_err(damaged)?;
        if length == 0 {
            break;
        }
        size += length as u64;
        if size > header.size {
            return Err(Error::new(ErrorKind::Corrupt, "content is longer than its header says"));
        }
        crc32.update(&piece[..length]);
        sink(&piece[..length])?;
    }
    if size != header.size {
        return Err(Error::new(ErrorKind::Corrupt, "content is shorter than its header says"));
    }
    if crc32.finalize() != header.crc32 {
        return Err(Error::new(ErrorKind::Corrupt, "content does not match its CRC-32"));
    }
    Ok(header)
}

/// Whether two sealed objects hold the same raw content, however each was compressed. Both are read
/// to the end.
pub fn same_content(one: &[u8], other: &[u8]) -> Result<bool> {
    let (header, compressed) = Header::split(one)?;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(damaged)?;
    let mut expected = vec![0; PIECE_BYTES];
    let mut same = true;
    let length = open(other, |mut piece| {
        while same && !piece.is_empty() {
            let wanted = piece.len().min(PIECE_BYTES);
            let length = decoder.read(&mut expected[..wanted]).map_err(damaged)?;
            same = length > 0 && expected[..length] == piece[..length];
            piece = &piece[length..];
        }
        Ok(())
    })?
    .size;
    open(one, |_| Ok(()))?;
    Ok(same && length == header.size)
}

fn damaged(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "content does not decompress").source(error)
}

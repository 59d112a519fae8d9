//! What is to be stored: parts in memory or in a file, copied together only by who needs one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::error::{Error, ErrorKind};
use crate::storage::Key;

/// What is read of a file at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// What is to be stored, with the CRC-32 (ISO-HDLC, as in zlib) that the store must confirm.
#[derive(Debug, Clone)]
pub struct Body {
    parts: Vec<Part>,
    size: u64,
    pub crc32: u32,
}

/// A piece of a body, with a checksum of its own.
#[derive(Debug, Clone)]
pub struct Part {
    place: Place,
    size: u64,
    crc32: u32,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Bytes),
    File { file: Arc<File>, offset: u64 },
}

impl Body {
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Body::of([Part::new(bytes)])
    }

    /// The parts one after the other; none is read again for the checksum of all.
    pub fn of(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut body = Body { parts: Vec::new(), size: 0, crc32: 0 };
        let mut crc32 = crc32fast::Hasher::new();
        for part in parts {
            crc32.combine(&crc32fast::Hasher::new_with_initial_len(part.crc32, part.size));
            body.size += part.size;
            body.parts.push(part);
        }
        body.crc32 = crc32.finalize();
        body
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// From its beginning to its end, in pieces that cost little memory. A file that cannot be read
    /// is an `Err`.
    pub fn pieces(&self) -> impl Iterator<Item = io::Result<Bytes>> + Send + Sync + use<> {
        self.parts.clone().into_iter().flat_map(Part::pieces)
    }

    /// In one piece: for a store that takes it no other way, and for what is known to be small.
    pub fn to_bytes(&self) -> io::Result<Bytes> {
        if let [Part { place: Place::Memory(bytes), .. }] = &self.parts[..] {
            return Ok(bytes.clone());
        }
        let mut whole = BytesMut::with_capacity(usize::try_from(self.size).unwrap_or(usize::MAX));
        for piece in self.pieces() {
            whole.extend_from_slice(&piece?);
        }
        Ok(whole.freeze())
    }
}

impl Part {
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let (size, crc32) = (bytes.len() as u64, crc32fast::hash(&bytes));
        Part { place: Place::Memory(bytes), size, crc32 }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// The same part, after its bytes were written to `file` at `offset`.
    #[must_use]
    pub fn moved_to(self, file: Arc<File>, offset: u64) -> Self {
        Part { place: Place::File { file, offset }, ..self }
    }

    /// What it holds, if that is in memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.place {
            Place::Memory(bytes) => Some(bytes),
            Place::File { .. } => None,
        }
    }

    fn pieces(self) -> impl Iterator<Item = io::Result<Bytes>> + Send + Sync {
        let mut from = 0;
        std::iter::from_fn(move || {
            let left = self.size - from;
            if left == 0 {
                return None;
            }
            let piece = match &self.place {
                Place::Memory(bytes) => Ok(bytes.clone()),
                Place::File { file, offset } => read(file, offset + from, left.min(PIECE_BYTES)),
            };
            // After a failure nothing more comes.
            from = piece.as_ref().map_or(self.size, |piece| from + piece.len() as u64);
            Some(piece)
        })
    }
}

/// Of a body's file, not of the store.
pub(super) fn unreadable(key: &Key, error: io::Error) -> Error {
    Error::new(ErrorKind::Host, format!("cannot read back what is to become {key}"))
        .source(error)
        .hint("Look at the disk of state_dir, where large files wait while they are sent.")
}

fn read(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use super::{Body, PIECE_BYTES, Part};

    #[test]
    fn parts_in_memory_and_in_a_file_are_one_body() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut noise = |size| -> Vec<u8> { (0..size).map(|_| random.u8(..)).collect() };
        let (first, second, last) = (noise(10), noise(2 * PIECE_BYTES as usize + 7), noise(3));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        file.write_all(&second).unwrap();
        let in_file = Part::new(second.clone()).moved_to(Arc::new(file), 6);
        let body = Body::of([
            Part::new(first.clone()),
            Part::new(&b""[..]),
            in_file,
            Part::new(last.clone()),
        ]);
        let whole = [first, second, last].concat();
        assert_eq!(body.size(), whole.len() as u64);
        assert_eq!(body.crc32, crc32fast::hash(&whole));
        for _ in 0..2 {
            assert!(body.to_bytes().unwrap() == whole, "again and again");
        }
        assert!(body.pieces().all(|piece| piece.unwrap().len() <= PIECE_BYTES as usize));
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let body = Body::of([Part::new(&b"gone"[..]).moved_to(Arc::new(file), 0)]);
        body.to_bytes().unwrap_err();
        assert_eq!(body.pieces().count(), 1, "and then nothing more");
    }

    #[test]
    fn of_nothing_there_is_nothing() {
        let body = Body::new(&b""[..]);
        assert_eq!((body.size(), body.crc32), (0, 0));
        assert_eq!(body.to_bytes().unwrap(), "");
    }
}

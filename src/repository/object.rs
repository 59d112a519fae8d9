//! An object read in bounded pieces: one request where it is small, little memory where it is not.

use std::io::{self, BufRead, Read};

use bytes::{Buf as _, Bytes};

use crate::error::{Error, ErrorKind, Result};
use crate::host::backoff;
use crate::storage::{Body, Key, Storage};

/// What one request brings. Ordinary segments come whole, and 1 GiB in 32 pieces.
const PIECE_BYTES: u64 = 32 << 20;

/// A piece that does not come is asked for again, or an object of many would seldom come at all.
const ATTEMPTS_FOR_A_PIECE: u32 = 3;

/// Its errors are ours, inside of `io::Error`.
pub(super) struct ObjectReader<'a> {
    storage: &'a dyn Storage,
    key: &'a Key,
    /// Of the piece that came last, what was not taken yet.
    piece: Bytes,
    /// Bytes of the object in this piece and before it.
    asked: u64,
    size: u64,
}

impl<'a> ObjectReader<'a> {
    /// `NotFound` where there is none.
    pub fn begin(storage: &'a dyn Storage, key: &'a Key) -> Result<Self> {
        let (piece, size) = storage.get_start(key, PIECE_BYTES)?;
        let asked = size.min(PIECE_BYTES);
        let reader = ObjectReader { storage, key, piece, asked, size };
        reader.expect_length(asked)?;
        Ok(reader)
    }

    /// The beginning of the object, before anything was taken of it.
    pub fn start(&self) -> &[u8] {
        &self.piece
    }

    fn next_piece(&mut self) -> Result<()> {
        let end = self.size.min(self.asked + PIECE_BYTES);
        self.piece = Bytes::new();
        let mut failures = 0;
        self.piece = loop {
            match self.storage.get_range(self.key, self.asked..end) {
                Ok(piece) => break piece,
                // It was there a moment ago: no proof of its absence.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(error.with_kind(ErrorKind::Unreachable));
                }
                Err(error) => {
                    failures += 1;
                    if !error.kind().is_transient() || failures == ATTEMPTS_FOR_A_PIECE {
                        return Err(error);
                    }
                    std::thread::sleep(backoff::wait(failures, error.retry_after()));
                }
            }
        };
        let length = end - self.asked;
        self.asked = end;
        self.expect_length(length)
    }

    fn expect_length(&self, length: u64) -> Result<()> {
        if self.piece.len() as u64 == length {
            return Ok(());
        }
        let (key, got) = (self.key, self.piece.len());
        Err(Error::new(ErrorKind::Corrupt, format!("{key} came with {got} of {length} bytes"))
            .hint("Look at the store and at what stands between it and this host."))
    }
}

impl BufRead for ObjectReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.piece.is_empty() && self.asked < self.size {
            self.next_piece().map_err(io::Error::other)?;
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, length: usize) {
        self.piece.advance(length);
    }
}

impl Read for ObjectReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        take(self, to)
    }
}

/// A body, before it is stored or after.
pub(super) struct BodyReader<I> {
    pieces: I,
    piece: Bytes,
}

pub(super) fn read_body(
    body: &Body,
) -> BodyReader<impl Iterator<Item = io::Result<Bytes>> + use<>> {
    BodyReader { pieces: body.pieces(), piece: Bytes::new() }
}

impl<I: Iterator<Item = io::Result<Bytes>>> BufRead for BodyReader<I> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            let Some(piece) = self.pieces.next() else { break };
            self.piece = piece.map_err(|error| {
                io::Error::other(
                    Error::new(ErrorKind::Host, "cannot read back what was to be stored")
                        .source(error)
                        .hint("Look at the disk of state_dir."),
                )
            })?;
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, length: usize) {
        self.piece.advance(length);
    }
}

impl<I: Iterator<Item = io::Result<Bytes>>> Read for BodyReader<I> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        take(self, to)
    }
}

fn take(from: &mut impl BufRead, to: &mut [u8]) -> io::Result<usize> {
    let there = from.fill_buf()?;
    let length = there.len().min(to.len());
    to[..length].copy_from_slice(&there[..length]);
    from.consume(length);
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use super::{ObjectReader, PIECE_BYTES, read_body};
    use crate::error::{Error, ErrorKind};
    use crate::storage::faulty::{Fault, Faulty};
    use crate::storage::memory::Memory;
    use crate::storage::{Body, Key, Part, Storage, Verb};

    fn object(size: u64) -> (Arc<Memory>, Key, Vec<u8>) {
        let (memory, key) = (Arc::new(Memory::new()), Key::new("object").unwrap());
        let mut bytes = vec![7; size as usize];
        bytes.iter_mut().step_by(99_991).enumerate().for_each(|(n, byte)| *byte = n as u8);
        memory.put_new(&key, &Body::new(bytes.clone())).unwrap();
        (memory, key, bytes)
    }

    fn read(storage: &dyn Storage, key: &Key) -> std::result::Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut reader = ObjectReader::begin(storage, key)?;
        match reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(error.downcast().unwrap()),
        }
    }

    #[test]
    fn what_is_small_takes_one_request_and_what_is_large_one_for_each_piece() {
        for (size, requests) in [
            (0, (1, 0)),
            (1, (1, 0)),
            (PIECE_BYTES, (1, 0)),
            (PIECE_BYTES + 1, (1, 1)),
            (2 * PIECE_BYTES + 5, (1, 2)),
        ] {
            let (memory, key, bytes) = object(size);
            let faulty = Faulty::new(memory);
            assert!(read(&faulty, &key).unwrap() == bytes, "{size}");
            assert_eq!((faulty.calls(Verb::Get), faulty.calls(Verb::GetRange)), requests);
        }
    }

    #[test]
    fn a_piece_that_fails_is_asked_for_again_a_few_times() {
        let (memory, key, bytes) = object(2 * PIECE_BYTES);
        let faulty = Faulty::new(memory);
        for nth in [1, 2] {
            faulty.fail(Verb::GetRange, nth, Fault::Before(ErrorKind::Unreachable));
        }
        assert!(read(&faulty, &key).unwrap() == bytes);
        faulty.fail_always(Verb::GetRange, Fault::Before(ErrorKind::Unreachable));
        assert_eq!(read(&faulty, &key).unwrap_err().kind(), ErrorKind::Unreachable);
        assert_eq!(faulty.calls(Verb::GetRange), 6);
    }

    #[test]
    fn pieces_that_come_short_or_not_at_all_are_never_absence() {
        let (memory, key, _) = object(2 * PIECE_BYTES);
        for (verb, fault, expected) in [
            (Verb::Get, Fault::CutShort, ErrorKind::Corrupt),
            (Verb::GetRange, Fault::CutShort, ErrorKind::Corrupt),
            (Verb::GetRange, Fault::Before(ErrorKind::NotFound), ErrorKind::Unreachable),
            (Verb::GetRange, Fault::Before(ErrorKind::NotAllowed), ErrorKind::NotAllowed),
        ] {
            let faulty = Faulty::new(memory.clone());
            faulty.fail_always(verb, fault);
            assert_eq!(read(&faulty, &key).unwrap_err().kind(), expected, "{verb:?}");
        }
    }

    #[test]
    fn an_object_that_is_exchanged_for_a_shorter_one_meanwhile_is_damaged() {
        let (memory, key, _) = object(2 * PIECE_BYTES);
        let mut reader = ObjectReader::begin(&*memory, &key).unwrap();
        memory.delete(&key).unwrap();
        memory.put_new(&key, &Body::new(vec![7; PIECE_BYTES as usize + 1])).unwrap();
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.downcast::<Error>().unwrap().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_body_is_read_across_its_parts() {
        let body = Body::of([&b"one"[..], b"", b"two"].map(Part::new));
        let mut bytes = Vec::new();
        read_body(&body).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"onetwo");
    }
}

//! A stretch of a file, read by a thread of its own that is some pieces ahead of who wants them:
//! the disk works while the processor does.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;

use crate::host::page_cache;

/// Pieces that wait to be taken, beside the one that is being read.
const WAITING_MAX: usize = 1;

pub struct ReadAhead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    /// Buffers that come back.
    emptied: Sender<Vec<u8>>,
    /// Where the next piece begins.
    at: u64,
}

impl ReadAhead {
    /// Begins to read, sparing what others keep in memory of the file. It ends by itself when it is
    /// dropped. Fails where no thread can be had.
    pub fn begin(file: Arc<File>, range: Range<u64>, piece_bytes: usize) -> io::Result<ReadAhead> {
        let (to_taker, pieces) = sync_channel(WAITING_MAX);
        let (emptied, used) = channel();
        let at = range.start;
        let read_all = move || {
            let mut at = range.start;
            while at < range.end {
                let length = (range.end - at).min(piece_bytes as u64) as usize;
                let piece = read(&file, at, length, used.try_recv().unwrap_or_default());
                let is_last = piece.is_err();
                if to_taker.send(piece).is_err() || is_last {
                    break;
                }
                at += length as u64;
            }
        };
        thread::Builder::new().name("read ahead".to_owned()).spawn(read_all)?;
        Ok(ReadAhead { pieces, emptied, at })
    }

    /// Where the next piece begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next piece, for one that was used up. Beyond the end of the file it is zeros. Nothing
    /// comes after the end of the stretch, nor after an error.
    pub fn next(&mut self, used: Vec<u8>) -> io::Result<Vec<u8>> {
        // Who has read all wants none back.
        let _ = self.emptied.send(used);
        let piece = self.pieces.recv().map_err(|_| io::ErrorKind::UnexpectedEof)??;
        self.at += piece.len() as u64;
        Ok(piece)
    }
}

fn read(file: &File, at: u64, length: usize, mut piece: Vec<u8>) -> io::Result<Vec<u8>> {
    piece.resize(length, 0);
    let read = page_cache::read_at_sparing(file, &mut piece, at)?;
    piece[read..].fill(0);
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write as _};
    use std::sync::Arc;

    use super::ReadAhead;

    #[test]
    fn pieces_come_in_order_and_zeros_where_the_file_has_ended() {
        let content: Vec<u8> = (0..10_000).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let mut ahead = ReadAhead::begin(Arc::new(file), 500..12_000, 3000).unwrap();
        let (mut read, mut used) = (Vec::new(), Vec::new());
        for length in [3000, 3000, 3000, 2500] {
            assert_eq!(ahead.at(), 500 + read.len() as u64);
            let piece = ahead.next(used).unwrap();
            assert_eq!(piece.len(), length);
            read.extend_from_slice(&piece);
            used = piece;
        }
        assert!(read[..9500] == content[500..] && read[9500..].iter().all(|byte| *byte == 0));
        assert_eq!(ahead.next(used).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_who_wants_no_more_ends_it() {
        let directory = std::fs::File::open(std::env::temp_dir()).unwrap();
        let mut ahead = ReadAhead::begin(Arc::new(directory), 0..10, 5).unwrap();
        assert!(ahead.next(Vec::new()).is_err());
        let file = Arc::new(tempfile::tempfile().unwrap());
        drop(ReadAhead::begin(file.clone(), 0..1 << 30, 10).unwrap());
        while Arc::strong_count(&file) > 1 {
            std::thread::yield_now();
        }
    }
}

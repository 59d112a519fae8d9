//! What lies in place is read and compared with the checksums of the backup: what agrees is kept,
//! the rest is to be fetched.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use crate::commands::restore::pieces::{Piece, joined};
use crate::commands::restore::placement::{Placed, Placement};
use crate::commands::restore::targets::{NO_LINK, cannot, is_zeros};
use crate::error::Result;
use crate::host::page_cache;
use crate::repository::Home;
use crate::repository::manifest::Manifest;
use crate::repository::sums::{self, CHUNK_BYTES, Sums, chunk_range};

/// Chunks that are compared in one go, 4 MiB: enough that a disk reads on, and little beside a
/// pack, since what is compared for one pack beyond its ends is ahead of what can be fetched.
/// Tests have small files, of several parts too.
const CHUNKS_AT_ONCE: usize = if cfg!(test) { 2 } else { 32 };

/// A part of a file that lies in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub file: usize,
    /// How long what lies there was found.
    was: u64,
    chunks: Range<usize>,
}

impl Part {
    /// All parts of a file that shall have `size` bytes; one at least.
    pub fn of(file: usize, size: u64, was: u64) -> impl Iterator<Item = Part> {
        let chunks = size.div_ceil(CHUNK_BYTES as u64) as usize;
        let first_chunks = (0..chunks.max(1)).step_by(CHUNKS_AT_ONCE);
        first_chunks.map(move |first| Part {
            file,
            was,
            chunks: first..chunks.min(first + CHUNKS_AT_ONCE),
        })
    }

    fn bytes(&self, size: u64) -> Range<u64> {
        let begin = self.chunks.start * CHUNK_BYTES;
        begin as u64..size.min((self.chunks.end * CHUNK_BYTES) as u64)
    }

    /// What goes into it.
    pub fn pieces(&self, placement: &Placement) -> impl Iterator<Item = Piece> {
        let placed = &placement.files[self.file];
        let bytes = self.bytes(placed.size);
        let pieces = overlapping(placement.pieces_of(placed), &bytes);
        pieces.iter().filter_map(move |piece| piece.within(&bytes))
    }
}

/// What came of one part.
pub struct Compared {
    /// To be written over what lies there.
    pub wanted: Vec<Piece>,
    /// Bytes of its pieces that agree.
    pub kept: u64,
    pub file: File,
}

pub struct Comparer<'a> {
    chain: &'a [Manifest],
    /// For each backup, where it has them.
    sums: Vec<Option<Sums>>,
}

/// What is known of a chunk without fetching it.
enum Expected {
    Sum(u64),
    Zeros,
    /// Of several backups, or of one that has no checksums.
    Unknown,
}

impl<'a> Comparer<'a> {
    pub fn new(home: &Home, chain: &'a [Manifest]) -> Result<Comparer<'a>> {
        let sums = chain.iter().map(|manifest| home.sums(manifest)).collect::<Result<_>>()?;
        Ok(Comparer { chain, sums })
    }

    /// The file must have its length already. Where no piece goes and something lies, zeros are
    /// written.
    pub fn compare(&self, part: &Part, placement: &Placement) -> Result<Compared> {
        let (placed, was) = (&placement.files[part.file], part.was);
        let file = open(placed)?;
        let bytes = part.bytes(placed.size);
        if let Some(length) = bytes.end.min(was).checked_sub(bytes.start) {
            page_cache::bring_soon(&file, bytes.start, length);
        }
        let pieces = overlapping(placement.pieces_of(placed), &bytes);
        let mut wanted = Vec::new();
        let mut buffer = vec![0; CHUNK_BYTES.min((bytes.end - bytes.start) as usize)];
        for chunk in part.chunks.clone() {
            let range = chunk_range(chunk, placed.size);
            let of_chunk = overlapping(pieces, &range);
            let content = &mut buffer[..(range.end - range.start) as usize];
            let agrees = match self.expected(chunk, &range, of_chunk) {
                Expected::Sum(_) | Expected::Unknown if range.start >= was => false,
                Expected::Unknown => false,
                Expected::Zeros if range.start >= was => true,
                Expected::Sum(sum) => {
                    read(&file, placed, content, range.start)?;
                    sums::sum(content) == sum
                }
                Expected::Zeros => {
                    read(&file, placed, content, range.start)?;
                    is_zeros(content)
                }
            };
            if !agrees {
                clear_between(&file, placed, of_chunk, &range)?;
                wanted.extend(of_chunk.iter().filter_map(|piece| piece.within(&range)));
            }
        }
        let length = |piece: Piece| piece.length;
        let all: u64 = part.pieces(placement).map(length).sum();
        let kept = all - wanted.iter().copied().map(length).sum::<u64>();
        Ok(Compared { wanted: joined(wanted), kept, file })
    }

    /// A checksum is of a chunk of a whole file of one backup; it holds here where all of the chunk
    /// comes from there, and from the same place.
    fn expected(&self, chunk: usize, range: &Range<u64>, pieces: &[Piece]) -> Expected {
        let [piece] = pieces else {
            return if pieces.is_empty() { Expected::Zeros } else { Expected::Unknown };
        };
        let source = piece.source as usize;
        let entry = &self.chain[source].files[piece.entry as usize];
        let is_of_all = piece.at <= range.start
            && range.end <= piece.end()
            && entry.part.is_none()
            && piece.offset - entry.offset == piece.at
            && chunk_range(chunk, entry.size) == *range;
        let sums = self.sums[source].as_ref().filter(|_| is_of_all);
        let sum = sums.and_then(|sums| sums.of(piece.entry as usize).get(chunk));
        sum.map_or(Expected::Unknown, |sum| Expected::Sum(*sum))
    }
}

/// Those that have a part in the range; they rise.
fn overlapping<'p>(pieces: &'p [Piece], range: &Range<u64>) -> &'p [Piece] {
    let pieces = &pieces[pieces.partition_point(|piece| piece.end() <= range.start)..];
    &pieces[..pieces.partition_point(|piece| piece.at < range.end)]
}

/// Gives a file that lies in place the length it shall have.
pub fn set_length(placed: &Placed) -> Result<()> {
    open(placed)?.set_len(placed.size).map_err(|error| cannot("cut", placed, error))
}

fn open(placed: &Placed) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).custom_flags(NO_LINK).open(&placed.path);
    file.map_err(|error| cannot("open", placed, error))
}

fn read(file: &File, placed: &Placed, content: &mut [u8], at: u64) -> Result<()> {
    file.read_exact_at(content, at).map_err(|error| cannot("read", placed, error))
}

/// Zeros where no piece goes.
fn clear_between(file: &File, placed: &Placed, pieces: &[Piece], range: &Range<u64>) -> Result<()> {
    let zeros = [0; 8192];
    let mut at = range.start;
    let ends = pieces.iter().map(|piece| (piece.at.max(range.start), piece.end().min(range.end)));
    for (begin, end) in ends.chain([(range.end, range.end)]) {
        while at < begin {
            let length = (begin - at).min(zeros.len() as u64);
            file.write_all_at(&zeros[..length as usize], at)
                .map_err(|error| cannot("write", placed, error))?;
            at += length;
        }
        at = at.max(end);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES, CHUNKS_AT_ONCE, Part};

    #[test]
    fn the_parts_of_a_file_are_all_of_it() {
        let at_once = (CHUNK_BYTES * CHUNKS_AT_ONCE) as u64;
        for size in [0, 1, CHUNK_BYTES as u64, at_once - 1, at_once, at_once + 1, 5 * at_once] {
            let parts: Vec<Part> = Part::of(3, size, 7).collect();
            assert_eq!(parts.len() as u64, size.div_ceil(at_once).max(1), "{size}");
            let mut end = 0;
            for part in &parts {
                let bytes = part.bytes(size);
                assert_eq!((part.file, bytes.start), (3, end));
                end = bytes.end;
            }
            assert_eq!(end, size);
        }
    }
}

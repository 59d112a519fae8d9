//! What lies in place is read and compared with the checksums of the backup: what agrees is kept,
//! the rest is to be fetched.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::commands::restore::in_place::InPlace;
use crate::commands::restore::pieces::Piece;
use crate::commands::restore::place::Wanted;
use crate::commands::restore::placement::Placed;
use crate::commands::restore::settle::in_parallel;
use crate::commands::restore::targets::{NO_LINK, Targets, cannot, is_zeros};
use crate::error::Result;
use crate::repository::Home;
use crate::repository::manifest::Manifest;
use crate::repository::sums::{self, CHUNK_BYTES, Sums, chunk_range};

/// What came of it.
#[derive(Debug, Default)]
pub struct Compared {
    pub wanted: Vec<Wanted>,
    /// Bytes that agree.
    pub kept: u64,
    /// Files of which nothing is to be fetched.
    pub kept_files: u64,
}

/// Disks read faster when several ask.
const READERS_MIN: usize = 4;

pub struct Comparer<'a> {
    chain: &'a [Manifest],
    /// For each backup, where it has them.
    sums: Vec<Option<Sums>>,
    jobs: usize,
}

/// What is known of a chunk without fetching it.
enum Expected {
    Sum(u64),
    Zeros,
    /// Of several backups, or of one that has no checksums.
    Unknown,
}

impl<'a> Comparer<'a> {
    pub fn new(home: &Home, chain: &'a [Manifest], jobs: usize) -> Result<Comparer<'a>> {
        let sums = chain.iter().map(|manifest| home.sums(manifest)).collect::<Result<_>>()?;
        Ok(Comparer { chain, sums, jobs })
    }

    /// Compares, gives all files that lie in place their length, and finishes those that are right.
    /// What was kept is told to `progress`.
    pub fn compare(
        &self,
        targets: &mut Targets<'_>,
        in_place: &InPlace,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Compared> {
        let there: Vec<(usize, u64)> = in_place
            .files
            .iter()
            .enumerate()
            .filter_map(|(file, was)| was.map(|was| (file, was)))
            .collect();
        let found: Mutex<Vec<(usize, u64, Vec<Piece>)>> = Mutex::default();
        let kept = AtomicU64::new(0);
        let placement = targets.placement;
        in_parallel(&there, self.jobs.max(READERS_MIN), |(file, was)| {
            let placed = &placement.files[*file];
            let pieces = placement.pieces_of(placed);
            let wanted = self.compare_file(placed, pieces, *was)?;
            let all: u64 = pieces.iter().map(|piece| piece.length).sum();
            let agreed = all - wanted.iter().map(|piece| piece.length).sum::<u64>();
            kept.fetch_add(agreed, Ordering::Relaxed);
            progress(agreed);
            let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            found.push((*file, *was, wanted));
            Ok(())
        })?;
        let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut compared = Compared { kept: kept.into_inner(), ..Compared::default() };
        for (file, was, pieces) in &found {
            targets.is_there(*file, *was, pieces.iter().map(|piece| piece.length).sum());
            compared.kept_files += u64::from(pieces.is_empty());
            let wanted = |piece: &Piece| Wanted { file: *file as u32, piece: *piece };
            compared.wanted.extend(pieces.iter().map(wanted));
        }
        for (file, _) in in_place.files.iter().enumerate().filter(|(_, was)| was.is_none()) {
            let pieces = placement.pieces_of(&placement.files[file]);
            let wanted = |piece: &Piece| Wanted { file: file as u32, piece: *piece };
            compared.wanted.extend(pieces.iter().map(wanted));
        }
        Ok(compared)
    }

    /// The pieces that are to be written over what lies there.
    fn compare_file(&self, placed: &Placed, pieces: &[Piece], was: u64) -> Result<Vec<Piece>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(NO_LINK).open(&placed.path);
        let file = file.map_err(|error| cannot("open", placed, error))?;
        if was != placed.size {
            file.set_len(placed.size).map_err(|error| cannot("cut", placed, error))?;
        }
        let mut wanted = Vec::new();
        let mut buffer = vec![0; CHUNK_BYTES.min(placed.size as usize)];
        let mut pieces = pieces;
        for chunk in 0..placed.size.div_ceil(CHUNK_BYTES as u64) as usize {
            let range = chunk_range(chunk, placed.size);
            let ended = pieces.partition_point(|piece| piece.end() <= range.start);
            pieces = &pieces[ended..];
            let of_chunk = &pieces[..pieces.partition_point(|piece| piece.at < range.end)];
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
        Ok(wanted)
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

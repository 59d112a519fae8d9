//! Packs to files: fetched and written in parallel, each byte at its place.

use std::fs::DirBuilder;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::commands::restore::host_failed;
use crate::commands::restore::pieces::Piece;
use crate::commands::restore::placement::Placement;
use crate::commands::restore::targets::{Target, Targets};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::bandwidth::Bandwidth;
use crate::host::clock::Deadline;
use crate::repository::{Home, Manifest, PackReader, PackSink};

/// A piece, and which file it is of.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub file: u32,
    pub piece: Piece,
}

/// What is to be fetched, pack by pack.
pub struct Work<'a> {
    chain: &'a [Manifest],
    /// For each backup, in the order of its stream.
    wanted: Vec<Vec<Wanted>>,
    tasks: Vec<Task>,
    bandwidth: Bandwidth,
    deadline: Option<Deadline>,
}

/// One pack of one backup, and which of its backup's pieces lie in it.
struct Task {
    source: usize,
    number: u32,
    pieces: Range<usize>,
}

impl<'a> Work<'a> {
    pub fn new(chain: &'a [Manifest], all: impl IntoIterator<Item = Wanted>) -> Work<'a> {
        let mut wanted: Vec<Vec<Wanted>> = chain.iter().map(|_| Vec::new()).collect();
        for one in all {
            wanted[one.piece.source as usize].push(one);
        }
        let mut tasks = Vec::new();
        for (source, (pieces, manifest)) in wanted.iter_mut().zip(chain).enumerate() {
            pieces.sort_unstable_by_key(|one| one.piece.offset);
            for number in 0..manifest.packs.len() as u32 {
                let pieces = lying_in(pieces, &pack_range(manifest, number));
                if !pieces.is_empty() {
                    tasks.push(Task { source, number, pieces });
                }
            }
        }
        Work { chain, wanted, tasks, bandwidth: Bandwidth::new(None), deadline: None }
    }

    /// So many bytes are fetched in a second, in steps of a pack a job.
    #[must_use]
    pub fn at_most(self, bytes_per_second: Option<u64>) -> Self {
        Work { bandwidth: Bandwidth::new(bytes_per_second), ..self }
    }

    /// No pack is begun after it.
    #[must_use]
    pub fn by(self, deadline: Option<Deadline>) -> Self {
        Work { deadline, ..self }
    }

    /// Every piece of every file.
    pub fn of_all(chain: &'a [Manifest], placement: &Placement) -> Work<'a> {
        let files = (0u32..).zip(&placement.files);
        let of_file = |(file, placed)| {
            placement.pieces_of(placed).iter().map(move |piece| Wanted { file, piece: *piece })
        };
        Work::new(chain, files.flat_map(of_file))
    }

    /// Fetches and writes all of it; returns how many stored bytes were fetched.
    ///
    /// `progress` is told the raw bytes placed, from any thread. Memory: one stored pack a job.
    pub fn carry_out(
        &self,
        home: &Home,
        targets: &Targets<'_>,
        jobs: usize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let fetched = AtomicU64::new(0);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let work = || -> Result<()> {
            let mut reader = PackReader::new(home)?;
            while !stop.load(Ordering::Relaxed) {
                let task = next.fetch_add(1, Ordering::Relaxed);
                let Some(task) = self.tasks.get(task) else { break };
                let is_over = || stop.load(Ordering::Relaxed) || self.is_late();
                let expected = self.expected(task);
                if self.is_late() {
                    return Err(late());
                }
                if !self.bandwidth.take(expected, &is_over) {
                    if self.is_late() {
                        return Err(late());
                    }
                    break;
                }
                let bytes = self.fetch(task, &mut reader, targets, progress)?;
                fetched.fetch_add(bytes, Ordering::Relaxed);
                self.bandwidth.take(bytes.saturating_sub(expected), &is_over);
            }
            Ok(())
        };
        let run = || {
            if let Err(error) = work() {
                stop.store(true, Ordering::Relaxed);
                let mut failure = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                failure.get_or_insert(error);
            }
        };
        thread::scope(|scope| {
            for _ in 0..jobs.clamp(1, self.tasks.len().max(1)) {
                scope.spawn(run);
            }
        });
        match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(fetched.into_inner()),
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline.has_passed())
    }

    /// About how many stored bytes a task will fetch.
    fn expected(&self, task: &Task) -> u64 {
        let manifest = &self.chain[task.source];
        let pack = &manifest.packs[task.number as usize];
        let range = pack_range(manifest, task.number);
        let wanted = ranges(&self.wanted[task.source][task.pieces.clone()], &range);
        let raw: u64 = wanted.iter().map(|range| range.end - range.start).sum();
        (pack.stored as f64 * raw as f64 / pack.size.max(1) as f64) as u64
    }

    fn fetch(
        &self,
        task: &Task,
        reader: &mut PackReader<'_>,
        targets: &Targets<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64> {
        let manifest = &self.chain[task.source];
        let pack = pack_range(manifest, task.number);
        let wanted = &self.wanted[task.source][task.pieces.clone()];
        let ranges = ranges(wanted, &pack);
        let mut spread =
            Spread { manifest, begin: pack.start, wanted, targets, progress, current: None };
        let fetched = reader.read(manifest, task.number, &ranges, &mut spread);
        fetched.context(|| format!("place pack {} of backup {}", task.number, manifest.id))
    }
}

fn late() -> Error {
    Error::new(ErrorKind::CouldNotCheck, "the time that was given is over")
        .hint("Give it more, or more jobs.")
}

/// Where a pack lies in its stream.
pub fn pack_range(manifest: &Manifest, number: u32) -> Range<u64> {
    let begin = u64::from(number) * manifest.pack_bytes;
    begin..begin + manifest.packs[number as usize].size
}

/// Those of the pieces, which rise in the stream, that have a part in the range.
fn lying_in(pieces: &[Wanted], range: &Range<u64>) -> Range<usize> {
    let end = |one: &Wanted| one.piece.offset + one.piece.length;
    let first = pieces.partition_point(|one| end(one) <= range.start);
    let after = pieces.partition_point(|one| one.piece.offset < range.end);
    first..after.max(first)
}

/// What of a pack is wanted, counted from its beginning.
fn ranges(wanted: &[Wanted], pack: &Range<u64>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::with_capacity(wanted.len());
    for Wanted { piece, .. } in wanted {
        let begin = piece.offset.max(pack.start) - pack.start;
        let end = (piece.offset + piece.length).min(pack.end) - pack.start;
        match ranges.last_mut().filter(|last| last.end == begin) {
            Some(last) => last.end = end,
            None => ranges.push(begin..end),
        }
    }
    ranges
}

/// One pack's part of the stream, piece by piece.
struct Spread<'a> {
    manifest: &'a Manifest,
    /// Where the pack begins in the stream.
    begin: u64,
    wanted: &'a [Wanted],
    targets: &'a Targets<'a>,
    progress: &'a (dyn Fn(u64) + Sync),
    /// The file written last: most pieces go on where the last one ended.
    current: Option<Target<'a>>,
}

impl PackSink for Spread<'_> {
    fn take(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let begin = self.begin + at;
        let range = begin..begin + bytes.len() as u64;
        let mut placed = 0;
        for Wanted { file, piece } in &self.wanted[lying_in(self.wanted, &range)] {
            let from = piece.offset.max(range.start);
            let to = (piece.offset + piece.length).min(range.end);
            let part = &bytes[(from - begin) as usize..(to - begin) as usize];
            self.target(*file as usize)?.write(piece.at + (from - piece.offset), part)?;
            placed += part.len() as u64;
        }
        (self.progress)(placed);
        Ok(())
    }

    fn owner(&self, raw: &Range<u64>) -> String {
        let range = self.begin + raw.start..self.begin + raw.end;
        let entries = self.wanted[lying_in(self.wanted, &range)].iter().map(|one| one.piece.entry);
        let mut entries: Vec<u32> = entries.collect();
        entries.dedup();
        let Some(first) = entries.first() else { return String::new() };
        let name = &self.manifest.files[*first as usize].path;
        match entries.len() {
            1 => name.clone(),
            more => format!("{name} and {} more", more - 1),
        }
    }
}

impl<'a> Spread<'a> {
    fn target(&mut self, file: usize) -> Result<&mut Target<'a>> {
        let kept = self.current.take().filter(|target| target.index == file);
        let kept = match kept {
            Some(kept) => kept,
            None => self.targets.open(file)?,
        };
        Ok(self.current.insert(kept))
    }
}

/// Private until all is settled; the last mode comes then. Parents come first.
pub fn make_directories(placement: &Placement) -> Result<()> {
    for path in placement.directories.keys() {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            outcome => {
                outcome.map_err(|error| host_failed(format!("make {}", path.display()), error))?;
            }
        }
    }
    Ok(())
}

/// What is left to do would have no end: a piece that no pack has.
pub fn expect_whole(targets: &Targets<'_>) -> Result<()> {
    let short = (0..targets.placement.files.len()).find(|file| !targets.has_nothing_to_come(*file));
    let Some(file) = short.map(|file| targets.file(file)) else { return Ok(()) };
    let message = format!("not all of {} is in the packs", file.path.display());
    Err(Error::new(ErrorKind::Corrupt, message)
        .hint("Choose another backup with --backup; this one is damaged."))
}

//! Packs to files: fetched and written in parallel, each byte at its place.

use std::fs::DirBuilder;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::commands::restore::host_failed;
use crate::commands::restore::packs::{Packs, Task, Wanted, lying_in, pack_range};
use crate::commands::restore::placement::Placement;
use crate::commands::restore::targets::{Target, Targets};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::bandwidth::Bandwidth;
use crate::host::clock::Deadline;
use crate::repository::{Home, Manifest, PackReader, PackSink};

/// What is to be fetched, pack by pack.
pub struct Work<'a> {
    chain: &'a [Manifest],
    tasks: Vec<Task>,
}

impl<'a> Work<'a> {
    /// Every piece of every file.
    pub fn of_all(chain: &'a [Manifest], placement: &Placement) -> Work<'a> {
        let mut packs = Packs::new(chain);
        for (file, placed) in (0u32..).zip(&placement.files) {
            let pieces = placement.pieces_of(placed).iter();
            pieces.for_each(|piece| packs.add(Wanted { file, piece: *piece }));
        }
        Work { chain, tasks: packs.into_tasks() }
    }

    /// Fetches and writes all of it. Memory: one stored pack a job.
    pub fn carry_out(&self, fetch: &Fetch<'_>, jobs: usize) -> Result<()> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let is_over = || stop.load(Ordering::Relaxed);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let work = || -> Result<()> {
            let mut reader = fetch.reader()?;
            while !is_over() {
                let task = next.fetch_add(1, Ordering::Relaxed);
                let Some(task) = self.tasks.get(task) else { break };
                fetch.place(self.chain, task, &mut reader, &is_over)?;
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
        let failure = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        failure.map_or(Ok(()), Err)
    }
}

/// Where packs come from and where their pieces go.
pub struct Fetch<'a> {
    home: &'a Home,
    pub targets: &'a Targets<'a>,
    /// Is told the raw bytes placed, from any thread.
    pub progress: &'a (dyn Fn(u64) + Sync),
    bandwidth: Bandwidth,
    deadline: Option<Deadline>,
    fetched: AtomicU64,
}

impl<'a> Fetch<'a> {
    /// So many bytes are fetched in a second, in steps of a pack a job.
    pub fn new(
        home: &'a Home,
        targets: &'a Targets<'a>,
        progress: &'a (dyn Fn(u64) + Sync),
        max_rate: Option<u64>,
    ) -> Fetch<'a> {
        let (bandwidth, fetched) = (Bandwidth::new(max_rate), AtomicU64::new(0));
        Fetch { home, targets, progress, bandwidth, deadline: None, fetched }
    }

    /// No pack is begun after it.
    #[must_use]
    pub fn by(self, deadline: Option<Deadline>) -> Self {
        Fetch { deadline, ..self }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline.has_passed())
    }

    /// One for each thread.
    pub fn reader(&self) -> Result<PackReader<'a>> {
        PackReader::new(self.home)
    }

    /// How many stored bytes were fetched.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Fetches and writes what is wanted of a pack, unless it is over before.
    pub fn place(
        &self,
        chain: &[Manifest],
        task: &Task,
        reader: &mut PackReader<'_>,
        is_over: &dyn Fn() -> bool,
    ) -> Result<()> {
        let Task { source, number, wanted } = task;
        let manifest = &chain[*source];
        let (ranges, expected) = (task.ranges(chain), task.stored(chain));
        let is_over = || is_over() || self.is_late();
        if self.is_late() || !self.bandwidth.take(expected, &is_over) {
            return if self.is_late() { Err(late()) } else { Ok(()) };
        }
        let Fetch { targets, progress, .. } = *self;
        let begin = pack_range(manifest, *number).start;
        let mut spread = Spread { manifest, begin, wanted, targets, progress, current: None };
        let bytes = reader.read(manifest, *number, &ranges, &mut spread);
        let bytes = bytes.context(|| format!("place pack {number} of backup {}", manifest.id))?;
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.bandwidth.take(bytes.saturating_sub(expected), &is_over);
        Ok(())
    }
}

fn late() -> Error {
    Error::new(ErrorKind::CouldNotCheck, "the time that was given is over")
        .hint("Give it more, or more jobs.")
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

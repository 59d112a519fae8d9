//! Packs to files: fetched and written in parallel, each byte at its place.

use std::collections::VecDeque;
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
use crate::repository::manifest::Pack;
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
    tasks: Vec<Task>,
}

/// One pack of one backup, and what is wanted of it, in the order of the stream.
pub struct Task {
    source: usize,
    number: u32,
    wanted: Vec<Wanted>,
}

impl Task {
    /// The pieces come in any order, and may reach beyond the pack.
    pub fn new(source: usize, number: u32, mut wanted: Vec<Wanted>) -> Task {
        wanted.sort_unstable_by_key(|one| one.piece.offset);
        Task { source, number, wanted }
    }

    fn ranges(&self, chain: &[Manifest]) -> Vec<Range<u64>> {
        ranges(&self.wanted, &pack_range(&chain[self.source], self.number))
    }

    /// Bytes that are wanted.
    fn raw(&self, chain: &[Manifest]) -> u64 {
        self.ranges(chain).iter().map(|range| range.end - range.start).sum()
    }

    /// About how many bytes as stored they are.
    fn stored(&self, chain: &[Manifest]) -> u64 {
        let Pack { size, stored } = chain[self.source].packs[self.number as usize];
        (stored as f64 * self.raw(chain) as f64 / size.max(1) as f64) as u64
    }
}

impl<'a> Work<'a> {
    pub fn new(chain: &'a [Manifest], all: impl IntoIterator<Item = Wanted>) -> Work<'a> {
        let mut packs = Packs::new(chain);
        all.into_iter().for_each(|one| packs.add(one));
        let tasks = (0..packs.count()).filter_map(|pack| packs.take(pack)).collect();
        Work { chain, tasks: mixed(chain, tasks) }
    }

    /// Every piece of every file.
    pub fn of_all(chain: &'a [Manifest], placement: &Placement) -> Work<'a> {
        let files = (0u32..).zip(&placement.files);
        let of_file = |(file, placed)| {
            placement.pieces_of(placed).iter().map(move |piece| Wanted { file, piece: *piece })
        };
        Work::new(chain, files.flat_map(of_file))
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

/// Packs that compress well and others in turn, so that at any time about the same share of the
/// stored bytes is there as of the raw ones: whatever the restore waits for, the network or the
/// disk, the time that is left can be told from what was done.
fn mixed(chain: &[Manifest], tasks: Vec<Task>) -> Vec<Task> {
    let mut weighed: Vec<(u64, u64, Task)> =
        tasks.into_iter().map(|task| (task.raw(chain), task.stored(chain), task)).collect();
    let share = |stored: u64, raw: u64| stored as f64 / raw.max(1) as f64;
    weighed.sort_by(|one, other| share(one.1, one.0).total_cmp(&share(other.1, other.0)));
    let (raw, stored) =
        weighed.iter().fold((0, 0), |(raw, stored), one| (raw + one.0, stored + one.1));
    let mean = share(stored, raw);
    let mut left: VecDeque<(u64, u64, Task)> = weighed.into();
    let mut mixed = Vec::with_capacity(left.len());
    let (mut raw, mut stored) = (0, 0);
    loop {
        let is_behind = (stored as f64) < raw as f64 * mean;
        let next = if is_behind { left.pop_back() } else { left.pop_front() };
        let Some((task_raw, task_stored, task)) = next else { return mixed };
        (raw, stored) = (raw + task_raw, stored + task_stored);
        mixed.push(task);
    }
}

/// Which pieces are wanted of each pack of a chain.
pub struct Packs<'a> {
    chain: &'a [Manifest],
    /// All packs of the newest backup, then all of its parent, and so on.
    wanted: Vec<Vec<Wanted>>,
    /// Where those of each backup begin.
    firsts: Vec<usize>,
}

impl<'a> Packs<'a> {
    pub fn new(chain: &'a [Manifest]) -> Packs<'a> {
        let mut firsts = Vec::with_capacity(chain.len());
        let mut count = 0;
        for manifest in chain {
            firsts.push(count);
            count += manifest.packs.len();
        }
        Packs { chain, wanted: vec![Vec::new(); count], firsts }
    }

    pub fn count(&self) -> usize {
        self.wanted.len()
    }

    /// The packs that a piece has a part in.
    pub fn of(&self, piece: &Piece) -> Range<usize> {
        let source = piece.source as usize;
        let (manifest, first) = (&self.chain[source], self.firsts[source]);
        // The last one may be shorter than the others; what lies in none is of none.
        let count = manifest.packs.len() as u64;
        let number = |at: u64| at.checked_div(manifest.pack_bytes).unwrap_or(count).min(count);
        let last = piece.offset.saturating_add(piece.length.saturating_sub(1));
        let range = number(piece.offset)..(number(last) + 1).min(count);
        first + range.start as usize..first + (range.end as usize).max(range.start as usize)
    }

    pub fn add(&mut self, one: Wanted) {
        for pack in self.of(&one.piece) {
            let (source, number) = self.name(pack);
            if one.piece.within_stream(&pack_range(&self.chain[source], number)).is_some() {
                self.wanted[pack].push(one);
            }
        }
    }

    /// What was added for one of them; `None` where that is nothing.
    pub fn take(&mut self, pack: usize) -> Option<Task> {
        let wanted = std::mem::take(&mut self.wanted[pack]);
        let (source, number) = self.name(pack);
        (!wanted.is_empty()).then(|| Task::new(source, number, wanted))
    }

    /// Of which backup it is, and its number there.
    fn name(&self, pack: usize) -> (usize, u32) {
        let source = self.firsts.partition_point(|first| *first <= pack) - 1;
        (source, (pack - self.firsts[source]) as u32)
    }
}

/// Where packs come from and where their pieces go.
pub struct Fetch<'a> {
    home: &'a Home,
    pub targets: &'a Targets<'a>,
    /// Is told the raw bytes placed, from any thread.
    pub progress: &'a (dyn Fn(u64) + Sync),
    bandwidth: Bandwidth,
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
        Fetch { home, targets, progress, bandwidth, fetched }
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
        if !self.bandwidth.take(expected, is_over) {
            return Ok(());
        }
        let Fetch { targets, progress, .. } = *self;
        let begin = pack_range(manifest, *number).start;
        let mut spread = Spread { manifest, begin, wanted, targets, progress, current: None };
        let bytes = reader.read(manifest, *number, &ranges, &mut spread);
        let bytes = bytes.context(|| format!("place pack {number} of backup {}", manifest.id))?;
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.bandwidth.take(bytes.saturating_sub(expected), is_over);
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::{Packs, Wanted, Work};
    use crate::commands::restore::pieces::Piece;
    use crate::postgres::SystemIdentifier;
    use crate::repository::Manifest;
    use crate::repository::manifest::Pack;
    use crate::repository::manifest::samples::manifest;

    const PACK_BYTES: u64 = 1000;

    /// Two backups, of so many packs each; the last one is half as long.
    fn chain(stored: [&[u64]; 2]) -> Vec<Manifest> {
        let backup = |stored: &[u64]| {
            let mut manifest = manifest(SystemIdentifier(7), 1);
            manifest.pack_bytes = PACK_BYTES;
            manifest.packs =
                stored.iter().map(|stored| Pack { size: PACK_BYTES, stored: *stored }).collect();
            manifest.packs.last_mut().unwrap().size = PACK_BYTES / 2;
            manifest
        };
        stored.map(backup).into()
    }

    fn piece(source: u32, offset: u64, length: u64) -> Piece {
        Piece { source, entry: 0, offset, length, at: 0 }
    }

    #[test]
    fn a_piece_is_of_all_packs_that_it_lies_in() {
        let chain = chain([&[100, 100, 100], &[100, 100]]);
        let mut packs = Packs::new(&chain);
        assert_eq!(packs.of(&piece(0, 999, 1)), 0..1);
        assert_eq!(packs.of(&piece(0, 999, 2)), 0..2);
        assert_eq!(packs.of(&piece(0, 500, 2000)), 0..3);
        assert_eq!(packs.of(&piece(1, 0, 1000)), 3..4);
        assert_eq!(packs.of(&piece(1, 1000, 1000)), 4..5);
        // What a manifest that lies says is in no pack.
        assert!(packs.of(&piece(0, 3000, 1)).is_empty());
        assert!(packs.of(&piece(0, u64::MAX, u64::MAX)).is_empty());
        packs.add(Wanted { file: 0, piece: piece(1, 1500, 10) });
        assert!((0..5).all(|pack| packs.take(pack).is_none()));
        packs.add(Wanted { file: 0, piece: piece(1, 1490, 20) });
        packs.add(Wanted { file: 1, piece: piece(1, 990, 20) });
        let task = packs.take(4).unwrap();
        assert_eq!((task.source, task.number), (1, 1));
        assert_eq!(task.ranges(&chain), [0..10, 490..500]);
        assert!(packs.take(3).is_some() && packs.take(3).is_none());
    }

    #[test]
    fn what_compresses_well_and_what_does_not_take_turns() {
        let stored: Vec<u64> = (0..50).map(|pack| if pack < 40 { 50 } else { 400 }).collect();
        let chain = chain([&stored, &[100]]);
        let all = Wanted { file: 0, piece: piece(0, 0, 49 * PACK_BYTES + 500) };
        let work = Work::new(&chain, [all]);
        let mut numbers: Vec<u32> = work.tasks.iter().map(|task| task.number).collect();
        let total: u64 = stored.iter().sum();
        for done in 1..50 {
            let fetched: u64 = numbers[..done].iter().map(|pack| stored[*pack as usize]).sum();
            let (raw, fetched) = (done as f64 / 50.0, fetched as f64 / total as f64);
            assert!((raw - fetched).abs() < 0.1, "{raw} of all is {fetched} of what is stored");
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..50).collect::<Vec<u32>>());
    }
}

//! Which pieces are to be fetched out of which pack, and in what order packs are fetched.

use std::collections::VecDeque;
use std::ops::Range;

use crate::commands::restore::pieces::Piece;
use crate::repository::Manifest;
use crate::repository::manifest::Pack;

/// A piece, and which file it is of.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub file: u32,
    pub piece: Piece,
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

    /// All that was added. Packs that compress well and others take turns, so that at any time
    /// about the same share of the stored bytes is there as of the raw ones: whatever the restore
    /// waits for, the network or the disk, the time that is left can be told from what was done.
    pub fn into_tasks(mut self) -> Vec<Task> {
        let tasks = (0..self.count()).filter_map(|pack| self.take(pack)).collect();
        mixed(self.chain, tasks)
    }

    /// That of a task, among all of the chain.
    pub fn number(&self, task: &Task) -> usize {
        self.firsts[task.source] + task.number as usize
    }

    /// The first one of the same backup.
    pub fn first_beside(&self, pack: usize) -> usize {
        self.firsts[self.name(pack).0]
    }

    /// Of which backup it is, and its number there.
    fn name(&self, pack: usize) -> (usize, u32) {
        let source = self.firsts.partition_point(|first| *first <= pack) - 1;
        (source, (pack - self.firsts[source]) as u32)
    }
}

/// One pack of one backup, and what is wanted of it, in the order of the stream.
pub struct Task {
    /// Which backup of the chain.
    pub source: usize,
    pub number: u32,
    pub wanted: Vec<Wanted>,
}

impl Task {
    /// The pieces come in any order, and may reach beyond the pack.
    fn new(source: usize, number: u32, mut wanted: Vec<Wanted>) -> Task {
        wanted.sort_unstable_by_key(|one| one.piece.offset);
        Task { source, number, wanted }
    }

    /// What of the pack is wanted, counted from its beginning.
    pub fn ranges(&self, chain: &[Manifest]) -> Vec<Range<u64>> {
        ranges(&self.wanted, &pack_range(&chain[self.source], self.number))
    }

    /// Bytes that are wanted.
    fn raw(&self, chain: &[Manifest]) -> u64 {
        self.ranges(chain).iter().map(|range| range.end - range.start).sum()
    }

    /// About how many bytes as stored they are.
    pub fn stored(&self, chain: &[Manifest]) -> u64 {
        let Pack { size, stored } = chain[self.source].packs[self.number as usize];
        (stored as f64 * self.raw(chain) as f64 / size.max(1) as f64) as u64
    }
}

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

/// Where a pack lies in its stream.
pub fn pack_range(manifest: &Manifest, number: u32) -> Range<u64> {
    let begin = u64::from(number) * manifest.pack_bytes;
    begin..begin + manifest.packs[number as usize].size
}

/// Those of the pieces, which rise in the stream, that have a part in the range.
pub fn lying_in(pieces: &[Wanted], range: &Range<u64>) -> Range<usize> {
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

#[cfg(test)]
mod tests {
    use super::{Packs, Wanted};
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
        let mut packs = Packs::new(&chain);
        packs.add(Wanted { file: 0, piece: piece(0, 0, 49 * PACK_BYTES + 500) });
        let mut numbers: Vec<u32> = packs.into_tasks().iter().map(|task| task.number).collect();
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

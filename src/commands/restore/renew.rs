//! Restoring in place: what lies there is compared, and what differs is fetched, side by side: a
//! pack as soon as all was compared that lies where its content goes. Neither runs far ahead of the
//! other, and both take the packs in an order that is spread over all of them: so what was done
//! tells how long the rest will take.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::commands::restore::compare::{self, Comparer, Part};
use crate::commands::restore::in_place::InPlace;
use crate::commands::restore::packs::{Packs, Task, Wanted};
use crate::commands::restore::pieces::Piece;
use crate::commands::restore::place::Fetch;
use crate::commands::restore::placement::Placement;
use crate::commands::restore::settle::in_parallel;
use crate::commands::restore::targets::Targets;
use crate::error::{Error, Result};
use crate::repository::{Manifest, PackReader};

/// Beside those that fetch: disks read faster when several ask.
const READERS: usize = 2;

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Bytes that agree.
    pub kept: u64,
    /// Files that agree.
    pub kept_files: u64,
}

pub struct Renewal<'a> {
    chain: &'a [Manifest],
    placement: &'a Placement,
    parts: Vec<Part>,
    order: Vec<Item>,
    /// How many files lie in place.
    files: u64,
    jobs: usize,
    stop: AtomicBool,
    state: Mutex<State<'a>>,
    /// Somebody has ended what he did.
    news: Condvar,
}

struct State<'a> {
    /// The item that is next.
    next: usize,
    comparing: usize,
    fetching: usize,
    packs: Packs<'a>,
    /// For each pack: how many parts may still want something of it.
    open: Vec<usize>,
    /// For each pack: bytes that agree where its content goes, and that nobody was told of yet.
    held: Vec<u64>,
    ready: VecDeque<Task>,
    /// Files that do not agree.
    changed: BTreeSet<usize>,
    renewed: Renewed,
    failure: Option<Error>,
}

/// In the order in which they are gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    /// To be compared.
    Part(usize),
    /// To be fetched, whatever lies in place.
    Pack(usize),
}

enum Step {
    Compare(usize),
    Fetch(Task),
    /// Nothing is left that this thread could do.
    End,
}

impl<'a> Renewal<'a> {
    /// Gives what lies in place its length, and divides it.
    pub fn prepare(
        chain: &'a [Manifest],
        targets: &mut Targets<'a>,
        in_place: &InPlace,
        jobs: usize,
    ) -> Result<Renewal<'a>> {
        let placement = targets.placement;
        let mut packs = Packs::new(chain);
        let mut open = vec![0; packs.count()];
        let (mut parts, mut others, mut files) = (Vec::new(), Vec::new(), 0);
        for (file, (placed, was)) in placement.files.iter().zip(&in_place.files).enumerate() {
            let Some(was) = *was else {
                want(&mut packs, file, placement.pieces_of(placed));
                continue;
            };
            files += 1;
            let first = parts.len();
            parts.extend(Part::of(file, placed.size, was));
            targets.is_there(file, was, (parts.len() - first) as u64);
            if was != placed.size {
                others.push(placed);
            }
        }
        in_parallel(&others, jobs, |placed| compare::set_length(placed))?;
        for part in &parts {
            packs_of(&packs, part, placement).into_iter().for_each(|pack| open[pack] += 1);
        }
        let order = spread(&parts, &open, |part| packs_of_oldest(&packs, part, placement));
        let state = State {
            next: 0,
            comparing: 0,
            fetching: 0,
            packs,
            held: vec![0; open.len()],
            open,
            ready: VecDeque::new(),
            changed: BTreeSet::new(),
            renewed: Renewed::default(),
            failure: None,
        };
        let (stop, state, news) = (AtomicBool::new(false), Mutex::new(state), Condvar::new());
        Ok(Renewal { chain, placement, parts, order, files, jobs: jobs.max(1), stop, state, news })
    }

    /// Compares all, fetches what differs, and finishes each file with the last of it. Memory: one
    /// stored pack a job.
    pub fn carry_out(self, comparer: &Comparer<'_>, fetch: &Fetch<'_>) -> Result<Renewed> {
        thread::scope(|scope| {
            for _ in 0..self.jobs + READERS {
                scope.spawn(|| {
                    let _guard = EndsAll(&self);
                    if let Err(error) = self.work(comparer, fetch) {
                        self.stop.store(true, Ordering::Relaxed);
                        self.state().failure.get_or_insert(error);
                        self.news.notify_all();
                    }
                });
            }
        });
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let kept_files = self.files - state.changed.len() as u64;
        state.failure.map_or(Ok(Renewed { kept_files, ..state.renewed }), Err)
    }

    fn work(&self, comparer: &Comparer<'_>, fetch: &Fetch<'_>) -> Result<()> {
        let mut reader = None;
        loop {
            match self.next_step() {
                Step::Compare(part) => self.compare(&self.parts[part], comparer, fetch)?,
                Step::Fetch(task) => self.fetch(&task, fetch, &mut reader)?,
                Step::End => return Ok(()),
            }
        }
    }

    /// Fetching comes first: a store may be far away, and what was compared lies in memory still.
    /// Nothing is compared while there is enough to fetch.
    fn next_step(&self) -> Step {
        let mut state = self.state();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Step::End;
            }
            let may_fetch = state.fetching < self.jobs;
            if let Some(task) = may_fetch.then(|| state.ready.pop_front()).flatten() {
                state.fetching += 1;
                return Step::Fetch(task);
            }
            let next = self.order.get(state.next).filter(|_| state.ready.len() < self.jobs);
            match next {
                Some(Item::Part(part)) => {
                    state.next += 1;
                    state.comparing += 1;
                    return Step::Compare(*part);
                }
                Some(Item::Pack(pack)) => {
                    state.next += 1;
                    let task = state.packs.take(*pack);
                    state.ready.extend(task);
                    continue;
                }
                None => {}
            }
            let is_all_begun = state.next == self.order.len() && state.ready.is_empty();
            if is_all_begun && state.comparing == 0 {
                return Step::End;
            }
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn compare(&self, part: &Part, comparer: &Comparer<'_>, fetch: &Fetch<'_>) -> Result<()> {
        let compared = comparer.compare(part, self.placement)?;
        fetch.targets.compared(part.file, compared.kept, &compared.file)?;
        let mut state = self.state();
        state.comparing -= 1;
        state.renewed.kept += compared.kept;
        if !compared.wanted.is_empty() {
            state.changed.insert(part.file);
        }
        want(&mut state.packs, part.file, &compared.wanted);
        let packs = packs_of(&state.packs, part, self.placement);
        // Comparing is quick and fetching may not be: what agrees counts as done with its pack.
        let mut told = match packs.last() {
            Some(pack) => {
                state.held[*pack] += compared.kept;
                0
            }
            None => compared.kept,
        };
        for pack in packs {
            state.open[pack] -= 1;
            if state.open[pack] == 0 {
                match state.packs.take(pack) {
                    Some(task) => state.ready.push_back(task),
                    None => told += std::mem::take(&mut state.held[pack]),
                }
            }
        }
        self.news.notify_all();
        drop(state);
        (fetch.progress)(told);
        Ok(())
    }

    fn fetch<'f>(
        &self,
        task: &Task,
        fetch: &Fetch<'f>,
        reader: &mut Option<PackReader<'f>>,
    ) -> Result<()> {
        let reader = match reader {
            Some(reader) => reader,
            None => reader.insert(fetch.reader()?),
        };
        fetch.place(self.chain, task, reader, &|| self.stop.load(Ordering::Relaxed))?;
        let mut state = self.state();
        state.fetching -= 1;
        let pack = state.packs.number(task);
        let told = std::mem::take(&mut state.held[pack]);
        self.news.notify_all();
        drop(state);
        (fetch.progress)(told);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lies where one pack goes comes together, so that this pack can be fetched then; and the
/// packs come in an order in which any number of the first ones lie all over the backup.
/// Multiplying by the golden ratio, modulo 2^32, spreads best (D. Knuth, The Art of Computer
/// Programming, volume 3, 6.4).
fn spread(
    parts: &[Part],
    open: &[usize],
    packs_of: impl Fn(&Part) -> BTreeSet<usize>,
) -> Vec<Item> {
    let turn = |pack: usize| ((pack as u32).wrapping_mul(0x9e37_79b9), pack);
    let mut order: Vec<((u32, usize), Item)> = Vec::with_capacity(parts.len() + open.len());
    for (number, part) in parts.iter().enumerate() {
        // Of two packs that meet in it, the one that comes first needs it.
        let first = packs_of(part).into_iter().map(turn).min();
        order.push((first.unwrap_or_default(), Item::Part(number)));
    }
    let at_once = (0..open.len()).filter(|pack| open[*pack] == 0);
    order.extend(at_once.map(|pack| (turn(pack), Item::Pack(pack))));
    order.sort_by_key(|(turn, _)| *turn);
    order.into_iter().map(|(_, item)| item).collect()
}

/// Who panics takes the others along: they would wait for what he did not end.
struct EndsAll<'r, 'a>(&'r Renewal<'a>);

impl Drop for EndsAll<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop.store(true, Ordering::Relaxed);
            let _state = self.0.state();
            self.0.news.notify_all();
        }
    }
}

fn want(packs: &mut Packs<'_>, file: usize, pieces: &[Piece]) {
    pieces.iter().for_each(|piece| packs.add(Wanted { file: file as u32, piece: *piece }));
}

/// Each once, though many pieces may lie in one.
fn packs_of(packs: &Packs<'_>, part: &Part, placement: &Placement) -> BTreeSet<usize> {
    part.pieces(placement).flat_map(|piece| packs.of(&piece)).collect()
}

/// Those of the backup of the chain that most of it is of: what the others add lies all over.
fn packs_of_oldest(packs: &Packs<'_>, part: &Part, placement: &Placement) -> BTreeSet<usize> {
    let mut all = packs_of(packs, part, placement);
    match all.last().map(|last| packs.first_beside(*last)) {
        Some(first) => all.split_off(&first),
        None => all,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Item, spread};
    use crate::commands::restore::compare::Part;

    /// A hundred packs, each of two parts whole and of one that it shares with the next one.
    #[test]
    fn with_each_part_that_is_compared_packs_can_be_fetched_that_lie_all_over() {
        const PACKS: usize = 100;
        let parts: Vec<Part> = (0..3 * PACKS).flat_map(|n| Part::of(n, 1, 1)).collect();
        let packs_of = |part: &Part| match part.file % 3 {
            2 => BTreeSet::from([part.file / 3, (part.file / 3 + 1).min(PACKS - 1)]),
            _ => BTreeSet::from([part.file / 3]),
        };
        let mut open = vec![0; PACKS + 20];
        for pack in parts.iter().flat_map(packs_of) {
            open[pack] += 1;
        }
        let order = spread(&parts, &open, packs_of);
        assert_eq!(BTreeSet::from_iter(order.iter().copied()).len(), 3 * PACKS + 20, "each once");

        let mut ready: Vec<usize> = Vec::new();
        for (compared, item) in order.iter().enumerate() {
            let Item::Part(part) = item else { continue };
            for pack in packs_of(&parts[*part]) {
                open[pack] -= 1;
                ready.extend((open[pack] == 0).then_some(pack));
            }
            assert!(compared < 4 * ready.len() + 10, "{compared} compared for {}", ready.len());
        }
        let tenths: BTreeSet<usize> = ready[..25].iter().map(|pack| pack / 10).collect();
        assert_eq!(tenths.len(), 10, "{:?}", &ready[..25]);
    }
}

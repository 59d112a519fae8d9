//! The first pass of an incremental backup: all cores read the files of relations and find the
//! blocks to store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::commands::backup::halt::others_stopped;
use crate::commands::backup::local::plan::{Blocks, Content, Item};
use crate::commands::backup::local::read::Reader;
use crate::commands::backup::local::since::{Candidate, Since};
use crate::commands::backup::local::walk::unreadable;
use crate::error::Result;
use crate::host::page_cache;
use crate::postgres::incremental_file::PREFIX;
use crate::postgres::page::PAGE_BYTES;

/// What one thread looks at, before it takes the next: 16 MiB.
const STRETCH_BLOCKS: u32 = 2048;
/// Read at once.
const BUFFER_BLOCKS: usize = 256;
/// A file with more of its blocks changed is stored whole: it costs little, and restores sooner.
const CHANGED_PER_CENT_MAX: u64 = 90;
/// Runs of blocks in all files together. Each costs memory, here and in every manifest; where they
/// are more, the files with the largest share of changes are stored whole.
const RUNS_MAX: usize = 2_000_000;

/// Runs of blocks, rising and apart: the first and how many.
type Runs = Vec<(u32, u32)>;

/// The same items, those of relations' files replaced by what has changed of them.
pub fn thin_out(
    items: Vec<Item>,
    since: &Since<'_>,
    reader: &Reader<'_>,
    jobs: usize,
) -> Result<Vec<Item>> {
    let candidates: BTreeMap<usize, Candidate<'_>> = (items.iter().enumerate())
        .filter_map(|(number, item)| Some((number, since.candidate(item)?)))
        .collect();
    let bytes = candidates.keys().map(|number| items[*number].size).sum();
    reader.progress.expect(bytes);
    let mut changed = look_at_all(&items, &candidates, reader, jobs)?;
    let blocks = |number: &usize| items[*number].size / PAGE_BYTES as u64;
    changed.retain(|number, runs| count(runs) * 100 <= blocks(number) * CHANGED_PER_CENT_MAX);
    let mut runs: usize = changed.values().map(Vec::len).sum();
    if runs > RUNS_MAX {
        let share = |number: &usize, runs: &Runs| count(runs) * 1000 / blocks(number).max(1);
        let mut by_share: Vec<(u64, usize)> =
            changed.iter().map(|(number, runs)| (share(number, runs), *number)).collect();
        by_share.sort_unstable();
        while let (true, Some((_, number))) = (runs > RUNS_MAX, by_share.pop()) {
            runs -= changed.remove(&number).map_or(0, |runs| runs.len());
        }
    }
    let thinned =
        items.into_iter().enumerate().map(|(number, item)| match changed.remove(&number) {
            Some(runs) => incremental(item, runs),
            None => item,
        });
    Ok(thinned.collect())
}

fn count(runs: &Runs) -> u64 {
    runs.iter().map(|(_, count)| u64::from(*count)).sum()
}

fn incremental(item: Item, runs: Runs) -> Item {
    let length = u32::try_from(item.size / PAGE_BYTES as u64).unwrap_or(u32::MAX);
    let (folder, name) = item.path.rsplit_once('/').unwrap_or(("", &item.path));
    let path = format!("{folder}/{PREFIX}{name}");
    let blocks = Blocks::new(item.path.clone(), length, runs);
    Item { path, size: blocks.size(), content: Content::Blocks(Box::new(blocks)), ..item }
}

/// Which blocks to store, of each candidate by its number.
fn look_at_all(
    items: &[Item],
    candidates: &BTreeMap<usize, Candidate<'_>>,
    reader: &Reader<'_>,
    jobs: usize,
) -> Result<BTreeMap<usize, Runs>> {
    let stretches: Vec<(usize, u32)> = (candidates.keys())
        .flat_map(|number| {
            let blocks = (items[*number].size / PAGE_BYTES as u64) as u32;
            (0..blocks).step_by(STRETCH_BLOCKS as usize).map(|first| (*number, first))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let found: Mutex<BTreeMap<(usize, u32), Runs>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let mut buffer = vec![0; BUFFER_BLOCKS * PAGE_BYTES];
                while let Some((number, first)) =
                    stretches.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let stretch = Stretch { item: &items[*number], first: *first };
                    match stretch.look_at(&candidates[number], reader, &mut buffer) {
                        Ok(runs) => {
                            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                            found.insert((*number, *first), runs);
                        }
                        Err(error) => {
                            reader.halt.fail(error);
                            break;
                        }
                    }
                }
            });
        }
    });
    if reader.halt.is_on() {
        return Err(reader.halt.error().unwrap_or_else(others_stopped));
    }
    let mut all: BTreeMap<usize, Runs> = BTreeMap::new();
    for ((number, _), runs) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let whole = all.entry(number).or_default();
        runs.into_iter().for_each(|run| push(whole, run));
    }
    Ok(all)
}

/// A part of a file, from a block on.
struct Stretch<'s> {
    item: &'s Item,
    first: u32,
}

impl Stretch<'_> {
    fn look_at(
        &self,
        candidate: &Candidate<'_>,
        reader: &Reader<'_>,
        buffer: &mut [u8],
    ) -> Result<Runs> {
        let path = reader.pgdata.join(&self.item.path);
        let blocks = (self.item.size / PAGE_BYTES as u64) as u32;
        let end = blocks.min(self.first + STRETCH_BLOCKS);
        let mut runs = Runs::new();
        let file = match File::open(&path) {
            Ok(file) => {
                page_cache::read_nothing_ahead(&file);
                file
            }
            // Gone; what is to become of it is told when it is copied, whole.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(vec![(self.first, end - self.first)]);
            }
            Err(error) => return Err(unreadable(&path, error)),
        };
        let mut at = self.first;
        while at < end {
            let count = (end - at).min(BUFFER_BLOCKS as u32);
            let buffer = &mut buffer[..count as usize * PAGE_BYTES];
            // What was truncated away meanwhile looks new, and so is stored.
            buffer.fill(0);
            if !reader.bandwidth.take(buffer.len() as u64, &|| reader.halt.is_on()) {
                return Err(others_stopped());
            }
            let offset = u64::from(at) * PAGE_BYTES as u64;
            page_cache::read_at_sparing(&file, buffer, offset)
                .map_err(|error| unreadable(&path, error))?;
            let (pages, _) = buffer.as_chunks::<PAGE_BYTES>();
            for (block, page) in (at..).zip(pages) {
                if candidate.keeps(block, page) {
                    push(&mut runs, (block, 1));
                }
            }
            reader.progress.add(buffer.len() as u64);
            at += count;
        }
        Ok(runs)
    }
}

fn push(runs: &mut Runs, (first, count): (u32, u32)) {
    match runs.last_mut() {
        Some((last, length)) if *last + *length == first => *length += count,
        _ => runs.push((first, count)),
    }
}

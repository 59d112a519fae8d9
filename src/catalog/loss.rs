//! What damage costs: the stretches of time that cannot be recovered any more, and the backups that
//! cannot be used, told by comparing what would be there without it with what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use jiff::Timestamp;

use crate::catalog::inventory::Segment;
use crate::catalog::wal_run::Cause;
use crate::catalog::window::{TimelineWindow, windows};
use crate::catalog::{BackupSummary, Inventory, TimelineTree};
use crate::postgres::{Lsn, SegmentName, TimelineId};

/// More of one gap are no gap: somebody put a segment where none belongs.
const MISSING_MAX: u64 = 1 << 16;

/// A repository as it would be if nothing were wrong with it.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub backups: Vec<BackupSummary>,
    pub tree: TimelineTree,
    pub inventory: Inventory,
}

/// What is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Harm {
    /// As they really are; `None`: not there.
    pub segments: BTreeMap<SegmentName, Option<Segment>>,
    pub backups: BTreeSet<String>,
    /// Timelines whose history cannot be used.
    pub histories: BTreeSet<TimelineId>,
}

impl Harm {
    pub fn add(&mut self, other: &Harm) {
        self.segments.extend(other.segments.iter().map(|(name, is)| (*name, *is)));
        self.backups.extend(other.backups.iter().cloned());
        self.histories.extend(other.histories.iter().copied());
    }
}

/// What can be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// When each timeline can be recovered to, oldest first.
    times: BTreeMap<TimelineId, Vec<(Timestamp, Timestamp)>>,
    /// The backups that can be restored.
    usable: BTreeSet<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loss {
    pub stretches: Vec<Stretch>,
    /// That could be restored, and cannot.
    pub backups: Vec<String>,
    /// Nothing can be recovered any more.
    pub is_all: bool,
}

/// A time that cannot be recovered to: after `from`, and before `to`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Stretch {
    pub timelines: Vec<TimelineId>,
    /// The last moment before it that can be reached, or its own first.
    pub from: Timestamp,
    /// The first moment after it that can be reached, or its own last.
    pub to: Timestamp,
}

/// What no recovery gets past, of all timelines, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    pub cause: Cause,
    /// In the order of the WAL; for what is not valid the one it is in.
    pub segments: Vec<SegmentName>,
    /// How many: more than are listed, where they are very many.
    pub count: u64,
    pub range: Range<Lsn>,
    /// Some backup needs it.
    pub is_harmful: bool,
}

impl Loss {
    pub fn is_none(&self) -> bool {
        self.stretches.is_empty() && self.backups.is_empty()
    }

    fn between(before: &Reach, after: &Reach) -> Loss {
        let mut stretches: Vec<Stretch> = Vec::new();
        for (timeline, times) in &before.times {
            let left = after.times.get(timeline).map(Vec::as_slice).unwrap_or_default();
            for (from, to) in times.iter().flat_map(|whole| without(*whole, left)) {
                match stretches.iter_mut().find(|it| (it.from, it.to) == (from, to)) {
                    Some(same) => same.timelines.push(*timeline),
                    None => stretches.push(Stretch { timelines: vec![*timeline], from, to }),
                }
            }
        }
        stretches.sort_by_key(|stretch| (stretch.from, stretch.to));
        let backups = before.usable.difference(&after.usable).cloned().collect();
        let is_all = !before.times.is_empty() && after.times.is_empty();
        Loss { stretches, backups, is_all }
    }
}

/// What is left of `whole` without `taken`, which rise; pieces that last no time are none.
fn without(
    whole: (Timestamp, Timestamp),
    taken: &[(Timestamp, Timestamp)],
) -> Vec<(Timestamp, Timestamp)> {
    let mut left = Vec::new();
    let mut from = whole.0;
    for (begin, end) in taken {
        if *begin > from {
            left.push((from, (*begin).min(whole.1)));
        }
        from = from.max(*end);
    }
    left.push((from, whole.1));
    left.retain(|(from, to)| from < to);
    left
}

impl Reach {
    pub fn of(world: &World) -> Reach {
        let World { backups, tree, inventory } = world;
        let mut reach = Reach::default();
        reach.usable.extend(backups.iter().map(|backup| backup.id.clone()));
        for window in windows(backups, tree, inventory) {
            for (id, _) in &window.unusable {
                reach.usable.remove(id);
            }
            if window.lacks_history {
                let on_it = backups.iter().filter(|backup| backup.timeline == window.timeline);
                for backup in on_it {
                    reach.usable.remove(&backup.id);
                }
            }
            // What ends on the way to it is of its past all the same.
            let all = window.on_the_way.iter().chain(&window.windows);
            let mut times: Vec<_> = all.map(|it| (it.earliest, it.latest)).collect();
            times.sort();
            if !times.is_empty() {
                reach.times.insert(window.timeline, times);
            }
        }
        reach
    }
}

impl World {
    /// What this harm alone takes away of what `whole` world can do.
    pub fn loss(&mut self, whole: &Reach, harm: &Harm) -> Loss {
        let undone = self.exchange(&harm.segments);
        let is_struck = !harm.backups.is_empty() || !harm.histories.is_empty();
        let after = if is_struck {
            let mut struck = World {
                backups: self.backups.clone(),
                tree: self.tree.without(&harm.histories),
                inventory: std::mem::take(&mut self.inventory),
            };
            struck.backups.retain(|backup| !harm.backups.contains(&backup.id));
            let mut after = Reach::of(&struck);
            after.usable.retain(|id| !harm.backups.contains(id));
            self.inventory = struck.inventory;
            after
        } else {
            Reach::of(self)
        };
        self.exchange(&undone);
        Loss::between(whole, &after)
    }

    /// Puts these in their places, and returns what was there.
    fn exchange(
        &mut self,
        segments: &BTreeMap<SegmentName, Option<Segment>>,
    ) -> BTreeMap<SegmentName, Option<Segment>> {
        let all = &mut self.inventory.segments;
        let exchange = |(name, segment): (&SegmentName, &Option<Segment>)| {
            let before = match segment {
                Some(segment) => all.insert(*name, *segment),
                None => all.remove(name),
            };
            (*name, before)
        };
        segments.iter().map(exchange).collect()
    }

    /// Mends what is broken of the WAL: returns each break, and how its segments really are.
    pub fn mend(&mut self) -> (Vec<Break>, BTreeMap<SegmentName, Option<Segment>>) {
        let mut really = BTreeMap::new();
        let mut all = Vec::new();
        // What lies behind a break may be broken, too, and is seen only then.
        loop {
            let breaks: Vec<Break> =
                self.breaks().into_iter().filter(|found| !all.contains(found)).collect();
            let before = really.len();
            for found in breaks {
                if found.is_harmful {
                    self.mend_one(&found, &mut really);
                }
                all.push(found);
            }
            if really.len() == before {
                return (all, really);
            }
        }
    }

    fn mend_one(&mut self, found: &Break, really: &mut BTreeMap<SegmentName, Option<Segment>>) {
        for name in &found.segments {
            let there = self.inventory.segments.get(name).copied();
            really.entry(*name).or_insert(there);
            let mut mended = there.unwrap_or_default();
            mended.is_damaged = false;
            if let Some(wal) = &mut mended.wal {
                (wal.invalid, wal.only_zeros_follow) = (None, false);
            }
            self.inventory.segments.insert(*name, mended);
        }
    }

    fn breaks(&self) -> Vec<Break> {
        let mut breaks: Vec<Break> = Vec::new();
        for window in windows(&self.backups, &self.tree, &self.inventory) {
            for found in self.breaks_of(&window) {
                let same = breaks.iter_mut().find(|known| {
                    known.cause == found.cause
                        && known.segments.first() == found.segments.first()
                        && known.range.end == found.range.end
                });
                match same {
                    Some(known) => known.is_harmful |= found.is_harmful,
                    None => breaks.push(found),
                }
            }
        }
        breaks
    }

    fn breaks_of(&self, window: &TimelineWindow) -> Vec<Break> {
        let Ok(path) = self.tree.path(window.timeline) else { return Vec::new() };
        let size = match (self.inventory.segment_size, self.backups.first()) {
            (0, Some(backup)) => backup.wal_segment_size,
            (0, None) => return Vec::new(),
            (known, _) => known,
        };
        let of = |gap: &crate::catalog::wal_run::Gap| {
            let (from, count) = (gap.from.0 - gap.from.0 % u64::from(size), gap.segments);
            let starts = (0..count.min(MISSING_MAX)).map(|n| Lsn(from + n * u64::from(size)));
            let on_path = starts.map(|start| path.segment(start, size));
            let segments = match gap.cause {
                Cause::Invalid | Cause::Damaged => vec![gap.first],
                Cause::Missing | Cause::NeededByBackup => on_path.collect(),
            };
            let is_harmful = window.is_harmful(gap) && count <= MISSING_MAX;
            Break { cause: gap.cause, segments, count, range: gap.from..gap.to, is_harmful }
        };
        window.gaps.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests;

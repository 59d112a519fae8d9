//! All WAL segments, one after the other: each by itself, and as the one that follows another.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::inventory::Segment;
use crate::catalog::{TimelineTree, WalPart};
use crate::commands::verify::Task;
use crate::commands::verify::in_order::{Pace, in_order};
use crate::commands::verify::packs::Means;
use crate::commands::verify::problem::{Cost, Notebook, Problem};
use crate::commands::verify::segments::{Seen, Verdict, look};
use crate::postgres::wal::digest::{Digest, EndOfRecovery};
use crate::postgres::wal::link::Link;
use crate::postgres::{SegmentName, WalFileName};
use crate::repository::{Home, ListedSegment};

/// Each may hold 32 MiB of what came.
const JOBS_MAX: usize = 8;
/// Where only headers are read, mostly waiting.
const HEADERS_AT_ONCE: usize = 16;
/// How many are distilled at once: their digests are held meanwhile.
const BATCH: usize = 256;

/// What became of looking at all of them.
#[derive(Default)]
pub struct SeenWal {
    pub parts: Vec<WalPart>,
    /// Raw bytes of most of them; 0: not one is known.
    pub segment_size: u32,
    /// Where servers came up on timelines of their own.
    pub switches: Vec<(SegmentName, EndOfRecovery)>,
    /// Of what the headers say.
    pub fingerprints: BTreeMap<SegmentName, u64>,
    /// What is not valid, as the digests say.
    pub invalid: BTreeMap<SegmentName, String>,
    /// Those read whole that are as they should be.
    pub read: BTreeSet<SegmentName>,
    pub read_bytes: u64,
    unknown: Vec<SegmentName>,
    sizes: BTreeMap<u64, u64>,
}

/// What is kept of the segment before.
struct Before {
    name: SegmentName,
    digest: Option<Digest>,
    link: Option<Link>,
}

struct Walk<'a> {
    home: &'a Home,
    seen: SeenWal,
    batch: Vec<(SegmentName, Segment, Option<Digest>)>,
    before: Option<Before>,
    /// The last segments before forks, for the branches.
    forks: BTreeMap<SegmentName, Vec<SegmentName>>,
    at_forks: BTreeMap<SegmentName, Before>,
}

pub fn look_at_all(
    means: &Means<'_>,
    task: &Task<'_>,
    tree: &TimelineTree,
    listed: &[ListedSegment],
    book: &mut Notebook,
) -> SeenWal {
    let wanted = &task.selection.segments;
    let done = task.past.before.as_ref().map(|before| before.of(wanted, listed));
    let done = done.unwrap_or_default();
    let is_deep = |name: &SegmentName| wanted.contains(name) && !done.contains(name);
    let any_deep = listed.iter().any(|segment| is_deep(&segment.name));
    let jobs = if any_deep { means.jobs.min(JOBS_MAX) } else { HEADERS_AT_ONCE };
    let mut walk = Walk {
        home: means.home,
        seen: SeenWal::default(),
        batch: Vec::new(),
        before: None,
        forks: BTreeMap::new(),
        at_forks: BTreeMap::new(),
    };
    let work = |segment: &ListedSegment| look(means, segment, is_deep(&segment.name));
    let mut follows = false;
    in_order(listed, Pace { jobs, ahead: 4 * jobs }, work, |seen| {
        let listed = seen.listed;
        walk.learn_size(&seen, tree);
        let is_sound = walk.take(seen, book);
        if is_sound && done.contains(&listed.name) {
            means.progress.add(listed.size);
            walk.seen.read.insert(listed.name);
            walk.seen.read_bytes += listed.size;
        }
        let is_read = walk.seen.read.contains(&listed.name);
        if is_read {
            task.past.memory.segments(listed.name, follows);
        }
        // Of what was not asked for nothing is to be said.
        follows = is_read || (follows && !wanted.contains(&listed.name));
    });
    walk.finish(book)
}

impl Walk<'_> {
    /// Which segments stand before forks can be told once the size of segments is known.
    fn learn_size(&mut self, seen: &Seen, tree: &TimelineTree) {
        let Some(bytes) = seen.bytes else { return };
        *self.seen.sizes.entry(bytes).or_default() += 1;
        let most = self.seen.sizes.iter().max_by_key(|(_, count)| **count);
        let size = most.and_then(|(size, _)| u32::try_from(*size).ok());
        let Some(size) = size.filter(|size| size.is_power_of_two()) else { return };
        if size == self.seen.segment_size {
            return;
        }
        self.seen.segment_size = size;
        self.forks.clear();
        for timeline in tree.branches() {
            let (Some((_, fork)), Ok(path)) = (tree.parent(timeline), tree.path(timeline)) else {
                continue;
            };
            let first = SegmentName::containing(timeline, fork, size);
            if let Some(end) = first.start(size).0.checked_sub(1) {
                let before = path.segment(crate::postgres::Lsn(end), size);
                self.forks.entry(before).or_default().push(first);
            }
        }
    }

    /// Whether nothing is wrong with it, as far as it was looked at.
    fn take(&mut self, seen: Seen, book: &mut Notebook) -> bool {
        let Seen { listed, digest, fingerprint, verdict, link, lie, .. } = seen;
        let name = listed.name;
        self.seen.fingerprints.extend(fingerprint.map(|it| (name, it)));
        let key = self.home.wal_key(&WalFileName::Segment(name));
        let (stored, size) = (listed.stored, listed.size);
        let mut segment = Segment { stored, size, ..Segment::default() };
        let mut is_sound = lie.is_none();
        match verdict {
            Verdict::Sound => {}
            Verdict::UnknownVersion => {
                self.seen.unknown.push(name);
                is_sound = false;
            }
            Verdict::Damaged(what) => {
                segment.is_damaged = true;
                book.damage(&key, what, Cost::Wal(vec![name], Some(segment)));
                self.keep(name, segment, None, None);
                return false;
            }
            Verdict::Unchecked(error) => {
                book.skip(&key, error);
                is_sound = false;
            }
            // Then it is missing, which is seen where it is needed.
            Verdict::Gone => return false,
        }
        if let Some(what) = lie {
            book.problems.push(lying(&key, &what));
        }
        self.note_facts(name, digest.as_ref());
        if let Some(what) = self.gap_before(name, digest.as_ref(), link.as_ref()) {
            segment.is_damaged = true;
            is_sound = false;
            book.damage(&key, what, Cost::Wal(vec![name], Some(segment)));
        }
        if link.is_some() {
            self.seen.read_bytes += size;
            if is_sound {
                self.seen.read.insert(name);
            }
        }
        self.keep(name, segment, digest, link);
        is_sound
    }

    /// For the inventory, and for the segment that follows.
    fn keep(
        &mut self,
        name: SegmentName,
        segment: Segment,
        digest: Option<Digest>,
        link: Option<Link>,
    ) {
        self.batch.push((name, segment, digest.clone()));
        if self.forks.contains_key(&name) {
            let (digest, link) = (digest.clone(), link.clone());
            self.at_forks.insert(name, Before { name, digest, link });
        }
        self.before = Some(Before { name, digest, link });
        if self.batch.len() >= BATCH {
            self.distil();
        }
    }

    fn note_facts(&mut self, name: SegmentName, digest: Option<&Digest>) {
        let Some(digest) = digest else { return };
        let own = digest.end_of_recovery.filter(|it| it.timeline == name.timeline.get());
        self.seen.switches.extend(own.map(|switch| (name, switch)));
        if let Some(invalid) = &digest.invalid {
            let what = format!("the WAL at {} is not valid: {}", invalid.lsn, invalid.what);
            self.seen.invalid.insert(name, what);
        }
    }

    /// Why it is not the one that follows: on its own timeline, or for the first of a branch on its
    /// parent's.
    fn gap_before(
        &self,
        name: SegmentName,
        digest: Option<&Digest>,
        link: Option<&Link>,
    ) -> Option<String> {
        let size = Some(self.seen.segment_size).filter(|size| *size > 0)?;
        let own = self.before.as_ref().filter(|before| before.name.next(size) == name);
        let forked = || {
            let (before, _) = self.forks.iter().find(|(_, firsts)| firsts.contains(&name))?;
            self.at_forks.get(before)
        };
        let before = own.or_else(forked)?;
        let what = match (&before.link, link) {
            // Behind what is not valid nothing was read.
            (Some(before), Some(link)) if before.outcome.invalid.is_none() => {
                before.joins(link).err()
            }
            _ => before.digest.as_ref().zip(digest).and_then(|(one, next)| one.parts_from(next)),
        };
        what.map(|what| format!("it does not go on where {} ends: {what}", before.name))
    }

    fn distil(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let segments =
            batch.iter().map(|(name, segment, digest)| (*name, *segment, digest.as_ref()));
        self.seen.parts.push(WalPart::distil(segments, self.seen.segment_size.max(1)));
    }

    fn finish(mut self, book: &mut Notebook) -> SeenWal {
        self.distil();
        if let Some(first) = self.seen.unknown.first() {
            let key = self.home.wal_key(&WalFileName::Segment(*first));
            let more = match self.seen.unknown.len() {
                1 => String::new(),
                all => format!(", as of {} more", all - 1),
            };
            let why = format!("its records cannot be read: WAL of an unknown version{more}");
            book.skip(key, why);
        }
        self.seen
    }
}

fn lying(key: &crate::storage::Key, what: &str) -> Problem {
    let cost = "PostgreSQL can replay this segment, but walden decides by what its header says: \
                window, find and restore may tell wrong times and commits of it";
    let what = format!("its header does not say what is in it: {what}");
    Problem::damage(key, what, Cost::Said(cost.to_owned())).advise(
        "Bring the object back from a copy of the repository; or fetch the file, remove the object \
         and the index of its log file, and push it again.",
    )
}

/// Every segment that the store lists, in the order of their names.
pub fn listed(objects: &[crate::repository::Object]) -> Vec<ListedSegment> {
    let segment = |object: &crate::repository::Object| match object.kept {
        crate::repository::Kept::Wal(WalFileName::Segment(name)) => {
            Some(ListedSegment { name, stored: object.stored, size: object.size })
        }
        _ => None,
    };
    let mut listed: Vec<ListedSegment> = objects.iter().filter_map(segment).collect();
    listed.sort_by_key(|segment| segment.name);
    listed
}

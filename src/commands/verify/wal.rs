//! All WAL segments, one after the other: each by itself, and as the one that follows another.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::inventory::Segment;
use crate::catalog::{TimelineTree, WalPart};
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

/// `told` hears of each segment, in the order of their names.
pub fn look_at_all(
    means: &Means<'_>,
    tree: &TimelineTree,
    listed: &[ListedSegment],
    is_deep: &(dyn Fn(SegmentName) -> bool + Sync),
    book: &mut Notebook,
    mut told: impl FnMut(&Notebook, SegmentName),
) -> SeenWal {
    let any_deep = listed.iter().any(|segment| is_deep(segment.name));
    let jobs = if any_deep { means.jobs.min(JOBS_MAX) } else { HEADERS_AT_ONCE };
    let mut walk = Walk {
        home: means.home,
        seen: SeenWal::default(),
        batch: Vec::new(),
        before: None,
        forks: BTreeMap::new(),
        at_forks: BTreeMap::new(),
    };
    let work = |segment: &ListedSegment| look(means, segment, is_deep(segment.name));
    in_order(listed, Pace { jobs, ahead: 4 * jobs }, work, |seen| {
        let name = seen.listed.name;
        walk.learn_size(&seen, tree);
        walk.take(seen, book);
        told(book, name);
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

    fn take(&mut self, seen: Seen, book: &mut Notebook) {
        let Seen { listed, digest, verdict, link, lie, .. } = seen;
        let name = listed.name;
        let key = self.home.wal_key(&WalFileName::Segment(name));
        let mut segment =
            Segment { stored: listed.stored, size: listed.size, ..Segment::default() };
        match verdict {
            Verdict::Sound | Verdict::UnknownVersion => {
                if link.is_some() {
                    self.seen.read_bytes += listed.size;
                    self.seen.read.insert(name);
                }
                if matches!(verdict, Verdict::UnknownVersion) {
                    self.seen.unknown.push(name);
                    self.seen.read.remove(&name);
                }
            }
            Verdict::Damaged(what) => {
                segment.is_damaged = true;
                book.damage(&key, what, Cost::Wal(vec![name], Some(segment)));
            }
            Verdict::Unchecked(error) => book.skip(&key, error),
            // Then it is missing, which is seen where it is needed.
            Verdict::Gone => return,
        }
        if let Some(what) = lie.filter(|_| !segment.is_damaged) {
            self.seen.read.remove(&name);
            book.problems.push(lying(&key, &what));
        }
        if segment.is_damaged {
            self.before = None;
            self.batch.push((name, segment, None));
            return self.distil_if_many();
        }
        self.note_facts(name, digest.as_ref());
        self.join(name, digest.as_ref(), link.as_ref(), &mut segment, book);
        self.batch.push((name, segment, digest.clone()));
        if self.forks.contains_key(&name) {
            let (digest, link) = (digest.clone(), link.clone());
            self.at_forks.insert(name, Before { name, digest, link });
        }
        self.before = Some(Before { name, digest, link });
        self.distil_if_many();
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

    /// With the one before on its own timeline, and for the first of a branch on its parent's.
    fn join(
        &mut self,
        name: SegmentName,
        digest: Option<&Digest>,
        link: Option<&Link>,
        segment: &mut Segment,
        book: &mut Notebook,
    ) {
        let size = self.seen.segment_size;
        if size == 0 {
            return;
        }
        let own = self.before.as_ref().filter(|before| before.name.next(size) == name);
        let forked = || {
            let (before, _) = self.forks.iter().find(|(_, firsts)| firsts.contains(&name))?;
            self.at_forks.get(before)
        };
        let Some(before) = own.or_else(forked) else { return };
        let what = match (&before.link, link) {
            (Some(before), Some(link)) if before.outcome.invalid.is_none() => {
                before.joins(link).err()
            }
            _ => before.digest.as_ref().zip(digest).and_then(|(one, next)| one.parts_from(next)),
        };
        if let Some(what) = what {
            segment.is_damaged = true;
            self.seen.read.remove(&name);
            let key = self.home.wal_key(&WalFileName::Segment(name));
            let what = format!("it does not go on where {} ends: {what}", before.name);
            book.damage(key, what, Cost::Wal(vec![name], Some(*segment)));
        }
    }

    fn distil_if_many(&mut self) {
        if self.batch.len() >= BATCH {
            self.distil();
        }
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

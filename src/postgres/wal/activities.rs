//! What the transactions of one segment did, kept while they last and sifted when they end.
//!
//! Most transactions do nothing one would search for, and most deletes are few: those are forgotten
//! when their transaction ends. What may go on from the segment before, or goes on in the next, is
//! kept to the last row, so that digests of several segments add up.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::postgres::Lsn;
use crate::postgres::wal::digest::{Activity, Deleted, Ending, Lock, RelationFile, Truncated};
use crate::postgres::wal::transaction::TransactionRecord;

/// Deletes of fewer rows by a transaction that begins and ends here are not worth a line.
pub const ROWS_MIN: u64 = 100;
/// The rank of deletes that are of interest only if they go on.
const SMALL: u8 = 3;
/// Files of catalogs that were never rewritten have smaller numbers (`FirstNormalObjectId`).
const CATALOG_NUMBER_MAX: u32 = 16384;

/// `pg_largeobject`, the one with data of users.
const LARGE_OBJECTS: u32 = 2613;
/// `ObjectStats.kind`
const OF_DATABASE: u32 = 1;

/// What a digest holds at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of each list of one activity, and of the subtransactions of an ending.
    items: usize,
    /// Transactions at work at one time.
    works: usize,
    endings: usize,
    dropped: usize,
    /// Of JSON.
    activities_bytes: usize,
    endings_bytes: usize,
    rows_min: u64,
}

impl Limits {
    /// Of a digest in a header.
    pub const ORDINARY: Limits = Limits {
        items: 64,
        works: 4096,
        endings: 256,
        dropped: 256,
        activities_bytes: 24 << 10,
        endings_bytes: 16 << 10,
        rows_min: ROWS_MIN,
    };
    /// Of one that is made to be looked at once.
    pub const NONE: Limits = Limits {
        items: usize::MAX,
        works: usize::MAX,
        endings: usize::MAX,
        dropped: usize::MAX,
        activities_bytes: usize::MAX,
        endings_bytes: usize::MAX,
        rows_min: 1,
    };
}

/// Transactions seen lately, by the lower bits of their id.
const SEEN: usize = 1024;
/// Ids are handed out in order. One that comes up after others this much above it was at work
/// before the segment, as may be any of the first that come up.
const LATE: u32 = 64;
const EARLY: u32 = 16;
/// The first of those are likely to.
const FIRST: u32 = 4;

#[derive(Debug)]
pub struct Activities {
    limits: Limits,
    seen: Box<[Seen; SEEN]>,
    /// Distinct transactions so far.
    count: u32,
    highest: u32,
    works: HashMap<u32, Work, BuildHasherDefault<XidHasher>>,
    /// Of transactions that have ended.
    kept: Vec<Activity>,
    endings: Vec<Ending>,
    endings_bytes: usize,
    is_cut: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    xid: u32,
    /// It may have been at work before this segment.
    is_early: bool,
    /// So likely that its end is told even if it did nothing of interest here.
    is_old: bool,
    first: Lsn,
}

#[derive(Debug)]
struct Work {
    activity: Activity,
    is_early: bool,
    /// Of `activity.deleted`, the entry of the last row.
    latest: usize,
}

/// Ids are numbers in a row: this spreads them, in less time than it takes to ask why.
#[derive(Debug, Default)]
struct XidHasher(u64);

impl Hasher for XidHasher {
    fn write_u32(&mut self, xid: u32) {
        self.0 = u64::from(xid).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(self.0 as u32 ^ u32::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What is left when the segment ends.
#[derive(Debug)]
pub struct Sifted {
    pub activities: Vec<Activity>,
    pub endings: Vec<Ending>,
    pub is_cut: bool,
}

impl Activities {
    pub fn new(limits: Limits) -> Self {
        Activities {
            limits,
            seen: Box::new([Seen::default(); SEEN]),
            count: 0,
            highest: 0,
            works: HashMap::default(),
            kept: Vec::new(),
            endings: Vec::new(),
            endings_bytes: 0,
            is_cut: false,
        }
    }

    /// A record of a transaction, whatever it says.
    #[inline]
    pub fn see(&mut self, xid: u32, lsn: Lsn) {
        if xid != 0 && self.seen[slot(xid)].xid != xid {
            self.see_first(xid, lsn);
        }
    }

    #[cold]
    fn see_first(&mut self, xid: u32, lsn: Lsn) {
        let is_late = self.count > 0 && precedes(xid, self.highest.wrapping_sub(LATE));
        let (is_early, is_old) = (is_late || self.count < EARLY, is_late || self.count < FIRST);
        if self.count == 0 || precedes(self.highest, xid) {
            self.highest = xid;
        }
        self.count = self.count.saturating_add(1);
        self.seen[slot(xid)] = Seen { xid, is_early, is_old, first: lsn };
    }

    pub fn lock(&mut self, xid: u32, lock: Lock) {
        let items = self.limits.items;
        if let Some(work) = self.work(xid, lock.lsn) {
            let locks = &mut work.activity.locks;
            let same = |it: &Lock| (it.database, it.relation) == (lock.database, lock.relation);
            if !locks.iter().any(same) {
                work.activity.is_cut |= !push(locks, lock, items);
            }
        }
    }

    pub fn created(&mut self, xid: u32, lsn: Lsn, file: RelationFile) {
        let items = self.limits.items;
        if let Some(work) = self.work(xid, lsn) {
            work.activity.is_cut |= !push(&mut work.activity.created, file, items);
        }
    }

    pub fn truncated(&mut self, xid: u32, truncated: Truncated) {
        let items = self.limits.items;
        if let Some(work) = self.work(xid, truncated.lsn) {
            work.activity.is_cut |= !push(&mut work.activity.truncated, truncated, items);
        }
    }

    pub fn dropped_database(&mut self, xid: u32, lsn: Lsn, database: u32) {
        let items = self.limits.items;
        if let Some(work) = self.work(xid, lsn) {
            work.activity.is_cut |= !push(&mut work.activity.dropped_databases, database, items);
        }
    }

    pub fn deleted(&mut self, xid: u32, lsn: Lsn, file: RelationFile) {
        let items = self.limits.items;
        let Some(work) = self.work(xid, lsn) else { return };
        let deleted = &mut work.activity.deleted;
        if deleted.get(work.latest).is_none_or(|it| it.file != file) {
            work.latest = deleted.iter().position(|it| it.file == file).unwrap_or_else(|| {
                work.activity.is_cut |= !push(deleted, Deleted { file, rows: 0, lsn }, items);
                deleted.len()
            });
            work.latest = work.latest.min(deleted.len().saturating_sub(1));
        }
        if let Some(counted) = deleted.get_mut(work.latest).filter(|it| it.file == file) {
            counted.rows += 1;
        }
    }

    /// `xid` is a subtransaction of `top`.
    pub fn belongs(&mut self, xid: u32, top: u32) {
        if let Some(work) = self.works.get_mut(&xid)
            && xid != top
        {
            work.activity.top = Some(top);
        }
    }

    pub fn end(&mut self, end: &TransactionRecord<'_>) {
        let rows_min = self.limits.rows_min;
        let seen = self.seen[slot(end.xid)];
        // Of one of which nothing else was seen here the rest was before.
        let is_old = seen.xid != end.xid || seen.is_old || seen.first == end.lsn;
        let removes_files = end.files().len() > 0 || end.stats().any(|it| it.kind == OF_DATABASE);
        let mut has_activity = false;
        let mut active_subtransactions = Vec::new();
        for xid in end.subtransactions().chain([end.xid]) {
            let Some(mut work) = self.works.remove(&xid) else { continue };
            if !removes_files {
                forget_schema(&mut work.activity);
            }
            // What was undone here is nothing; of what was undone of earlier, others learn by the
            // ending.
            let has_early_rows = work.is_early && !work.activity.deleted.is_empty();
            let is_worth = is_worth(&work.activity, rows_min);
            if xid != end.xid && (is_worth || has_early_rows) {
                active_subtransactions.push(xid);
            }
            let worth = (end.is_commit && is_worth) || has_early_rows;
            has_activity |= worth;
            if end.is_commit && worth {
                self.keep(xid, end.xid, work);
            }
        }
        let drops = end.is_commit && end.drops();
        if drops || has_activity || is_old {
            self.keep_ending(end, active_subtransactions);
        }
    }

    fn keep(&mut self, xid: u32, top: u32, mut work: Work) {
        if !work.is_early {
            trim(&mut work.activity, self.limits.rows_min);
        }
        if xid != top {
            work.activity.top = Some(top);
        }
        if self.kept.len() < self.limits.works {
            self.kept.push(work.activity);
        } else {
            self.is_cut = true;
        }
    }

    fn keep_ending(&mut self, end: &TransactionRecord<'_>, active: Vec<u32>) {
        let mut ending = Ending {
            at: end.at(),
            is_commit: end.is_commit,
            subtransactions: active,
            dropped: end.files().take(self.limits.dropped).collect(),
            dropped_stats: end.stats().take(self.limits.dropped).collect(),
            database: end.database,
            is_prepared: end.is_prepared,
            is_cut: end.is_cut
                || end.files().len() > self.limits.dropped
                || end.stats().len() > self.limits.dropped,
        };
        for xid in end.subtransactions() {
            if ending.subtransactions.contains(&xid) {
                continue;
            }
            ending.is_cut |= !push(&mut ending.subtransactions, xid, self.limits.items);
        }
        let bytes = json_bytes(&ending);
        if self.endings.len() < self.limits.endings
            && self.endings_bytes + bytes <= self.limits.endings_bytes
        {
            self.endings_bytes += bytes;
            self.endings.push(ending);
        } else {
            self.is_cut = true;
        }
    }

    /// The segment ends.
    pub fn finish(mut self) -> Sifted {
        let lasting = self.works.into_values().map(|work| work.activity);
        let mut activities = self.kept;
        activities.extend(lasting);
        let Limits { rows_min, activities_bytes, .. } = self.limits;
        activities.sort_by_key(|it| (rank(it, rows_min), Reverse(rows(it)), it.first_lsn, it.xid));
        let mut bytes = 0;
        activities.retain(|activity| {
            let own = json_bytes(activity);
            let fits = bytes + own <= activities_bytes;
            bytes += if fits { own } else { 0 };
            // Of what is small none is missed but for a few rows of a larger count.
            self.is_cut |= !fits && is_worth(activity, rows_min);
            fits
        });
        activities.sort_by_key(|activity| (activity.first_lsn, activity.xid));
        Sifted { activities, endings: self.endings, is_cut: self.is_cut }
    }

    /// Of a transaction that `see` was told of, or of another that a record names.
    fn work(&mut self, xid: u32, lsn: Lsn) -> Option<&mut Work> {
        // Files may be made before their transaction has an id.
        if xid == 0 {
            return None;
        }
        if self.works.len() >= self.limits.works && !self.works.contains_key(&xid) {
            self.is_cut = true;
            return None;
        }
        let seen = self.seen[slot(xid)];
        let (first_lsn, is_early) =
            if seen.xid == xid { (seen.first, seen.is_early) } else { (lsn, true) };
        Some(self.works.entry(xid).or_insert_with(|| Work {
            activity: Activity { xid, first_lsn, ..Activity::default() },
            is_early,
            latest: 0,
        }))
    }
}

fn slot(xid: u32) -> usize {
    xid as usize % SEEN
}

/// Ids wrap around (`TransactionIdPrecedes`).
fn precedes(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

/// `false` if there is no room.
fn push<T>(list: &mut Vec<T>, item: T, items_max: usize) -> bool {
    let has_room = list.len() < items_max;
    if has_room {
        list.push(item);
    }
    has_room
}

fn is_catalog(file: &RelationFile) -> bool {
    file.number < CATALOG_NUMBER_MAX
}

fn is_worth(activity: &Activity, rows_min: u64) -> bool {
    rank(activity, rows_min) < SMALL
}

/// Of what is too much, the greatest is left out.
fn rank(activity: &Activity, rows_min: u64) -> u8 {
    let deleted = &activity.deleted;
    let is_many = |it: &Deleted| it.rows >= rows_min && !is_catalog(&it.file);
    if !activity.truncated.is_empty()
        || !activity.dropped_databases.is_empty()
        || deleted.iter().any(is_many)
    {
        0
    } else if deleted.iter().any(|it| is_catalog(&it.file)) {
        1
    } else if !activity.locks.is_empty() || !activity.created.is_empty() {
        2
    } else {
        SMALL
    }
}

fn rows(activity: &Activity) -> u64 {
    activity.deleted.iter().map(|it| it.rows).sum()
}

/// Nothing was dropped, emptied or rewritten by who removed no file: CREATE, LOCK, temporary tables
/// and the like, which are common. What was made stays: its name is in the WAL here.
fn forget_schema(activity: &mut Activity) {
    activity.locks.clear();
    activity.truncated.clear();
    activity.dropped_databases.clear();
    activity.deleted.retain(|it| !is_catalog(&it.file) || it.file.number == LARGE_OBJECTS);
}

/// Leaves out what is not worth a line.
fn trim(activity: &mut Activity, rows_min: u64) {
    activity.deleted.retain(|it| is_catalog(&it.file) || it.rows >= rows_min);
}

/// What it takes in the header of an object.
fn json_bytes(of: &impl serde::Serialize) -> usize {
    serde_json::to_vec(of).map_or(0, |json| json.len() + 1)
}

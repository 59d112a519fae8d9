//! Digests in the order of the WAL to whole transactions: what one did in several segments, and how
//! it ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::postgres::wal::digest::{
    Activity, Deleted, Digest, Ending, Lock, ObjectStats, RelationFile, TransactionEnd, Truncated,
};
use crate::postgres::wal::digester::DeletedRow;
use crate::postgres::{Lsn, SegmentName};

/// A transaction that was committed, with its committed subtransactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub end: TransactionEnd,
    /// The segment its end begins in.
    pub segment: SegmentName,
    pub subtransactions: Vec<u32>,
    pub database: Option<u32>,
    /// Files removed when it ended.
    pub dropped: BTreeSet<RelationFile>,
    pub dropped_stats: Vec<ObjectStats>,
    pub did: Deeds,
}

/// What is known of what a transaction did before it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Where the first of its records that is known begins.
    pub first_lsn: Option<Lsn>,
    /// AccessExclusiveLocks, as they were taken.
    pub locks: Vec<Lock>,
    pub created: Vec<RelationFile>,
    pub deleted: BTreeMap<RelationFile, Deleted>,
    pub truncated: Vec<Truncated>,
    pub dropped_databases: Vec<u32>,
}

/// Takes digests in the order of the WAL and hands out transactions as they end.
#[derive(Debug, Default)]
pub struct Transactions {
    open: HashMap<u32, Open>,
}

#[derive(Debug)]
struct Open {
    did: Deeds,
    /// The last segment in which it did something worth noting.
    last: SegmentName,
}

/// One whose end no digest has named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unended {
    /// The last segment in which it did something worth noting.
    pub last: SegmentName,
    pub xid: u32,
}

impl Transactions {
    /// Those that were committed in `segment`, in the order of their commits. What lies at `fork`
    /// or behind it belongs to a timeline that was left there.
    pub fn take(
        &mut self,
        segment: SegmentName,
        digest: &Digest,
        fork: Option<Lsn>,
    ) -> Vec<Transaction> {
        let is_ours = |lsn: Lsn| fork.is_none_or(|fork| lsn < fork);
        for activity in digest.activities.iter().filter(|activity| is_ours(activity.first_lsn)) {
            self.note(segment, activity);
        }
        let endings = digest.endings.iter().filter(|ending| is_ours(ending.at.lsn));
        endings.filter_map(|ending| self.end(segment, ending)).collect()
    }

    /// Of an ending that was found elsewhere: put together of two segments, or read from the WAL.
    pub fn end(&mut self, segment: SegmentName, ending: &Ending) -> Option<Transaction> {
        let mut did = Deeds::default();
        for xid in std::iter::once(&ending.at.xid).chain(&ending.subtransactions) {
            if let Some(open) = self.open.remove(xid) {
                did.join(open.did);
            }
        }
        if !ending.is_commit {
            return None;
        }
        did.locks.sort_by_key(|lock| lock.lsn);
        Some(Transaction {
            end: ending.at,
            segment,
            subtransactions: ending.subtransactions.clone(),
            database: ending.database,
            dropped: ending.dropped.iter().copied().collect(),
            dropped_stats: ending.dropped_stats.clone(),
            did,
        })
    }

    /// What has begun and was not seen to end, by where it was last seen.
    pub fn unended(&self) -> Vec<Unended> {
        let unended = self.open.iter().map(|(xid, open)| Unended { last: open.last, xid: *xid });
        let mut unended: Vec<_> = unended.collect();
        unended.sort();
        unended
    }

    /// Of a row the delete of which begins in `segment` and ends in the next.
    pub fn delete_one(&mut self, segment: SegmentName, lsn: Lsn, row: DeletedRow) {
        let deleted = vec![Deleted { file: row.file, rows: 1, lsn }];
        self.note(
            segment,
            &Activity { xid: row.xid, first_lsn: lsn, deleted, ..Activity::default() },
        );
    }

    /// Whether its end, wherever it is, makes an event. The end of one that removes files is in a
    /// digest always.
    pub fn is_of_interest(&self, xid: u32, rows_min: u64) -> bool {
        self.open.get(&xid).is_some_and(|open| {
            let did = &open.did;
            let rows = did.deleted.values().any(|rows| rows.rows >= rows_min);
            rows || !did.truncated.is_empty()
        })
    }

    fn note(&mut self, segment: SegmentName, activity: &Activity) {
        let did = Deeds {
            first_lsn: Some(activity.first_lsn),
            locks: activity.locks.clone(),
            created: activity.created.clone(),
            deleted: activity.deleted.iter().map(|rows| (rows.file, *rows)).collect(),
            truncated: activity.truncated.clone(),
            dropped_databases: activity.dropped_databases.clone(),
        };
        let open = self
            .open
            .entry(activity.xid)
            .or_insert_with(|| Open { did: Deeds::default(), last: segment });
        open.did.join(did);
        open.last = segment;
    }
}

impl Deeds {
    fn join(&mut self, other: Deeds) {
        self.first_lsn = match (self.first_lsn, other.first_lsn) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.locks.extend(other.locks);
        self.created.extend(other.created);
        for (file, rows) in other.deleted {
            self.deleted
                .entry(file)
                .and_modify(|known| {
                    known.rows += rows.rows;
                    known.lsn = known.lsn.min(rows.lsn);
                })
                .or_insert(rows);
        }
        self.truncated.extend(other.truncated);
        self.dropped_databases.extend(other.dropped_databases);
    }
}

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
    /// It ended by COMMIT PREPARED.
    pub is_prepared: bool,
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
            is_prepared: ending.is_prepared,
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

#[cfg(test)]
mod tests {
    use super::{Transaction, Transactions};
    use crate::postgres::wal::digest::{
        Activity, Deleted, Digest, Ending, Lock, RelationFile, TransactionEnd,
    };
    use crate::postgres::wal::digester::DeletedRow;
    use crate::postgres::{Lsn, SegmentName};

    const FILE: RelationFile = RelationFile { tablespace: 1663, database: 5, number: 16401 };

    fn segment(number: u32) -> SegmentName {
        SegmentName::parse(&format!("0000000100000000{number:08X}")).unwrap()
    }

    fn deletes(xid: u32, lsn: u64, rows: u64) -> Activity {
        let deleted = vec![Deleted { file: FILE, rows, lsn: Lsn(lsn) }];
        let locks = vec![Lock { lsn: Lsn(lsn), database: 5, relation: 16401 }];
        Activity { xid, first_lsn: Lsn(lsn), deleted, locks, ..Activity::default() }
    }

    fn ends(xid: u32, lsn: u64, is_commit: bool, subtransactions: &[u32]) -> Ending {
        let time = "2026-11-21T10:00:00Z".parse().unwrap();
        Ending {
            at: TransactionEnd { lsn: Lsn(lsn), xid, time },
            is_commit,
            subtransactions: subtransactions.to_vec(),
            dropped: Vec::new(),
            dropped_stats: Vec::new(),
            database: None,
            is_cut: false,
            is_prepared: false,
        }
    }

    fn digest(activities: Vec<Activity>, endings: Vec<Ending>) -> Digest {
        Digest { activities, endings, ..Digest::default() }
    }

    fn rows(transaction: &Transaction) -> u64 {
        transaction.did.deleted.values().map(|rows| rows.rows).sum()
    }

    #[test]
    fn what_a_transaction_did_in_several_segments_adds_up() {
        let mut all = Transactions::default();
        let first = digest(vec![deletes(700, 0x150, 40), deletes(701, 0x110, 5)], vec![]);
        assert!(all.take(segment(1), &first, None).is_empty());
        all.delete_one(segment(1), Lsn(0x1F0), DeletedRow { xid: 701, top: None, file: FILE });
        let open: Vec<_> = all.unended().iter().map(|it| (it.last, it.xid)).collect();
        assert_eq!(open, [(segment(1), 700), (segment(1), 701)]);
        assert!(all.is_of_interest(700, 40) && !all.is_of_interest(700, 41));
        // 702 is a subtransaction that was undone before its parent was committed.
        let second = digest(
            vec![deletes(700, 0x200, 60), deletes(702, 0x210, 9)],
            vec![ends(702, 0x220, false, &[]), ends(700, 0x230, true, &[701])],
        );
        let ended = all.take(segment(2), &second, None);
        assert_eq!(ended.len(), 1);
        assert_eq!((rows(&ended[0]), ended[0].did.first_lsn), (40 + 60 + 5 + 1, Some(Lsn(0x110))));
        assert_eq!(ended[0].did.locks[0].lsn, Lsn(0x110), "the earliest first");
        assert_eq!((ended[0].segment, ended[0].end.lsn), (segment(2), Lsn(0x230)));
        assert!(all.unended().is_empty());
    }

    #[test]
    fn what_lies_behind_a_fork_is_not_of_this_timeline() {
        let mut all = Transactions::default();
        let forked = digest(
            vec![deletes(700, 0x100, 40), deletes(701, 0x200, 5)],
            vec![ends(700, 0x180, true, &[]), ends(701, 0x210, true, &[])],
        );
        let ended = all.take(segment(1), &forked, Some(Lsn(0x200)));
        assert_eq!(ended.iter().map(|it| it.end.xid).collect::<Vec<_>>(), [700]);
        assert!(all.unended().is_empty());
    }
}

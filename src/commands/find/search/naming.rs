//! Names for what a transaction did to relations that no map knows: they are in the WAL where the
//! relations were made.

use std::collections::BTreeSet;

use crate::catalog::events::{Deed, Lookup as _, Transaction, What};
use crate::commands::find::search::{READ_ON_MAX, Search};
use crate::error::Result;
use crate::postgres::SegmentName;
use crate::postgres::wal::digest::Digest;

impl Search<'_, '_> {
    /// Where files were made: the names of their relations are in the WAL there.
    pub(super) fn note_made(&mut self, name: SegmentName, digest: &Digest) {
        for file in digest.activities.iter().flat_map(|activity| &activity.created) {
            self.made.insert((file.database, file.number), name);
        }
    }

    /// Of relations that no map knows, as far as they were made in this WAL.
    pub(super) fn learn_names(&mut self, transaction: &Transaction) -> Result<()> {
        let time = transaction.end.time;
        let removes = !transaction.dropped.is_empty();
        let stats = transaction.dropped_stats.iter();
        let oids = stats.filter_map(|it| Some((it.database, u32::try_from(it.oid).ok()?)));
        let locks = transaction.did.locks.iter().map(|lock| (lock.database, lock.relation));
        let oids = oids.chain(locks).filter(|_| removes);
        let deleted = transaction.did.deleted.values();
        let deleted = deleted.filter(|rows| rows.rows >= self.request.rows_min);
        let files = deleted.map(|rows| rows.file).chain(transaction.dropped.iter().copied());
        let mut unknown: BTreeSet<(u32, u32)> = oids
            .filter(|(database, oid)| self.names.by_oid(*database, *oid, time).is_none())
            .collect();
        unknown.extend(
            files
                .filter(|file| self.names.by_file(*file, time).is_none())
                .map(|file| (file.database, file.number)),
        );
        // Made by itself: what a rewrite leaves behind.
        let own = |file: &(u32, u32)| {
            transaction.did.created.iter().any(|it| (it.database, it.number) == *file)
        };
        let made = unknown.iter().filter(|it| !own(it)).filter_map(|it| self.made.get(it));
        let segments: BTreeSet<SegmentName> = made.copied().collect();
        for name in segments {
            // The row may come in the next: it is written after the file was made.
            let next = self.walk.after(name).next();
            for name in std::iter::once(name).chain(next) {
                if self.learned.insert(name) {
                    let rows = self.segments.class_rows(name)?;
                    self.names.learn(rows);
                }
            }
        }
        Ok(())
    }

    /// Of a transaction that gave relations new files that nobody knows: whether one of them is a
    /// table's. If it takes too much reading, it is taken for one.
    pub(super) fn emptied_a_table(&mut self, transaction: &Transaction) -> Result<bool> {
        let first = transaction.did.first_lsn.unwrap_or(transaction.end.lsn);
        let Some(first) = self.walk.segment_at(first) else { return Ok(true) };
        let after = self.walk.after(first).take_while(|name| *name <= transaction.segment);
        let names: Vec<SegmentName> =
            std::iter::once(first).chain(after).take(READ_ON_MAX + 1).collect();
        if names.len() > READ_ON_MAX {
            return Ok(true);
        }
        let xids: Vec<u32> =
            transaction.subtransactions.iter().copied().chain([transaction.end.xid]).collect();
        self.segments.has_heap_among(&names, &xids, &transaction.did.created)
    }

    /// A table that was emptied goes on in the file that was made first. Which is whose, where
    /// several were, nothing tells.
    pub(super) fn follow_file(&mut self, transaction: &Transaction, deeds: &[Deed]) {
        let emptied = deeds.iter().filter(|deed| deed.what == What::Truncate);
        let mut oids = emptied.filter_map(|deed| deed.oid.filter(|_| !deed.may_be_index));
        let (Some(oid), None, Some(file)) =
            (oids.next(), oids.next(), transaction.did.created.first())
        else {
            return;
        };
        self.names.now_has_file(file.database, oid, file.number);
    }
}

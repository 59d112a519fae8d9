//! What a transaction did, by the traces its kind leaves in the WAL.
//!
//! A DROP removes files and statistics. A TRUNCATE removes files, makes new ones in the same
//! tablespace and leaves the statistics. VACUUM FULL, CLUSTER, ALTER TABLE and REFRESH, which
//! rewrite, do both at once: they drop a table that never had a name outside of them, the oid of
//! which is the number of a file they made. REINDEX does as TRUNCATE does, to indexes only. Tables
//! of a session (temporary ones) have no file that a commit record names.

mod drops;
mod truncates;

use std::collections::BTreeSet;

use crate::catalog::events::names::{Known, Lookup};
use crate::catalog::events::transactions::Transaction;
use crate::postgres::wal::digest::RelationFile;

/// `PgStat_Kind` in `ObjectStats` (utils/pgstat_kind.h).
const STATS_OF_DATABASE: u32 = 1;
const STATS_OF_RELATION: u32 = 2;
/// Below it are the catalogs' own files and oids (`FirstNormalObjectId`).
const FIRST_OF_USERS: u32 = 16_384;
/// Large objects: the one catalog with data of users.
const LARGE_OBJECTS: u32 = 2613;
/// The tablespace of shared catalogs.
const GLOBAL: u32 = 1664;

/// One thing a transaction did to one relation or database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    pub what: What,
    pub database: u32,
    /// `None`: no name is known, or it is a database.
    pub relation: Option<Known>,
    /// What is known of it where no name is.
    pub oid: Option<u32>,
    pub file: Option<RelationFile>,
    /// Deleted.
    pub rows: Option<u64>,
    /// It may be an index that was built anew: only the WAL itself can tell.
    pub may_be_index: bool,
    /// A sentence for who reads it.
    pub note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    Drop,
    Truncate,
    Delete,
    DropDatabase,
}

/// What a committed transaction did that cannot be undone in the server; deletes of `rows_min` rows
/// and more.
pub fn deeds(transaction: &Transaction, names: &dyn Lookup, rows_min: u64) -> Vec<Deed> {
    let scene = Scene::of(transaction, names);
    let mut deeds = scene.dropped_databases();
    let drops = scene.drops();
    let gone: BTreeSet<u32> = drops.iter().filter_map(|deed| deed.oid).collect();
    deeds.extend(drops);
    deeds.extend(scene.truncates());
    deeds.extend(scene.deletes(rows_min, &gone));
    deeds
}

/// A transaction with what its traces mean.
struct Scene<'a> {
    transaction: &'a Transaction,
    names: &'a dyn Lookup,
    /// Relations that were dropped, transient ones not among them.
    dropped: Vec<Gone>,
    /// Made and dropped again in this transaction: by whoever asked, or by a rewrite.
    transient: BTreeSet<u32>,
}

struct Gone {
    database: u32,
    oid: u32,
    known: Option<Known>,
}

impl<'a> Scene<'a> {
    fn of(transaction: &'a Transaction, names: &'a dyn Lookup) -> Self {
        let created: BTreeSet<(u32, u32)> =
            transaction.did.created.iter().map(|file| (file.database, file.number)).collect();
        let mut seen = BTreeSet::new();
        let (mut dropped, mut transient) = (Vec::new(), BTreeSet::new());
        let stats = transaction.dropped_stats.iter().filter(|s| s.kind == STATS_OF_RELATION);
        for stats in stats {
            let Ok(oid) = u32::try_from(stats.oid) else { continue };
            if !seen.insert((stats.database, oid)) {
                continue;
            }
            if created.contains(&(stats.database, oid)) {
                transient.insert(oid);
                continue;
            }
            let known = names.by_oid(stats.database, oid, transaction.end.time);
            dropped.push(Gone { database: stats.database, oid, known });
        }
        Scene { transaction, names, dropped, transient }
    }

    fn dropped_databases(&self) -> Vec<Deed> {
        let stats = self.transaction.dropped_stats.iter();
        let databases: BTreeSet<u32> =
            stats.filter(|s| s.kind == STATS_OF_DATABASE).map(|s| s.database).collect();
        let deed = |database| Deed {
            database,
            what: What::DropDatabase,
            relation: None,
            oid: Some(database),
            file: None,
            rows: None,
            may_be_index: false,
            note: None,
        };
        databases.into_iter().map(deed).collect()
    }

    fn is_dropped(&self, oid: u32) -> bool {
        self.dropped.iter().any(|gone| gone.oid == oid)
    }

    fn deletes(&self, rows_min: u64, gone: &BTreeSet<u32>) -> Vec<Deed> {
        let at = self.transaction.end.time;
        let mut deeds = Vec::new();
        for rows in self.transaction.did.deleted.values() {
            let file = rows.file;
            let is_of_users = file.number >= FIRST_OF_USERS || file.number == LARGE_OBJECTS;
            // Rows of a table that is gone went with it.
            let is_moot = self.transaction.dropped.contains(&file)
                || self.transaction.did.created.contains(&file);
            if rows.rows < rows_min || !is_of_users || is_moot || file.tablespace == GLOBAL {
                continue;
            }
            let relation = self.names.by_file(file, at);
            let is_known_noise = relation.as_ref().is_some_and(|known| {
                let is_data = known.has_rows() && !known.is_of_the_system();
                !is_data && known.oid != LARGE_OBJECTS || gone.contains(&known.oid)
            });
            if !is_known_noise {
                deeds.push(Deed {
                    what: What::Delete,
                    database: file.database,
                    oid: relation.as_ref().map(|known| known.oid),
                    relation,
                    file: Some(file),
                    rows: Some(rows.rows),
                    may_be_index: false,
                    note: None,
                });
            }
        }
        deeds
    }
}

#[cfg(test)]
mod tests;

//! What was dropped: told from what goes with it, and from what a rewrite leaves behind.

use std::collections::BTreeSet;

use crate::catalog::events::classify::{Deed, Gone, Scene, What};
use crate::catalog::events::names::Known;
use crate::postgres::names::RelationKind;
use crate::postgres::wal::digest::{Lock, RelationFile};

const PG_TYPE: u32 = 1247;
const PG_CLASS: u32 = 1259;
const PG_SEQUENCE: u32 = 2224;

impl Scene<'_> {
    /// Tables and what else was dropped by itself, in the order the commit names them.
    pub(super) fn drops(&self) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for gone in &self.dropped {
            if let Some(known) = &gone.known
                && self.is_worth_telling(known)
            {
                deeds.push(self.drop_of(gone, None));
            }
        }
        deeds.extend(self.nameless_drops().into_iter().map(|gone| {
            let note = "No map of names knows it: it was made after the last backup before.";
            self.drop_of(gone, Some(note.to_owned()))
        }));
        deeds
    }

    fn drop_of(&self, gone: &Gone, note: Option<String>) -> Deed {
        let file = self.transaction.dropped.iter();
        let file = file.copied().find(|f| f.database == gone.database && f.number == gone.oid);
        Deed {
            what: What::Drop,
            database: gone.database,
            relation: gone.known.clone(),
            oid: Some(gone.oid),
            file,
            rows: None,
            may_be_index: false,
            note,
        }
    }

    /// What goes with its table is told by the table; what is put in its place by a rewrite was not
    /// dropped.
    fn is_worth_telling(&self, known: &Known) -> bool {
        let has_files = !self.transaction.dropped.is_empty();
        match known.kind {
            _ if known.is_temporary => false,
            RelationKind::Table | RelationKind::MaterializedView => has_files,
            RelationKind::PartitionedTable | RelationKind::ForeignTable | RelationKind::View => {
                true
            }
            RelationKind::Toast | RelationKind::CompositeType | RelationKind::Other => false,
            RelationKind::Sequence => has_files && !self.drops_a_table(),
            RelationKind::Index | RelationKind::PartitionedIndex => {
                has_files && self.is_plain_drop_of_index(known)
            }
        }
    }

    /// A sequence goes with the table that owns it, and nobody kept which one that is.
    fn drops_a_table(&self) -> bool {
        let mut known = self.dropped.iter().filter_map(|gone| gone.known.as_ref());
        known.any(|known| known.kind == RelationKind::Table)
    }

    /// DROP INDEX locks the table and makes no file. REINDEX CONCURRENTLY, the last transaction of
    /// which drops the old index likewise, does not lock the table; ALTER TABLE, which builds
    /// indexes anew, makes files.
    fn is_plain_drop_of_index(&self, index: &Known) -> bool {
        let Some(table) = index.table else { return false };
        let is_locked = self.transaction.did.locks.iter().any(|lock| lock.relation == table);
        is_locked && !self.is_dropped(table) && self.transaction.did.created.is_empty()
    }

    /// Of what no map of names knows, the tables, as far as they can be told from their indexes and
    /// toast tables: by how many rows were deleted from which catalog.
    fn nameless_drops(&self) -> Vec<&Gone> {
        let mut nameless: Vec<&Gone> =
            self.dropped.iter().filter(|gone| gone.known.is_none()).collect();
        if nameless.is_empty() || self.transaction.dropped.is_empty() {
            return Vec::new();
        }
        let rows_of = |number| self.rows_deleted_of_catalog(number);
        let all = self.dropped.len() + self.transient.len();
        // The catalogs' own files have other numbers once they were rewritten.
        let is_counted = rows_of(PG_CLASS) >= all as u64;
        let mut tables = if is_counted {
            // A row of its own and one of its array for everything that has a row type.
            let has_row_type = |known: &Known| {
                !matches!(
                    known.kind,
                    RelationKind::Index | RelationKind::Sequence | RelationKind::Toast
                )
            };
            let named = self.dropped.iter().filter_map(|gone| gone.known.as_ref());
            let named = named.filter(|known| has_row_type(known)).count();
            let rewritten = usize::from(!self.transient.is_empty());
            (rows_of(PG_TYPE) as usize / 2).saturating_sub(named + rewritten)
        } else {
            // Better one too many than the one that counts left out.
            usize::MAX
        };
        let mut sequences = rows_of(PG_SEQUENCE);
        self.leave_out_fileless(&mut nameless);
        nameless.sort_by_key(|gone| self.lock_of(gone.oid).map_or(u64::MAX, |lock| lock.lsn.0));
        // The sequence of a serial column is made just before its table.
        let oids: BTreeSet<u32> = nameless.iter().map(|gone| gone.oid).collect();
        nameless.retain(|gone| {
            let is_sequence = sequences > 0 && oids.contains(&(gone.oid + 1));
            sequences -= u64::from(is_sequence);
            !is_sequence
        });
        nameless.retain(|_| {
            let is_table = tables > 0;
            tables = tables.saturating_sub(1);
            is_table
        });
        nameless
    }

    /// Temporary tables, views and partitioned tables have no file that the commit names. After a
    /// rewrite the number of a file is no longer its table's oid: then as many stay as there are
    /// files of nobody.
    fn leave_out_fileless(&self, nameless: &mut Vec<&Gone>) {
        let at = self.transaction.end.time;
        let files = &self.transaction.dropped;
        let is_nobodys = |file: &&RelationFile| {
            !self.is_dropped(file.number) && self.names.by_file(**file, at).is_none()
        };
        let mut nobodys = files.iter().filter(is_nobodys).count();
        nameless.retain(|gone| {
            let is_its = |f: &RelationFile| (f.database, f.number) == (gone.database, gone.oid);
            let has_file = files.iter().any(is_its);
            let stays = has_file || nobodys > 0;
            nobodys -= usize::from(stays && !has_file);
            stays
        });
    }

    fn lock_of(&self, oid: u32) -> Option<&Lock> {
        self.transaction.did.locks.iter().find(|lock| lock.relation == oid)
    }

    fn rows_deleted_of_catalog(&self, number: u32) -> u64 {
        let rows = self.transaction.did.deleted.values();
        rows.filter(|rows| rows.file.number == number).map(|rows| rows.rows).sum()
    }
}

//! What was emptied by TRUNCATE: told from what got new files for another reason.

use std::collections::BTreeSet;

use crate::catalog::events::classify::{Deed, Scene, What};
use crate::catalog::events::names::Known;
use crate::postgres::names::RelationKind;
use crate::postgres::wal::digest::{Lock, RelationFile};

impl Scene<'_> {
    pub(super) fn truncates(&self) -> Vec<Deed> {
        let by_record = self.truncates_by_record();
        if by_record.is_empty() { self.truncates_by_files() } else { by_record }
    }

    /// With wal_level = logical the WAL says it in so many words.
    fn truncates_by_record(&self) -> Vec<Deed> {
        let at = self.transaction.end.time;
        let mut deeds = Vec::new();
        for record in &self.transaction.did.truncated {
            let made_here = |oid: u32| {
                let mut created = self.transaction.did.created.iter();
                created.any(|file| file.database == record.database && file.number == oid)
            };
            let relations = record.relations.iter().copied();
            for oid in relations.filter(|oid| !made_here(*oid) && !self.is_dropped(*oid)) {
                let relation = self.names.by_oid(record.database, oid, at);
                let has_rows = relation.as_ref().is_none_or(Known::has_rows);
                if has_rows && !deeds.iter().any(|deed: &Deed| deed.oid == Some(oid)) {
                    deeds.push(truncate(record.database, Some(oid), relation, None));
                }
            }
        }
        deeds
    }

    fn truncates_by_files(&self) -> Vec<Deed> {
        let at = self.transaction.end.time;
        let emptied = self.emptied_files();
        let mut deeds = Vec::new();
        let mut strangers = Vec::new();
        for file in emptied {
            match self.names.by_file(file, at) {
                Some(known) if known.kind == RelationKind::Table && !self.is_dropped(known.oid) => {
                    deeds.push(truncate(file.database, Some(known.oid), Some(known), Some(file)));
                }
                Some(_) => {}
                None => strangers.push(file),
            }
        }
        self.leave_out_rewritten(&mut deeds);
        if self.transient.is_empty() {
            let told: BTreeSet<u32> = deeds.iter().filter_map(|deed| deed.oid).collect();
            deeds.extend(self.truncates_of_strangers(&strangers, &told));
        }
        deeds
    }

    /// Files that were removed, although nothing was dropped whose first file they were, while
    /// others were made beside them. Another tablespace means a move.
    fn emptied_files(&self) -> Vec<RelationFile> {
        let created = &self.transaction.did.created;
        let has_heir = |file: &&RelationFile| {
            created.iter().any(|new| {
                (new.tablespace, new.database) == (file.tablespace, file.database) && new != *file
            })
        };
        let made_here = |file: &RelationFile| created.contains(file);
        let dropped = self.transaction.dropped.iter().filter(|file| !made_here(file));
        let dropped = dropped.filter(|file| !self.is_dropped(file.number));
        dropped.filter(has_heir).copied().collect()
    }

    /// Each transient table took the place of one: of the last that was locked before it.
    fn leave_out_rewritten(&self, deeds: &mut Vec<Deed>) {
        let locks = &self.transaction.did.locks;
        for (place, lock) in locks.iter().enumerate() {
            if !self.transient.contains(&lock.relation) {
                continue;
            }
            let before = locks[..place].iter().rev();
            let rewritten = before
                .map(|lock| lock.relation)
                .find(|oid| deeds.iter().any(|deed| deed.oid == Some(*oid)));
            if let Some(rewritten) = rewritten {
                deeds.retain(|deed| deed.oid != Some(rewritten));
            }
        }
    }

    /// Files whose names nobody knows, since the table was rewritten after the last backup: the
    /// locks say which tables they may be of.
    fn truncates_of_strangers(
        &self,
        strangers: &[RelationFile],
        told: &BTreeSet<u32>,
    ) -> Vec<Deed> {
        let Some(first) = strangers.first() else { return Vec::new() };
        let at = self.transaction.end.time;
        let locks = &self.transaction.did.locks;
        let locked: Vec<(&Lock, Option<Known>)> = locks
            .iter()
            .filter(|lock| !told.contains(&lock.relation) && !self.is_dropped(lock.relation))
            .map(|lock| (lock, self.names.by_oid(lock.database, lock.relation, at)))
            .filter(|(lock, known)| !self.file_is_told(lock, known.as_ref()))
            .collect();
        let is_table =
            |known: &Option<Known>| known.as_ref().is_some_and(|k| k.kind == RelationKind::Table);
        let tables: Vec<_> = locked.iter().filter(|(_, known)| is_table(known)).collect();
        if !tables.is_empty() {
            let is_sure = tables.len() == 1 || strangers.len() >= locked.len();
            let note = "It, or another table that was locked in the same transaction.";
            let note = (!is_sure).then(|| note.to_owned());
            let deed = |(lock, known): &&(&Lock, Option<Known>)| Deed {
                note: note.clone(),
                ..truncate(lock.database, Some(lock.relation), known.clone(), None)
            };
            return tables.iter().map(deed).collect();
        }
        // Known, and no table among them: indexes built anew.
        let stranger = locked.iter().find(|(_, known)| known.is_none());
        let Some((lock, _)) = stranger else { return Vec::new() };
        let note = "No map of names knows it.".to_owned();
        let deed = truncate(first.database, Some(lock.relation), None, Some(*first));
        vec![Deed { may_be_index: true, note: Some(note), ..deed }]
    }

    /// Whether a locked relation is one whose file was dropped under a name we know.
    fn file_is_told(&self, lock: &Lock, known: Option<&Known>) -> bool {
        let at = self.transaction.end.time;
        let oid = known.map_or(lock.relation, |known| known.oid);
        let dropped = self.transaction.dropped.iter();
        let mut named = dropped.filter_map(|file| self.names.by_file(*file, at));
        named.any(|of_file| of_file.oid == oid)
    }
}

fn truncate(
    database: u32,
    oid: Option<u32>,
    relation: Option<Known>,
    file: Option<RelationFile>,
) -> Deed {
    let (what, may_be_index) = (What::Truncate, false);
    Deed { what, database, relation, oid, file, rows: None, may_be_index, note: None }
}

//! Names for what the WAL numbers: from the backup before the event, from other backups, from the
//! server where it can be reached, and of what was made since from the WAL itself.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::catalog::events::{Known, Lookup};
use crate::postgres::connection::ConnectionOptions;
use crate::postgres::names::{Identifier, Named, Names};
use crate::postgres::wal::class_row::ClassRow;
use crate::postgres::wal::digest::RelationFile;
use crate::repository::{BackupId, Home};

/// Maps asked for one name: they are large, and what the nearest do not know others hardly do.
const BEFORE_MAX: usize = 3;
const AFTER_MAX: usize = 3;

/// Schemas with fixed oids (catalog/pg_namespace.dat).
const PG_CATALOG: u32 = 11;
const PG_TOAST: u32 = 99;
const PUBLIC: u32 = 2200;

/// Read when first asked.
pub struct NameBook {
    home: Home,
    /// Oldest first.
    backups: Vec<Page>,
    server: Option<ConnectionOptions>,
    of_server: OnceCell<Option<Names>>,
    /// By database and oid.
    of_wal: BTreeMap<(u32, u32), ClassRow>,
    /// By database and number, the oids of relations that got them.
    new_files: BTreeMap<(u32, u32), u32>,
    notes: RefCell<Vec<String>>,
}

struct Page {
    id: BackupId,
    began: Timestamp,
    names: OnceCell<Option<Names>>,
}

impl NameBook {
    pub fn new(
        home: &Home,
        backups: &[(BackupId, Timestamp)],
        server: Option<&ConnectionOptions>,
    ) -> NameBook {
        let page = |(id, began): &(BackupId, Timestamp)| Page {
            id: id.clone(),
            began: *began,
            names: OnceCell::new(),
        };
        NameBook {
            home: home.clone(),
            backups: backups.iter().map(page).collect(),
            server: server.cloned(),
            of_server: OnceCell::new(),
            of_wal: BTreeMap::new(),
            new_files: BTreeMap::new(),
            notes: RefCell::default(),
        }
    }

    /// What could not be had, as sentences.
    pub fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    /// The name of a database, by the newest map that has one.
    pub fn database_name(&self, oid: u32, at: Timestamp) -> Option<String> {
        self.first(at, |names| names.database(oid).map(str::to_owned))
    }

    /// What was inserted into `pg_class`. A rewrite calls what it makes after the oid of the table
    /// whose file it is going to be (`make_new_heap`, cluster.c).
    pub fn learn(&mut self, rows: Vec<ClassRow>) {
        for row in rows {
            let rewritten = row.name.strip_prefix("pg_temp_").and_then(|oid| oid.parse().ok());
            match rewritten {
                Some(oid) => self.now_has_file(row.database, oid, row.file_number),
                None => {
                    self.of_wal.insert((row.database, row.oid), row);
                }
            }
        }
    }

    /// A relation has got a new file.
    pub fn now_has_file(&mut self, database: u32, oid: u32, file_number: u32) {
        self.new_files.insert((database, file_number), oid);
    }

    /// Of what a map knows, if any does.
    fn made_since(&self, row: &ClassRow, at: Timestamp) -> Known {
        let database = self.database_name(row.database, at);
        let schema = match row.schema {
            PUBLIC => "public".to_owned(),
            PG_CATALOG => "pg_catalog".to_owned(),
            PG_TOAST => "pg_toast".to_owned(),
            // Schemas have no file: no map tells them by their oid.
            oid => format!("schema {oid}"),
        };
        let quoted = [database.as_deref(), Some(&*schema), Some(&*row.name)];
        let quoted = quoted.into_iter().flatten().map(|name| Identifier(name).to_string());
        Known {
            oid: row.oid,
            full_name: quoted.collect::<Vec<_>>().join("."),
            database,
            schema,
            name: row.name.clone(),
            kind: row.kind,
            table: None,
            is_temporary: row.is_temporary,
            is_unlogged: row.is_unlogged,
        }
    }

    /// What the first map that knows it says, nearest to `at` first.
    fn first<T>(&self, at: Timestamp, ask: impl Fn(&Names) -> Option<T>) -> Option<T> {
        let later = self.backups.partition_point(|page| page.began <= at);
        let before = self.backups[..later].iter().rev().take(BEFORE_MAX);
        let after = self.backups[later..].iter().take(AFTER_MAX);
        let of_backups = before.chain(after).filter_map(|page| self.of_backup(page));
        let mut all = of_backups.chain(std::iter::once_with(|| self.of_server()).flatten());
        all.find_map(ask)
    }

    fn of_backup<'b>(&'b self, page: &'b Page) -> Option<&'b Names> {
        let load = || {
            self.home.names(&page.id).unwrap_or_else(|error| {
                self.note(format!(
                    "the names saved with backup {} are not known: {error}.",
                    page.id
                ));
                None
            })
        };
        page.names.get_or_init(load).as_ref()
    }

    fn of_server(&self) -> Option<&Names> {
        let load = || {
            let (names, _) = Names::read(self.server.as_ref()?).ok()?;
            let ours = self.home.system_identifier();
            (names.system_identifier == Some(ours)).then_some(names)
        };
        self.of_server.get_or_init(load).as_ref()
    }

    fn note(&self, note: String) {
        self.notes.borrow_mut().push(note);
    }
}

impl Lookup for NameBook {
    fn by_oid(&self, database: u32, oid: u32, at: Timestamp) -> Option<Known> {
        let of_maps = self.first(at, |names| known(names, names.by_oid(database, oid)?));
        of_maps.or_else(|| self.of_wal.get(&(database, oid)).map(|row| self.made_since(row, at)))
    }

    fn by_file(&self, file: RelationFile, at: Timestamp) -> Option<Known> {
        if let Some(oid) = self.new_files.get(&(file.database, file.number)) {
            return self.by_oid(file.database, *oid, at);
        }
        let of_maps = self.first(at, |names| known(names, names.by_file(&file)?));
        of_maps.or_else(|| {
            let of_database = self.of_wal.range((file.database, 0)..=(file.database, u32::MAX));
            let mut rows = of_database.map(|(_, row)| row);
            let row = rows.find(|row| row.file_number == file.number);
            row.map(|row| self.made_since(row, at))
        })
    }
}

/// Of temporary tables nothing is told.
fn known(names: &Names, named: Named<'_>) -> Option<Known> {
    Some(Known {
        oid: named.oid,
        database: named.database.map(str::to_owned),
        schema: named.schema.to_owned(),
        name: named.name.to_owned(),
        kind: named.kind,
        table: Some(names.table_of(named).oid).filter(|table| *table != named.oid),
        is_temporary: named.is_temporary,
        is_unlogged: named.is_unlogged,
        full_name: named.to_string(),
    })
}

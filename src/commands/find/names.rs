//! Names for what the WAL numbers: from the backup before the event, from other backups, and from
//! the server where it can be reached.

use std::cell::{OnceCell, RefCell};

use jiff::Timestamp;

use crate::catalog::events::{Known, Lookup};
use crate::postgres::connection::ConnectionOptions;
use crate::postgres::names::{Named, Names};
use crate::postgres::wal::digest::RelationFile;
use crate::repository::{BackupId, Home};

/// Maps asked for one name: they are large, and what the nearest do not know others hardly do.
const BEFORE_MAX: usize = 3;
const AFTER_MAX: usize = 3;

/// Read when first asked.
pub struct NameBook {
    home: Home,
    /// Oldest first.
    backups: Vec<Page>,
    server: Option<ConnectionOptions>,
    of_server: OnceCell<Option<Names>>,
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
        self.first(at, |names| known(names, names.by_oid(database, oid)?))
    }

    fn by_file(&self, file: RelationFile, at: Timestamp) -> Option<Known> {
        self.first(at, |names| known(names, names.by_file(&file)?))
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

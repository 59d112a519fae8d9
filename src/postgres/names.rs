//! What the numbers in the WAL are called: a map from files and oids to databases and relations.
//!
//! A record names a relation by numbers only, and once the table is dropped nobody can ask what
//! they meant. So the map is taken while the names exist, and kept.

mod kind;
mod read;
mod relations;
mod stored;

use std::fmt;

use jiff::Timestamp;

use crate::postgres::wal::digest::RelationFile;
use crate::postgres::{Lsn, SystemIdentifier};

pub use kind::RelationKind;
pub use relations::{Persistence, Relation, Relations};

/// Where the relations are kept that belong to all databases: WAL says 0 for their database.
const SHARED: u32 = 0;
/// The database that lets nobody in, as initdb made it.
const UNTOUCHED: &str = "template0";

/// The names of one cluster at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Names {
    /// `None` where the server did not say.
    pub system_identifier: Option<SystemIdentifier>,
    /// When the reading began, by the server's clock.
    pub time: Timestamp,
    /// Where the WAL ended then. What is younger may have been seen too, what is older was.
    pub lsn: Option<Lsn>,
    /// By oid; the first may be the one of shared relations, which has no name.
    databases: Vec<Database>,
}

#[derive(Debug, Clone, PartialEq)]
struct Database {
    oid: u32,
    name: Box<str>,
    /// Why its relations are not known.
    unread: Option<Box<str>>,
    relations: Relations,
}

/// A relation and what it is called; `Display` is `database.schema.name`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Named<'n> {
    /// 0 where it belongs to all databases.
    pub database_oid: u32,
    /// `None` where it belongs to all databases.
    pub database: Option<&'n str>,
    pub oid: u32,
    pub schema: &'n str,
    pub name: &'n str,
    pub kind: RelationKind,
    /// `None` for what has no file: a view, a partitioned table.
    pub file: Option<RelationFile>,
    pub is_temporary: bool,
    /// Its rows are not in the WAL: no recovery brings them back.
    pub is_unlogged: bool,
    /// The oid of what an index or a TOAST table belongs to, or of the table whose column owns a
    /// sequence; `Names::table_of` follows it.
    pub parent: Option<u32>,
    /// As the planner thought; `None` where it never looked.
    pub rows: Option<u64>,
}

impl Names {
    /// What was in this file when the names were taken.
    pub fn by_file(&self, file: &RelationFile) -> Option<Named<'_>> {
        let database = self.find(file.database)?;
        let relation = database.relations.by_file(file.tablespace, file.number)?;
        Some(database.named(relation))
    }

    /// `database` is 0 for what belongs to all.
    pub fn by_oid(&self, database: u32, oid: u32) -> Option<Named<'_>> {
        let database = self.find(database)?;
        Some(database.named(database.relations.by_oid(oid)?))
    }

    /// The name of a database.
    pub fn database(&self, oid: u32) -> Option<&str> {
        self.find(oid).filter(|_| oid != SHARED).map(|database| &*database.name)
    }

    /// The table that an index, a TOAST table, its index or a sequence belongs to; itself for
    /// everything else.
    pub fn table_of<'n>(&'n self, named: Named<'n>) -> Named<'n> {
        let mut table = named;
        // Index to TOAST table to table: what goes on longer is no catalog of PostgreSQL's.
        for _ in 0..2 {
            let above = table.parent.and_then(|oid| self.by_oid(named.database_oid, oid));
            table = above.unwrap_or(table);
        }
        table
    }

    /// Every relation, database by database, by oid.
    pub fn iter(&self) -> impl Iterator<Item = Named<'_>> {
        self.databases.iter().flat_map(Database::iter)
    }

    /// Oid and name of every database, also of those whose relations are not known.
    pub fn databases(&self) -> impl Iterator<Item = (u32, &str)> {
        let named = self.databases.iter().filter(|database| database.oid != SHARED);
        named.map(|database| (database.oid, &*database.name))
    }

    /// The databases whose relations are not known, and why. Of `template0` they never are, and
    /// nobody could have changed them.
    pub fn unread(&self) -> impl Iterator<Item = (&str, &str)> {
        self.databases.iter().filter_map(Database::unread)
    }

    /// How many databases' relations are known.
    pub fn databases_read(&self) -> usize {
        let is_read = |it: &&Database| it.oid != SHARED && !it.relations.is_empty();
        self.databases.iter().filter(is_read).count()
    }

    pub fn relation_count(&self) -> usize {
        self.databases.iter().map(|database| database.relations.len()).sum()
    }

    fn find(&self, oid: u32) -> Option<&Database> {
        let at = self.databases.binary_search_by_key(&oid, |database| database.oid).ok()?;
        self.databases.get(at)
    }
}

impl Database {
    fn iter(&self) -> impl Iterator<Item = Named<'_>> {
        self.relations.iter().map(|relation| self.named(relation))
    }

    fn unread(&self) -> Option<(&str, &str)> {
        let why = self.unread.as_deref()?;
        Some((&*self.name, why)).filter(|_| &*self.name != UNTOUCHED)
    }

    fn named<'n>(&'n self, relation: &Relation) -> Named<'n> {
        let file = (relation.number != 0).then_some(RelationFile {
            tablespace: relation.tablespace,
            database: self.oid,
            number: relation.number,
        });
        Named {
            database_oid: self.oid,
            database: (self.oid != SHARED).then_some(&*self.name),
            oid: relation.oid,
            schema: self.relations.schema_of(relation),
            name: self.relations.name_of(relation),
            kind: relation.kind,
            file,
            is_temporary: relation.persistence == Persistence::Temporary,
            is_unlogged: relation.persistence == Persistence::Unlogged,
            parent: (relation.parent != 0).then_some(relation.parent),
            rows: (relation.rows >= 0.0).then_some(relation.rows as u64),
        }
    }
}

/// Quoted where PostgreSQL would want quotes, so that a dot in a name divides nothing.
impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(database) = self.database {
            write!(f, "{}.", Identifier(database))?;
        }
        write!(f, "{}.{}", Identifier(self.schema), Identifier(self.name))
    }
}

/// As `quote_ident` writes it, but for reserved words.
pub struct Identifier<'i>(pub &'i str);

impl fmt::Display for Identifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = self.0.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && self.0.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        match is_plain {
            true => f.write_str(self.0),
            false => write!(f, "\"{}\"", self.0.replace('"', "\"\"")),
        }
    }
}

#[cfg(test)]
mod tests;

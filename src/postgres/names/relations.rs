//! The relations of one database, small: there may be hundreds of thousands.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::names::RelationKind;

/// By oid. All names stand in one string, each schema's once.
#[derive(Debug, Clone, Default)]
pub struct Relations {
    relations: Vec<Relation>,
    /// Places in `relations`, by tablespace and number; of those that have a file.
    by_file: Vec<u32>,
    text: String,
    schemas: Vec<Span>,
}

/// 0 means "none", as in PostgreSQL's catalogs.
#[derive(Debug, Clone, Copy)]
pub struct Relation {
    pub oid: u32,
    /// Of its file.
    pub number: u32,
    /// Where the file is; that of the database where the catalog says 0.
    pub tablespace: u32,
    /// What an index or TOAST table belongs to, or what owns a sequence.
    pub parent: u32,
    /// As in `pg_class.reltuples`: negative where nobody has looked.
    pub rows: f32,
    pub kind: RelationKind,
    pub persistence: Persistence,
    schema: u32,
    name: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Persistence {
    Permanent,
    Unlogged,
    Temporary,
}

/// A part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    length: u16,
}

impl Relations {
    pub fn len(&self) -> usize {
        self.relations.len()
    }

    pub fn is_empty(&self) -> bool {
        self.relations.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Relation> {
        self.relations.iter()
    }

    pub fn by_oid(&self, oid: u32) -> Option<&Relation> {
        let at = self.relations.binary_search_by_key(&oid, |relation| relation.oid).ok()?;
        self.relations.get(at)
    }

    pub fn by_file(&self, tablespace: u32, number: u32) -> Option<&Relation> {
        let file_at = |at: &u32| self.relations[*at as usize].file();
        let found = self.by_file.binary_search_by_key(&(tablespace, number), file_at).ok()?;
        self.relations.get(self.by_file[found] as usize)
    }

    pub fn schema_of(&self, relation: &Relation) -> &str {
        self.schemas.get(relation.schema as usize).map_or("", |schema| self.text(*schema))
    }

    pub fn name_of(&self, relation: &Relation) -> &str {
        self.text(relation.name)
    }

    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.relations.iter().map(|relation| {
            let Relation { oid, number, tablespace, parent, rows, kind, persistence, .. } =
                *relation;
            let (schema, name) = (self.schema_of(relation), self.name_of(relation));
            Row { oid, schema, name, number, tablespace, parent, rows, kind, persistence }
        })
    }

    fn text(&self, span: Span) -> &str {
        let start = span.start as usize;
        self.text.get(start..start + usize::from(span.length)).unwrap_or_default()
    }
}

/// Where in the text a name stands does not matter.
impl PartialEq for Relations {
    fn eq(&self, other: &Self) -> bool {
        self.rows().eq(other.rows())
    }
}

impl Relation {
    fn file(&self) -> (u32, u32) {
        (self.tablespace, self.number)
    }
}

/// Takes relations in any order.
#[derive(Debug, Default)]
pub struct Builder {
    built: Relations,
    schemas: HashMap<Box<str>, u32>,
    /// TOAST table and its table.
    toasts: Vec<(u32, u32)>,
}

/// A relation and its words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row<'r> {
    pub oid: u32,
    pub schema: &'r str,
    pub name: &'r str,
    pub number: u32,
    pub tablespace: u32,
    pub parent: u32,
    pub rows: f32,
    pub kind: RelationKind,
    pub persistence: Persistence,
}

impl Builder {
    pub fn push(&mut self, row: Row<'_>) -> Result<()> {
        let schema = match self.schemas.get(row.schema) {
            Some(known) => *known,
            None => {
                let span = self.keep(row.schema)?;
                let number = index(self.built.schemas.len())?;
                self.built.schemas.push(span);
                self.schemas.insert(row.schema.into(), number);
                number
            }
        };
        let Row { oid, number, tablespace, parent, rows, kind, persistence, .. } = row;
        let name = self.keep(row.name)?;
        self.built.relations.push(Relation {
            oid,
            number,
            tablespace,
            parent,
            rows,
            kind,
            persistence,
            schema,
            name,
        });
        Ok(())
    }

    /// The catalog says it of the table; it is wanted of the TOAST table.
    pub fn note_toast(&mut self, toast: u32, table: u32) {
        self.toasts.push((toast, table));
    }

    pub fn finish(self) -> Result<Relations> {
        let Builder { mut built, toasts, .. } = self;
        built.relations.sort_by_key(|relation| relation.oid);
        // A relation that was renamed between two questions may have come twice.
        built.relations.dedup_by_key(|relation| relation.oid);
        for (toast, table) in toasts {
            let found = built.relations.binary_search_by_key(&toast, |relation| relation.oid);
            if let Ok(at) = found {
                built.relations[at].parent = table;
            }
        }
        let count = index(built.relations.len())?;
        built.by_file = (0..count).filter(|at| built.relations[*at as usize].number != 0).collect();
        built.by_file.sort_by_key(|at| built.relations[*at as usize].file());
        built.relations.shrink_to_fit();
        built.text.shrink_to_fit();
        Ok(built)
    }

    fn keep(&mut self, text: &str) -> Result<Span> {
        let start = index(self.built.text.len())?;
        let length = u16::try_from(text.len()).map_err(|_| {
            Error::new(ErrorKind::Corrupt, format!("a name of {} bytes", text.len()))
        })?;
        self.built.text.push_str(text);
        Ok(Span { start, length })
    }
}

/// No database has four billion relations, nor names of 4 GiB together.
fn index(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| Error::new(ErrorKind::Corrupt, "more names than can be kept"))
}

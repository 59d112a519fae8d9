//! What relations are called: asked of whoever has a map of names.

use jiff::Timestamp;

use crate::postgres::names::RelationKind;
use crate::postgres::wal::digest::RelationFile;

/// A relation as a map of names knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub oid: u32,
    /// `None` where it belongs to all databases.
    pub database: Option<String>,
    pub schema: String,
    pub name: String,
    /// As a person would write it in SQL, with its database before it.
    pub full_name: String,
    pub kind: RelationKind,
    /// The table that an index or a TOAST table belongs to.
    pub table: Option<u32>,
    pub is_temporary: bool,
    pub is_unlogged: bool,
}

/// Names as of some moment: those nearest to `at` count.
pub trait Lookup {
    fn by_oid(&self, database: u32, oid: u32, at: Timestamp) -> Option<Known>;
    fn by_file(&self, file: RelationFile, at: Timestamp) -> Option<Known>;
}

impl Known {
    pub fn is_index(&self) -> bool {
        matches!(self.kind, RelationKind::Index | RelationKind::PartitionedIndex)
    }

    /// Whether it has rows in a file of its own.
    pub fn has_rows(&self) -> bool {
        matches!(self.kind, RelationKind::Table | RelationKind::MaterializedView)
    }

    pub fn is_of_the_system(&self) -> bool {
        matches!(self.schema.as_str(), "pg_catalog" | "information_schema" | "pg_toast")
    }
}

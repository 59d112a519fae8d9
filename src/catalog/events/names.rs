//! What relations are called: asked of whoever has a map of names.

use crate::postgres::Lsn;
use crate::postgres::wal::digest::RelationFile;

/// A relation as a map of names knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: Kind,
    /// The table of an index or of a toast table, the table that owns a sequence.
    pub table: Option<u32>,
}

/// `pg_class.relkind`, as far as a search tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Table,
    PartitionedTable,
    ForeignTable,
    MaterializedView,
    View,
    Index,
    Sequence,
    Toast,
    CompositeType,
}

/// Names are as of some moment: that nearest to `at` counts.
pub trait Names {
    fn by_oid(&self, database: u32, oid: u32, at: Lsn) -> Option<Known>;
    fn by_file(&self, file: RelationFile, at: Lsn) -> Option<Known>;
    fn database(&self, oid: u32, at: Lsn) -> Option<String>;
}

impl Kind {
    /// `r`, `p` and so on.
    pub fn from_relkind(relkind: char) -> Option<Kind> {
        Some(match relkind {
            'r' => Kind::Table,
            'p' => Kind::PartitionedTable,
            'f' => Kind::ForeignTable,
            'm' => Kind::MaterializedView,
            'v' => Kind::View,
            'i' | 'I' => Kind::Index,
            'S' => Kind::Sequence,
            't' => Kind::Toast,
            'c' => Kind::CompositeType,
            _ => return None,
        })
    }

    /// As people say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Table => "table",
            Kind::PartitionedTable => "partitioned table",
            Kind::ForeignTable => "foreign table",
            Kind::MaterializedView => "materialized view",
            Kind::View => "view",
            Kind::Index => "index",
            Kind::Sequence => "sequence",
            Kind::Toast => "toast table",
            Kind::CompositeType => "composite type",
        }
    }

    /// Whether it has rows in files of its own that somebody may miss.
    pub fn has_rows(self) -> bool {
        matches!(self, Kind::Table | Kind::MaterializedView)
    }
}

impl Known {
    /// `schema.name`
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    pub fn is_of_the_system(&self) -> bool {
        matches!(self.schema.as_str(), "pg_catalog" | "information_schema" | "pg_toast")
    }
}

//! What an extraction has brought back: the JSON shape of `walden drill --extract`, version 1.

use jiff::Timestamp;

use crate::repository::drill_record::{Plan, Target};

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    pub walden: u32,
    pub repository: String,
    pub cluster: String,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub target: Target,
    pub plan: Option<Plan>,
    /// The database of the past.
    pub database: String,
    /// `host:port` of the live database and its name, or the path of the file.
    pub into: String,
    /// `schema-and-data` or `data-only`.
    pub content: &'static str,
    pub tables: Vec<TableBack>,
    pub notes: Vec<String>,
    /// Until the recovered server could be asked, in milliseconds.
    pub recovery_ms: u64,
    /// From there until the tables were where they are.
    pub extraction_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TableBack {
    /// Quoted as in SQL.
    pub from: String,
    /// A table, or a file.
    pub into: String,
    pub rows: u64,
    /// Of the rows as COPY writes them; `None` where pg_dump wrote them.
    pub bytes: Option<u64>,
}

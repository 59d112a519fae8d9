//! What reading a segment tells besides its records.

use crate::postgres::wal::record::ResourceManager;
use crate::postgres::{Lsn, MajorVersion};

/// What the reader learned besides the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `None`: WAL of a version that this walden does not know, or no WAL.
    pub version: Option<MajorVersion>,
    /// In bytes; 0 if no WAL.
    pub segment_size: u32,
    pub records: u64,
    /// Where the first record that begins here begins, whole or not.
    pub first_record: Option<Lsn>,
    /// Where the last record that ends here ends.
    pub end: Option<Lsn>,
    /// The rest of a record that began before this segment.
    pub continued: Option<Continued>,
    pub unfinished: Option<Unfinished>,
    pub invalid: Option<Invalid>,
}

/// The rest, at the beginning of the segment, of a record that began before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continued {
    pub lsn: Lsn,
    /// Bytes that remained of it, in this segment and after.
    pub remaining: u32,
    /// All of them, if few and all here.
    pub bytes: Option<Vec<u8>>,
}

/// The record that goes on in the next segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    pub lsn: Lsn,
    /// Of the whole record.
    pub total: u32,
    /// If enough of its header is here to say.
    pub resource_manager: Option<ResourceManager>,
    /// Of it that are here.
    pub here: u32,
    /// The first of them; all, unless the record is very long.
    pub bytes: Vec<u8>,
}

/// The first thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub lsn: Lsn,
    pub what: &'static str,
    /// From there on the segment holds zeros only.
    pub only_zeros_follow: bool,
    /// The segment ends in it: only the next one could tell whether it was lost in a crash.
    pub goes_on: bool,
}

//! Ends of transactions: COMMIT and ABORT, plain and prepared (`xl_xact_commit`, `xl_xact_abort`;
//! access/xact.h, `ParseCommitRecord`).

use jiff::Timestamp;

use crate::postgres::wal::digest::{Ending, ObjectStats, RelationFile, TransactionEnd};
use crate::postgres::wal::fields::Fields;
use crate::postgres::wal::record::{Record, ResourceManager};
use crate::postgres::{Lsn, MajorVersion};

/// 2000-01-01, PostgreSQL's beginning of time, in microseconds since 1970.
const POSTGRESQL_EPOCH: i64 = 946_684_800_000_000;

const OPERATION_MASK: u8 = 0x70;
const HAS_INFO: u8 = 0x80;

const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_FILES: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_PREPARED: u32 = 1 << 4;
const HAS_DROPPED_STATS: u32 = 1 << 8;

const FILE_BYTES: usize = 12;
const INVALIDATION_BYTES: usize = 16;

/// What a record of the resource manager Transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Commit,
    Prepare,
    Abort,
    CommitPrepared,
    AbortPrepared,
    Assignment,
    Invalidations,
    Unknown,
}

impl Operation {
    #[inline]
    pub fn of(info: u8) -> Self {
        match info & OPERATION_MASK {
            0x00 => Operation::Commit,
            0x10 => Operation::Prepare,
            0x20 => Operation::Abort,
            0x30 => Operation::CommitPrepared,
            0x40 => Operation::AbortPrepared,
            0x50 => Operation::Assignment,
            0x60 => Operation::Invalidations,
            _ => Operation::Unknown,
        }
    }

    pub fn is_commit(self) -> bool {
        matches!(self, Operation::Commit | Operation::CommitPrepared)
    }

    /// What was prepared ends.
    pub fn is_prepared(self) -> bool {
        matches!(self, Operation::CommitPrepared | Operation::AbortPrepared)
    }

    pub fn is_end(self) -> bool {
        self.is_commit() || matches!(self, Operation::Abort | Operation::AbortPrepared)
    }
}

/// An end as it stands in its record.
#[derive(Debug, Clone, Copy)]
pub struct TransactionRecord<'a> {
    pub lsn: Lsn,
    pub is_commit: bool,
    /// The transaction that ends.
    pub xid: u32,
    /// Microseconds since 2000.
    pub time: i64,
    pub database: Option<u32>,
    subtransactions: &'a [u8],
    files: &'a [u8],
    stats: &'a [u8],
    stats_item_bytes: usize,
    /// The record was not kept whole, and lists above are missing.
    pub is_cut: bool,
    pub is_prepared: bool,
}

/// The end of a transaction that a record is, if it is one.
pub fn ending(record: &Record<'_>) -> Option<Ending> {
    TransactionRecord::of(record).map(|end| end.to_ending())
}

impl<'a> TransactionRecord<'a> {
    pub fn of(record: &Record<'a>) -> Option<Self> {
        if record.header.resource_manager != ResourceManager::TRANSACTION {
            return None;
        }
        let operation = Operation::of(record.header.info);
        if !operation.is_end() {
            return None;
        }
        let parts = record.parts().ok()?;
        let mut fields = Fields(parts.main);
        // 18 made object ids of statistics 64 bits wide.
        let stats_item_bytes = if record.version >= MajorVersion(18) { 16 } else { 12 };
        let mut end = TransactionRecord {
            lsn: record.lsn,
            is_commit: operation.is_commit(),
            xid: record.header.xid,
            time: fields.i64()?,
            database: None,
            subtransactions: &[],
            files: &[],
            stats: &[],
            stats_item_bytes,
            is_cut: false,
            is_prepared: operation.is_prepared(),
        };
        let details = if record.header.info & HAS_INFO == 0 {
            Some(())
        } else {
            end.read_details(&mut fields)
        };
        end.is_cut = details.is_none();
        Some(end)
    }

    /// What `xl_xact_xinfo` announces, in its order; `None` if the bytes end before it does.
    fn read_details(&mut self, fields: &mut Fields<'a>) -> Option<()> {
        let info = fields.u32()?;
        if info & HAS_DATABASE != 0 {
            self.database = Some(fields.u32()?);
            let _tablespace = fields.u32()?;
        }
        if info & HAS_SUBTRANSACTIONS != 0 {
            self.subtransactions = list(fields, 4)?;
        }
        if info & HAS_FILES != 0 {
            self.files = list(fields, FILE_BYTES)?;
        }
        if info & HAS_DROPPED_STATS != 0 {
            self.stats = list(fields, self.stats_item_bytes)?;
        }
        if info & HAS_INVALIDATIONS != 0 {
            list(fields, INVALIDATION_BYTES)?;
        }
        if info & HAS_PREPARED != 0 {
            self.xid = fields.u32()?;
        }
        Some(())
    }

    pub fn at(&self) -> TransactionEnd {
        TransactionEnd { lsn: self.lsn, xid: self.xid, time: timestamp(self.time) }
    }

    /// It removes files, or statistics of objects.
    pub fn drops(&self) -> bool {
        !self.files.is_empty() || !self.stats.is_empty()
    }

    pub fn subtransactions(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.subtransactions.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    pub fn files(&self) -> impl ExactSizeIterator<Item = RelationFile> + use<'a> {
        self.files.as_chunks::<FILE_BYTES>().0.iter().map(relation_file)
    }

    pub fn stats(&self) -> impl ExactSizeIterator<Item = ObjectStats> + use<'a> {
        self.stats.chunks_exact(self.stats_item_bytes).map(|item| {
            let mut fields = Fields(item);
            let mut next = || fields.u32().unwrap_or_default();
            let (kind, database, low, high) = (next(), next(), next(), next());
            ObjectStats { kind, database, oid: u64::from(high) << 32 | u64::from(low) }
        })
    }

    /// With its lists whole.
    pub fn to_ending(&self) -> Ending {
        Ending {
            at: self.at(),
            is_commit: self.is_commit,
            subtransactions: self.subtransactions().collect(),
            dropped: self.files().collect(),
            dropped_stats: self.stats().collect(),
            database: self.database,
            is_cut: self.is_cut,
            is_prepared: self.is_prepared,
        }
    }
}

/// A count and as many items.
fn list<'a>(fields: &mut Fields<'a>, item_bytes: usize) -> Option<&'a [u8]> {
    let count = fields.u32()? as usize;
    fields.bytes(count.checked_mul(item_bytes)?)
}

fn relation_file(bytes: &[u8; FILE_BYTES]) -> RelationFile {
    let mut fields = Fields(bytes);
    let mut next = || fields.u32().unwrap_or_default();
    RelationFile { tablespace: next(), database: next(), number: next() }
}

/// PostgreSQL's `TimestampTz`. Its "infinity" becomes the last instant that can be written.
pub fn timestamp(microseconds: i64) -> Timestamp {
    let since_1970 = microseconds.saturating_add(POSTGRESQL_EPOCH);
    Timestamp::from_microsecond(since_1970).unwrap_or(if since_1970 < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

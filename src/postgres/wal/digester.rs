//! Makes the digest of a segment that comes in pieces.

pub use crate::postgres::wal::activities::ROWS_MIN;
use crate::postgres::wal::activities::{Activities, Limits};
use crate::postgres::wal::digest::{
    self, Checkpoint, Digest, EndOfRecovery, Fragment, InvalidRecord, Lock, RelationFile,
    RestorePoint, TransactionEnd, Truncated,
};
use crate::postgres::wal::fields::Fields;
use crate::postgres::wal::reader::{Outcome, Reader};
use crate::postgres::wal::record::{Record, ResourceManager};
use crate::postgres::wal::transaction::{self, Operation, TransactionRecord};
use crate::postgres::{Lsn, MajorVersion, SegmentName};

const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const RESTORE_POINT: u8 = 0x70;
const END_OF_RECOVERY: u8 = 0x90;
const STORAGE_CREATE: u8 = 0x10;
const MAIN_FORK: u32 = 0;
const INITIAL_FORK: u32 = 3;
const STANDBY_LOCK: u8 = 0x00;
const DATABASE_DROP: u8 = 0x20;

/// The upper bit of a heap record's operation says that it initialises the page.
const HEAP_OPERATION_MASK: u8 = 0x70;
const HEAP_DELETE: u8 = 0x10;
const HEAP_TRUNCATE: u8 = 0x30;
/// `XLH_DELETE_IS_SUPER` (an insertion taken back), `XLH_DELETE_IS_PARTITION_MOVE` (an update): no
/// row was deleted.
const NO_DELETE: u8 = 0x08 | 0x10;

/// Where in a record's header its resource manager's operation stands.
const INFO_AT: usize = 16;
/// Without an image of the page or the row a delete has about 60 bytes.
const DELETE_BYTES_MAX: u32 = 256;

const RESTORE_POINTS_MAX: usize = 16;
const RELATIONS_MAX: usize = 64;
/// What is kept of a record that goes on in the next segment.
const UNFINISHED_BYTES_MAX: usize = 2 << 10;

/// Takes a segment in pieces of any length; nothing can go wrong but what the digest then says.
#[derive(Debug)]
pub struct Digester {
    reader: Reader,
    summary: Summary,
}

#[derive(Debug)]
struct Summary {
    /// Nothing is left out.
    is_whole: bool,
    commits: u64,
    aborts: u64,
    first_commit: Option<TransactionEnd>,
    last_commit: Option<TransactionEnd>,
    /// Microseconds since 2000.
    latest_time: Option<i64>,
    restore_points: Vec<RestorePoint>,
    checkpoint: Option<Checkpoint>,
    end_of_recovery: Option<EndOfRecovery>,
    activities: Activities,
    is_cut: bool,
}

impl Digester {
    pub fn new(name: SegmentName) -> Self {
        Digester { reader: Reader::new(name), summary: Summary::new(false) }
    }

    /// Leaves nothing out, however much it is; for who looks at it once.
    pub fn whole(name: SegmentName) -> Self {
        Digester { reader: Reader::keeping_all(name), summary: Summary::new(true) }
    }

    /// Of a file whose end may be what a recycled one held before: what is not valid ends the WAL
    /// and is no damage.
    pub fn of_partial(name: SegmentName) -> Self {
        Digester { reader: Reader::of_partial(name), summary: Summary::new(false) }
    }

    pub fn write(&mut self, piece: &[u8]) {
        let summary = &mut self.summary;
        self.reader.write(piece, &mut |record| summary.take(record));
    }

    /// As `write`; `visit` sees every record, too.
    pub fn write_and_show(&mut self, piece: &[u8], visit: &mut impl FnMut(&Record<'_>)) {
        let summary = &mut self.summary;
        self.reader.write(piece, &mut |record| {
            summary.take(record);
            visit(record);
        });
    }

    /// The whole segment has come. `None`: WAL of a version that this walden does not know.
    pub fn finish(self) -> Option<Digest> {
        self.finish_with_outcome().0
    }

    /// As `finish`, with what reading told besides.
    pub fn finish_with_outcome(self) -> (Option<Digest>, Outcome) {
        let outcome = self.reader.finish();
        let is_unknown = outcome.version.is_none() && outcome.invalid.is_none();
        let digest = (!is_unknown).then(|| self.summary.into_digest(outcome.clone()));
        (digest, outcome)
    }
}

impl Summary {
    fn new(is_whole: bool) -> Self {
        let limits = if is_whole { Limits::NONE } else { Limits::ORDINARY };
        Summary {
            is_whole,
            commits: 0,
            aborts: 0,
            first_commit: None,
            last_commit: None,
            latest_time: None,
            restore_points: Vec::new(),
            checkpoint: None,
            end_of_recovery: None,
            activities: Activities::new(limits),
            is_cut: false,
        }
    }

    #[inline]
    fn take(&mut self, record: &Record<'_>) {
        let operation = record.operation();
        let manager = record.header.resource_manager;
        if manager == ResourceManager::TRANSACTION {
            return self.transaction(record);
        }
        self.activities.see(record.header.xid, record.lsn);
        match manager {
            ResourceManager::HEAP => match operation & HEAP_OPERATION_MASK {
                HEAP_DELETE => self.deleted(record),
                HEAP_TRUNCATE => {
                    self.truncated(record);
                }
                _ => {}
            },
            ResourceManager::XLOG => {
                self.control(operation, record);
            }
            ResourceManager::STORAGE if operation == STORAGE_CREATE => {
                self.created(record);
            }
            ResourceManager::STANDBY if operation == STANDBY_LOCK => self.locks(record),
            ResourceManager::DATABASE if operation == DATABASE_DROP => {
                if let Some(database) = Fields(record.main()).u32() {
                    self.activities.dropped_database(record.header.xid, record.lsn, database);
                }
            }
            _ => {}
        }
    }

    fn transaction(&mut self, record: &Record<'_>) {
        if let Some(end) = TransactionRecord::of(record) {
            self.latest_time = self.latest_time.max(Some(end.time));
            if end.is_commit {
                self.commits += 1;
                let at = end.at();
                self.first_commit.get_or_insert(at);
                self.last_commit = Some(at);
            } else {
                self.aborts += 1;
            }
            self.activities.end(&end);
            return;
        }
        self.activities.see(record.header.xid, record.lsn);
        if Operation::of(record.header.info) == Operation::Assignment {
            let mut fields = Fields(record.main());
            let (Some(top), Some(_count)) = (fields.u32(), fields.u32()) else { return };
            while let Some(xid) = fields.u32() {
                self.activities.belongs(xid, top);
            }
        }
    }

    fn deleted(&mut self, record: &Record<'_>) {
        let Some(row) = deleted_row(record) else { return };
        self.activities.deleted(row.xid, record.lsn, row.file);
        if let Some(top) = row.top {
            self.activities.belongs(row.xid, top);
        }
    }

    /// `xl_heap_truncate`: database, number of relations, flags and padding, their oids.
    fn truncated(&mut self, record: &Record<'_>) -> Option<()> {
        let mut fields = Fields(record.main());
        let database = fields.u32()?;
        let count = fields.u32()? as usize;
        let _flags = fields.u32()?;
        let relations_max = if self.is_whole { usize::MAX } else { RELATIONS_MAX };
        self.is_cut |= count > relations_max;
        let oids = std::iter::from_fn(|| fields.u32());
        let relations = oids.take(count.min(relations_max)).collect();
        let truncated = Truncated { lsn: record.lsn, database, relations };
        self.activities.truncated(record.header.xid, truncated);
        Some(())
    }

    /// `xl_smgr_create`: the file, and which fork of it.
    fn created(&mut self, record: &Record<'_>) -> Option<()> {
        let mut fields = Fields(record.main());
        let (tablespace, database, number) = (fields.u32()?, fields.u32()?, fields.u32()?);
        // Of unlogged relations only the initial fork is logged.
        if matches!(fields.u32()?, MAIN_FORK | INITIAL_FORK) {
            let file = RelationFile { tablespace, database, number };
            self.activities.created(record.header.xid, record.lsn, file);
        }
        Some(())
    }

    /// `xl_standby_locks`: how many, and of each who holds it on what.
    fn locks(&mut self, record: &Record<'_>) {
        let mut fields = Fields(record.main());
        let Some(_count) = fields.u32() else { return };
        while let (Some(xid), Some(database), Some(relation)) =
            (fields.u32(), fields.u32(), fields.u32())
        {
            self.activities.lock(xid, Lock { lsn: record.lsn, database, relation });
        }
    }

    fn control(&mut self, operation: u8, record: &Record<'_>) -> Option<()> {
        let mut fields = Fields(record.main());
        match operation {
            CHECKPOINT_SHUTDOWN | CHECKPOINT_ONLINE => {
                let is_shutdown = operation == CHECKPOINT_SHUTDOWN;
                let checkpoint = checkpoint(record.lsn, is_shutdown, &mut fields)?;
                self.checkpoint = Some(checkpoint);
                if checkpoint.timeline != checkpoint.previous_timeline {
                    self.end_of_recovery = Some(EndOfRecovery {
                        lsn: record.lsn,
                        time: checkpoint.time,
                        timeline: checkpoint.timeline,
                        previous_timeline: checkpoint.previous_timeline,
                    });
                }
            }
            RESTORE_POINT => {
                let time = transaction::timestamp(fields.i64()?);
                let name = String::from_utf8_lossy(fields.c_string()?).into_owned();
                if self.is_whole || self.restore_points.len() < RESTORE_POINTS_MAX {
                    self.restore_points.push(RestorePoint { lsn: record.lsn, name, time });
                } else {
                    self.is_cut = true;
                }
            }
            END_OF_RECOVERY => {
                let time = transaction::timestamp(fields.i64()?);
                let (timeline, previous_timeline) = (fields.u32()?, fields.u32()?);
                self.end_of_recovery =
                    Some(EndOfRecovery { lsn: record.lsn, time, timeline, previous_timeline });
            }
            _ => {}
        }
        Some(())
    }

    fn into_digest(self, outcome: Outcome) -> Digest {
        let sifted = self.activities.finish();
        let version = outcome.version.unwrap_or(MajorVersion::NEWEST);
        let fragment = |lsn: Lsn, total: u32, bytes: &[u8]| Fragment {
            lsn,
            version,
            total,
            bytes: digest::to_hexadecimal(bytes),
        };
        let may_end = outcome.unfinished.filter(|record| match record.resource_manager {
            None | Some(ResourceManager::TRANSACTION) => true,
            // Else of a mass delete each segment would lose a row.
            Some(ResourceManager::HEAP) => {
                let info = record.bytes.get(INFO_AT).copied().unwrap_or_default();
                info & HEAP_OPERATION_MASK == HEAP_DELETE && record.total <= DELETE_BYTES_MAX
            }
            Some(_) => false,
        });
        let unfinished_bytes_max = if self.is_whole { usize::MAX } else { UNFINISHED_BYTES_MAX };
        Digest {
            version: digest::VERSION,
            segment_size: outcome.segment_size,
            records: outcome.records,
            commits: self.commits,
            aborts: self.aborts,
            first_record: outcome.first_record,
            end: outcome.end,
            first_commit: self.first_commit,
            last_commit: self.last_commit,
            latest_time: self.latest_time.map(transaction::timestamp),
            restore_points: self.restore_points,
            checkpoint: self.checkpoint,
            end_of_recovery: self.end_of_recovery,
            activities: sifted.activities,
            endings: sifted.endings,
            unfinished: may_end.map(|it| {
                let kept = it.bytes.len().min(unfinished_bytes_max);
                fragment(it.lsn, it.total, &it.bytes[..kept])
            }),
            continued: outcome.continued.and_then(|it| {
                let bytes = it.bytes.filter(|bytes| bytes.len() == it.remaining as usize)?;
                Some(fragment(it.lsn, it.remaining, &bytes))
            }),
            invalid: outcome.invalid.map(|it| InvalidRecord {
                lsn: it.lsn,
                what: it.what.to_owned(),
                only_zeros_follow: it.only_zeros_follow,
                goes_on: it.goes_on,
                is_end_of_timeline: false,
            }),
            is_cut: self.is_cut || sifted.is_cut,
        }
    }
}

/// The row that a record deletes, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedRow {
    pub xid: u32,
    /// The transaction `xid` is a subtransaction of, if the record says so.
    pub top: Option<u32>,
    pub file: RelationFile,
}

/// `xl_heap_delete`: xid, offset (2 bytes), infomask, flags.
pub fn deleted_row(record: &Record<'_>) -> Option<DeletedRow> {
    let is_delete = record.header.resource_manager == ResourceManager::HEAP
        && record.operation() & HEAP_OPERATION_MASK == HEAP_DELETE;
    let parts = record.parts().ok().filter(|_| is_delete)?;
    let flags = parts.main.get(7).copied().unwrap_or_default();
    let file = parts.first_file.filter(|_| flags & NO_DELETE == 0)?;
    Some(DeletedRow { xid: record.header.xid, top: parts.top_xid, file })
}

/// `CheckPoint` (catalog/pg_control.h).
fn checkpoint(lsn: Lsn, is_shutdown: bool, fields: &mut Fields<'_>) -> Option<Checkpoint> {
    let redo = Lsn(fields.u64()?);
    let (timeline, previous_timeline) = (fields.u32()?, fields.u32()?);
    let _full_page_writes_and_wal_level = fields.u64()?;
    let next_xid = fields.u64()?;
    // Next and oldest ids of objects and multixacts.
    fields.bytes(32)?;
    let time = jiff::Timestamp::from_second(fields.i64()?).ok()?;
    Some(Checkpoint { lsn, redo, time, is_shutdown, next_xid, timeline, previous_timeline })
}

#[cfg(test)]
mod tests;

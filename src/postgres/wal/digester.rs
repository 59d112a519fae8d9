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

const RESTORE_POINTS_MAX: usize = 32;
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

    /// The whole segment has come. `None`: WAL of a version that this walden does not know.
    pub fn finish(self) -> Option<Digest> {
        let outcome = self.reader.finish();
        let is_unknown = outcome.version.is_none() && outcome.invalid.is_none();
        if is_unknown { None } else { Some(self.summary.into_digest(outcome)) }
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

    /// `xl_heap_delete`: xid, offset (2 bytes), infomask, flags.
    fn deleted(&mut self, record: &Record<'_>) {
        let Ok(parts) = record.parts() else { return };
        let flags = parts.main.get(7).copied().unwrap_or_default();
        if let (Some(file), true) = (parts.first_file, flags & NO_DELETE == 0) {
            self.activities.deleted(record.header.xid, record.lsn, file);
            if let Some(top) = parts.top_xid {
                self.activities.belongs(record.header.xid, top);
            }
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
        let may_end = outcome.unfinished.filter(|record| {
            record.resource_manager.is_none_or(|it| it == ResourceManager::TRANSACTION)
        });
        let too_long = !self.is_whole
            && may_end.as_ref().is_some_and(|record| record.here as usize > UNFINISHED_BYTES_MAX);
        let unfinished = may_end.filter(|_| !too_long);
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
            unfinished: unfinished.map(|it| fragment(it.lsn, it.total, &it.bytes)),
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
            is_cut: self.is_cut || sifted.is_cut || too_long,
        }
    }
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
mod tests {
    use super::Digester;
    use crate::postgres::SegmentName;
    use crate::postgres::wal::digest::{Digest, joint};
    use crate::postgres::wal::samples::{self, Draft, Pen, SEGMENT, commit, delete, insert};

    const COMMIT: u8 = 0x00;
    const ABORT: u8 = 0x20;
    const COMMIT_PREPARED: u8 = 0x30;

    fn digest_of((name, bytes): &(SegmentName, Vec<u8>)) -> Digest {
        let mut digester = Digester::new(*name);
        bytes.chunks(77_777).for_each(|piece| digester.write(piece));
        let digest = digester.finish().unwrap();
        let json = serde_json::to_string(&digest).unwrap();
        assert!(json.len() < 64 << 10, "{} bytes", json.len());
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        digest
    }

    fn digest(pen: &mut Pen) -> Digest {
        pen.switch();
        let digest = digest_of(&pen.segments()[0]);
        assert_eq!(digest.invalid, None);
        digest
    }

    /// Transactions of others, so that none of those that follow is among the first.
    fn crowd(pen: &mut Pen) {
        for xid in 500..600 {
            pen.record(&insert(xid));
            pen.record(&commit(xid, i64::from(xid)));
        }
    }

    #[test]
    fn what_is_common_leaves_no_trace_but_counts_and_times() {
        let mut pen = Pen::new(17);
        crowd(&mut pen);
        for xid in 600..700 {
            pen.record(&insert(xid));
            pen.record(&delete(xid, 20_000, 0));
            let ends = if xid % 2 == 0 { COMMIT } else { ABORT };
            pen.record(&samples::end(xid, ends, 1_000_000 - i64::from(xid), &[], &[]));
        }
        let digest = digest(&mut pen);
        assert_eq!((digest.records, digest.commits, digest.aborts), (501, 150, 50));
        assert_eq!(digest.first_commit.unwrap().xid, 500);
        assert_eq!(digest.last_commit.unwrap().xid, 698);
        assert_eq!(digest.latest_time.unwrap().to_string(), "2000-01-01T00:00:00.9994Z");
        assert!(digest.activities.is_empty());
        // The first may have begun before.
        assert_eq!(
            digest.endings.iter().map(|it| it.at.xid).collect::<Vec<_>>(),
            [500, 501, 502, 503]
        );
    }

    #[test]
    fn what_one_may_look_for_is_told_with_its_end() {
        let mut pen = Pen::new(18);
        crowd(&mut pen);
        pen.record(&samples::lock(700, 16_500));
        pen.record(&samples::create(700, 16_501));
        pen.record(&delete(701, 1259, 0));
        for _ in 0..100 {
            pen.record(&delete(702, 20_000, 0));
            // Insertions taken back, and rows that moved to another partition.
            pen.record(&delete(703, 20_001, 0x08));
            pen.record(&delete(703, 20_002, 0x10));
        }
        pen.record(&delete(700, 20_003, 0));
        let ended = pen.record(&samples::end(700, COMMIT, 5, &[701], &[16_500]));
        pen.record(&commit(702, 6));
        pen.record(&commit(703, 7));
        pen.record(&samples::restore_point("before the change", 8));
        let digest = digest(&mut pen);
        let told: Vec<u32> = digest.activities.iter().map(|it| it.xid).collect();
        assert_eq!(told, [700, 701, 702]);
        let [first, second, third] = &digest.activities[..] else { panic!("three") };
        assert_eq!((first.locks.len(), first.created.len()), (1, 1));
        assert!(first.deleted.is_empty(), "one row is not many");
        assert_eq!((second.top, second.deleted[0].file.number), (Some(700), 1259));
        assert_eq!(third.deleted[0].rows, 100);
        let ending = digest.endings.iter().find(|it| it.at.lsn == ended).unwrap();
        assert_eq!((ending.subtransactions.clone(), ending.dropped[0].number), (vec![701], 16_500));
        assert!(digest.endings.iter().any(|it| it.at.xid == 702));
        assert!(!digest.endings.iter().any(|it| it.at.xid == 703));
        assert_eq!(digest.restore_points[0].name, "before the change");
        assert!(!digest.is_cut);
    }

    #[test]
    fn what_was_rolled_back_is_not_told() {
        let mut pen = Pen::new(15);
        crowd(&mut pen);
        pen.record(&samples::create(700, 16_501));
        pen.record(&samples::create(701, 16_502));
        pen.record(&samples::end(701, ABORT, 5, &[], &[16_502]));
        pen.record(&samples::end(700, COMMIT, 5, &[], &[]));
        pen.record(&samples::create(702, 16_503));
        pen.record(&samples::end(702, ABORT, 5, &[], &[16_503]));
        let digest = digest(&mut pen);
        assert_eq!(digest.activities.iter().map(|it| it.xid).collect::<Vec<_>>(), [700]);
        assert!(!digest.endings.iter().any(|it| [701, 702].contains(&it.at.xid)));
    }

    #[test]
    fn digests_of_segments_add_up_to_the_row() {
        let mut pen = Pen::new(16);
        crowd(&mut pen);
        // Others come and go, far above it.
        for row in 0..20_000 {
            pen.record(&delete(700, 20_000, 0));
            pen.record(&insert(800 + row / 5));
            if row % 5 == 4 {
                pen.record(&commit(800 + row / 5, 1));
            }
        }
        pen.record(&commit(700, 9));
        pen.switch();
        let digests: Vec<Digest> = pen.segments().iter().map(digest_of).collect();
        assert!(digests.len() > 2);
        let mut rows = 0;
        for digest in &digests {
            assert_eq!(digest.invalid, None);
            let activities = digest.activities.iter().filter(|it| it.xid == 700);
            rows += activities.flat_map(|it| &it.deleted).map(|it| it.rows).sum::<u64>();
        }
        // A record of two segments is whole in neither, and is not counted.
        assert!((20_000 - digests.len() as u64..=20_000).contains(&rows), "{rows}");
        let last = digests.last().unwrap();
        assert!(last.endings.iter().any(|it| it.at.xid == 700 && it.is_commit));
    }

    #[test]
    fn the_end_of_what_began_before_is_told() {
        let mut pen = Pen::new(17);
        crowd(&mut pen);
        // It was at work before: its id is far below the others'.
        pen.record(&insert(100));
        pen.record(&commit(100, 1));
        pen.record(&commit(101, 2));
        pen.record(&samples::end(0, COMMIT_PREPARED, 3, &[], &[]));
        let digest = digest(&mut pen);
        let xids: Vec<u32> = digest.endings.iter().map(|it| it.at.xid).collect();
        assert!(xids.contains(&100) && xids.contains(&101), "{xids:?}");
    }

    #[test]
    fn a_commit_of_two_segments_is_put_together() {
        // The commit is of 166 bytes.
        for missing in (8..166).step_by(8) {
            let mut pen = Pen::new(18);
            while pen.lsn().0 + 9000 < 6 * SEGMENT {
                pen.record(&insert(9));
            }
            let room = 6 * SEGMENT - pen.lsn().0 - missing;
            // Beside its headers there is one of a page.
            let body = samples::main_data(&vec![1; room as usize - 24 - 5 - 24]);
            pen.record(&Draft { xid: 9, resource_manager: 21, info: 0, body });
            let files = [1, 2, 3, 4, 5, 6, 7, 8];
            let lsn = pen.record(&samples::end(77, COMMIT, 123, &[78, 79, 80, 81], &files));
            assert_eq!(lsn.0 + missing, 6 * SEGMENT);
            pen.switch();
            let digests: Vec<Digest> = pen.segments().iter().map(digest_of).collect();
            let ending = joint(&digests[0].unfinished, &digests[1].continued).unwrap();
            assert_eq!((ending.at.lsn, ending.at.xid, ending.dropped.len()), (lsn, 77, 8));
            let mut other = digests[1].continued.clone().unwrap();
            let flipped = if other.bytes.starts_with('0') { "1" } else { "0" };
            other.bytes.replace_range(..1, flipped);
            assert_eq!(joint(&digests[0].unfinished, &Some(other)), None);
        }
    }

    #[test]
    fn a_digest_is_bounded_and_says_when_it_is_not_whole() {
        let mut pen = Pen::new(17);
        let many: Vec<u32> = (20_000..20_300).collect();
        let mut xid = 1000;
        while pen.lsn().0 < 6 * SEGMENT - 40_000 {
            xid += 1;
            pen.record(&samples::lock(xid, 16_500));
            pen.record(&samples::restore_point(&"\u{1}".repeat(63), 8));
            (0..80).for_each(|file| _ = pen.record(&samples::create(xid, file)));
            pen.record(&samples::end(xid, COMMIT, 5, &many, &many));
        }
        let digest = digest(&mut pen);
        assert!(digest.is_cut);
        assert!(digest.activities.iter().all(|it| it.is_cut));
        assert!(digest.endings.iter().all(|it| it.is_cut));
        assert!(!digest.activities.is_empty() && !digest.endings.is_empty());
    }

    #[test]
    fn of_an_unknown_version_there_is_no_digest() {
        let mut pen = Pen::new(17);
        pen.switch();
        let (name, mut bytes) = pen.segments().remove(0);
        bytes[0] = 0x20;
        let mut digester = Digester::new(name);
        digester.write(&bytes);
        assert_eq!(digester.finish(), None);
    }
}

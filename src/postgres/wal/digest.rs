//! The digest of a segment: what push learned of it in passing, kept in its object's header.
//!
//! Everything later questions need is here, so that they are answered from headers and not from
//! WAL. It is bounded: what does not fit is counted as cut, and who needs it reads the segment.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::postgres::wal::record::{Checksum, HEADER_BYTES, Record, RecordHeader};
use crate::postgres::wal::transaction;
use crate::postgres::{Lsn, MajorVersion};

/// Of the shape below.
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Version of this shape.
    pub version: u32,
    /// In bytes.
    pub segment_size: u32,
    /// Records that begin and end in this segment.
    pub records: u64,
    /// COMMIT and COMMIT PREPARED among them.
    pub commits: u64,
    /// ABORT and ROLLBACK PREPARED.
    pub aborts: u64,
    /// Where the first record that begins here begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_record: Option<Lsn>,
    /// Where the last whole record ends, exclusive: what follows is unfinished or unused. After a
    /// segment switch it is the end of the segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Lsn>,
    /// In the order of the WAL, commits only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_commit: Option<TransactionEnd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<TransactionEnd>,
    /// The latest time of any commit or abort here: recovery to an earlier time ends here or
    /// before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore_points: Vec<RestorePoint>,
    /// The last one here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// The server came up from recovery here, on a timeline of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_of_recovery: Option<EndOfRecovery>,
    /// What transactions did here that one may want to find, by transaction or subtransaction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub activities: Vec<Activity>,
    /// Ends of transactions that dropped something, that have activities, or of which nothing else
    /// was seen in this segment, in the order of the WAL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endings: Vec<Ending>,
    /// The record that begins here and ends in the next segment, if it may end a transaction or
    /// deletes a row: the first 2 KiB of what is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Fragment>,
    /// The rest, at the beginning of this segment, of a record that began before it, if not above
    /// 2 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continued: Option<Fragment>,
    /// The first record that is not valid; nothing after it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<InvalidRecord>,
    /// Lists above are not whole: they would have been too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// A commit or an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionEnd {
    /// Where its record begins: what recovery_target_lsn compares.
    pub lsn: Lsn,
    /// The transaction's own id; of COMMIT PREPARED that of the prepared transaction.
    pub xid: u32,
    /// As pg_xact_commit_timestamp, to the microsecond.
    pub time: Timestamp,
}

/// One that a search may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    #[serde(flatten)]
    pub at: TransactionEnd,
    pub is_commit: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtransactions: Vec<u32>,
    /// Files removed at the end of the transaction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<RelationFile>,
    /// Objects whose statistics were removed: what was dropped for good, by oid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped_stats: Vec<ObjectStats>,
    /// The database it was connected to, if its record says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<u32>,
    /// Lists above are not whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    /// By COMMIT PREPARED or ROLLBACK PREPARED.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_prepared: bool,
}

/// `xl_xact_stats_item`: kind 1 is a database, 2 a relation, 3 a function (utils/pgstat_kind).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStats {
    pub kind: u32,
    pub database: u32,
    pub oid: u64,
}

/// What one transaction or subtransaction did in this segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    pub xid: u32,
    /// The transaction it is a subtransaction of, if a record said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<u32>,
    /// Where its first record here begins.
    pub first_lsn: Lsn,
    /// Its AccessExclusiveLocks, in order, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<Lock>,
    /// Files created (`XLOG_SMGR_CREATE`, main forks).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub created: Vec<RelationFile>,
    /// Rows deleted, by relation, where many; catalogs among them always (`pg_class` is 1259).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<Deleted>,
    /// `XLOG_HEAP_TRUNCATE`: only with wal_level = logical.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Truncated>,
    /// `XLOG_DBASE_DROP`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped_databases: Vec<u32>,
    /// Lists above are not whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub lsn: Lsn,
    pub database: u32,
    /// The relation's oid.
    pub relation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    pub file: RelationFile,
    pub rows: u64,
    /// The first of them here.
    pub lsn: Lsn,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncated {
    pub lsn: Lsn,
    pub database: u32,
    /// By oid.
    pub relations: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Where its record begins.
    pub lsn: Lsn,
    pub name: String,
    pub time: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub lsn: Lsn,
    /// Where replay from it begins.
    pub redo: Lsn,
    /// To the second.
    pub time: Timestamp,
    pub is_shutdown: bool,
    /// The next transaction id to be given, with its epoch in the upper 32 bits.
    pub next_xid: u64,
    /// `wal_level` and the other settings are of no use here; the timelines are.
    pub timeline: u32,
    pub previous_timeline: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOfRecovery {
    pub lsn: Lsn,
    pub time: Timestamp,
    pub timeline: u32,
    pub previous_timeline: u32,
}

/// A part of a record that spans two segments, without page headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// Where the whole record begins; of a continuation, where the segment does.
    pub lsn: Lsn,
    /// Of the server that wrote it: how to read it.
    pub version: MajorVersion,
    /// Bytes of the whole record; of a continuation, bytes that remain of it.
    pub total: u32,
    /// Hexadecimal.
    pub bytes: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidRecord {
    pub lsn: Lsn,
    /// What is wrong with it, for people.
    pub what: String,
    /// Nothing but zeros follows. Such a file is no damage where a standby archives the segment in
    /// which the timeline it followed has ended (`archive_mode` = always).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_zeros_follow: bool,
    /// The segment ends in it. Not stored: for who has the next segment at hand.
    #[serde(skip)]
    pub goes_on: bool,
    /// No damage: a history file beside it said that the timeline ended here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_end_of_timeline: bool,
}

/// The end of a transaction whose record begins in one segment and ends in the next; `None` if
/// there is none, if the two do not belong together, or if the record is too long to be kept.
pub fn joint(unfinished: &Option<Fragment>, continued: &Option<Fragment>) -> Option<Ending> {
    join(unfinished.as_ref()?, continued.as_ref()?, transaction::ending)?
}

/// What `take` makes of the record that two fragments are; `None` if they do not belong together,
/// or not all of it is there.
pub fn join<T>(
    first: &Fragment,
    rest: &Fragment,
    take: impl FnOnce(&Record<'_>) -> T,
) -> Option<T> {
    let mut bytes = from_hexadecimal(&first.bytes)?;
    bytes.extend(from_hexadecimal(&rest.bytes)?);
    if bytes.len() != first.total as usize || first.version != rest.version {
        return None;
    }
    let head = bytes.first_chunk::<HEADER_BYTES>()?;
    let header = RecordHeader::parse(head);
    let mut checksum = Checksum::default();
    checksum.data(&bytes[HEADER_BYTES..]);
    if header.total != first.total || checksum.finish(head) != header.checksum {
        return None;
    }
    let (version, lsn) = (first.version, first.lsn);
    let end = Lsn(rest.lsn.0 + u64::from(rest.total));
    Some(take(&Record { version, lsn, end, header, bytes: &bytes }))
}

pub fn to_hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|half| char::from(DIGITS[usize::from(half)]));
    bytes.iter().flat_map(digits).collect()
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if odd.is_empty() { bytes.collect() } else { None }
}

/// `RelFileLocator`: which file of which database in which tablespace, written `1663/16384/16390`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    pub tablespace: u32,
    /// 0 for relations shared by all databases.
    pub database: u32,
    /// The relfilenode: at first the relation's oid, another one after each rewrite.
    pub number: u32,
}

impl fmt::Display for RelationFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

impl FromStr for RelationFile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('/').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(tablespace)), Some(Ok(database)), Some(Ok(number)), None) => {
                Ok(RelationFile { tablespace, database, number })
            }
            _ => Err(Error::new(ErrorKind::Usage, format!("{text:?} is not a relation's file"))
                .hint("Write tablespace/database/relfilenode, such as 1663/16384/16390.")),
        }
    }
}

impl Serialize for RelationFile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RelationFile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(<D::Error as serde::de::Error>::custom)
    }
}

//! The WAL that a repository holds of a cluster, segment by segment, as far as decisions need it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::postgres::wal::digest::{RestorePoint, TransactionEnd};
use crate::postgres::{Lsn, SegmentName};

/// What the store lists, in the order of the names: timeline by timeline.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// In bytes; of one system identifier all segments are of one size.
    pub segment_size: u32,
    pub segments: BTreeMap<SegmentName, Segment>,
    /// In the order of the names of the segments they are in.
    pub restore_points: Vec<(SegmentName, RestorePoint)>,
}

/// Small, since there are hundreds of thousands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segment {
    /// When the store took it, to the second.
    pub stored: Timestamp,
    /// `None`: its header has no digest (WAL of an unknown version, or an older walden).
    pub wal: Option<SegmentWal>,
}

/// Distilled from the digest, and for a record across two segments from both, which counts where
/// it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentWal {
    /// Where the last whole record ends, exclusive.
    pub end: Option<Lsn>,
    pub commits: u32,
    pub first_commit: Option<TransactionEnd>,
    pub last_commit: Option<TransactionEnd>,
    /// Of any commit or abort.
    pub latest_time: Option<Timestamp>,
    /// A record in it is not valid: recovery ends before it.
    pub invalid: Option<Lsn>,
}

//! Inventories written by hand for tests.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::catalog::Inventory;
use crate::catalog::inventory::{Segment, SegmentWal};
use crate::postgres::wal::digest::TransactionEnd;
use crate::postgres::{Lsn, SegmentName, TimelineId};

pub const SIZE: u32 = 16 << 20;

/// `10:00:05` of one day.
pub fn at(time: &str) -> Timestamp {
    format!("2026-11-21T{time}Z").parse().unwrap()
}

/// The `number`th segment of a timeline, from LSN 0 on.
pub fn name(timeline: u32, number: u64) -> SegmentName {
    let timeline = TimelineId::new(timeline).unwrap();
    SegmentName::containing(timeline, Lsn(number * u64::from(SIZE)), SIZE)
}

/// A segment without a digest.
pub fn plain(stored: &str) -> Segment {
    Segment { stored: at(stored), size: 1000, ..Segment::default() }
}

/// One that is full of records and has a commit at each of these times, 0x100 bytes apart.
pub fn with_commits(number: u64, times: &[&str]) -> Segment {
    let start = number * u64::from(SIZE);
    let commit = |(place, time): (usize, &&str)| TransactionEnd {
        lsn: Lsn(start + 0x100 * (place as u64 + 1)),
        xid: (number * 100) as u32 + place as u32,
        time: at(time),
    };
    let commits: Vec<TransactionEnd> = times.iter().enumerate().map(commit).collect();
    let wal = SegmentWal {
        end: Some(Lsn(start + u64::from(SIZE))),
        commits: commits.len() as u32,
        first_commit: commits.first().copied(),
        last_commit: commits.last().copied(),
        latest_time: commits.iter().map(|commit| commit.time).max(),
        ..SegmentWal::default()
    };
    Segment { wal: Some(wal), ..plain("20:00:00") }
}

pub fn inventory(segments: impl IntoIterator<Item = (SegmentName, Segment)>) -> Inventory {
    let segments: BTreeMap<SegmentName, Segment> = segments.into_iter().collect();
    Inventory { segment_size: SIZE, segments, restore_points: Vec::new() }
}

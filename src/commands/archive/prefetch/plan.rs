//! What PostgreSQL will ask for next.

use std::path::Path;

use crate::catalog::{TimelinePath, TimelineTree};
use crate::commands::archive::spool::Wanted;
use crate::postgres::history_file::HistoryFile;
use crate::postgres::{Lsn, SegmentName, WalFileName};

/// Which files may hold the WAL that PostgreSQL will ask for.
#[derive(Debug)]
pub struct Plan {
    pub wanted: Wanted,
    segment_size: u32,
    /// `None`: only the timeline that was asked for.
    path: Option<TimelinePath>,
}

impl Plan {
    pub fn new(wanted: Wanted, segment_size: u32, histories: &[HistoryFile]) -> Self {
        let path = newest_path(wanted.segment, histories);
        Plan { wanted, segment_size, path }
    }

    /// Segments count alike on all timelines.
    pub fn number(&self, name: &SegmentName) -> u64 {
        number(name, self.segment_size)
    }

    pub fn wanted_number(&self) -> u64 {
        self.number(&self.wanted.segment)
    }

    /// In the order PostgreSQL asks (`XLogFileReadAnyTLI`, xlogrecovery.c): the newest timeline
    /// that had begun by then, then those it descends from.
    pub fn candidates(&self, number: u64) -> Vec<SegmentName> {
        let size = u64::from(self.segment_size);
        let start = Lsn(number * size);
        let named = |timeline| SegmentName::containing(timeline, start, self.segment_size);
        match &self.path {
            None => vec![named(self.wanted.segment.timeline)],
            Some(path) => {
                let steps = path.steps().iter().rev();
                let begun = steps.filter(|step| step.begin.0 / size <= number);
                begun.map(|step| named(step.timeline)).collect()
            }
        }
    }

    /// Whether PostgreSQL may still ask for it, with a window of so many segments ahead.
    pub fn has_use_for(&self, name: &SegmentName, window: u64) -> bool {
        let (number, wanted) = (self.number(name), self.wanted_number());
        let first = if self.wanted.is_served { wanted + 1 } else { wanted };
        (first..=wanted + window).contains(&number) && self.candidates(number).contains(name)
    }
}

/// To the newest timeline that descends from the one asked for: that is where PostgreSQL goes.
fn newest_path(wanted: SegmentName, histories: &[HistoryFile]) -> Option<TimelinePath> {
    let tree = TimelineTree::new(histories.iter().cloned());
    let paths = tree.branches().rev().filter_map(|timeline| tree.path(timeline).ok());
    let descends =
        |path: &TimelinePath| path.steps().iter().any(|step| step.timeline == wanted.timeline);
    paths.into_iter().find(descends)
}

fn number(name: &SegmentName, segment_size: u32) -> u64 {
    name.start(segment_size).0 / u64::from(segment_size)
}

/// The history files that PostgreSQL has restored, or has written itself.
pub fn histories(pg_wal: &Path) -> Vec<HistoryFile> {
    let entries = std::fs::read_dir(pg_wal).into_iter().flatten().flatten();
    let read = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_str().filter(|name| name.ends_with(".history"))?;
        let Ok(WalFileName::History(timeline)) = WalFileName::parse(name) else { return None };
        let text = std::fs::read_to_string(entry.path()).ok()?;
        HistoryFile::parse(timeline, &text).ok()
    };
    entries.filter_map(read).collect()
}

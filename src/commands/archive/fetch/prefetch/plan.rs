//! What PostgreSQL will ask for next.

use std::path::Path;

use crate::catalog::{TimelinePath, TimelineTree};
use crate::commands::archive::fetch::spool::Wanted;
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

#[cfg(test)]
pub mod samples {
    use super::Plan;
    use crate::commands::archive::fetch::spool::Wanted;
    use crate::postgres::history_file::HistoryFile;
    use crate::postgres::{SegmentName, TimelineId};

    pub const MIB: u32 = 1 << 20;

    pub fn name(timeline: u32, number: u32) -> SegmentName {
        SegmentName::parse(&format!("{timeline:08X}00000000{number:08X}")).unwrap()
    }

    pub fn wanted(timeline: u32, number: u32, is_served: bool) -> Wanted {
        Wanted { segment: name(timeline, number), is_served }
    }

    /// With segments of 1 MiB.
    pub fn plan(wanted: Wanted, histories: &[(u32, &str)]) -> Plan {
        let histories: Vec<_> = histories
            .iter()
            .map(|(id, text)| HistoryFile::parse(TimelineId::new(*id).unwrap(), text).unwrap())
            .collect();
        Plan::new(wanted, MIB, &histories)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::samples::{name, plan, wanted};

    #[test]
    fn without_a_history_it_is_the_timeline_that_was_asked_for() {
        let plan = plan(wanted(1, 7, false), &[]);
        assert_eq!(plan.candidates(8), [name(1, 8)]);
        assert_eq!(plan.candidates(4096), [super::SegmentName { log: 1, ..name(1, 0) }]);
    }

    #[test]
    fn the_newest_timeline_begun_by_then_comes_first() {
        // 2 branched off within segment 5, 4 within 9; 3 is no child of 2.
        let histories = [(2, "1 0/500100"), (3, "1 0/300000"), (4, "1 0/500100\n2 0/900000")];
        let followed = plan(wanted(2, 3, false), &histories);
        assert_eq!(followed.candidates(4), [name(1, 4)]);
        assert_eq!(followed.candidates(5), [name(2, 5), name(1, 5)]);
        assert_eq!(followed.candidates(9), [name(4, 9), name(2, 9), name(1, 9)]);
        let sibling = plan(wanted(3, 3, false), &histories);
        assert_eq!(sibling.candidates(9), [name(3, 9), name(1, 9)]);
        let unknown = plan(wanted(7, 3, false), &histories);
        assert_eq!(unknown.candidates(9), [name(7, 9)]);
    }

    #[test]
    fn what_is_behind_too_far_ahead_or_of_another_branch_is_of_no_use() {
        let histories = [(2, "1 0/500100"), (3, "1 0/300000")];
        let plan = |is_served| plan(wanted(2, 6, is_served), &histories);
        let has_use = |timeline, number| plan(false).has_use_for(&name(timeline, number), 3);
        assert!(has_use(2, 6) && has_use(2, 9) && has_use(1, 7));
        assert!(!has_use(2, 5) && !has_use(2, 10) && !has_use(3, 7));
        assert!(!plan(true).has_use_for(&name(2, 6), 3), "served already");
    }

    #[test]
    fn histories_that_cannot_be_read_do_not_count() {
        let pg_wal = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("00000002.history", "1 0/500100"),
            ("00000003.history", "nonsense"),
            ("00000004.history.tmp", "1 0/500100"),
            ("RECOVERYHISTORY", "1 0/500100"),
        ] {
            fs::write(pg_wal.path().join(file), text).unwrap();
        }
        let found = super::histories(pg_wal.path());
        assert_eq!(found.iter().map(|file| file.timeline.get()).collect::<Vec<_>>(), [2]);
    }
}

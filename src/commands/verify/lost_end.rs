//! WAL at the end of a timeline that an earlier verification saw, and that is gone: no gap tells.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::catalog::Inventory;
use crate::commands::verify::problem::{Cost, Notebook, Problem};
use crate::postgres::{SegmentName, TimelineId, WalFileName};
use crate::repository::Home;
use crate::repository::verification::Verification;

/// Of timelines that have any WAL left: what expires goes from the other end.
pub fn look(
    home: &Home,
    inventory: &Inventory,
    history: &[(Timestamp, Verification)],
    book: &mut Notebook,
) {
    let mut seen: BTreeMap<TimelineId, (SegmentName, Timestamp)> = BTreeMap::new();
    for (ended, verification) in history {
        for run in &verification.wal {
            let known = seen.entry(run.last.timeline).or_insert((run.last, *ended));
            if run.last >= known.0 {
                *known = (run.last, *ended);
            }
        }
    }
    for (timeline, (last, when)) in seen {
        let first = SegmentName { timeline, log: 0, segment: 0 };
        let end = SegmentName { log: u32::MAX, segment: u32::MAX, ..first };
        let left = inventory.segments.range(first..=end);
        let Some((there, _)) = left.clone().next_back().filter(|(there, _)| **there < last) else {
            continue;
        };
        let missing = there.next(inventory.segment_size.max(1));
        let commit = left.rev().find_map(|(_, segment)| segment.wal?.last_commit);
        let what = format!(
            "it is missing, and all up to {last}, which was here on {}",
            when.strftime("%Y-%m-%d %H:%M:%S UTC")
        );
        let cost = match commit {
            Some(commit) => format!(
                "recovery to timeline {timeline} ends at {}: what was committed after it is lost",
                commit.time.strftime("%Y-%m-%d %H:%M:%S UTC")
            ),
            None => format!("recovery to timeline {timeline} ends before it"),
        };
        let key = home.wal_key(&WalFileName::Segment(missing));
        let problem = Problem::damage(key, what, Cost::Said(cost));
        book.problems.push(problem.advise(
            "Bring the segments back from a copy of the repository, or push them again if a server \
             still has them in pg_wal; and take a backup now: walden backup.",
        ));
    }
}

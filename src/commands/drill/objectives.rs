//! Measured beside what was promised: the time a recovery takes, and what a lost server would have
//! taken along.

use std::time::Duration;

use jiff::Timestamp;

use crate::catalog::timeline_tree::Step;
use crate::catalog::{Decision, Inventory};
use crate::commands::drill::record::elapsed_ms;
use crate::config::ObjectiveSettings;
use crate::postgres::{Lsn, SegmentName};
use crate::repository::drill_record::{Check, DrillRecord, Timings, Verdict};

/// Writes both into the record; one that is configured is a check.
pub fn judge(
    record: &mut DrillRecord,
    settings: ObjectiveSettings,
    decision: &Decision,
    inventory: &Inventory,
) {
    record.timings.rto_ms = rto(&record.timings);
    let stored = decision.last_commit.and_then(|commit| {
        let stored = stored(commit.lsn, decision, inventory)?;
        Some(elapsed_ms(commit.time, stored))
    });
    record.objectives.rto_ms = settings.rto.map(in_ms);
    record.objectives.rpo_ms = settings.rpo.map(in_ms);
    record.objectives.rpo_measured_ms = stored;
    let (rto, rpo) = (record.timings.rto_ms, stored);
    let checks = [
        settings.rto.map(|wanted| check("rto", "recovery takes", wanted, rto)),
        settings.rpo.map(|wanted| check("rpo", "the last commit was stored within", wanted, rpo)),
    ];
    record.checks.extend(checks.into_iter().flatten());
}

fn rto(timings: &Timings) -> Option<u64> {
    let parts = [
        timings.choose_ms,
        timings.fetch_ms,
        timings.consistent_ms,
        timings.replay_ms,
        timings.ready_ms,
    ];
    parts.into_iter().sum()
}

/// When the segment that the commit's record ends in was stored, on whichever timeline came first:
/// of the segment of a fork the branch has a copy.
fn stored(commit: Lsn, decision: &Decision, inventory: &Inventory) -> Option<Timestamp> {
    let size = inventory.segment_size;
    let begins = decision.path.segment(commit, size);
    let known = inventory.segments.get(&begins)?;
    let ends_here = known.wal.is_none_or(|wal| {
        wal.end.is_some_and(|end| end > commit) && wal.last_commit.is_some_and(|c| c.lsn >= commit)
    });
    let name = match ends_here {
        true => begins,
        false => decision.path.segment(begins.next(size).start(size), size),
    };
    // A timeline that ended before the commit has other WAL at this place.
    let has_it =
        |step: &&Step| step.timeline <= name.timeline && step.end.is_none_or(|end| commit < end);
    let steps = decision.path.steps().iter().filter(has_it);
    let copies = steps.map(|step| SegmentName { timeline: step.timeline, ..name });
    copies.filter_map(|copy| inventory.segments.get(&copy)).map(|segment| segment.stored).min()
}

fn check(kind: &str, what: &str, wanted: Duration, measured: Option<u64>) -> Check {
    let (verdict, answer) = match measured {
        Some(measured) if measured <= in_ms(wanted) => (Verdict::Passed, seconds(measured)),
        Some(measured) => (Verdict::Failed, seconds(measured)),
        None => (Verdict::Incomplete, "it cannot be told".to_owned()),
    };
    let what = format!("{what} {} at most", seconds(in_ms(wanted)));
    Check { kind: kind.to_owned(), what, verdict, answer, duration_ms: 0 }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

fn in_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{check, rto};
    use crate::repository::drill_record::{Timings, Verdict};

    #[test]
    fn a_time_is_only_told_where_every_stage_was_reached() {
        let mut timings = Timings {
            choose_ms: Some(1),
            fetch_ms: Some(20),
            consistent_ms: Some(300),
            replay_ms: Some(4000),
            ready_ms: None,
            ..Timings::default()
        };
        assert_eq!(rto(&timings), None);
        timings.ready_ms = Some(50_000);
        timings.checks_ms = Some(7);
        assert_eq!(rto(&timings), Some(54_321));
    }

    #[test]
    fn what_is_over_its_objective_has_failed_and_what_is_not_known_is_open() {
        let of = |measured| check("rto", "recovery takes", Duration::from_secs(5), measured);
        assert_eq!(of(Some(5000)).verdict, Verdict::Passed);
        assert_eq!(of(Some(5001)).verdict, Verdict::Failed);
        assert_eq!(of(Some(5001)).answer, "5.001 s");
        assert_eq!(of(None).verdict, Verdict::Incomplete);
    }
}

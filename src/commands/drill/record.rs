//! The evidence: what a drill's record says from its beginning, and what is concluded at its end.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::catalog::Decision;
use crate::commands::audit::Deed;
use crate::commands::drill::point::Point;
use crate::commands::restore::Prepared;
use crate::error::Result;
use crate::host::{self, clock, privileges};
use crate::repository::audit::Outcome;
use crate::repository::drill_record::{
    Check, Commit, DrillRecord, Objectives, Plan, Postgresql, Target, Timings, Verdict,
};
use crate::repository::{BackupId, Home, Repository};

pub fn begin(home: &Home, repository: &Repository, id: BackupId, deed: &Deed) -> DrillRecord {
    DrillRecord {
        walden: 1,
        id,
        repository: repository.url(),
        cluster: repository.cluster().to_string(),
        system_identifier: home.system_identifier(),
        // Until everything was done.
        verdict: Verdict::Incomplete,
        reasons: Vec::new(),
        notes: Vec::new(),
        began: deed.began(),
        ended: deed.began(),
        host: host::name(),
        os_user: privileges::own_name(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        postgresql: Postgresql::default(),
        target: Target::default(),
        plan: None,
        reached: None,
        timings: Timings::default(),
        objectives: Objectives::default(),
        checks: Vec::new(),
        tables: Vec::new(),
        kept: None,
    }
}

pub fn target(point: &Point, decision: Option<&Decision>) -> Target {
    let last = decision.and_then(|decision| decision.last_commit);
    Target {
        mode: point.mode.to_owned(),
        options: point.options(),
        seed: point.seed,
        last_commit: last.map(|end| Commit { lsn: end.lsn, xid: end.xid, time: end.time }),
    }
}

pub fn plan(prepared: &Prepared) -> Result<Plan> {
    let (plan, decision) = (&prepared.plan, &prepared.decision);
    let chain = plan.backup.chain.iter().map(|id| id.parse()).collect::<Result<Vec<_>>>()?;
    let segment = |at: Option<_>, or: &str| at.map_or(or.to_owned(), |at: &_| format!("{at}"));
    let segments = &decision.segments;
    Ok(Plan {
        backup: plan.backup.id.clone(),
        chain,
        timeline: plan.timeline,
        timeline_path: plan.timeline_path.clone(),
        first_wal: segment(segments.first(), &plan.wal.first),
        last_wal: segment(segments.last(), &plan.wal.last),
        segments: segments.len() as u64,
        size: plan.backup.size,
        stored: plan.backup.stored,
    })
}

/// Passed is what has nothing against it, and every question answered.
pub fn conclude(record: &mut DrillRecord) {
    let words = |check: &Check| format!("{}: {}: {}.", check.kind, check.what, check.answer);
    for wanted in [Verdict::Failed, Verdict::Incomplete] {
        let bad = record.checks.iter().filter(|check| check.verdict == wanted);
        record.reasons.extend(bad.map(words).collect::<Vec<_>>());
    }
    let has = |verdict| record.checks.iter().any(|check| check.verdict == verdict);
    if has(Verdict::Failed) {
        record.verdict = Verdict::Failed;
    } else if record.verdict == Verdict::Passed && has(Verdict::Incomplete) {
        record.verdict = Verdict::Incomplete;
    }
    record.ended = clock::now();
}

pub fn outcome(record: &DrillRecord) -> Outcome {
    match record.verdict {
        Verdict::Passed => Outcome::Done,
        Verdict::Failed => Outcome::FoundWrong,
        Verdict::Incomplete => Outcome::CouldNotCheck,
    }
}

/// One sentence for the audit trail.
pub fn summary(record: &DrillRecord) -> String {
    let point = record.target.options.join(" ");
    let point = if point.is_empty() { "a point that was not found".to_owned() } else { point };
    match record.verdict {
        Verdict::Passed => format!("Rehearsed a recovery to {point}: passed."),
        Verdict::Failed => format!("Rehearsed a recovery to {point}: failed."),
        Verdict::Incomplete => format!("Rehearsed a recovery to {point}: not completed."),
    }
}

pub fn details(record: &DrillRecord) -> Value {
    json!({
        "drill": record.id,
        "verdict": record.verdict,
        "backup": record.plan.as_ref().map(|plan| plan.backup.clone()),
        "rto_ms": record.timings.rto_ms,
        "rpo_measured_ms": record.objectives.rpo_measured_ms,
    })
}

/// From one moment to a later one; clocks may be set in between.
pub fn elapsed_ms(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millisecond() - from.as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::elapsed_ms;

    #[test]
    fn a_clock_that_was_set_back_is_no_time() {
        let at = |text: &str| text.parse().unwrap();
        let (early, late) = (at("2026-11-21T10:00:00.25Z"), at("2026-11-21T10:00:01Z"));
        assert_eq!(elapsed_ms(early, late), 750);
        assert_eq!(elapsed_ms(late, early), 0);
    }
}

//! What a disaster would cost, measured: how much is lost, how long it takes; and the objectives.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::commands::report::days::date;
use crate::commands::report::{Wal, days_before, millis};
use crate::config::ObjectiveSettings;
use crate::repository::BackupId;
use crate::repository::drill_record::{DrillRecord, Verdict};

/// What "lately" means for an objective.
pub const LATELY_DAYS: i64 = 7;

#[derive(Debug, Clone, Serialize)]
pub struct Recovery {
    pub point: RecoveryPoint,
    pub time: RecoveryTime,
}

/// By the WAL: a commit is in danger from when it is made until its segment is stored.
#[derive(Debug, Clone, Serialize)]
pub struct RecoveryPoint {
    pub objective_ms: Option<u64>,
    /// The worst of the last seven days, and of all days told of. The days are those of `wal`.
    pub lately_ms: Option<u64>,
    pub max_ms: Option<u64>,
    /// In the middle of the days' medians.
    pub median_ms: Option<u64>,
    /// Days on which it was worse than the objective; `None`: there is none.
    pub days_missed: Option<u64>,
    /// How long ago the last commit was made that is archived.
    pub last_commit_age_ms: Option<u64>,
}

/// By the drills.
#[derive(Debug, Clone, Serialize)]
pub struct RecoveryTime {
    pub objective_ms: Option<u64>,
    pub last_ms: Option<u64>,
    pub max_ms: Option<u64>,
    pub median_ms: Option<u64>,
    pub drills_missed: Option<u64>,
    pub drills: Vec<Measured>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub id: BackupId,
    pub ended: Timestamp,
    pub verdict: Verdict,
    /// `None`: it did not come so far.
    pub rto_ms: Option<u64>,
    /// How long the last commit recovered had been nowhere but on its server.
    pub rpo_ms: Option<u64>,
}

impl Recovery {
    pub fn of(
        wal: &Wal,
        drills: &[DrillRecord],
        objectives: ObjectiveSettings,
        latest: Option<Timestamp>,
        now: Timestamp,
    ) -> Recovery {
        let point = RecoveryPoint::of(wal, in_millis(objectives.rpo), latest, now);
        Recovery { point, time: RecoveryTime::of(drills, in_millis(objectives.rto)) }
    }
}

impl RecoveryPoint {
    fn of(
        wal: &Wal,
        objective: Option<u64>,
        latest: Option<Timestamp>,
        now: Timestamp,
    ) -> RecoveryPoint {
        let medians = wal.days.iter().filter_map(|day| day.exposure_median_ms).collect();
        let is_missed = |worst: u64| objective.is_some_and(|objective| worst > objective);
        let missed = || wal.days.iter().filter(|day| day.exposure_max_ms.is_some_and(is_missed));
        RecoveryPoint {
            objective_ms: objective,
            lately_ms: wal.exposure_since(date(days_before(now, LATELY_DAYS))),
            max_ms: wal.days.iter().filter_map(|day| day.exposure_max_ms).max(),
            median_ms: median(medians),
            days_missed: objective.map(|_| missed().count() as u64),
            last_commit_age_ms: latest.map(|latest| millis(latest, now)),
        }
    }
}

impl RecoveryTime {
    fn of(drills: &[DrillRecord], objective: Option<u64>) -> RecoveryTime {
        let times: Vec<u64> = drills.iter().filter_map(|drill| drill.timings.rto_ms).collect();
        let missed = |objective| times.iter().filter(|time| **time > objective).count() as u64;
        RecoveryTime {
            objective_ms: objective,
            last_ms: times.last().copied(),
            max_ms: times.iter().max().copied(),
            drills_missed: objective.map(missed),
            median_ms: median(times),
            drills: drills.iter().map(Measured::of).collect(),
        }
    }
}

impl Measured {
    fn of(drill: &DrillRecord) -> Measured {
        Measured {
            id: drill.id.clone(),
            ended: drill.ended,
            verdict: drill.verdict,
            rto_ms: drill.timings.rto_ms,
            rpo_ms: drill.objectives.rpo_measured_ms,
        }
    }
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

fn in_millis(span: Option<Duration>) -> Option<u64> {
    span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

//! `report`: one page of evidence: what can be recovered, how well that was proven, and by whom.
//!
//! Everything is gathered into one value; the page and `--json` both show that value.

pub mod days;
pub mod lanes;
pub mod usage;
pub mod backups;
pub mod coverage;
pub mod recovery;
pub mod retention;
pub mod trail;
pub mod verdict;
pub mod statements;
mod gather;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Unit};
use serde::Serialize;

use crate::commands::window::{self, TimelineReport, Unarchived};
use crate::commands::{App, Retries};
use crate::error::Result;
use crate::host::{clock, data_directory};
use crate::postgres::{SystemIdentifier, TimelineId};
use crate::repository::drill_record::DrillRecord;

pub use backups::Backups;
pub use coverage::Verification;
pub use days::Wal;
pub use lanes::Lane;
pub use recovery::{Recovery, RecoveryPoint, RecoveryTime};
pub use retention::Retention;
pub use statements::{Shown, Statement};
pub use trail::{Deed, Version};
pub use usage::Storage;
pub use verdict::{Answer, Reason, State, Verdict};

const RETRY_FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Where several clusters archive under one name.
    pub system_identifier: Option<SystemIdentifier>,
    /// What is told day by day, and drills, verifications and deeds, reach back to here.
    pub since: Timestamp,
}

/// What the page shows; its JSON shape, version 1.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub walden: u32,
    /// walden's own version.
    pub version: String,
    pub generated: Timestamp,
    pub since: Timestamp,
    pub cluster: String,
    pub repository: String,
    pub system_identifier: SystemIdentifier,
    pub verdict: Verdict,
    pub window: Window,
    pub recovery: Recovery,
    pub backups: Backups,
    pub wal: Wal,
    pub storage: Storage,
    /// Oldest first.
    pub drills: Vec<DrillRecord>,
    pub verification: Verification,
    pub retention: Retention,
    /// Oldest first.
    pub audit: Vec<Deed>,
    pub versions: Vec<Version>,
    pub statements: Vec<Statement>,
    pub notes: Vec<String>,
}

/// What can be recovered, as `walden window` tells it, and as a picture.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// The timeline whose WAL arrived last.
    pub current: Option<TimelineId>,
    /// Of that timeline; `None`: it cannot be recovered.
    pub earliest: Option<Timestamp>,
    pub latest: Option<Timestamp>,
    pub timelines: Vec<TimelineReport>,
    pub lanes: Vec<Lane>,
    pub unarchived: Option<Unarchived>,
}

pub fn run(app: &App, request: Request) -> Result<Report> {
    let repository = app.repository(Retries::PerCall(RETRY_FOR))?;
    let pgdata = data_directory::find(None, app.settings.pgdata.as_deref());
    let home = window::find_home(&repository, request.system_identifier, pgdata.as_deref())?;
    let now = clock::now();
    let now = now.round(Unit::Second).unwrap_or(now);
    gather::gather(app, &home, pgdata.as_deref(), (request.since, now))
}

/// Milliseconds from one moment to another; 0 where the clocks say it was earlier.
fn millis(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

fn days_before(now: Timestamp, days: i64) -> Timestamp {
    now.checked_sub(SignedDuration::from_hours(24 * days)).unwrap_or(now)
}

//! What a drill has shown: `drill/<id>.json`, the evidence of a rehearsed recovery.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::{Lsn, SystemIdentifier, TimelineId};
use crate::repository::parallel::ask_all;
use crate::repository::{BackupId, Home, layout};
use crate::storage::Body;

/// The JSON shape of `walden drill --json` and of the object, version 1. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DrillRecord {
    pub walden: u32,
    /// Of the shape of a backup's.
    pub id: BackupId,
    pub repository: String,
    pub cluster: String,
    pub system_identifier: SystemIdentifier,
    pub verdict: Verdict,
    /// Why it did not pass, as sentences.
    pub reasons: Vec<String>,
    /// What one should know all the same.
    pub notes: Vec<String>,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub host: String,
    pub os_user: String,
    /// walden's own.
    pub version: String,
    pub postgresql: Postgresql,
    pub target: Target,
    /// `None`: it could not be planned.
    pub plan: Option<Plan>,
    /// `None`: no server got so far.
    pub reached: Option<Reached>,
    pub timings: Timings,
    pub objectives: Objectives,
    pub checks: Vec<Check>,
    /// Rows of the tables, to be laid beside those of the drill before.
    pub tables: Vec<TableRows>,
    /// With --keep: how to connect.
    pub kept: Option<Kept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything that was asked for was done, and came out right.
    Passed,
    /// Something came out wrong.
    Failed,
    /// Nothing came out wrong, but not everything could be done.
    Incomplete,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Postgresql {
    /// The server of the backup, as far as it was noted: `17.5`.
    pub source: Option<String>,
    /// The programs that recovered it.
    pub used: Option<String>,
    pub bin: Option<PathBuf>,
}

/// The point that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// `latest`, `time`, `random` …
    pub mode: String,
    /// In words of `restore`: `--target-time 2026-11-21T10:15:30Z`.
    pub options: Vec<String>,
    /// Of a point drawn by lot: the same draws it again, from the same repository.
    #[serde(default)]
    pub seed: Option<u32>,
    /// The last commit that has to be there; `None`: it cannot be told.
    pub last_commit: Option<Commit>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Commit {
    /// Where its record begins.
    pub lsn: Lsn,
    pub xid: u32,
    pub time: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Plan {
    pub backup: BackupId,
    /// The full one first, and itself last.
    pub chain: Vec<BackupId>,
    pub timeline: TimelineId,
    pub timeline_path: String,
    pub first_wal: String,
    pub last_wal: String,
    pub segments: u64,
    /// Raw bytes of the files.
    pub size: u64,
    /// Bytes fetched for them.
    pub stored: u64,
}

/// Where recovery ended, by what the server says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reached {
    pub last_commit: Option<Timestamp>,
    pub lsn: Option<Lsn>,
    pub timeline: Option<TimelineId>,
    /// PostgreSQL's words about the target.
    pub stopped: Option<String>,
}

/// `rto_ms` is the sum of the others but the checks. What was not reached is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Timings {
    /// Survey, decision, plan.
    pub choose_ms: Option<u64>,
    /// Fetching and placing the backup.
    pub fetch_ms: Option<u64>,
    /// From the start of the server to the consistent state.
    pub consistent_ms: Option<u64>,
    /// From there to the target.
    pub replay_ms: Option<u64>,
    /// From there until it takes queries.
    pub ready_ms: Option<u64>,
    pub rto_ms: Option<u64>,
    pub checks_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Objectives {
    /// As configured.
    pub rto_ms: Option<u64>,
    pub rpo_ms: Option<u64>,
    /// How long the last commit recovered was nowhere but on its server: from the commit to the
    /// moment its segment was stored. `None`: it cannot be told.
    pub rpo_measured_ms: Option<u64>,
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Check {
    /// `target`, `checksums`, `amcheck`, `sql`, `rows`, `schema`, `rto`, `rpo` …
    pub kind: String,
    /// What was asked: a statement, a relation, an objective.
    pub what: String,
    pub verdict: Verdict,
    /// In words.
    pub answer: String,
    pub duration_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TableRows {
    pub database: String,
    /// `schema.table`, quoted as in SQL.
    pub relation: String,
    pub rows: u64,
    /// In the drill before; `None`: it was not there.
    pub before: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Kept {
    pub directory: PathBuf,
    pub connect: String,
    pub stop: String,
}

impl Home {
    pub fn put_drill(&self, record: &DrillRecord) -> Result<()> {
        let json = serde_json::to_vec_pretty(record)
            .map_err(|e| Error::new(ErrorKind::Bug, "write the drill's record").source(e))?;
        self.put_once(&self.drill_key(&record.id), &Body::new(json))
    }

    /// The drills of which there is a record, oldest first.
    pub fn drills(&self) -> Result<Vec<BackupId>> {
        let objects = self.storage.list(Some(&self.drills_key()))?.objects;
        Ok(objects.iter().filter_map(|object| layout::drilled_by(&object.key)).collect())
    }

    pub fn drill(&self, id: &BackupId) -> Result<DrillRecord> {
        let key = self.drill_key(id);
        let json = self.storage.get(&key)?;
        serde_json::from_slice(&json).map_err(|error| {
            Error::new(ErrorKind::Corrupt, format!("{key} cannot be read"))
                .source(error)
                .hint("It was written by a newer walden, or damaged.")
        })
    }

    /// Each with what became of reading it.
    pub fn drill_records(&self, ids: &[BackupId]) -> Result<Vec<Result<DrillRecord>>> {
        ask_all(ids, |id| match self.drill(id) {
            Err(error) if error.kind().is_transient() => Err(error),
            outcome => Ok(outcome),
        })
        .context(|| "read the drills")
    }
}

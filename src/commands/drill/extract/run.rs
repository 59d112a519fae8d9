//! The whole of it: a recovery to the point, as a drill does it, the tables, and no trace of the
//! rest.

use std::cell::RefCell;
use std::time::Instant;

use serde_json::{Value, json};

use crate::commands::App;
use crate::commands::audit::{Deed, outcome_of};
use crate::commands::drill::checks::Answers;
use crate::commands::drill::extract::{Outcome, Prepared, Report};
use crate::commands::drill::record::{self, elapsed_ms};
use crate::commands::drill::rehearsal::{Purpose, Rehearsal};
use crate::commands::drill::{self, Recovered};
use crate::commands::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::{self, Deadline};
use crate::host::priority;
use crate::repository::audit::{self, Verb};
use crate::repository::drill_record::{DrillRecord, Verdict};
use crate::repository::{BackupId, Home};

pub fn run(
    app: &App,
    request: &drill::Request,
    prepared: &Prepared,
    progress: &Progress,
) -> Result<Report> {
    priority::lower(request.nice);
    let deed = Deed::begin(Verb::Extract);
    let deadline = Deadline::after(request.timeout);
    let (repository, home) = drill::find(app, request)?;
    let id = BackupId::new(deed.began(), fastrand::u16(..));
    let record = record::begin(&home, &repository, id, &deed);
    let (database, needs_dump) = (prepared.database.clone(), prepared.needs_dump());
    let purpose = Purpose::Tables { database, needs_dump };
    let mut rehearsal = Rehearsal { app, request, purpose, repository, home, deadline, record };
    progress.enter("choosing");
    let outcome = recover_and_take(&mut rehearsal, prepared, progress);
    let Rehearsal { home, record, .. } = rehearsal;
    let report = outcome.map(|(outcome, began)| report(prepared, record, outcome, began));
    write_down(&deed, &home, prepared, &report);
    report
}

/// What was taken, and when the recovered server could be asked.
fn recover_and_take(
    rehearsal: &mut Rehearsal<'_>,
    prepared: &Prepared,
    progress: &Progress,
) -> Result<(Outcome, Timing)> {
    let taken = RefCell::new(None);
    let began = rehearsal.record.began;
    let ask = |server: &Recovered, _: Option<&DrillRecord>| {
        progress.enter("extracting");
        let (recovery_ms, begun) = (elapsed_ms(began, clock::now()), Instant::now());
        let outcome = prepared.bring_back(server, &|bytes| progress.add(bytes));
        let extraction_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        taken.replace(Some((outcome, Timing { recovery_ms, extraction_ms })));
        Answers::default()
    };
    rehearsal.attempt(&ask, progress)?;
    match taken.into_inner() {
        Some((outcome, timing)) => outcome.map(|outcome| (outcome, timing)),
        None => Err(Error::new(ErrorKind::Bug, "the recovered server was not asked")),
    }
}

#[derive(Debug, Clone, Copy)]
struct Timing {
    recovery_ms: u64,
    extraction_ms: u64,
}

fn report(prepared: &Prepared, record: DrillRecord, outcome: Outcome, timing: Timing) -> Report {
    let unsure = record
        .checks
        .iter()
        .filter(|check| check.kind == "target" && check.verdict == Verdict::Incomplete);
    let unsure = unsure.map(|check| format!("Not certain: {}: {}.", check.what, check.answer));
    let notes = outcome.notes.into_iter().chain(unsure).chain(record.notes).collect();
    Report {
        walden: 1,
        repository: record.repository,
        cluster: record.cluster,
        began: record.began,
        ended: clock::now(),
        target: record.target,
        plan: record.plan,
        database: outcome.database,
        into: prepared.into.clone(),
        content: prepared.content().as_str(),
        tables: outcome.tables,
        notes,
        recovery_ms: timing.recovery_ms,
        extraction_ms: timing.extraction_ms,
    }
}

/// Who took which rows of which moment where is what an auditor asks.
fn write_down(deed: &Deed, home: &Home, prepared: &Prepared, report: &Result<Report>) {
    let tables = prepared.tables_in_words();
    let (outcome, summary, details) = match report {
        Ok(report) => (
            audit::Outcome::Done,
            format!(
                "Brought {tables} of {} back to {}.",
                report.target.options.join(" "),
                report.into
            ),
            details(report),
        ),
        Err(error) => (
            outcome_of(error),
            format!("Could not bring {tables} back to {}: {error}.", prepared.into),
            json!({ "into": prepared.into, "tables": [] }),
        ),
    };
    deed.end(home, outcome, &summary, details);
}

fn details(report: &Report) -> Value {
    json!({
        "database": report.database,
        "into": report.into,
        "content": report.content,
        "target": report.target.options,
        "last_commit": report.target.last_commit,
        "backup": report.plan.as_ref().map(|plan| plan.backup.clone()),
        "tables": report.tables,
    })
}

//! The plan and the outcome of a restore, as text and as JSON.

use std::path::Path;

use bytesize::ByteSize;
use jiff::tz::TimeZone;

use crate::catalog::moment::reading;
use crate::commands::restore::wait::{Ended, Outcome};
use crate::commands::restore::{Plan, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::recovery_settings::shell_word;

/// Version 1 of the shape: the plan, whether it was carried out, and how recovery ended with
/// --wait.
pub fn json(plan: &Plan, restored: bool, outcome: Option<&Outcome>) -> Result<String> {
    let mut shape = serde_json::to_value(plan)
        .map_err(|e| Error::new(ErrorKind::Bug, "write the plan").source(e))?;
    shape["restored"] = restored.into();
    shape["recovery"] = serde_json::to_value(outcome)
        .map_err(|e| Error::new(ErrorKind::Bug, "write the outcome").source(e))?;
    Ok(format!("{shape:#}"))
}

pub fn plan_text(plan: &Plan, local: &TimeZone) -> String {
    let backup = &plan.backup;
    let size = |bytes| ByteSize::b(bytes).display().iec().to_string();
    let mut text = format!("restore {} from {}\n", plan.directory.display(), plan.repository);
    let mut line = |name: &str, value: String| text += &format!("  {name:<12}{value}\n");
    line(
        "backup",
        format!(
            "{}, ended {}, {} in {} files ({} to fetch)",
            backup.id,
            backup.ended,
            size(backup.size),
            backup.files,
            size(backup.stored)
        ),
    );
    line("WAL", format!("{} to {}, ends at {}", plan.wal.first, plan.wal.last, plan.wal.end_lsn));
    line("timeline", plan.timeline_path.clone());
    line("target", target_text(plan, local));
    for space in &plan.tablespaces {
        line("tablespace", format!("{} -> {}", space.from, space.to.display()));
    }
    if let Some(owner) = &plan.owner {
        line("owner", owner.clone());
    }
    line("writes", format!("{} and, in postgresql.auto.conf:", plan.signal_file));
    for setting in plan.settings.lines().filter(|line| is_telling(line)) {
        line("", format!("  {setting}"));
    }
    if !plan.adopt {
        line("archiving", "off (archive_mode = off); --adopt lets it archive".to_owned());
    }
    for note in &plan.notes {
        line("note", note.clone());
    }
    text
}

/// The settings that do something; the empty ones only switch off what the source may have set.
fn is_telling(setting: &str) -> bool {
    !setting.starts_with('#') && !setting.ends_with("= ''") && !setting.ends_with("= '0'")
}

fn target_text(plan: &Plan, local: &TimeZone) -> String {
    let target = &plan.target;
    let mut text = target.kind.to_owned();
    if let Some(value) = &target.value {
        text += &format!(" {value}");
    }
    let time = target.value.as_deref().filter(|_| target.kind == "time");
    if let Some(time) = time.and_then(|time| time.parse().ok())
        && *local != TimeZone::UTC
    {
        text += &format!(" ({})", reading(time, local));
    }
    if target.exclusive {
        text += ", exclusive";
    }
    text + &format!(", then {}", target.action)
}

pub fn next_step(plan: &Plan, dry_run: bool) -> String {
    if dry_run {
        return "nothing was changed (--dry-run)\n".to_owned();
    }
    let mut text = "restored. Start the server as its owner; it recovers by itself:\n".to_owned();
    text += &format!("  pg_ctl start -D {}\n", quoted(&plan.directory));
    if plan.target.action == "pause" {
        text +=
            "It pauses at the target: look, then SELECT pg_wal_replay_resume() to promote it.\n";
    }
    text
}

/// To be copied into a shell.
fn quoted(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}

pub fn outcome_text(prepared: &Prepared, outcome: &Outcome) -> String {
    let ended = match outcome.ended {
        Ended::Promoted => "promoted: it accepts writes",
        Ended::Paused => "paused at the target: SELECT pg_wal_replay_resume() promotes it",
        Ended::ShutDown => "shut down at the target",
        Ended::Following => "a standby, which follows the archive",
    };
    let or_unknown = |known: Option<String>| known.unwrap_or_else(|| "unknown".to_owned());
    let mut text = format!("recovery ended: {ended}\n");
    let mut line = |name: &str, value: String| text += &format!("  {name:<12}{value}\n");
    line("last commit", or_unknown(outcome.last_commit.map(|time| time.to_string())));
    line("LSN", or_unknown(outcome.lsn.map(|lsn| lsn.to_string())));
    line("timeline", outcome.timeline.to_string());
    if let Some(stopped) = &outcome.stopped {
        line("PostgreSQL", stopped.clone());
    }
    if let Some(process) = outcome.process_id {
        line("server", format!("process {process}, log {}", outcome.log.display()));
        let socket = quoted(&outcome.socket_directory);
        line("connect", format!("psql -h {socket} -p {} postgres", outcome.port));
        let pg_ctl = quoted(&outcome.installation.join("pg_ctl"));
        line("stop", format!("{pg_ctl} stop -D {}", quoted(prepared.directory())));
        line("", "It listens on this socket only; start it anew to use it for real.".to_owned());
    }
    text
}

//! The plan and the outcome of a restore, as text and as JSON.

use std::path::Path;

use bytesize::ByteSize;
use jiff::tz::TimeZone;

use crate::catalog::recovery_plan::estimate::Estimate;
use crate::catalog::recovery_plan::{GivenUp, Place, RecordKind, Side};
use crate::commands::restore::occupied::Into;
use crate::commands::restore::plan::{Backup, PlannedInPlace};
use crate::commands::restore::wait::{Ended, Outcome};
use crate::commands::restore::{Done, Plan, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::recovery_settings::shell_word;
use crate::postgres::wal::digest::TransactionEnd;

/// Version 1 of the shape: the plan, whether it was carried out, what was done, and how recovery
/// ended with --wait.
pub fn json(plan: &Plan, done: Option<&Done>, outcome: Option<&Outcome>) -> Result<String> {
    let bug = |e| Error::new(ErrorKind::Bug, "write the outcome").source(e);
    let mut shape = serde_json::to_value(plan).map_err(bug)?;
    shape["restored"] = done.is_some().into();
    shape["done"] = serde_json::to_value(done).map_err(bug)?;
    shape["recovery"] = serde_json::to_value(outcome).map_err(bug)?;
    Ok(format!("{shape:#}"))
}

pub fn plan_text(plan: &Plan, local: &TimeZone) -> String {
    let mut text = format!("restore {} from {}\n", plan.directory.display(), plan.repository);
    let mut line = |name: &str, value: String| text += &format!("  {name:<12}{value}\n");
    line("target", target_text(plan));
    if let Some(instants) = &plan.instants {
        let mut readings = vec![instants.utc.to_string()];
        readings.extend(instants.server.iter().map(|reading| format!("server: {reading}")));
        if *local != TimeZone::UTC {
            readings.push(format!("here: {}", instants.here));
        }
        line("", readings.join(", "));
    }
    if let Some(stop) = &plan.stop {
        line("stops", stop_text(stop));
    }
    if let Some(commit) = &plan.last_commit {
        line("last commit", commit_text(commit));
    }
    if let Some(lost) = plan.commits_after.as_ref().and_then(given_up_text) {
        line("", lost);
    }
    line("backup", backup_text(&plan.backup));
    line("WAL", wal_text(plan));
    line("timeline", plan.timeline_path.clone());
    line("estimate", estimate_text(&plan.estimate));
    if let Some(in_place) = &plan.in_place {
        line("in place", in_place_text(in_place));
        if in_place.removed_files > 0 {
            let files = counted(in_place.removed_files, "file");
            let bytes = size(in_place.removed_bytes);
            line("removes", format!("{files} ({bytes}) in it that do not belong there"));
        }
    }
    if !plan.databases_left_out.is_empty() {
        let names = plan.databases_left_out.join(", ");
        line("databases", format!("the files of {names} are left empty: drop them afterwards"));
    }
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

fn target_text(plan: &Plan) -> String {
    let target = &plan.target;
    let mut text = target.kind.to_owned();
    if let Some(value) = &target.value {
        text += &format!(" {value}");
    }
    if target.exclusive {
        text += ", exclusive";
    }
    text + &format!(", then {}", target.action)
}

/// `before the commit of transaction 746 at 2026-11-21T10:15:31Z, LSN 0/3000120`
fn stop_text(stop: &Place) -> String {
    let side = match stop.side {
        Side::Before => "before",
        Side::After => "after",
    };
    let of = stop.xid.map_or(String::new(), |xid| format!(" of transaction {xid}"));
    let record = match stop.record {
        RecordKind::BackupEnd => return format!("as soon as consistent, LSN {}", stop.lsn),
        RecordKind::Fork => return format!("where the timeline begins, LSN {}", stop.lsn),
        RecordKind::Commit => "the commit",
        RecordKind::Abort => "the rollback",
        RecordKind::RestorePoint => "the restore point",
        RecordKind::Other => "the record",
    };
    let time = stop.time.map_or(String::new(), |time| format!(" at {time}"));
    format!("{side} {record}{of}{time}, LSN {}", stop.lsn)
}

fn commit_text(commit: &TransactionEnd) -> String {
    format!("{}, transaction {}, LSN {}", commit.time, commit.xid, commit.lsn)
}

/// Nothing where nothing is given up.
fn given_up_text(given_up: &GivenUp) -> Option<String> {
    let GivenUp { commits, at_least, last } = given_up;
    let at_least = if *at_least { "at least " } else { "" };
    let (count, commits) = match *commits {
        0 if at_least.is_empty() => return None,
        1 => ("1".to_owned(), "commit"),
        many => (grouped(many), "commits"),
    };
    let until = last.map_or(String::new(), |last| format!(" (until {})", last.time));
    Some(format!(
        "{at_least}{count} {commits} after the target{until} will not be in the restored cluster"
    ))
}

/// `3,214`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn backup_text(backup: &Backup) -> String {
    format!(
        "{}, ended {}, {} in {} files ({} to fetch)",
        backup.id,
        backup.ended,
        size(backup.size),
        backup.files,
        size(backup.stored)
    )
}

fn wal_text(plan: &Plan) -> String {
    let wal = &plan.wal;
    let mut text = format!("{} to {}, ends at {}", wal.first, wal.last, wal.end_lsn);
    if let Some(gap) = &wal.gap {
        text += &format!(", before a gap at {gap}");
    }
    if let Some(checked) = &wal.checked {
        let (segments, records) = (grouped(checked.segments), grouped(checked.records));
        text += &format!("; {segments} segments read, {records} records are sound");
    }
    text
}

fn in_place_text(in_place: &PlannedInPlace) -> String {
    let what = match in_place.why {
        Into::Unfinished => "an unfinished restore, which goes on",
        _ => "this cluster, which is changed (--delta)",
    };
    let (files, bytes) = (counted(in_place.files, "file"), size(in_place.bytes));
    format!("{what}: {files} ({bytes}) are compared, and what is right is kept")
}

fn done_text(done: &Done) -> String {
    if *done == (Done { written: done.written, fetched: done.fetched, ..Done::default() }) {
        return format!("restored: {} written", size(done.written));
    }
    let removed = match done.removed_files {
        0 => String::new(),
        files => format!(", {} removed", counted(files, "file")),
    };
    format!(
        "restored: {} kept, {} written ({} fetched){removed}",
        size(done.kept),
        size(done.written),
        size(done.fetched)
    )
}

/// `1 file`, `3,214 files`
fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(number))
}

fn estimate_text(estimate: &Estimate) -> String {
    let seconds = estimate.duration().as_secs();
    let duration = match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    };
    let (segments, wal) = (grouped(estimate.wal_segments), size(estimate.wal_bytes));
    format!(
        "about {duration}: {} to fetch, {segments} segments ({wal}) to replay",
        size(estimate.backup_bytes)
    )
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `None`: nothing was done.
pub fn next_step(plan: &Plan, done: Option<&Done>) -> String {
    let Some(done) = done else { return "nothing was changed (--dry-run)\n".to_owned() };
    let mut text = done_text(done);
    text += ". Start the server as its owner; it recovers by itself:\n";
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

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::{done_text, estimate_text, given_up_text, plan_text, stop_text};
    use crate::catalog::recovery_plan::estimate::Estimate;
    use crate::catalog::recovery_plan::{GivenUp, Place, RecordKind, Side};
    use crate::commands::restore::samples::{Sample, request};
    use crate::commands::restore::{Done, prepare};
    use crate::postgres::Lsn;
    use crate::postgres::wal::digest::TransactionEnd;

    #[test]
    fn the_plan_fits_on_a_screen_and_begins_with_the_target() {
        let sample = Sample::new(&[("postgresql.conf", Vec::new())], &[]);
        let scratch = tempfile::tempdir().unwrap();
        let new = scratch.path().join("new");
        let mut plan = prepare(&sample.repository, request(&new)).unwrap().plan;
        let time = "2026-11-21T10:15:30.000001Z".parse().unwrap();
        let end = TransactionEnd { lsn: Lsn(0x20_0200), xid: 745, time };
        plan.last_commit = Some(end);
        plan.commits_after = Some(GivenUp { commits: 3214, at_least: false, last: Some(end) });
        let text = plan_text(&plan, &TimeZone::UTC);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() <= 24, "{text}");
        let new = new.canonicalize().unwrap_or(new);
        assert!(lines[0].starts_with(&format!("restore {} from memory:", new.display())), "{text}");
        assert_eq!(lines[1], "  target      latest, then promote");
        assert_eq!(
            lines[2],
            "  last commit 2026-11-21T10:15:30.000001Z, transaction 745, LSN 0/200200"
        );
        assert_eq!(
            lines[3],
            "              3,214 commits after the target (until 2026-11-21T10:15:30.000001Z) \
             will not be in the restored cluster"
        );
        assert!(text.contains("  WAL         000000010000000000000002 to 0"), "{text}");
        assert!(text.contains(", 2 segments (2.0 MiB) to replay"), "{text}");
    }

    #[test]
    fn numbers_are_told_as_people_say_them() {
        let given_up =
            |commits, at_least| given_up_text(&GivenUp { commits, at_least, last: None });
        assert_eq!(given_up(0, false), None);
        assert!(given_up(0, true).unwrap().starts_with("at least 0 commits after the target will"));
        assert!(given_up(1, false).unwrap().starts_with("1 commit after the target will"));
        assert!(given_up(1_234_567, false).unwrap().starts_with("1,234,567 commits"));
        let all = Done { written: 5 << 30, fetched: 1 << 30, ..Done::default() };
        assert_eq!(done_text(&all), "restored: 5.0 GiB written");
        let some = Done { written: 5 << 20, fetched: 1 << 20, kept: 5 << 30, ..Done::default() };
        let said = "restored: 5.0 GiB kept, 5.0 MiB written (1.0 MiB fetched)";
        assert_eq!(done_text(&some), said);
        let removed = Done { removed_files: 1, ..some };
        assert_eq!(done_text(&removed), format!("{said}, 1 file removed"));
        let day = Estimate::new(100 << 40, 1, 1 << 20);
        assert!(estimate_text(&day).starts_with("about 291 h 16 min: 100.0 TiB to fetch"));
        let fork = Place {
            side: Side::Before,
            record: RecordKind::Fork,
            lsn: Lsn(0x28),
            time: None,
            xid: None,
        };
        assert_eq!(stop_text(&fork), "where the timeline begins, LSN 0/28");
        let other = Place { side: Side::After, record: RecordKind::Other, ..fork };
        assert_eq!(stop_text(&other), "after the record, LSN 0/28");
    }
}

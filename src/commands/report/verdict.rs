//! The answer at the top: can this cluster be recovered now, and how well is that shown?

use jiff::Timestamp;
use serde::Serialize;

use crate::commands::report::{Report, millis};
use crate::commands::window;
use crate::repository::drill_record::{self, DrillRecord};

/// A backup should not be older.
const BACKUP_MS_MAX: u64 = 7 * DAY_MS;
/// Nor a proof.
const PROOF_MS_MAX: u64 = 31 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub answer: Answer,
    pub headline: &'static str,
    pub reasons: Vec<Reason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It can, and all that should show it has lately.
    Recoverable,
    /// It can by what is listed; something is old, or was never shown.
    Unproven,
    /// Something is wrong.
    AtRisk,
    NotRecoverable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Good,
    /// Worth knowing, of no weight for today.
    Note,
    /// Old, or not known.
    Attention,
    Bad,
}

/// One question and its answer.
#[derive(Debug, Clone, Serialize)]
pub struct Reason {
    /// `window`, `gaps`, `archive`, `backup`, `drill`, `verify`, `rto`, `rpo`.
    pub kind: &'static str,
    pub state: State,
    /// A sentence, without times: those are in `at` and `ms`.
    pub says: String,
    /// The moment that it is about.
    pub at: Option<Timestamp>,
    /// A time that was measured: an age, or how long something took.
    pub ms: Option<u64>,
    /// What it is measured by.
    pub limit_ms: Option<u64>,
}

impl Reason {
    fn new(kind: &'static str, state: State, says: impl Into<String>) -> Reason {
        Reason { kind, state, says: says.into(), at: None, ms: None, limit_ms: None }
    }

    /// How long ago something was.
    fn age(self, at: Timestamp, now: Timestamp) -> Reason {
        Reason { at: Some(at), ms: Some(millis(at, now)), ..self }
    }

    fn limit(self, limit_ms: u64) -> Reason {
        Reason { limit_ms: Some(limit_ms), ..self }
    }
}

impl Verdict {
    pub fn undecided() -> Verdict {
        Verdict { answer: Answer::NotRecoverable, headline: "", reasons: Vec::new() }
    }
}

pub fn decide(report: &Report, last_drill: Option<&DrillRecord>) -> Verdict {
    let mut reasons = vec![window(report)];
    let is_recoverable = reasons[0].state != State::Bad;
    reasons.extend(gaps(report));
    reasons.push(archive(report));
    reasons.push(backup(report));
    reasons.push(drill(last_drill, report.generated));
    reasons.push(verify(report));
    reasons.extend(recovery_time(report));
    reasons.extend(recovery_point(report));
    let worst = reasons.iter().map(|reason| reason.state).max();
    let (answer, headline) = match worst {
        _ if !is_recoverable => (Answer::NotRecoverable, "Not recoverable"),
        Some(State::Bad) => (Answer::AtRisk, "At risk: something is wrong"),
        Some(State::Attention) => (Answer::Unproven, "Recoverable, with open questions"),
        _ => (Answer::Recoverable, "Recoverable, and shown to be"),
    };
    Verdict { answer, headline, reasons }
}

fn window(report: &Report) -> Reason {
    let says = match (report.window.latest, report.window.current) {
        (Some(_), _) => {
            let says = "By what the store lists, every moment of the window can be reached.";
            return Reason::new("window", State::Good, says);
        }
        (None, Some(timeline)) => format!("Nothing on timeline {timeline} can be recovered."),
        (None, None) => "No WAL is archived.".to_owned(),
    };
    Reason::new("window", State::Bad, says)
}

/// Of the current timeline.
fn gaps(report: &Report) -> Vec<Reason> {
    let timelines = &report.window.timelines;
    let current = timelines.iter().find(|it| Some(it.timeline) == report.window.current);
    let Some(current) = current else { return Vec::new() };
    let harmful: Vec<_> = current.gaps.iter().filter(|gap| gap.is_harmful).collect();
    let mut reasons = Vec::new();
    let end = current.windows.last().map(|window| window.end_lsn);
    let is_cut = harmful.iter().any(|gap| end.is_some_and(|end| end <= gap.to_lsn));
    if is_cut {
        let says = "Archived WAL lies behind a gap, out of reach: take a backup now.";
        reasons.push(Reason::new("gaps", State::Bad, says));
    } else if !harmful.is_empty() {
        let segments: u64 = harmful.iter().map(|gap| gap.segments).sum();
        let says = format!(
            "{} before the window: moments in it cannot be reached ({} missing or unreadable).",
            count(harmful.len() as u64, "gap"),
            count(segments, "segment"),
        );
        reasons.push(Reason::new("gaps", State::Note, says));
    }
    reasons
}

fn archive(report: &Report) -> Reason {
    let Some(latest) = report.window.latest else {
        return Reason::new("archive", State::Attention, "No archived commit can be reached.");
    };
    let objective = report.recovery.point.objective_ms;
    let age = millis(latest, report.generated);
    let reason = |state, says: &str| {
        let reason = Reason::new("archive", state, says).age(latest, report.generated);
        objective.into_iter().fold(reason, Reason::limit)
    };
    if let Some(unarchived) = &report.window.unarchived {
        match unarchived.state {
            window::State::CaughtUp => return reason(State::Good, "Every commit is archived."),
            window::State::Behind => {
                let oldest = unarchived.oldest.map(|oldest| millis(oldest, report.generated));
                let is_late = objective.is_some_and(|objective| oldest > Some(objective));
                let state = if is_late { State::Bad } else { State::Attention };
                let files = count(unarchived.files, "WAL file");
                return reason(state, &format!("{files} wait to be archived on the server."));
            }
            window::State::Writing | window::State::Unknown => {}
        }
    }
    if age <= objective.unwrap_or(DAY_MS) {
        return reason(State::Good, "The last archived commit is recent.");
    }
    let says = "The last archived commit is old: either nobody writes, or archiving stands still; \
                walden window on the server's host tells which.";
    reason(State::Attention, says)
}

fn backup(report: &Report) -> Reason {
    let backups = &report.backups;
    let Some(newest) = backups.newest else {
        return Reason::new("backup", State::Bad, "No backup can be used.");
    };
    let unusable = backups.count - backups.usable;
    let is_old = millis(newest, report.generated) > BACKUP_MS_MAX;
    let (state, says) = match (is_old, unusable) {
        (true, _) => (State::Attention, "The newest usable backup is old.".to_owned()),
        (false, 0) => (State::Good, format!("{} can be used.", count(backups.usable, "backup"))),
        (false, unusable) => {
            let says = format!("{} of {} backups cannot be used.", unusable, backups.count);
            (State::Attention, says)
        }
    };
    Reason::new("backup", state, says).age(newest, report.generated).limit(BACKUP_MS_MAX)
}

fn drill(last: Option<&DrillRecord>, now: Timestamp) -> Reason {
    let Some(last) = last else {
        let says = "A recovery was never rehearsed: run walden drill.";
        return Reason::new("drill", State::Attention, says);
    };
    let is_old = millis(last.ended, now) > PROOF_MS_MAX;
    let (state, says) = match last.verdict {
        drill_record::Verdict::Failed => (State::Bad, "It failed."),
        drill_record::Verdict::Incomplete => (State::Attention, "It could not check everything."),
        drill_record::Verdict::Passed if is_old => (State::Attention, "It passed, but long ago."),
        drill_record::Verdict::Passed => (State::Good, "It passed."),
    };
    Reason::new("drill", state, says).age(last.ended, now).limit(PROOF_MS_MAX)
}

fn verify(report: &Report) -> Reason {
    let verification = &report.verification;
    let Some(last) = verification.last else {
        let says = "What is stored was never verified: run walden verify --deep.";
        return Reason::new("verify", State::Attention, says);
    };
    let overdue = verification.backups.overdue_count + verification.wal.overdue_count;
    let (state, says) = if verification.is_wrong {
        let says = "Something was found, and everything has not been read without a finding since.";
        (State::Bad, says.to_owned())
    } else if overdue > 0 {
        let backups = count(verification.backups.overdue_count, "backup");
        let segments = count(verification.wal.overdue_count, "segment");
        (State::Attention, format!("{backups} and {segments} were not read for a month."))
    } else {
        let says = "All that is older than a week was read within a month, and found sound.";
        (State::Good, says.to_owned())
    };
    Reason::new("verify", state, says).age(last, report.generated).limit(PROOF_MS_MAX)
}

fn recovery_time(report: &Report) -> Option<Reason> {
    let time = &report.recovery.time;
    let objective = time.objective_ms?;
    let reason = match time.last_ms {
        None => Reason::new("rto", State::Attention, "No drill has measured how long it takes."),
        Some(took) => {
            let (state, says) = match took <= objective {
                true => (State::Good, "The last one was as quick as it must be."),
                false => (State::Bad, "The last one took longer than it may."),
            };
            Reason { ms: Some(took), ..Reason::new("rto", state, says) }
        }
    };
    Some(reason.limit(objective))
}

fn recovery_point(report: &Report) -> Option<Reason> {
    let point = &report.recovery.point;
    let objective = point.objective_ms?;
    let reason = match point.lately_ms {
        None => Reason::new("rpo", State::Attention, "No commit was archived within a week."),
        Some(worst) => {
            let (state, says) = match worst <= objective {
                true => (State::Good, "Commits of the last week were archived in time."),
                false => (State::Attention, "Commits of the last week were archived too late."),
            };
            Reason { ms: Some(worst), ..Reason::new("rpo", state, says) }
        }
    };
    Some(reason.limit(objective))
}

pub fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

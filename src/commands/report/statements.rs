//! What an auditor asks, and what this repository has to show for it; where it has nothing, so.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::commands::App;
use crate::commands::report::backups::longest_pause;
use crate::commands::report::verdict::count;
use crate::commands::report::{Answer, Report};
use crate::repository::audit::Outcome;
use crate::repository::drill_record::Verdict;
use crate::storage::Location;

#[derive(Debug, Clone, Serialize)]
pub struct Statement {
    pub topic: &'static str,
    /// Where it is asked for.
    pub asked_by: &'static str,
    pub shown: Shown,
    pub says: String,
    /// What bears it out, and what it does not say.
    pub evidence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    Yes,
    Partly,
    /// There is no evidence here: look elsewhere.
    No,
}

pub fn statements(report: &Report, app: &App) -> Vec<Statement> {
    vec![
        backups(report),
        restores(report),
        content(report),
        objectives(report),
        retention(report),
        at_rest(app),
        in_transit(app),
        access(report),
        integrity(),
    ]
}

fn backups(report: &Report) -> Statement {
    let backups = &report.backups;
    let pause = backups
        .longest_pause_ms
        .map(|pause| format!("; the longest time without one was {}", span(pause)));
    let shown = match (backups.recent, report.verdict.answer) {
        (0, _) => Shown::No,
        (_, Answer::NotRecoverable) => Shown::Partly,
        _ => Shown::Yes,
    };
    Statement {
        topic: "Backups are taken regularly",
        asked_by: "SOC 2 A1.2 · HIPAA §164.308(a)(7)(ii)(A) · SOX ITGC, operations",
        shown,
        says: format!(
            "{} that can be used ended in this period{}.",
            count(backups.recent, "backup"),
            pause.unwrap_or_default(),
        ),
        evidence: "Section Backups. A backup counts as usable if its manifest can be read, its \
                   chain is whole and the WAL it needs is listed by the store."
            .to_owned(),
    }
}

fn restores(report: &Report) -> Statement {
    let drills = &report.drills;
    let of = |verdict| drills.iter().filter(|drill| drill.verdict == verdict).count() as u64;
    let (passed, failed) = (of(Verdict::Passed), of(Verdict::Failed));
    let times: Vec<_> = drills
        .iter()
        .filter(|drill| drill.verdict == Verdict::Passed)
        .map(|drill| drill.ended)
        .collect();
    let pause = longest_pause(&times, report.since, report.generated);
    let pause =
        pause.map(|it| format!("; the longest time without one that passed was {}", span(it)));
    Statement {
        topic: "Restores are tested regularly",
        asked_by: "SOC 2 A1.3 · HIPAA §164.308(a)(7)(ii)(D) · SOX ITGC, operations",
        shown: match (passed, failed) {
            (0, _) => Shown::No,
            (_, 0) => Shown::Yes,
            _ => Shown::Partly,
        },
        says: format!(
            "{} in this period: {passed} passed, {failed} failed, {} could not check everything{}.",
            count(drills.len() as u64, "rehearsed recovery").replace("recoverys", "recoveries"),
            of(Verdict::Incomplete),
            pause.unwrap_or_default(),
        ),
        evidence: "Section Drills, and drill/<id>.json in the repository. In each a real \
                   PostgreSQL recovered to the target and was asked."
            .to_owned(),
    }
}

fn content(report: &Report) -> Statement {
    let verification = &report.verification;
    let (backups, wal) = (&verification.backups, &verification.wal);
    let read = backups.read_bytes + wal.read_bytes;
    let all = backups.bytes + wal.bytes;
    Statement {
        topic: "What is stored is checked against its checksums",
        asked_by: "SOC 2 A1.2, PI1.5 · HIPAA §164.312(c)(1)",
        shown: match (read, verification.is_fresh && !verification.is_wrong) {
            (0, _) => Shown::No,
            (_, true) => Shown::Yes,
            _ => Shown::Partly,
        },
        says: format!(
            "{} in this period. Of what is stored now, {} of {} backups and {} of {} segments \
             have been read in full at some time.",
            count(verification.runs.len() as u64, "verification"),
            backups.read_count,
            backups.count,
            wal.read_count,
            wal.count,
        ),
        evidence: if all == 0 {
            "There is nothing to read yet.".to_owned()
        } else {
            format!(
                "Section Verification, by the entries of verify in the audit trail; {:.1} % of the \
                 bytes.",
                100.0 * read as f64 / all as f64
            )
        },
    }
}

fn objectives(report: &Report) -> Statement {
    let (point, time) = (&report.recovery.point, &report.recovery.time);
    let rto = match (time.objective_ms, time.drills_missed, time.last_ms) {
        (None, _, _) => "no RTO is configured".to_owned(),
        (Some(_), _, None) => "no drill has measured the RTO".to_owned(),
        (Some(_), missed, _) => {
            format!("{} took longer than the RTO", count(missed.unwrap_or(0), "drill"))
        }
    };
    let rpo = match (point.objective_ms, point.days_missed) {
        (None, _) => "no RPO is configured".to_owned(),
        (Some(_), missed) => {
            format!("the RPO was missed on {}", count(missed.unwrap_or(0), "day"))
        }
    };
    let is_set = time.objective_ms.is_some() && point.objective_ms.is_some();
    let is_met = time.drills_missed == Some(0) && point.days_missed == Some(0);
    Statement {
        topic: "Recovery objectives are set, measured and met",
        asked_by: "SOC 2 A1.2, A1.3 · HIPAA §164.308(a)(7)(ii)(B) and (E)",
        shown: match (is_set && time.last_ms.is_some(), is_met) {
            (true, true) => Shown::Yes,
            (false, _) if time.objective_ms.is_none() && point.objective_ms.is_none() => Shown::No,
            _ => Shown::Partly,
        },
        says: format!("In this period {rpo}; {rto}."),
        evidence: "Section Objectives. RTO by drills; RPO by the time from each segment's first \
                   commit to the moment the store took it. The objectives are those configured \
                   on the host that made this report."
            .to_owned(),
    }
}

fn retention(report: &Report) -> Statement {
    let retention = &report.retention;
    let reach = match retention.reaches_back_ms {
        Some(reach) => format!("The oldest moment that can be restored lies {} back", span(reach)),
        None => "Nothing can be restored".to_owned(),
    };
    Statement {
        topic: "Backups are retained as long as required",
        asked_by: "SOC 2 A1.2, C1.1 · HIPAA §164.316(b)(2)(i) · SOX ITGC, operations",
        shown: if retention.reaches_back_ms.is_some() { Shown::Partly } else { Shown::No },
        says: format!("{reach}. walden removes no backup and no WAL."),
        evidence: "Section Retention. What people or a lifecycle rule of the store removed, or \
                   will remove, cannot be seen from here; required periods are not configured."
            .to_owned(),
    }
}

fn at_rest(app: &App) -> Statement {
    let says = match (location(app), app.settings.s3.sse.as_deref()) {
        (Some(Location::S3 { .. }), Some(sse)) => {
            let key = app.settings.s3.kms_key_id.as_deref();
            let key = key.map(|key| format!(" with key {key}")).unwrap_or_default();
            format!("The store is asked to encrypt every object it takes ({sse}{key}).")
        }
        (Some(Location::S3 { .. }), None) => {
            "No server-side encryption is asked for; the bucket may have a default of its own."
                .to_owned()
        }
        _ => "The repository is a directory: whether its disk is encrypted is not known here."
            .to_owned(),
    };
    let is_asked =
        matches!(location(app), Some(Location::S3 { .. })) && app.settings.s3.sse.is_some();
    Statement {
        topic: "Backups are encrypted at rest",
        asked_by: "SOC 2 CC6.1 · HIPAA §164.312(a)(2)(iv)",
        shown: if is_asked { Shown::Partly } else { Shown::No },
        says,
        evidence: "The configuration (s3.sse) of the host that made this report. walden itself \
                   does not encrypt: who can read the store can read the data. Objects stored \
                   under another configuration were not looked at."
            .to_owned(),
    }
}

fn in_transit(app: &App) -> Statement {
    let endpoint = app.settings.s3.endpoint.as_deref();
    let (shown, says) = match location(app) {
        Some(Location::S3 { .. }) if endpoint.is_some_and(|url| url.starts_with("http://")) => {
            (Shown::No, "The store is spoken to over plain HTTP.")
        }
        Some(Location::S3 { .. }) => {
            (Shown::Yes, "The store is spoken to over TLS, its certificate checked.")
        }
        _ => (Shown::No, "The repository is a directory; how it is mounted is not known here."),
    };
    Statement {
        topic: "Backups are encrypted in transit",
        asked_by: "SOC 2 CC6.7 · HIPAA §164.312(e)(2)(ii)",
        shown,
        says: says.to_owned(),
        evidence: "The configuration (repository.url, s3.endpoint) of the host that made this \
                   report."
            .to_owned(),
    }
}

fn access(report: &Report) -> Statement {
    let audit = &report.audit;
    let who: BTreeSet<String> =
        audit.iter().map(|deed| format!("{}@{}", deed.os_user, deed.host)).collect();
    let failed = audit.iter().filter(|deed| deed.outcome == Outcome::Failed).count() as u64;
    let names: Vec<&str> = who.iter().take(5).map(String::as_str).collect();
    let more = who.len().saturating_sub(names.len());
    let names = match (names.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!(": {}", names.join(", ")),
        (false, more) => format!(": {} and {more} more", names.join(", ")),
    };
    Statement {
        topic: "Who used the backups is recorded",
        asked_by: "SOC 2 CC6.1, CC7.2 · HIPAA §164.312(b) · SOX ITGC, access",
        shown: if audit.is_empty() { Shown::No } else { Shown::Partly },
        says: format!(
            "{} in this period by {}{names}; {failed} failed.",
            count(audit.len() as u64, "entry").replace("entrys", "entries"),
            count(who.len() as u64, "user"),
        ),
        evidence: "Section Audit trail. walden writes it, once for each backup, restore, \
                   verification and drill, where its role may write; entries are not signed. \
                   Reading the store without walden leaves a trace only in the store's own \
                   access log, and who may do so is in its policies."
            .to_owned(),
    }
}

fn integrity() -> Statement {
    Statement {
        topic: "What is stored cannot be changed unnoticed",
        asked_by: "SOC 2 PI1.5 · HIPAA §164.312(c)(2) · SOX ITGC",
        shown: Shown::Partly,
        says: "Every object is written once and has a checksum of its content, which every \
               restore and every deep verification compares."
            .to_owned(),
        evidence: "The checksums (CRC-32, and those of PostgreSQL's records and pages) find \
                   damage, not forgery: against somebody who may write to the store, use the \
                   store's object lock. Whether it is on is not known here."
            .to_owned(),
    }
}

fn location(app: &App) -> Option<Location> {
    let repository = app.settings.require_repositories().ok()?.first()?;
    Location::parse(&repository.url).ok()
}

/// `3 days 4 h`, `12 min`: two units at most.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    let join = |first: String, second: u64, unit: &str| match second {
        0 => first,
        second => format!("{first} {second} {unit}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) if ms < 1000 => format!("{ms} ms"),
        (0, 0, 0) => format!("{}.{} s", seconds, ms % 1000 / 100),
        (0, 0, minutes) => join(format!("{minutes} min"), rest, "s"),
        (0, hours, minutes) => join(format!("{hours} h"), minutes, "min"),
        (days, ..) if days >= 10 => format!("{days} days"),
        (days, hours, _) => join(count(days, "day"), hours, "h"),
    }
}

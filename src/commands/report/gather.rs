//! Asks the repository everything the report tells, each thing once.

use std::path::Path;

use jiff::Timestamp;

use crate::commands::App;
use crate::commands::list::{self, Listed};
use crate::commands::report::backups::Backups;
use crate::commands::report::coverage::Verification;
use crate::commands::report::days::{self, Days, Wal};
use crate::commands::report::retention::{Oldest, Retention};
use crate::commands::report::trail::{self, Deed};
use crate::commands::report::usage::Storage;
use crate::commands::report::{Recovery, Report, Window, lanes, statements, verdict};
use crate::commands::survey::{self, Memory, Survey};
use crate::commands::window::{self, TimelineReport};
use crate::error::Result;
use crate::postgres::TimelineId;
use crate::repository::audit::{AuditEntry, Verb};
use crate::repository::drill_record::DrillRecord;
use crate::repository::{BackupId, Home};

pub fn gather(
    app: &App,
    home: &Home,
    pgdata: Option<&Path>,
    (since, now): (Timestamp, Timestamp),
) -> Result<Report> {
    let survey = survey::survey(home, &Memory::open(app, home)?)?;
    let looked = window::look(app, home, pgdata, &survey);
    let mut notes = looked.notes;
    let told = tell(home, since, &mut notes)?;
    let verifications = entries(home, Some(Verb::Verify), None, &mut Vec::new())?;
    let contents = home.contents()?;
    let mut list = list::list_one(home)?.backups;
    let proven = proven(&verifications);
    for backup in &mut list {
        backup.verified = backup.verified.or_else(|| proven.get(&backup.id).copied());
    }
    let Survey { tree, inventory, .. } = &survey;
    let first = first_of_all(&survey, &list);
    let days = Days::new(days::begin(since, now, first), now);
    let wal = Wal::of(inventory, tree, &days);
    let storage = Storage::of(&contents, &list, &days);
    let verification = Verification::of(&verifications, &list, inventory, (since, now));
    let current = current(&survey);
    let newest = looked.timelines.iter().find(|timeline| Some(timeline.timeline) == current);
    let latest = newest.and_then(|newest| newest.latest);
    let recovery = Recovery::of(&wal, &told.drills, app.settings.objectives, latest, now);
    let oldest = oldest(&looked.timelines);
    let retention = Retention::of(oldest, &list, &survey.backups, inventory, now);
    let window = Window {
        current,
        earliest: newest.and_then(|newest| newest.earliest),
        latest,
        lanes: lanes::lanes(&looked.timelines, inventory, tree, &list),
        timelines: looked.timelines,
        unarchived: looked.unarchived,
    };
    let audit: Vec<Deed> = told.audit.into_iter().map(Deed::of).collect();
    let versions = trail::versions(&list, &audit, &told.drills);
    let mut report = Report {
        walden: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generated: now,
        since,
        cluster: app.settings.cluster.to_string(),
        repository: home.url(),
        system_identifier: home.system_identifier(),
        verdict: verdict::Verdict::undecided(),
        window,
        recovery,
        backups: Backups::of(list, since, now),
        wal,
        storage,
        drills: told.drills,
        verification,
        retention,
        audit,
        versions,
        statements: Vec::new(),
        notes,
    };
    report.verdict = verdict::decide(&report, told.last_drill.as_ref());
    report.statements = statements::statements(&report, app);
    Ok(report)
}

struct Told {
    audit: Vec<AuditEntry>,
    drills: Vec<DrillRecord>,
    /// Also where it is older than what is told of.
    last_drill: Option<DrillRecord>,
}

fn tell(home: &Home, since: Timestamp, notes: &mut Vec<String>) -> Result<Told> {
    let audit = entries(home, None, Some(since), notes)?;
    let ids = home.drills()?;
    let first = BackupId::new(since, 0);
    let recent = ids.partition_point(|id| *id < first);
    // The last one before is a fact of today where there was none since.
    let wanted = &ids[recent.min(ids.len().saturating_sub(1))..];
    let mut drills = Vec::new();
    for (id, record) in wanted.iter().zip(home.drill_records(wanted)?) {
        match record {
            Ok(record) => drills.push(record),
            Err(error) => {
                notes.push(format!("drill {id} is left out, it cannot be read: {error}."));
            }
        }
    }
    // Names tell the second only.
    drills.sort_by_key(|drill: &DrillRecord| drill.ended);
    let last_drill = drills.last().cloned();
    drills.retain(|drill| drill.id >= first);
    Ok(Told { audit, drills, last_drill })
}

/// Oldest first.
fn entries(
    home: &Home,
    verb: Option<Verb>,
    since: Option<Timestamp>,
    notes: &mut Vec<String>,
) -> Result<Vec<AuditEntry>> {
    let mut entries = Vec::new();
    for entry in home.audit(verb, since)? {
        match entry {
            Ok(entry) => entries.push(entry),
            Err(error) => notes.push(format!("the audit trail is not whole: {error}.")),
        }
    }
    Ok(entries)
}

fn proven(entries: &[AuditEntry]) -> std::collections::BTreeMap<BackupId, Timestamp> {
    let details = |entry: &AuditEntry| {
        let details = serde_json::from_value(entry.details.clone()).ok()?;
        Some((entry.ended, details))
    };
    let known: Vec<_> = entries.iter().filter_map(details).collect();
    crate::repository::verification::proven_by(&known)
}

/// The timeline whose WAL arrived last: the one the cluster runs on, as far as the store can tell.
fn current(survey: &Survey) -> Option<TimelineId> {
    let segments = survey.inventory.segments.iter();
    let newest = segments.max_by_key(|(name, segment)| (segment.stored, name.timeline));
    newest.map(|(name, _)| name.timeline)
}

fn oldest(timelines: &[TimelineReport]) -> Option<Oldest> {
    let windows = timelines
        .iter()
        .flat_map(|timeline| timeline.windows.iter().map(|window| (window, timeline.timeline)));
    let oldest = windows.min_by_key(|(window, timeline)| (window.earliest, *timeline))?;
    Some((oldest.0.earliest?, oldest.0.earliest_backup.clone(), oldest.1))
}

fn first_of_all(survey: &Survey, list: &[Listed]) -> Option<Timestamp> {
    let stored = survey.inventory.segments.values().map(|segment| segment.stored).min();
    stored.into_iter().chain(list.iter().filter_map(|backup| backup.began)).min()
}

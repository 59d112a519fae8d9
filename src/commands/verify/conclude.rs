//! What it all comes to: the report, and what is written down for the next time.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::catalog::Inventory;
use crate::commands::audit::Deed;
use crate::commands::verify::wal::SeenWal;
use crate::commands::verify::{
    CheckedBackup, CheckedTimeline, Finding, Looked, Outcome, Report, Request, Severity,
};
use crate::host::clock;
use crate::postgres::{SystemIdentifier, TimelineId, WalFileName};
use crate::repository::verification::{Verification, VerifiedBackup, VerifiedWal};
use crate::repository::{Home, Kept, Object, audit};

/// What the audit trail keeps of the findings.
const FINDINGS_KEPT: usize = 100;

/// The caller adds whose it is.
pub fn report(looked: &Looked, request: &Request, began: Timestamp) -> Report {
    let outcome = match (looked.has_damage(), looked.unchecked.as_slice()) {
        (true, _) => Outcome::Damage,
        (false, []) => Outcome::Sound,
        (false, _) => Outcome::Unchecked,
    };
    let is_stored = |object: &&Object| {
        object.kept.backup().is_some() || matches!(object.kept, Kept::Wal(WalFileName::Segment(_)))
    };
    let stored_bytes =
        looked.contents.objects.iter().filter(is_stored).map(|object| object.size).sum();
    let mut report = Report {
        walden: 1,
        cluster: String::new(),
        repository: String::new(),
        system_identifier: SystemIdentifier(0),
        outcome,
        summary: String::new(),
        deep: request.deep,
        sample: if request.deep { request.sample } else { 0.0 },
        began,
        ended: clock::now(),
        resumed: None,
        backups: looked.backups.checked.clone(),
        timelines: looked.timelines.clone(),
        segments: looked.timelines.iter().map(|it| it.segments).sum(),
        segments_read: looked.wal.read.len() as u64,
        read_bytes: looked.backups.read_bytes + looked.wal.read_bytes,
        stored_bytes,
        unarchived: looked.unarchived.clone(),
        findings: looked.verdicts.findings.clone(),
        consequence: looked.verdicts.consequence.clone(),
        lost_times: looked.verdicts.together.stretches.clone(),
        lost_backups: looked.verdicts.together.backups.clone(),
        unchecked: looked.unchecked.clone(),
    };
    report.summary = summary(&report);
    report
}

/// `3 backups, 412 segments, 18.2 GiB read: sound`
fn summary(report: &Report) -> String {
    let count = |severity| report.findings.iter().filter(|it| it.severity == severity).count();
    let found = match (report.outcome, count(Severity::Damage), report.unchecked.len()) {
        (Outcome::Sound, ..) => "sound".to_owned(),
        (Outcome::Damage, damage, 0) => many(damage as u64, "damage", "damages"),
        (Outcome::Damage, damage, unchecked) => {
            let damage = many(damage as u64, "damage", "damages");
            format!(
                "{damage}, and {} could not be checked",
                many(unchecked as u64, "object", "objects")
            )
        }
        (Outcome::Unchecked, _, unchecked) => {
            let objects = many(unchecked as u64, "object", "objects");
            format!("{objects} could not be checked, the rest is sound")
        }
    };
    let read = match report.deep {
        true => format!("{} read", iec(report.read_bytes)),
        false => format!("{} looked at, content not read", iec(report.stored_bytes)),
    };
    let backups = many(report.backups.len() as u64, "backup", "backups");
    let segments = many(report.segments, "segment", "segments");
    format!("{backups}, {segments}, {read}: {found}")
}

fn many(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

fn iec(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// Lowest first.
pub fn timelines(inventory: &Inventory, seen: &SeenWal) -> Vec<CheckedTimeline> {
    let mut timelines: BTreeMap<TimelineId, CheckedTimeline> = BTreeMap::new();
    for (name, segment) in &inventory.segments {
        let one = timelines.entry(name.timeline).or_insert_with(|| CheckedTimeline {
            timeline: name.timeline,
            first_segment: *name,
            last_segment: *name,
            segments: 0,
            segments_read: 0,
            stored: segment.stored,
            last_commit: None,
        });
        one.last_segment = *name;
        one.segments += 1;
        one.segments_read += u64::from(seen.read.contains(name));
        one.stored = one.stored.max(segment.stored);
        let commit = segment.wal.and_then(|wal| wal.last_commit);
        one.last_commit = commit.map(|commit| commit.time).or(one.last_commit);
    }
    timelines.into_values().collect()
}

/// In the audit trail: what was read, and what was found.
pub fn record(home: &Home, deed: &Deed, looked: &Looked, report: &Report) {
    let size = looked.wal.segment_size;
    let verification = Verification {
        deep: report.deep,
        sample: report.sample,
        backups: report.backups.iter().map(|backup| verified(looked, backup)).collect(),
        wal: runs(looked, size),
        read_bytes: report.read_bytes,
        findings: words(&report.findings),
        found: report.findings.len() as u64,
    };
    let outcome = match report.outcome {
        Outcome::Sound => audit::Outcome::Done,
        Outcome::Damage => audit::Outcome::FoundWrong,
        Outcome::Unchecked => audit::Outcome::CouldNotCheck,
    };
    let details = serde_json::to_value(verification).unwrap_or_default();
    deed.end(home, outcome, &report.summary, details);
}

fn verified(looked: &Looked, backup: &CheckedBackup) -> VerifiedBackup {
    let mut packs: Vec<(u32, u32)> = Vec::new();
    for number in looked.backups.read.get(&backup.id).into_iter().flatten() {
        match packs.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => packs.push((*number, *number)),
        }
    }
    VerifiedBackup { id: backup.id.clone(), packs, whole: backup.whole, sound: backup.sound }
}

/// Those that are there, each run either read or only looked at.
fn runs(looked: &Looked, size: u32) -> Vec<VerifiedWal> {
    let mut runs: Vec<VerifiedWal> = Vec::new();
    for name in looked.segments.iter().copied() {
        let deep = looked.wal.read.contains(&name);
        match runs.last_mut() {
            Some(run) if size > 0 && run.deep == deep && run.last.next(size) == name => {
                run.last = name;
            }
            _ => runs.push(VerifiedWal { first: name, last: name, deep }),
        }
    }
    runs
}

fn words(findings: &[Finding]) -> Vec<String> {
    let damage = findings.iter().filter(|finding| finding.severity == Severity::Damage);
    let word = |it: &Finding| format!("{}: {}: {}", it.object, it.what, it.consequence);
    damage.take(FINDINGS_KEPT).map(word).collect()
}

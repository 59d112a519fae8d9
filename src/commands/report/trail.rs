//! Who did what, when and from where; and by which versions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::commands::list::Listed;
use crate::repository::audit::{AuditEntry, Outcome, Verb};
use crate::repository::drill_record::DrillRecord;

/// An audit entry without its details.
#[derive(Debug, Clone, Serialize)]
pub struct Deed {
    pub verb: Verb,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub outcome: Outcome,
    pub summary: String,
    pub host: String,
    pub os_user: String,
    pub version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Version {
    /// `PostgreSQL` or `walden`.
    pub program: &'static str,
    pub version: String,
    /// As far as is known from backups, drills and the audit trail.
    pub first: Timestamp,
    pub last: Timestamp,
    pub backups: u64,
}

impl Deed {
    pub fn of(entry: AuditEntry) -> Deed {
        Deed {
            verb: entry.verb,
            began: entry.began,
            ended: entry.ended,
            outcome: entry.outcome,
            summary: entry.summary,
            host: entry.host,
            os_user: entry.os_user,
            version: entry.version,
        }
    }
}

/// PostgreSQL by the backups, walden by what it did; in the order of their first days.
pub fn versions(backups: &[Listed], audit: &[Deed], drills: &[DrillRecord]) -> Vec<Version> {
    let servers = backups.iter().filter_map(|backup| {
        let number = backup.server_version_num?;
        let version = format!("{}.{}", number / 10_000, number % 10_000);
        Some(("PostgreSQL", version, backup.ended?, 1))
    });
    let deeds = audit.iter().map(|deed| ("walden", deed.version.clone(), deed.ended, 0));
    let drills = drills.iter().map(|drill| ("walden", drill.version.clone(), drill.ended, 0));
    let mut versions: BTreeMap<(&str, String), Version> = BTreeMap::new();
    for (program, version, time, backups) in servers.chain(deeds).chain(drills) {
        let known = versions.entry((program, version.clone())).or_insert(Version {
            program,
            version,
            first: time,
            last: time,
            backups: 0,
        });
        known.first = known.first.min(time);
        known.last = known.last.max(time);
        known.backups += backups;
    }
    let mut versions: Vec<Version> = versions.into_values().collect();
    versions.sort_by_key(|version| (version.program, version.first));
    versions
}

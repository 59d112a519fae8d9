//! What backups there are, and whether each can be used as far as the store's lists can tell.
//!
//! One small request for each backup and one for each 4 GiB of the WAL they need; nothing is
//! hidden: what cannot be read is listed as such.

mod detail;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::catalog::chain::Broken;
use crate::catalog::{BackupSummary, Chain, TimelineTree};
use crate::commands::survey;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, SegmentName, SystemIdentifier, TimelineId, WalFileName};
use crate::repository::manifest::Mode;
use crate::repository::{BackupFacts, BackupId, Home, Repository};

pub use detail::Detail;

/// Of a backup that lacks more, these are enough to see what happened.
const MISSING_MAX: usize = 100;

/// The JSON shape of `walden list --json`, version 1.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    pub walden: u32,
    pub repository: String,
    pub cluster: String,
    pub clusters: Vec<Cluster>,
}

/// All that one system identifier stands for; `pg_upgrade` adds one.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Cluster {
    pub system_identifier: SystemIdentifier,
    /// Oldest first.
    pub backups: Vec<Listed>,
}

/// `None` where the backup cannot be read.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Listed {
    pub id: BackupId,
    #[serde(rename = "type")]
    pub kind: Option<Type>,
    /// The backup this one is the difference to.
    pub parent: Option<BackupId>,
    /// How its files were read.
    pub mode: Option<Mode>,
    /// All that it rests on and itself, the full one first; empty where that is broken.
    pub chain: Vec<String>,
    pub label: Option<String>,
    pub notes: BTreeMap<String, String>,
    pub began: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// From one to the other.
    pub duration_ms: Option<u64>,
    pub size: Option<u64>,
    pub stored: Option<u64>,
    pub files: Option<usize>,
    pub timeline: Option<TimelineId>,
    pub start_lsn: Option<Lsn>,
    pub end_lsn: Option<Lsn>,
    pub first_wal: Option<String>,
    pub last_wal: Option<String>,
    pub server_version_num: Option<u32>,
    pub from_standby: Option<bool>,
    /// When its content was last proven.
    pub verified: Option<Timestamp>,
    /// Kept until somebody lets it go.
    pub held: bool,
    /// How many of its pages were damaged on the server already.
    pub damaged: Option<u64>,
    pub usable: bool,
    /// Why it is not.
    pub reason: Option<String>,
    /// In order, the first hundred.
    pub missing_wal: Vec<String>,
    /// Where one backup was asked for.
    #[serde(flatten)]
    pub detail: Option<Detail>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    Full,
    Incremental,
}

/// Every backup under this name.
pub fn list(repository: &Repository) -> Result<Report> {
    let mut clusters = Vec::new();
    for home in homes(repository)? {
        clusters.push(list_one(&home)?);
    }
    Ok(report(repository, clusters))
}

/// Every backup of one cluster.
pub fn list_one(home: &Home) -> Result<Cluster> {
    let found = home.all_backup_facts()?;
    let relatives = Relatives::of(home, summaries(&found))?;
    cluster(home, found, &relatives)
}

/// One backup in detail, and whether its packs are there.
pub fn show(repository: &Repository, id: &BackupId) -> Result<Report> {
    let mut clusters = Vec::new();
    let mut others = Vec::new();
    for home in homes(repository)? {
        let facts = match home.backup_facts(id) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                others.extend(home.backups()?);
                continue;
            }
            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
            facts => facts,
        };
        let known = facts.as_ref().ok().cloned();
        let is_incremental = known.as_ref().is_some_and(|facts| facts.parent.is_some());
        let relatives = match is_incremental {
            true => Relatives::of(&home, summaries(&home.all_backup_facts()?))?,
            false => Relatives::default(),
        };
        let mut cluster = cluster(&home, vec![(id.clone(), facts)], &relatives)?;
        for listed in &mut cluster.backups {
            if let Some(facts) = &known {
                detail::add(listed, facts, &home)?;
            }
        }
        clusters.push(cluster);
    }
    if clusters.is_empty() {
        return Err(no_such_backup(repository, id, &others));
    }
    Ok(report(repository, clusters))
}

fn report(repository: &Repository, clusters: Vec<Cluster>) -> Report {
    let (repository, cluster) = (repository.url(), repository.cluster().to_string());
    Report { walden: 1, repository, cluster, clusters }
}

/// One at least.
fn homes(repository: &Repository) -> Result<Vec<Home>> {
    let homes = repository.homes()?;
    if !homes.is_empty() {
        return Ok(homes);
    }
    let (name, url) = (repository.cluster(), repository.url());
    let names: Vec<String> =
        repository.cluster_names().iter().map(|name| format!("--cluster {name}")).collect();
    let hint = match names.is_empty() {
        true => "Look at --repository, and that the store is mounted.".to_owned(),
        false => format!("Others are there: {}.", names.join(", ")),
    };
    let message = format!("nothing is archived in {url} under the name {name}");
    Err(Error::new(ErrorKind::Refused, message).hint(hint))
}

fn no_such_backup(repository: &Repository, id: &BackupId, others: &[BackupId]) -> Error {
    let newest: Vec<&str> = others.iter().rev().take(5).map(BackupId::as_str).collect();
    let hint = match newest.is_empty() {
        true => "There is none yet: take one with walden backup.".to_owned(),
        false => format!("The newest are: {}.", newest.join(", ")),
    };
    let place = format!("{} under the name {}", repository.url(), repository.cluster());
    Error::new(ErrorKind::Refused, format!("backup {id} is not in {place}")).hint(hint)
}

type Found = Vec<(BackupId, Result<BackupFacts>)>;

fn summaries(found: &Found) -> Vec<BackupSummary> {
    let known = found.iter().filter_map(|(_, facts)| facts.as_ref().ok());
    known.map(|facts| survey::summary(facts.clone())).collect()
}

fn cluster(home: &Home, found: Found, relatives: &Relatives) -> Result<Cluster> {
    let wal = Wal::that_is_needed(home, &found)?;
    let held = if found.is_empty() { BTreeSet::new() } else { home.held()? };
    let proven = if found.is_empty() { BTreeMap::new() } else { proven(home)? };
    let backups = found.into_iter().map(|(id, facts)| {
        let (held, verified) = (held.contains(&id), proven.get(&id).copied());
        match facts {
            Ok(facts) => Listed { held, verified, ..listed(&facts, &wal, relatives) },
            Err(error) => Listed { held, ..damaged(id, &error) },
        }
    });
    Ok(Cluster { system_identifier: home.system_identifier(), backups: backups.collect() })
}

/// When each was last verified whole. Who may not read that lists the rest all the same.
fn proven(home: &Home) -> Result<BTreeMap<BackupId, Timestamp>> {
    match home.proven() {
        Err(error) if error.kind() == ErrorKind::NotAllowed => Ok(BTreeMap::new()),
        proven => proven,
    }
}

/// As the store lists it.
struct Wal {
    segments: BTreeSet<SegmentName>,
    histories: BTreeSet<TimelineId>,
}

/// What an incremental backup may rest on.
#[derive(Default)]
struct Relatives {
    backups: Vec<BackupSummary>,
    tree: TimelineTree,
}

impl Relatives {
    /// The timelines are asked for only where a chain crosses from one to another.
    fn of(home: &Home, backups: Vec<BackupSummary>) -> Result<Relatives> {
        let has_chains = backups.iter().any(|backup| backup.parent.is_some());
        let has_branches = backups.iter().any(|backup| backup.timeline.get() > 1);
        let tree = match has_chains && has_branches {
            true => survey::tree(home, &mut Vec::new())?,
            false => TimelineTree::default(),
        };
        Ok(Relatives { backups, tree })
    }

    fn chain(&self, facts: &BackupFacts) -> std::result::Result<Vec<String>, Broken> {
        let backup = survey::summary(facts.clone());
        let chain = Chain::of(&backup, &self.backups, &self.tree)?;
        Ok(chain.links().iter().map(|link| link.id.clone()).collect())
    }
}

impl Wal {
    /// Only the log files that the backups need are asked for.
    fn that_is_needed(home: &Home, found: &Found) -> Result<Wal> {
        let known = || found.iter().filter_map(|(_, facts)| facts.as_ref().ok());
        let logs = known()
            .flat_map(|facts| {
                let log = |lsn: Lsn| (lsn.0 >> 32) as u32;
                let logs = log(facts.start_lsn)..=log(facts.end_lsn);
                logs.map(|log| (facts.timeline, log))
            })
            .collect();
        let has_branches = known().any(|facts| facts.timeline.get() > 1);
        let histories = if has_branches { home.histories()? } else { BTreeSet::new() };
        Ok(Wal { segments: home.archived_in(&logs)?, histories })
    }

    fn missing(&self, facts: &BackupFacts) -> Vec<String> {
        let history = WalFileName::History(facts.timeline);
        let has_history = facts.timeline.get() == 1 || self.histories.contains(&facts.timeline);
        let history = (!has_history).then(|| history.to_string());
        let segments = facts.wal_needed().filter(|segment| !self.segments.contains(segment));
        history.into_iter().chain(segments.map(|it| it.to_string())).take(MISSING_MAX).collect()
    }
}

fn listed(facts: &BackupFacts, wal: &Wal, relatives: &Relatives) -> Listed {
    let missing_wal = wal.missing(facts);
    let missing = match missing_wal.as_slice() {
        [] => None,
        [only] => Some(format!("{only} is missing")),
        [first, rest @ ..] => Some(format!("{first} and {} more are missing", rest.len())),
    };
    let chain = relatives.chain(facts);
    let broken = chain.as_ref().err().map(Broken::to_string);
    let reasons: Vec<String> = broken.into_iter().chain(missing).collect();
    let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    let (first_wal, last_wal) = facts.first_and_last_wal();
    let duration = facts.ended.duration_since(facts.began).as_millis();
    Listed {
        id: facts.id.clone(),
        kind: Some(if facts.parent.is_some() { Type::Incremental } else { Type::Full }),
        parent: facts.parent.clone(),
        mode: facts.mode,
        chain: chain.unwrap_or_default(),
        label: facts.label.clone(),
        notes: facts.notes.clone(),
        began: Some(facts.began),
        ended: Some(facts.ended),
        duration_ms: Some(u64::try_from(duration).unwrap_or(0)),
        size: Some(facts.size),
        stored: Some(facts.stored),
        files: Some(facts.files),
        timeline: Some(facts.timeline),
        start_lsn: Some(facts.start_lsn),
        end_lsn: Some(facts.end_lsn),
        first_wal: Some(first_wal.to_string()),
        last_wal: Some(last_wal.to_string()),
        server_version_num: Some(facts.server_version_num),
        from_standby: Some(facts.from_standby),
        verified: None,
        held: false,
        damaged: Some(facts.damaged),
        usable: reason.is_none(),
        reason,
        missing_wal,
        detail: None,
    }
}

/// One of which there is no more than its name.
fn damaged(id: BackupId, error: &Error) -> Listed {
    Listed {
        id,
        kind: None,
        parent: None,
        mode: None,
        chain: Vec::new(),
        label: None,
        notes: BTreeMap::new(),
        began: None,
        ended: None,
        duration_ms: None,
        size: None,
        stored: None,
        files: None,
        timeline: None,
        start_lsn: None,
        end_lsn: None,
        first_wal: None,
        last_wal: None,
        server_version_num: None,
        from_standby: None,
        verified: None,
        held: false,
        damaged: None,
        usable: false,
        reason: Some(format!("it cannot be read: {error}")),
        missing_wal: Vec::new(),
        detail: None,
    }
}

#[cfg(test)]
mod tests;

//! What the repository holds that a restore can choose from.

use crate::catalog::{ArchivedWal, BackupSummary, Choice, TimelineTree};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::history_file::HistoryFile;
use crate::postgres::{SystemIdentifier, WalFileName};
use crate::repository::{BackupId, Home, Manifest, Repository};

pub struct Survey {
    pub backups: Vec<BackupSummary>,
    pub tree: TimelineTree,
    /// Backups that cannot be read, as sentences.
    pub notes: Vec<String>,
}

/// The cluster to restore: the one asked for, the one that has the backup asked for, or the only
/// one that has backups.
pub fn find_home(
    repository: &Repository,
    wanted: Option<SystemIdentifier>,
    backup: Option<&BackupId>,
) -> Result<Home> {
    let homes = repository.homes()?;
    if homes.is_empty() {
        return Err(refused(format!(
            "nothing is archived in {} under this name",
            repository.url()
        ))
        .hint("Look at --repository and --cluster, and that the store is mounted."));
    }
    let mut candidates = Vec::new();
    for home in homes {
        let backups = home.backups()?;
        let fits = match (wanted, backup) {
            (Some(wanted), _) => home.system_identifier() == wanted,
            (None, Some(id)) => backups.contains(id),
            (None, None) => !backups.is_empty(),
        };
        if fits {
            candidates.push((home, backups.last().cloned()));
        }
    }
    match candidates.len() {
        1 => Ok(candidates.remove(0).0),
        0 => Err(refused(format!("no such backup is in {}", repository.url())).hint(
            "Take a backup with walden backup, or look at --backup, --system-identifier, \
                   --cluster.",
        )),
        _ => Err(several(&candidates)),
    }
}

fn several(candidates: &[(Home, Option<BackupId>)]) -> Error {
    let lines: Vec<String> = candidates
        .iter()
        .map(|(home, newest)| {
            let newest = newest.as_ref().map_or("none".to_owned(), BackupId::to_string);
            format!("--system-identifier {} (newest backup {newest})", home.system_identifier())
        })
        .collect();
    refused("several clusters have backups under this name; pg_upgrade starts a new one".to_owned())
        .hint(format!("Say which: {}.", lines.join(", ")))
}

/// One manifest at a time is held whole: a large cluster's lists hundreds of thousands of files.
pub fn survey(home: &Home) -> Result<Survey> {
    let mut backups = Vec::new();
    let mut notes = Vec::new();
    for id in home.backups()? {
        match home.manifest(&id) {
            Ok(manifest) => backups.push(summary(&manifest)),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                notes.push(format!("backup {id} is left out, it cannot be read: {error}."));
            }
            Err(error) => return Err(error),
        }
    }
    let mut histories = Vec::new();
    for timeline in home.histories()? {
        let mut text = Vec::new();
        home.get_wal(&WalFileName::History(timeline), |piece| {
            text.extend_from_slice(piece);
            Ok(())
        })
        .context(|| "read the timeline histories")?;
        histories.push(HistoryFile::parse(timeline, &String::from_utf8_lossy(&text))?);
    }
    Ok(Survey { backups, tree: TimelineTree::new(histories), notes })
}

/// The segments that the store lists on the way of `choice`, from its backup on.
pub fn archived(home: &Home, choice: &Choice) -> Result<ArchivedWal> {
    let first_log = (choice.backup.start_lsn.0 >> 32) as u32;
    let mut archived = ArchivedWal::new();
    for step in choice.path.steps() {
        archived.extend(home.archived(step.timeline, first_log)?);
    }
    Ok(archived)
}

fn summary(manifest: &Manifest) -> BackupSummary {
    BackupSummary {
        id: manifest.id.to_string(),
        timeline: manifest.timeline,
        start_lsn: manifest.start_lsn,
        end_lsn: manifest.end_lsn,
        ended: manifest.ended,
        wal_segment_size: manifest.wal_segment_size,
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, message)
}

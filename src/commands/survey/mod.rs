//! What a decision needs to know of a cluster's repository: its home, backups, timelines and WAL.

mod home;
mod memory;
mod wal;

use crate::catalog::{BackupSummary, Inventory, TimelineTree};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::history_file::HistoryFile;
use crate::postgres::{MajorVersion, WalFileName};
use crate::repository::{BackupFacts, Home, Manifest};

pub use home::{find_archive, find_home};
pub use memory::Memory;

#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Oldest first.
    pub backups: Vec<BackupSummary>,
    pub tree: TimelineTree,
    pub inventory: Inventory,
    /// What cannot be read, as sentences.
    pub notes: Vec<String>,
}

/// `memory` saves requests; without it everything is asked anew.
pub fn survey(home: &Home, memory: &Memory) -> Result<Survey> {
    let mut notes = Vec::new();
    let backups = backups(home, &mut notes)?;
    let tree = tree(home, &mut notes)?;
    let segment_size = backups.last().map(|backup| backup.wal_segment_size);
    let inventory = wal::inventory(home, memory, &tree, segment_size, &mut notes)?;
    Ok(Survey { backups, tree, inventory, notes })
}

fn backups(home: &Home, notes: &mut Vec<String>) -> Result<Vec<BackupSummary>> {
    let mut backups = Vec::new();
    for (id, facts) in home.all_backup_facts()? {
        match facts {
            Ok(facts) => backups.push(summary(facts)),
            Err(error) => {
                notes.push(format!("backup {id} is left out, it cannot be read: {error}."));
            }
        }
    }
    Ok(backups)
}

/// The timelines, by the history files that can be read.
pub fn tree(home: &Home, notes: &mut Vec<String>) -> Result<TimelineTree> {
    let mut histories = Vec::new();
    for timeline in home.histories()? {
        let mut text = Vec::new();
        let read = home.get_wal(&WalFileName::History(timeline), |piece| {
            text.extend_from_slice(piece);
            Ok(())
        });
        let parsed = read
            .and_then(|_| HistoryFile::parse(timeline, &String::from_utf8_lossy(&text)))
            .context(|| "read the timeline histories");
        match parsed {
            Ok(history) => histories.push(history),
            Err(error) if error.kind() == ErrorKind::Corrupt => notes.push(format!("{error}.")),
            Err(error) => return Err(error),
        }
    }
    Ok(TimelineTree::new(histories))
}

/// A backup is chosen by the summary in the header of its manifest, which has no checksum: now that
/// the manifest itself is there, and checked, they must agree.
pub fn expect_as_summarized(chosen: &BackupSummary, manifest: &Manifest) -> Result<()> {
    if summary(manifest.facts()) == *chosen {
        return Ok(());
    }
    let message = format!("the manifest of backup {} is not what its header says", chosen.id);
    Err(Error::new(ErrorKind::Corrupt, message)
        .hint("The object is damaged: choose another backup with --backup."))
}

/// What a choice needs to know of it.
pub fn summary(facts: BackupFacts) -> BackupSummary {
    BackupSummary {
        id: facts.id.to_string(),
        timeline: facts.timeline,
        start_lsn: facts.start_lsn,
        end_lsn: facts.end_lsn,
        began: facts.began,
        ended: facts.ended,
        wal_segment_size: facts.wal_segment_size,
        major: MajorVersion::from_server_version_num(facts.server_version_num),
        parent: facts.parent.map(|parent| parent.to_string()),
        stored: facts.stored,
    }
}

#[cfg(test)]
mod tests;

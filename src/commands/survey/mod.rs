//! What a decision needs to know of a cluster's repository: its home, backups, timelines and WAL.

mod home;
mod memory;
mod wal;

use crate::catalog::{BackupSummary, Inventory, TimelineTree};
use crate::error::{Context, ErrorKind, Result};
use crate::postgres::WalFileName;
use crate::postgres::history_file::HistoryFile;
use crate::repository::{Home, Manifest};

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

/// One manifest at a time is held whole: a large cluster's lists hundreds of thousands of files.
fn backups(home: &Home, notes: &mut Vec<String>) -> Result<Vec<BackupSummary>> {
    let mut backups = Vec::new();
    for id in home.backups()? {
        match home.manifest(&id) {
            Ok(manifest) => backups.push(summary(&manifest)),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                notes.push(format!("backup {id} is left out, it cannot be read: {error}."));
            }
            Err(error) => return Err(error),
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

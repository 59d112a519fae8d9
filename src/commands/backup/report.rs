//! What a backup came to: its manifest, and what is said of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::commands::backup::Copied;
use crate::commands::backup::basis::Lineage;
use crate::commands::backup::copy::Target;
use crate::commands::backup::source::Source;
use crate::postgres::{Lsn, SystemIdentifier, TimelineId};
use crate::repository::manifest::{DamagedPage, Mode, PACK_BYTES, Tablespace, Taken};
use crate::repository::sums::CHUNK_BYTES;
use crate::repository::{BackupId, Manifest, NamesFacts, Repository};

/// The JSON shape of `walden backup --json`, version 1.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    pub walden: u32,
    pub id: BackupId,
    /// `full` or `incremental`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The backup this one is the difference to.
    pub parent: Option<BackupId>,
    /// How many backups a restore of this one needs.
    pub chain_length: usize,
    /// Why it is a full one, where an incremental one was wanted.
    pub full_because: Option<String>,
    pub repository: String,
    pub system_identifier: SystemIdentifier,
    pub server_version_num: u32,
    pub from_standby: bool,
    pub began: jiff::Timestamp,
    pub ended: jiff::Timestamp,
    /// From the first word to the manifest.
    pub duration_ms: u64,
    /// Raw bytes of all files.
    pub size: u64,
    /// Bytes as stored, packs only.
    pub stored: u64,
    pub files: usize,
    pub tablespaces: Vec<Tablespace>,
    pub timeline: TimelineId,
    pub start_lsn: Lsn,
    pub end_lsn: Lsn,
    /// The first and the last segment that replay needs.
    pub first_wal: String,
    pub last_wal: String,
    pub mode: Option<Mode>,
    pub label: Option<String>,
    pub notes: BTreeMap<String, String>,
    pub taken: Option<Taken>,
    /// Configuration files outside of the data directory that were saved along.
    pub configuration: Vec<String>,
    /// Pages that are damaged on the source: how many, and the first thousand.
    pub damaged: u64,
    pub damaged_pages: Vec<DamagedPage>,
    /// What was saved of them; `None`: they could not be had.
    pub names: Option<NamesFacts>,
}

pub fn manifest(
    source: &Source,
    target: &Target<'_>,
    copied: Copied,
    (began, ended): (jiff::Timestamp, jiff::Timestamp),
    (mode, label): (Mode, String),
) -> Manifest {
    let Copied { start, end, files, packs, lineage, damage, .. } = copied;
    let tablespaces = start.tablespaces.into_iter();
    Manifest {
        walden: 1,
        id: target.id.clone(),
        parent: lineage.parent,
        mode: Some(mode),
        origin: target.origin.clone(),
        server_version_num: source.server_version_num,
        wal_segment_size: source.segment_size,
        timeline: start.timeline,
        start_lsn: start.lsn,
        end_lsn: end.lsn,
        began,
        ended,
        from_standby: source.is_standby,
        time_zone: source.time_zone.clone(),
        log_time_zone: source.log_time_zone.clone(),
        label: Some(label),
        notes: Default::default(),
        taken: None,
        names: false,
        configuration: Vec::new(),
        damaged_pages: damage.pages,
        damaged: damage.count,
        tablespaces: tablespaces.map(|t| Tablespace { oid: t.oid, path: t.path }).collect(),
        pack_bytes: PACK_BYTES,
        packs,
        chunk_bytes: Some(CHUNK_BYTES as u64),
        files,
    }
}

pub fn report(
    repository: &Repository,
    manifest: &Manifest,
    names: Option<NamesFacts>,
    lineage: Lineage,
    duration: Duration,
) -> Report {
    let segments = || manifest.wal_needed().map(|segment| segment.to_string());
    Report {
        walden: 1,
        id: manifest.id.clone(),
        kind: if lineage.parent.is_some() { "incremental" } else { "full" },
        parent: lineage.parent,
        chain_length: lineage.chain_length,
        full_because: lineage.full_because,
        repository: repository.url(),
        system_identifier: manifest.system_identifier(),
        server_version_num: manifest.server_version_num,
        from_standby: manifest.from_standby,
        began: manifest.began,
        ended: manifest.ended,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        size: manifest.size(),
        stored: manifest.stored(),
        files: manifest.file_count(),
        tablespaces: manifest.tablespaces.clone(),
        timeline: manifest.timeline,
        start_lsn: manifest.start_lsn,
        end_lsn: manifest.end_lsn,
        first_wal: segments().next().unwrap_or_default(),
        last_wal: segments().last().unwrap_or_default(),
        mode: manifest.mode,
        label: manifest.label.clone(),
        notes: manifest.notes.clone(),
        taken: manifest.taken.clone(),
        configuration: manifest.configuration.iter().map(|file| file.path.clone()).collect(),
        damaged: manifest.damaged,
        damaged_pages: manifest.damaged_pages.clone(),
        names,
    }
}

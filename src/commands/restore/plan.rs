//! What a restore is about to do, as a value: printed before anything is changed, or all there is
//! with `--dry-run`.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::catalog::recovery_plan::WalRun;
use crate::catalog::{Choice, Target};
use crate::commands::restore::Request;
use crate::commands::restore::destination::Destination;
use crate::commands::restore::placement::Link;
use crate::postgres::{Lsn, SystemIdentifier, TimelineId};
use crate::repository::{BackupId, Manifest};

/// The JSON shape of `walden restore --json`, version 1.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Plan {
    pub walden: u32,
    pub repository: String,
    pub system_identifier: SystemIdentifier,
    pub backup: Backup,
    pub wal: Wal,
    pub target: PlannedTarget,
    pub timeline: TimelineId,
    /// `1 until 0/A000198, 2`
    pub timeline_path: String,
    pub directory: PathBuf,
    /// Whom the files will belong to, where that is not who runs walden.
    pub owner: Option<String>,
    pub tablespaces: Vec<Link>,
    pub signal_file: String,
    /// The block in `postgresql.auto.conf`.
    pub settings: String,
    /// Whether the restored server will archive.
    pub adopt: bool,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, serde::Serialize)]
pub struct Backup {
    pub id: BackupId,
    pub began: Timestamp,
    pub ended: Timestamp,
    /// Raw bytes of all files.
    pub size: u64,
    /// Bytes to fetch.
    pub stored: u64,
    pub files: usize,
    pub start_lsn: Lsn,
    pub end_lsn: Lsn,
    pub server_version_num: u32,
}

/// The unbroken WAL that is archived from the backup's start on.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Wal {
    pub first: String,
    pub last: String,
    /// Exclusive.
    pub end_lsn: Lsn,
    pub stored: Timestamp,
    /// The first segment missing, where later ones are there.
    pub gap: Option<String>,
}

#[derive(Debug, Clone, serde::Serialize)]
pub struct PlannedTarget {
    pub kind: &'static str,
    /// Times in UTC.
    pub value: Option<String>,
    pub exclusive: bool,
    pub action: &'static str,
}

impl Plan {
    /// What was chosen; `place` adds where it goes.
    pub fn new(request: &Request, manifest: &Manifest, choice: &Choice, run: WalRun) -> Plan {
        let (kind, value) = described(&request.wanted.target);
        Plan {
            walden: 1,
            repository: String::new(),
            system_identifier: manifest.system_identifier(),
            backup: Backup {
                id: manifest.id.clone(),
                began: manifest.began,
                ended: manifest.ended,
                size: manifest.size(),
                stored: manifest.stored(),
                files: manifest.file_count(),
                start_lsn: manifest.start_lsn,
                end_lsn: manifest.end_lsn,
                server_version_num: manifest.server_version_num,
            },
            wal: Wal {
                first: run.first.to_string(),
                last: run.last.to_string(),
                end_lsn: run.end,
                stored: run.stored,
                gap: run.gap.map(|segment| segment.to_string()),
            },
            target: PlannedTarget {
                kind,
                value,
                exclusive: request.wanted.exclusive,
                action: request.action().as_str(),
            },
            timeline: choice.path.last(),
            timeline_path: choice.path.to_string(),
            directory: PathBuf::new(),
            owner: None,
            tablespaces: Vec::new(),
            signal_file: String::new(),
            settings: String::new(),
            adopt: request.adopt,
            notes: choice.notes.clone(),
        }
    }

    pub fn place(
        &mut self,
        repository: String,
        destination: &Destination,
        signal_file: &str,
        settings: String,
    ) {
        self.repository = repository;
        self.directory = destination.directory.clone();
        self.owner = destination.owner.as_ref().map(|user| user.name.clone());
        self.tablespaces = destination.links.clone();
        self.signal_file = signal_file.to_owned();
        self.settings = settings;
    }
}

fn described(target: &Target) -> (&'static str, Option<String>) {
    match target {
        Target::Time(time) => ("time", Some(time.to_string())),
        Target::Lsn(lsn) => ("lsn", Some(lsn.to_string())),
        Target::Xid(xid) => ("xid", Some(xid.to_string())),
        Target::Name(name) => ("name", Some(name.clone())),
        Target::Immediate => ("immediate", None),
        Target::Latest => ("latest", None),
    }
}

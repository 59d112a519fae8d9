//! The mark of a restore that has not ended: what it was to become. It lies in the directory from
//! before the first change to after the last one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::catalog::TargetTimeline;
use crate::commands::restore::Request;
use crate::commands::restore::plan::described;
use crate::commands::restore::recovery::write_file;
use crate::commands::restore::settle::sync;
use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges::User;
use crate::postgres::SystemIdentifier;
use crate::repository::{BackupId, Manifest};

pub const UNFINISHED: &str = "walden-restore.unfinished";
const BYTES_MAX: u64 = 1 << 20;
const NOTE: &str = "walden restore has not finished here. If none is running, run the same command \
                    again: it goes on with what is there. Or remove this directory.";

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Marker {
    /// Version of this shape.
    pub walden: u32,
    /// For whoever finds it.
    pub note: String,
    pub system_identifier: SystemIdentifier,
    pub backup: BackupId,
    /// What the restore was asked for, in words.
    pub target: String,
    /// Directories outside of this one that it writes into.
    pub tablespaces: Vec<PathBuf>,
}

impl Marker {
    /// Of a restore that writes into no other directory.
    pub fn new(request: &Request, manifest: &Manifest) -> Marker {
        Marker {
            walden: 1,
            note: NOTE.to_owned(),
            system_identifier: manifest.system_identifier(),
            backup: manifest.id.clone(),
            target: target(request),
            tablespaces: Vec::new(),
        }
    }

    /// `None` where there is none.
    pub fn read(directory: &Path) -> Result<Option<Marker>> {
        let path = directory.join(UNFINISHED);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Ok(found) if found.is_file() && found.len() <= BYTES_MAX => {}
            _ => return Err(unreadable(directory)),
        }
        let bytes = fs::read(&path).map_err(|error| unreadable(directory).source(error))?;
        match serde_json::from_slice::<Marker>(&bytes) {
            Ok(marker) if marker.walden == 1 => Ok(Some(marker)),
            _ => Err(unreadable(directory)),
        }
    }

    /// Durable on return.
    pub fn write(&self, directory: &Path, owner: Option<&User>) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::new(ErrorKind::Bug, "write the mark of a restore").source(e))?;
        write_file(&directory.join(UNFINISHED), &json, owner)?;
        sync(directory)
    }

    /// Whether it is of the same restore.
    pub fn is_of(&self, other: &Marker) -> bool {
        (self.system_identifier, &self.backup, &self.target)
            == (other.system_identifier, &other.backup, &other.target)
    }
}

/// Of two restores with the same words what is placed is the same.
fn target(request: &Request) -> String {
    let wanted = &request.wanted;
    let (kind, value) = described(&wanted.target);
    let mut words = vec![kind.to_owned()];
    words.extend(value);
    words.extend(wanted.exclusive.then(|| "exclusive".to_owned()));
    match wanted.timeline {
        TargetTimeline::Latest => {}
        TargetTimeline::Current => words.push("on its own timeline".to_owned()),
        TargetTimeline::Number(number) => words.push(format!("on timeline {number}")),
    }
    for name in &request.include_databases {
        words.push(format!("database {name}"));
    }
    words.join(" ")
}

fn unreadable(directory: &Path) -> Error {
    let shown = directory.display();
    Error::new(
        ErrorKind::Refused,
        format!("{shown} holds an unfinished restore of unknown content"),
    )
    .hint("If none is running there, remove the directory and try again.")
}

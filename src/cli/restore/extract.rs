//! `walden restore --only` and `--file`: some files of a backup instead of a cluster.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bytesize::ByteSize;

use crate::cli::exit;
use crate::cli::restore::{RETRY_FOR, Restore, TOLD_TO_STOP};
use crate::commands::restore::extract::{self, Extracted, Request};
use crate::commands::{App, Retries};
use crate::error::{Error, ErrorKind, Result};
use crate::host::termination;

const SOME: &str = "Some files only";
/// What only a whole cluster has.
const OF_A_CLUSTER: [&str; 12] = [
    "Point",
    "target_action",
    "target_exclusive",
    "standby",
    "adopt",
    "tablespace_map",
    "tablespace_root",
    "owner",
    "check_wal",
    "delta",
    "include_database",
    "wait",
];

#[derive(Debug, clap::Args)]
pub struct Files {
    /// This file or folder of the data directory, such as base/5 or pg_tblspc/16384; repeat it for
    /// more. They are placed in the directory under their own names, of the newest backup or that
    /// of --backup, without recovery: nothing that a server could start on.
    #[arg(long, value_name = "PATH", help_heading = SOME)]
    #[arg(conflicts_with_all = OF_A_CLUSTER, conflicts_with_all = ["file", "dry_run"])]
    only: Vec<String>,
    /// This one file, such as base/5/16384, into a new file, or - for standard output.
    #[arg(long, value_name = "PATH", help_heading = SOME)]
    #[arg(conflicts_with_all = OF_A_CLUSTER, conflicts_with_all = ["dry_run"])]
    file: Option<String>,
}

impl Files {
    pub fn is_asked(&self) -> bool {
        self.file.is_some() || !self.only.is_empty()
    }
}

impl Restore {
    pub fn extract(self, app: &App) -> Result<()> {
        let repository = app.repository(Retries::PerCall(RETRY_FOR))?;
        termination::exit_when_told(exit::code(ErrorKind::Interrupted), TOLD_TO_STOP);
        let request = Request {
            jobs: self.jobs(app),
            backup: self.backup,
            system_identifier: self.system_identifier,
        };
        let place = &self.directory;
        let extracted = match &self.some.file {
            None => extract::into_directory(&repository, &request, &self.some.only, place)?,
            Some(path) if place == Path::new("-") => {
                // The content is all that may stand there.
                let mut stdout = io::stdout().lock();
                extract::into_stream(&repository, &request, path, &mut stdout)?;
                return Ok(());
            }
            Some(path) => {
                new_file(place, |file| extract::into_stream(&repository, &request, path, file))?
            }
        };
        let Extracted { backup, files, size, .. } = &extracted;
        if app.settings.output.json {
            let json = serde_json::to_string_pretty(&extracted);
            println!("{}", json.map_err(|e| Error::new(ErrorKind::Bug, "write it").source(e))?);
        } else {
            let (size, place) = (ByteSize::b(*size).display().iec(), place.display());
            let plural = if *files == 1 { "" } else { "s" };
            println!("{files} file{plural} ({size}) of backup {backup} in {place}");
        }
        Ok(())
    }
}

/// Whole and durable, or not there.
fn new_file<T>(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<T>) -> Result<T> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|error| {
        Error::new(ErrorKind::Refused, format!("cannot make {}", path.display()))
            .source(error)
            .hint("Name a file that is not there yet, in a directory that you may write.")
    })?;
    let mut writer = BufWriter::new(file);
    let outcome = fill(&mut writer).and_then(|outcome| {
        let synced = writer.flush().and_then(|()| writer.get_ref().sync_all());
        synced.map(|()| outcome).map_err(|error| {
            Error::new(ErrorKind::Host, format!("write {}", path.display()))
                .source(error)
                .hint("Look at the disk.")
        })
    });
    outcome.inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

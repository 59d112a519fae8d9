//! A plan becomes a data directory: in an order in which no server starts on half of one, whenever
//! it is interrupted.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::commands::restore::chain::LABEL;
use crate::commands::restore::compare::Comparer;
use crate::commands::restore::in_place::InPlace;
use crate::commands::restore::marker::{Marker, UNFINISHED};
use crate::commands::restore::occupied::{self, Into};
use crate::commands::restore::place::{self, Fetch, Work};
use crate::commands::restore::placement::CONTROL_FILE;
use crate::commands::restore::renew::Renewal;
use crate::commands::restore::targets::{NO_LINK, Targets};
use crate::commands::restore::{Prepared, host_failed, in_place, recovery, settle};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::file_systems::FileSystems;
use crate::host::privileges::{self, User};

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Done {
    /// Stored bytes that were fetched.
    pub fetched: u64,
    /// Raw bytes of files that were written.
    pub written: u64,
    /// Bytes that lay there and were right, and files of which all were.
    pub kept: u64,
    pub kept_files: u64,
    /// What lay there and did not belong.
    pub removed_files: u64,
    pub removed_bytes: u64,
}

impl Prepared {
    /// Restores. `progress` is told the raw bytes placed or kept, from any thread.
    ///
    /// Interrupted or failed, the directory has no `pg_control`, so no server starts in it, and the
    /// mark in it lets the same call go on.
    pub fn carry_out(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Done> {
        let (directory, owner) = (&self.destination.directory, self.owner());
        occupied::refuse_live_server(directory)?;
        for root in self.destination.roots() {
            make_ready(root, owner)?;
        }
        let mut marker = Marker::new(&self.request, self.chain.newest());
        marker.tablespaces = self.destination.links.iter().map(|link| link.to.clone()).collect();
        marker.write(directory, owner)?;
        let done = self.fill(progress).map_err(|error| {
            error.hint(format!(
                "Run the same command again, and it goes on with what is in {}.",
                directory.display()
            ))
        })?;
        let unfinished = directory.join(UNFINISHED);
        fs::remove_file(&unfinished)
            .map_err(|error| host_failed(format!("remove {}", unfinished.display()), error))?;
        settle::sync(directory)?;
        Ok(done)
    }

    fn fill(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Done> {
        let (placement, jobs) = (&self.placement, self.request.jobs);
        in_place::remove_control(&self.destination.directory)?;
        let newest = self.chain.newest();
        let control = self.home.read_file(newest, CONTROL_FILE);
        let control = control.context(|| format!("read {CONTROL_FILE} of backup {}", newest.id))?;
        let control = control.ok_or_else(|| Error::new(ErrorKind::Bug, "pg_control was there"))?;
        let directories = placement.directories.keys().map(std::path::PathBuf::as_path);
        let (done, file_systems) = match self.destination.into {
            Into::Empty => {
                place::make_directories(placement)?;
                let file_systems = file_systems(directories)?;
                let targets = Targets::new(placement, self.owner());
                self.finish_empty(&targets)?;
                let fetch = Fetch::new(&self.home, &targets, progress, self.request.max_rate)
                    .by(self.request.deadline);
                Work::of_all(&self.chain.manifests, placement).carry_out(&fetch, jobs)?;
                place::expect_whole(&targets)?;
                let (fetched, written) = (fetch.fetched(), placement.bytes());
                (Done { fetched, written, ..Done::default() }, file_systems)
            }
            Into::Unfinished | Into::Delta => {
                let found = in_place::look(placement, &self.destination.roots())?;
                found.clear()?;
                place::make_directories(placement)?;
                let file_systems = file_systems(directories)?;
                (self.renew(&found, progress)?, file_systems)
            }
        };
        settle::settle(placement, &file_systems, self.owner(), jobs)?;
        if let Some(label) = &self.chain.label {
            recovery::write_file(&self.destination.directory.join(LABEL), label, self.owner())?;
        }
        if let Some(configuration) = &self.configuration {
            configuration.place(self.owner())?;
        }
        let settings = recovery::settings(&self.request, self.version(), &self.decision);
        recovery::write(&self.destination, &settings, recovery::signal_file(&self.request))?;
        self.write_control(&control).context(|| "write pg_control")?;
        Ok(done)
    }

    fn renew(&self, found: &InPlace, progress: &(dyn Fn(u64) + Sync)) -> Result<Done> {
        let (chain, jobs) = (&self.chain.manifests, self.request.jobs);
        let comparer = Comparer::new(&self.home, chain)?;
        let mut targets = Targets::new(&self.placement, self.owner());
        let renewal = Renewal::prepare(chain, &mut targets, found, jobs)?;
        self.finish_empty(&targets)?;
        let fetch = Fetch::new(&self.home, &targets, progress, self.request.max_rate)
            .by(self.request.deadline);
        let renewed = renewal.carry_out(&comparer, &fetch)?;
        place::expect_whole(&targets)?;
        Ok(Done {
            fetched: fetch.fetched(),
            written: self.placement.bytes() - renewed.kept,
            kept: renewed.kept,
            kept_files: renewed.kept_files,
            removed_files: found.stranger_files,
            removed_bytes: found.stranger_bytes,
        })
    }

    /// Files that nothing is written into are made first, so that all errors but those of the store
    /// come early.
    fn finish_empty(&self, targets: &Targets<'_>) -> Result<()> {
        let all: Vec<usize> = (0..targets.placement.files.len()).collect();
        let ready: Vec<usize> =
            all.into_iter().filter(|file| targets.has_nothing_to_come(*file)).collect();
        settle::in_parallel(&ready, self.request.jobs, |file| targets.finish_empty(*file))
    }

    /// New, and only once everything else is on disk.
    fn write_control(&self, content: &[u8]) -> Result<()> {
        let path = &self.placement.control;
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(self.placement.control_mode)
            .custom_flags(NO_LINK)
            .open(path)
            .and_then(|mut file| {
                file.write_all(content)?;
                file.sync_all()
            })
            .map_err(|error| host_failed(path.display().to_string(), error))?;
        privileges::give(path, self.owner())?;
        path.parent().map_or(Ok(()), settle::sync)
    }
}

pub fn file_systems<'a>(directories: impl Iterator<Item = &'a Path>) -> Result<FileSystems> {
    FileSystems::under(directories)
        .map_err(|error| host_failed("look at the file systems of the directory".to_owned(), error))
}

/// Makes a directory, private, and those above it that are missing, all the owner's.
pub fn make_ready(directory: &Path, owner: Option<&User>) -> Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
    for (depth, path) in missing.iter().enumerate().rev() {
        let mode = if depth == 0 { 0o700 } else { 0o755 };
        DirBuilder::new()
            .mode(mode)
            .create(path)
            .map_err(|error| host_failed(format!("make {}", path.display()), error))?;
        privileges::give(path, owner)?;
        path.parent().map_or(Ok(()), settle::sync)?;
    }
    Ok(())
}

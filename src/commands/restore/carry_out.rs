//! A plan becomes a data directory: in an order in which no server starts on half of one, whenever
//! it is interrupted.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::commands::restore::chain::LABEL;
use crate::commands::restore::compare::Comparer;
use crate::commands::restore::marker::{Marker, UNFINISHED};
use crate::commands::restore::occupied::{self, Into};
use crate::commands::restore::place::{self, Work};
use crate::commands::restore::placement::CONTROL_FILE;
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
                let work = Work::of_all(&self.chain.manifests, placement);
                let work = work.at_most(self.request.max_rate).by(self.request.deadline);
                let written = placement.bytes();
                let fetched = self.place(&targets, &work, progress)?;
                (Done { fetched, written, ..Done::default() }, file_systems)
            }
            Into::Unfinished | Into::Delta => {
                let found = in_place::look(placement, &self.destination.roots())?;
                found.clear()?;
                place::make_directories(placement)?;
                let file_systems = file_systems(directories)?;
                let mut targets = Targets::new(placement, self.owner());
                let comparer = Comparer::new(&self.home, &self.chain.manifests, jobs)?;
                let compared = comparer.compare(&mut targets, &found, progress)?;
                let written = compared.wanted.iter().map(|one| one.piece.length).sum();
                let (kept, kept_files) = (compared.kept, compared.kept_files);
                let work = Work::new(&self.chain.manifests, compared.wanted);
                let work = work.at_most(self.request.max_rate).by(self.request.deadline);
                let fetched = self.place(&targets, &work, progress)?;
                let (removed_files, removed_bytes) = (found.stranger_files, found.stranger_bytes);
                let done =
                    Done { fetched, written, kept, kept_files, removed_files, removed_bytes };
                (done, file_systems)
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

    /// Files that nothing is written into are made first, so that all errors but those of the store
    /// come early.
    fn place(
        &self,
        targets: &Targets<'_>,
        work: &Work<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64> {
        let jobs = self.request.jobs;
        let all: Vec<usize> = (0..targets.placement.files.len()).collect();
        let ready: Vec<usize> =
            all.into_iter().filter(|file| targets.has_nothing_to_come(*file)).collect();
        settle::in_parallel(&ready, jobs, |file| targets.finish_empty(*file))?;
        let fetched = work.carry_out(&self.home, targets, jobs, progress)?;
        place::expect_whole(targets)?;
        Ok(fetched)
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

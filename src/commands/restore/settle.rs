//! What was placed is made to last, and its directories get their owner and mode.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::commands::restore::host_failed;
use crate::commands::restore::placement::Placement;
use crate::error::{Error, Result};
use crate::host::file_systems::FileSystems;
use crate::host::privileges::{self, User};

/// One `syncfs` for each file system where that is as good as an fsync for each file, which for
/// many small files takes many times longer; elsewhere an fsync for each after it, which finds
/// little left to write.
pub fn settle(
    placement: &Placement,
    file_systems: &FileSystems,
    owner: Option<&User>,
    jobs: usize,
) -> Result<()> {
    for (path, mode) in placement.directories.iter().rev() {
        privileges::give(path, owner)?;
        fs::set_permissions(path, Permissions::from_mode(*mode))
            .map_err(|e| failed("settle", path, e))?;
    }
    let directory = placement.control.parent().unwrap_or(&placement.control);
    if file_systems.sync().map_err(|error| failed("write back", directory, error))? {
        return Ok(());
    }
    in_parallel(&placement.files, jobs, |file| sync(&file.path))?;
    let directories: Vec<&Path> =
        placement.directories.keys().map(std::path::PathBuf::as_path).collect();
    in_parallel(&directories, jobs, |directory| sync(directory))
}

/// Makes a file or the entries of a directory last.
pub fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| failed("sync", path, e))
}

/// Runs `work` over all items on `jobs` threads; the first error of each thread ends it.
pub fn in_parallel<T: Sync>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(run)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

fn failed(verb: &str, path: &Path, error: std::io::Error) -> Error {
    host_failed(format!("{verb} {}", path.display()), error)
}

//! What was placed gets its owner, mode and time, and is made to last.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::commands::restore::host_failed;
use crate::commands::restore::place::NO_LINK;
use crate::commands::restore::placement::{Placed, Placement};
use crate::error::Result;
use crate::host::privileges::{self, User};

/// First all that changes files, then `syncfs`, which writes everything back at once, then one
/// fsync for each: those find nothing left to write and cost little, but they, unlike `syncfs`
/// before Linux 5.8, report what could not be written.
pub fn settle(placement: &Placement, owner: Option<&User>, jobs: usize) -> Result<()> {
    in_parallel(&placement.files, jobs, |file| {
        finish_file(file, owner).map_err(|e| failed("settle", &file.path, e))
    })?;
    for (path, mode) in placement.directories.iter().rev() {
        privileges::give(path, owner)?;
        fs::set_permissions(path, Permissions::from_mode(*mode))
            .map_err(|e| failed("settle", path, e))?;
    }
    write_back(placement);
    in_parallel(&placement.files, jobs, |file| sync(&file.path))?;
    let directories: Vec<&Path> =
        placement.directories.keys().map(std::path::PathBuf::as_path).collect();
    in_parallel(&directories, jobs, |directory| sync(directory))
}

/// Makes a file or the entries of a directory last.
pub fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| failed("sync", path, e))
}

fn finish_file(placed: &Placed, owner: Option<&User>) -> std::io::Result<()> {
    let file = File::options().write(true).custom_flags(NO_LINK).open(&placed.path)?;
    if let Some(user) = owner {
        std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    if let Ok(seconds) = u64::try_from(placed.modified) {
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))?;
    }
    file.set_permissions(Permissions::from_mode(placed.mode))
}

/// Only a head start for the fsyncs that follow: what fails here fails there.
fn write_back(placement: &Placement) {
    let mut done = std::collections::BTreeSet::new();
    for path in placement.directories.keys() {
        let Ok(directory) = File::open(path) else { continue };
        let Ok(status) = rustix::fs::fstat(&directory) else { continue };
        if done.insert(status.st_dev) {
            #[cfg(target_os = "linux")]
            let _ = rustix::fs::syncfs(&directory);
        }
    }
}

/// Runs `work` over all items on `jobs` threads; the first error of each thread ends it.
fn in_parallel<T: Sync>(
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

fn failed(verb: &str, path: &Path, error: std::io::Error) -> crate::error::Error {
    host_failed(format!("{verb} {}", path.display()), error)
}

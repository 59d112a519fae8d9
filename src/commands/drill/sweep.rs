//! What earlier drills left behind that were killed together with their guard: their servers are
//! stopped and their directories removed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::commands::drill::scratch::{self, KEPT, LOCK};
use crate::host::lock::Lock;

/// What a sweep did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub removed: Vec<PathBuf>,
    /// With why.
    pub failed: Vec<String>,
}

/// Sweeps `root`; what was kept on purpose only `with_kept`. Drills that live are left alone.
pub fn sweep(root: &Path, with_kept: bool) -> Swept {
    let mut swept = Swept::default();
    for directory in scratch::all_in(root) {
        if !is_ours(&directory) || (!with_kept && directory.join(KEPT).exists()) {
            continue;
        }
        let taken = {
            let _quiet = scratch::hold(root);
            Lock::take(&directory.join(LOCK))
        };
        // Without a lock file it was left by one that was killed in its first moment.
        let Ok(Some(_lock)) = taken else { continue };
        match scratch::remove(&directory) {
            Ok(()) => swept.removed.push(directory),
            Err(error) => swept.failed.push(error.to_string()),
        }
    }
    swept
}

/// Whether a drill of ours made it: others may write where scratch directories are.
fn is_ours(directory: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir() && found.uid() == own)
}

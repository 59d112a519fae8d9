//! Folders that a power cut does not take back, synced once and then remembered.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::host::atomic_file::steps::{Step, took};
use crate::host::atomic_file::{folder_of, sync_folder};
use crate::host::state::StateDirectory;

/// A folder whose note is forgotten is synced once more.
const LASTS: Duration = Duration::from_secs(24 * 60 * 60);
const PREFIX: &str = "folder-";

/// The folders below a root.
#[derive(Debug)]
pub struct Folders {
    root: PathBuf,
    /// What was synced by this process, and by those before it.
    synced: Mutex<BTreeSet<String>>,
    memory: Option<StateDirectory>,
}

impl Folders {
    /// `root` must be there. Without a `memory` every process syncs each folder once.
    pub fn new(root: impl Into<PathBuf>, memory: Option<StateDirectory>) -> Self {
        Folders { root: root.into(), synced: Mutex::default(), memory }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes `folder` and what is missing between it and the root; durable on return.
    ///
    /// A folder found there may be the work of a process that was killed, or is about to, before it
    /// synced the folder above, and its age proves nothing, since clocks are set. So it is synced
    /// again, unless it is known to have been, this very one.
    pub fn create(&self, folder: &Path, mode: u32) -> io::Result<()> {
        let mut unsettled = Vec::new();
        for folder in self.chain(folder).collect::<Vec<_>>().into_iter().rev() {
            match fs::metadata(folder) {
                Ok(found) if self.knows(&found) => continue,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match DirBuilder::new().mode(mode).create(folder) {
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        made => made?,
                    }
                    took(Step::Create, &[folder]);
                }
                Err(error) => return Err(error),
            }
            unsettled.push(folder);
        }
        for folder in unsettled {
            // Looked at before: what is synced is this one, and not what may take its place.
            let found = fs::metadata(folder)?;
            sync_folder(folder_of(folder))?;
            self.learn(&found);
        }
        Ok(())
    }

    /// Makes durable that `folder` is reachable from the root, both included, however young.
    pub fn sync(&self, folder: &Path) -> io::Result<()> {
        self.chain(folder).try_for_each(sync_folder)?;
        sync_folder(&self.root)
    }

    /// `folder` and those above it, below the root.
    fn chain<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        let is_below = |folder: &Path| folder != self.root && folder.starts_with(&self.root);
        folder.ancestors().take_while(move |folder| is_below(folder))
    }

    fn knows(&self, folder: &Metadata) -> bool {
        let Some(identity) = identity(folder) else { return false };
        if self.synced().contains(&identity) {
            return true;
        }
        let noted = self.memory.as_ref().and_then(|memory| memory.noted(&note(folder), LASTS));
        noted.is_some_and(|noted| noted == identity)
    }

    fn learn(&self, folder: &Metadata) {
        let Some(identity) = identity(folder) else { return };
        if let Some(memory) = &self.memory {
            memory.forget_old(PREFIX, LASTS);
            if let Err(error) = memory.note(&note(folder), &identity) {
                tracing::info!(%error, "cannot remember, will sync folders again");
            }
        }
        self.synced().insert(identity);
    }

    fn synced(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(folder: &Metadata) -> String {
    format!("{PREFIX}{:x}-{:x}", folder.dev(), folder.ino())
}

/// Which folder it is: a number is given anew when a folder is removed, the time of its birth tells
/// the two apart. None where the file system keeps none.
fn identity(folder: &Metadata) -> Option<String> {
    let born = folder.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(format!("{} {} {}", folder.dev(), folder.ino(), born.as_nanos()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::Folders;
    use crate::host::atomic_file::steps::{STEPS, Step};
    use crate::host::state::StateDirectory;

    fn synced(folders: &Folders, folder: &Path) -> Vec<PathBuf> {
        STEPS.take();
        folders.create(folder, 0o700).unwrap();
        let steps = STEPS.take().into_iter();
        let synced = steps.filter(|(step, _)| *step == Step::SyncFolder);
        synced.map(|(_, mut paths)| paths.remove(0)).collect()
    }

    #[test]
    fn folders_of_others_are_synced_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("x/y");
        fs::create_dir_all(&folder).unwrap();
        let folders = Folders::new(root.path(), None);
        let above = [root.path().to_owned(), root.path().join("x")];
        assert_eq!(synced(&folders, &folder), above);
        assert!(synced(&folders, &folder).is_empty(), "one process syncs once");
        assert_eq!(synced(&Folders::new(root.path(), None), &folder), above);
        STEPS.take();
        folders.sync(&folder).unwrap();
        assert_eq!(STEPS.take().len(), 3);
    }

    #[test]
    fn what_was_synced_is_remembered_for_this_very_folder_only() {
        let [root, state] = [(), ()].map(|()| tempfile::tempdir().unwrap());
        let folder = root.path().join("x/y");
        let call = || {
            let memory = StateDirectory::open(Some(state.path()), None, "7512345 /data");
            Folders::new(root.path(), Some(memory))
        };
        assert_eq!(synced(&call(), &folder).len(), 2);
        assert!(synced(&call(), &folder).is_empty());

        fs::remove_dir(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        assert_eq!(synced(&call(), &folder), [root.path().join("x")], "another one of that name");
        assert!(synced(&call(), &folder).is_empty());

        let of_another = StateDirectory::open(Some(state.path()), None, "7512346 /data");
        assert_eq!(synced(&Folders::new(root.path(), Some(of_another)), &folder).len(), 2);
    }
}

//! A file without a name, for what is too large to be held in memory: gone when it is closed, and
//! with the process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, Mode, OFlags};

use crate::host::state;

/// Bytes are only ever added.
#[derive(Debug)]
pub struct Spill {
    file: Arc<File>,
    folder: PathBuf,
    end: AtomicU64,
}

/// Where such a file may be: the state directory, then where temporary files lie on a disk, then
/// where they may lie in memory; never inside `data_directory`.
pub fn folders(state_directory: Option<&Path>, data_directory: &Path) -> Vec<PathBuf> {
    let state_directory = state_directory.unwrap_or(Path::new(state::DEFAULT)).to_owned();
    let mut folders = vec![state_directory, PathBuf::from("/var/tmp"), std::env::temp_dir()];
    folders.retain(|folder| !state::lies_inside(folder, data_directory));
    folders
}

impl Spill {
    /// In the first of `folders` that takes a file.
    pub fn open(folders: &[PathBuf]) -> io::Result<Self> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for folder in folders {
            match nameless(folder) {
                Ok(file) => {
                    let (file, folder) = (Arc::new(file), folder.clone());
                    return Ok(Spill { file, folder, end: AtomicU64::new(0) });
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Where the bytes begin; others may add at the same time.
    pub fn add(&self, bytes: &[u8]) -> io::Result<u64> {
        let offset = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(bytes, offset)?;
        Ok(offset)
    }

    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Some file systems (NFS) know no files without names: there the name is taken away at once.
fn nameless(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            named_for_a_moment(folder)
        }
        Err(error) => Err(error.into()),
    }
}

fn named_for_a_moment(folder: &Path) -> io::Result<File> {
    let name = format!(".walden-{}-{:016x}.tmp", std::process::id(), fastrand::u64(..));
    let path = folder.join(name);
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;

    use super::{Spill, folders, named_for_a_moment};

    fn read(file: &File, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    #[test]
    fn what_many_add_is_kept_apart_and_nothing_is_to_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("missing");
        let spill = Spill::open(&[nowhere, folder.path().to_owned()]).unwrap();
        assert_eq!(spill.folder(), folder.path());
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let spill = &spill;
                scope.spawn(move || {
                    for length in 1..50 {
                        let bytes = vec![thread; length];
                        let offset = spill.add(&bytes).unwrap();
                        assert_eq!(read(&spill.file(), offset, length), bytes);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let other = named_for_a_moment(folder.path()).unwrap();
        other.write_all_at(b"x", 0).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_data_directory_is_no_place_for_it() {
        let data = tempfile::tempdir().unwrap();
        let inside = data.path().join("state");
        fs::create_dir(&inside).unwrap();
        let folders = folders(Some(&inside), data.path());
        assert!(!folders.is_empty() && !folders.contains(&inside), "{folders:?}");
    }

    #[test]
    fn where_no_folder_takes_a_file_that_is_an_error() {
        assert!(Spill::open(&[]).is_err());
        assert!(Spill::open(&[Path::new("/nonexistent").to_owned()]).is_err());
    }
}

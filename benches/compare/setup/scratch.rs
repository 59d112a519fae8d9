//! Directories of a bench: owned by the user PostgreSQL runs as, gone when dropped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use walden::host::privileges::{self, User};

use super::interrupt;

pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch::within(Path::new("/tmp"))
    }

    /// In memory where this machine has such a place: a store that stands for one elsewhere must
    /// not use this disk.
    pub fn in_memory() -> Scratch {
        let memory = Path::new("/dev/shm");
        Scratch::within(if memory.is_dir() { memory } else { Path::new("/tmp") })
    }

    fn within(parent: &Path) -> Scratch {
        let directory = tempfile::Builder::new()
            .prefix("walden-bench-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .expect("make a temporary directory");
        interrupt::directory_made(directory.path());
        let scratch = Scratch(directory);
        give(scratch.path());
        scratch
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// The user the servers run as; `None` where that is who we are.
pub fn user() -> Option<User> {
    privileges::server_user().expect("find the server's user")
}

/// Gives a directory and everything in it to the server's user.
pub fn give(path: &Path) {
    privileges::give_tree(path, user().as_ref()).expect("give it to the server's user");
}

/// A new directory, its parents included.
pub fn directory(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).expect("make a directory");
    path
}

/// A copy of a directory, as `cp -a` makes it.
pub fn copy_tree(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("run cp");
    assert!(copied.success(), "cp -a {}: {copied}", from.display());
}

/// Until what was written so far is on disk: it shall not be paid for by whoever syncs next.
pub fn settle() {
    let synced = Command::new("sync").status().expect("run sync");
    assert!(synced.success(), "sync: {synced}");
}

/// The names of the files in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Bytes of all files below; hidden ones are a store's own notes.
pub fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let shown = |name: &std::ffi::OsStr| !name.to_string_lossy().starts_with('.');
    let entries = entries.flatten().filter(|entry| shown(&entry.file_name()));
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

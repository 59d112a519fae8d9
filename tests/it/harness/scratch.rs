//! Directories of a test: short of name, owned by the user PostgreSQL runs as, gone when dropped.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use walden::host::privileges;

use super::prefetcher;

pub struct Scratch(tempfile::TempDir);

impl Scratch {
    /// Under the temporary directory, or under /tmp where that one is too deep for a socket or
    /// closed to others.
    pub fn new() -> Scratch {
        let preferred = std::env::temp_dir();
        let fits = preferred.as_os_str().len() <= 40 && privileges::everybody_can_read(&preferred);
        let parent = if fits { preferred } else { PathBuf::from("/tmp") };
        let directory = tempfile::Builder::new()
            .prefix("walden-test-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .expect("make a temporary directory");
        let user = privileges::server_user().expect("find the server's user");
        privileges::give(directory.path(), user.as_ref()).expect("give the directory away");
        Scratch(directory)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A new directory in it, of the same owner.
    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.0.path().join(name);
        fs::create_dir_all(&directory).expect("make a directory");
        let user = privileges::server_user().expect("find the server's user");
        privileges::give(&directory, user.as_ref()).expect("give the directory away");
        directory
    }

    /// A file in it, made by the test, belongs to the server's user from here on.
    pub fn give(&self, name: &str) {
        let user = privileges::server_user().expect("find the server's user");
        privileges::give(&self.join(name), user.as_ref()).expect("give the file away");
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        prefetcher::end_all_in(self.path());
    }
}

/// A file system in memory, as small as a test wants it, until it is dropped.
pub struct SmallDisk {
    place: PathBuf,
    owner: u32,
}

impl SmallDisk {
    /// Over a directory, whose owner has it all. `None`: mounting takes root.
    pub fn mount(place: &Path, mib: u64) -> Option<SmallDisk> {
        let owner = fs::metadata(place).expect("look at a directory").uid();
        mount(place, &format!("size={mib}m,mode=755,uid={owner}"))
            .then(|| SmallDisk { place: place.to_owned(), owner })
    }

    pub fn resize(&self, mib: u64) {
        let options = format!("remount,size={mib}m,mode=755,uid={}", self.owner);
        assert!(mount(&self.place, &options), "resize {}", self.place.display());
    }
}

fn mount(place: &Path, options: &str) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(place);
    mount.status().is_ok_and(|status| status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.place).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || thread::panicking());
    }
}

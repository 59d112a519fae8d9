//! A file that one process holds at a time; the kernel lets go of it however that process ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// `None` where another process holds it. The file stays when the lock goes: whoever unlinks it
    /// lets two hold it.
    pub fn take(path: &Path) -> io::Result<Option<Lock>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            taken => taken?,
        }
        // For people who look; nobody decides anything by it.
        file.set_len(0)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        Ok(Some(Lock { _file: file }))
    }

    /// Whether somebody holds it at this moment.
    pub fn is_held(path: &Path) -> bool {
        let Ok(file) = File::open(path) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::Lock;

    #[test]
    fn one_holds_it_until_it_is_dropped() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("lock");
        assert!(!Lock::is_held(&path));
        let held = Lock::take(&path).unwrap();
        assert!(held.is_some() && Lock::is_held(&path));
        assert!(Lock::take(&path).unwrap().is_none());
        drop(held);
        assert!(!Lock::is_held(&path));
        assert!(Lock::take(&path).unwrap().is_some());
    }
}

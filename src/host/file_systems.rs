//! The file systems under some directories, made to keep what is written into them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

/// Since this kernel `syncfs` reports what could not be written (fs/sync.c).
const REPORTS_SINCE: (u32, u32) = (5, 8);
/// `linux/magic.h`: ext2 to ext4, XFS, btrfs, F2FS, tmpfs. Of these it is known that `syncfs` does
/// for every file what `fsync` does; of network and user-space file systems it is not.
const KEEP_ALL: [u64; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x0102_1994];

/// Opened before anything is written: an open file reports the errors that came since.
#[derive(Debug, Default)]
pub struct FileSystems {
    /// By device number.
    roots: BTreeMap<u64, File>,
    are_enough: bool,
}

impl FileSystems {
    pub fn under<'a>(directories: impl IntoIterator<Item = &'a Path>) -> io::Result<FileSystems> {
        let mut found = FileSystems { roots: BTreeMap::new(), are_enough: kernel_reports() };
        for path in directories {
            let device = rustix::fs::stat(path)?.st_dev;
            if found.roots.contains_key(&device) {
                continue;
            }
            let root = File::open(path)?;
            let kind = rustix::fs::fstatfs(&root)?.f_type;
            found.are_enough &= KEEP_ALL.contains(&(kind as u64));
            found.roots.insert(device, root);
        }
        Ok(found)
    }

    /// Writes everything back that lies in memory only, files and directories alike. `true`: all of
    /// it lasts, or this has failed; `false`: each file must be asked, but has little left to do.
    pub fn sync(&self) -> io::Result<bool> {
        for root in self.roots.values() {
            match rustix::fs::syncfs(root) {
                Err(error) if self.are_enough => return Err(error.into()),
                _ => {}
            }
        }
        Ok(self.are_enough)
    }
}

fn kernel_reports() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= REPORTS_SINCE,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{FileSystems, kernel_reports};

    #[test]
    fn each_file_system_is_opened_once_and_proc_is_not_trusted() {
        let scratch = tempfile::tempdir().unwrap();
        let one = FileSystems::under([scratch.path(), scratch.path()]).unwrap();
        assert_eq!(one.roots.len(), 1);
        one.sync().unwrap();
        let two = FileSystems::under([scratch.path(), Path::new("/proc")]).unwrap();
        assert_eq!(two.roots.len(), 2);
        assert!(!two.sync().unwrap());
        assert!(FileSystems::under([Path::new("/no/such/directory")]).is_err());
        assert!(kernel_reports() || !two.are_enough);
    }
}

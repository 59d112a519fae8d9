//! What the kernel holds of a file in memory, and how to read past it.

use std::fs::File;

use rustix::fs::Advice;

/// What is read next comes from the disk, as far as that can be had: what lies in memory only
/// stays, and some file systems have a cache of their own.
pub fn drop_pages_of(file: &File) {
    if let Err(error) = rustix::fs::fadvise(file, 0, None, Advice::DontNeed) {
        tracing::info!(%error, "cannot read past the page cache");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSliceMut, Write as _};

    use rustix::fs::{StatFs, fstatfs};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::drop_pages_of;

    /// `linux/magic.h`; what lies in memory only cannot be dropped.
    const TMPFS_MAGIC: u64 = 0x0102_1994;

    /// Whether the first page of it is in memory, so that nobody need wait for the disk.
    fn is_cached(file: &File) -> bool {
        let mut piece = [0; 4096];
        let read = preadv2(file, &mut [IoSliceMut::new(&mut piece)], 0, ReadWriteFlags::NOWAIT);
        match read {
            Ok(length) => length > 0,
            Err(Errno::AGAIN) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn what_is_on_the_disk_is_no_longer_in_memory() {
        let mut file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        assert!(is_cached(&file));
        drop_pages_of(&file);
        let StatFs { f_type, .. } = fstatfs(&file).unwrap();
        assert_eq!(is_cached(&file), f_type as u64 == TMPFS_MAGIC);
    }
}

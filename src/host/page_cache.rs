//! What the kernel holds of files in memory: how to read past it, and how to leave it as it was.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;

use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Since Linux 6.14 (`RWF_DONTCACHE`, linux/fs.h): what this read brings into memory does not stay.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
/// What is read at once where parts of it may be in memory already.
const PIECE_BYTES: usize = 128 << 10;

/// What is read next comes from the disk, as far as that can be had: what lies in memory only
/// stays, and some file systems have a cache of their own.
pub fn drop_pages_of(file: &File) {
    if let Err(error) = rustix::fs::fadvise(file, 0, None, Advice::DontNeed) {
        tracing::info!(%error, "cannot read past the page cache");
    }
}

/// The kernel reads nothing ahead of what is asked for: what it brought so, and was not asked for
/// soon after, would stay. For who reads in large pieces.
pub fn read_nothing_ahead(file: &File) {
    if let Err(error) = rustix::fs::fadvise(file, 0, None, Advice::Random) {
        tracing::info!(%error, "the kernel reads ahead of what is asked for");
    }
}

/// The disk may begin to read this, all of it at once: so few readers keep it busy, whatever the
/// kernel reads ahead by itself.
pub fn bring_soon(file: &File, offset: u64, length: u64) {
    let Some(length) = NonZeroU64::new(length) else { return };
    if let Err(error) = rustix::fs::fadvise(file, offset, Some(length), Advice::WillNeed) {
        tracing::debug!(%error, "cannot read ahead");
    }
}

/// Reads from `offset` on until `buffer` is full or the file ends, and says how much. What others
/// keep in memory of the file stays there, and what they do not is not there afterwards: reading a
/// whole cluster must not push out what its server works with.
///
/// Best in large pieces, aligned to their size. Where the kernel or the file system cannot do it,
/// it is a plain read.
pub fn read_at_sparing(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read_uncached(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(error) if is_unsupported(error) => {
                let rest = &mut buffer[done..];
                return read_and_forget(file, rest, offset + done as u64).map(|rest| done + rest);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

fn read_uncached(file: &File, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    preadv2(file, &mut [IoSliceMut::new(buffer)], offset, DONT_CACHE)
}

/// The same on older kernels: first only what is in memory; the rest is read, and the kernel told
/// to let go of that.
fn read_and_forget(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    // What the kernel reads ahead would look as if somebody needed it.
    read_nothing_ahead(file);
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let end = buffer.len().min(done + PIECE_BYTES);
        let piece = &mut buffer[done..end];
        let now = ReadWriteFlags::NOWAIT;
        let length = match preadv2(file, &mut [IoSliceMut::new(piece)], at, now) {
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                let length = read_plainly(file, piece, at)?;
                // Whole pages only are dropped; a page more or less is no harm.
                let range = NonZeroU64::new(length as u64);
                let _ =
                    range.map(|range| rustix::fs::fadvise(file, at, Some(range), Advice::DontNeed));
                length
            }
            Err(error) if is_unsupported(error) => read_plainly(file, piece, at)?,
            Err(error) => return Err(error.into()),
        };
        if length == 0 {
            break;
        }
        done += length;
    }
    Ok(done)
}

fn read_plainly(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// The kernel does not know the flag, or the file system does not.
fn is_unsupported(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, IoSliceMut, Write as _};
    use std::os::unix::fs::FileExt as _;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{Advice, StatFs, fadvise, fstatfs};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::{drop_pages_of, is_unsupported, read_and_forget, read_at_sparing, read_uncached};

    /// `linux/magic.h`; what lies in memory only cannot be dropped.
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const FILE_BYTES: usize = (4 << 20) + 1000;
    /// In the middle of what is read; its neighbours are not in memory.
    const HOT: u64 = 2 << 20;
    const COLD: [u64; 4] = [0, 1 << 20, (2 << 20) + (256 << 10), 4 << 20];

    fn is_in_memory_only(file: &File) -> bool {
        let StatFs { f_type, .. } = fstatfs(file).unwrap();
        f_type as u64 == TMPFS_MAGIC
    }

    /// Whether the page at `offset` is in memory, so that nobody need wait for the disk. To ask
    /// brings it there soon, and where the disk is quicker than the answer it is "yes".
    fn is_cached(file: &File, offset: u64) -> bool {
        let mut piece = [0; 512];
        let read =
            preadv2(file, &mut [IoSliceMut::new(&mut piece)], offset, ReadWriteFlags::NOWAIT);
        match read {
            Ok(length) => length > 0,
            Err(Errno::AGAIN) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn content() -> Vec<u8> {
        (0..FILE_BYTES).map(|at| (at / 512 % 251) as u8).collect()
    }

    /// On the disk, and in memory nowhere but at `HOT`.
    fn file_with_a_hot_page() -> File {
        let mut file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.write_all(&content()).unwrap();
        file.sync_all().unwrap();
        drop_pages_of(&file);
        fadvise(&file, 0, None, Advice::Random).unwrap();
        file.read_at(&mut [0; 4096], HOT).unwrap();
        file
    }

    /// Of many attempts one must hold: the kernel may have let go of a page by itself, or have
    /// brought one for who asks whether it is there. What never spares memory never holds.
    #[track_caller]
    fn assert_holds(attempt: impl Fn() -> bool) {
        let holds = (0..20).any(|_| {
            attempt() || {
                thread::sleep(Duration::from_millis(50));
                false
            }
        });
        assert!(holds, "not in one of twenty attempts");
    }

    #[track_caller]
    fn assert_spares(read: impl Fn(&File, &mut [u8], u64) -> io::Result<usize>) {
        assert_holds(|| {
            let file = file_with_a_hot_page();
            read_whole(&file, &read);
            let is_hot = is_cached(&file, HOT);
            is_in_memory_only(&file) || is_hot && COLD.iter().all(|at| !is_cached(&file, *at))
        });
    }

    #[track_caller]
    fn read_whole(file: &File, read: impl Fn(&File, &mut [u8], u64) -> io::Result<usize>) {
        let mut all = vec![0; FILE_BYTES + 5000];
        let mut length = 0;
        for piece in all.chunks_mut(512 << 10) {
            length += read(file, piece, length as u64).unwrap();
        }
        assert_eq!(length, FILE_BYTES);
        assert!(all[..length] == content()[..]);
    }

    #[test]
    fn what_is_read_sparingly_leaves_memory_as_it_was() {
        assert_spares(read_at_sparing);
    }

    #[test]
    fn so_it_does_on_kernels_that_must_be_told() {
        assert_spares(read_and_forget);
    }

    #[test]
    fn what_the_kernel_cannot_do_is_told_from_what_failed() {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        match read_uncached(&file, &mut [0; 10], 0) {
            Ok(length) => assert_eq!(length, 0),
            Err(error) => assert!(is_unsupported(error), "{error}"),
        }
        let write_only = File::create("/dev/null").unwrap();
        assert!(read_at_sparing(&write_only, &mut [0; 10], 0).is_err());
    }

    #[test]
    fn what_is_on_the_disk_is_no_longer_in_memory() {
        assert_holds(|| {
            let mut file = tempfile::tempfile_in("/var/tmp").unwrap();
            file.write_all(&vec![7; 1 << 20]).unwrap();
            file.sync_all().unwrap();
            let was_cached = is_cached(&file, 0);
            drop_pages_of(&file);
            was_cached && is_cached(&file, 0) == is_in_memory_only(&file)
        });
    }
}

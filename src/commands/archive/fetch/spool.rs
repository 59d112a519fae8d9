//! The spool: segments that were fetched before PostgreSQL asked for them, raw, each checked before
//! it got its name.
//!
//! A folder of the state directory with one file for each segment, `<segment>.<CRC-32>`, and what
//! `fetch` and the prefetcher tell each other: `wanted`, `<segment>.coming`, `lock`. It may be lost
//! or damaged at any time: whoever takes a file from it checks all of it again.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::commands::App;
use crate::commands::archive::{Caller, PIECE_BYTES, place};
use crate::error::{Error, ErrorKind, Result};
use crate::host::atomic_file::{self, PendingFile};
use crate::host::lock::Lock;
use crate::host::state;
use crate::postgres::{SegmentName, WalFileName};

#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// Held while the prefetcher gives something a name in it: nothing gets one once it is true.
    is_closed: Mutex<bool>,
}

/// A segment in the spool, as its file is named; its content proves nothing until it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    pub name: SegmentName,
    path: PathBuf,
    crc32: u32,
}

/// What PostgreSQL asked for last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub segment: SegmentName,
    /// The store has it: it was asked, and gave it.
    pub is_served: bool,
}

/// While it lives, `fetch` knows that the segment is on its way.
#[derive(Debug)]
pub struct Coming(PathBuf);

/// How long a segment may lie in the spool.
const LASTS: Duration = Duration::from_secs(60 * 60);
const LOCK: &str = "lock";
const WANTED: &str = "wanted";
const COMING: &str = ".coming";
/// Of a segment that is being written.
const UNFINISHED: &str = ".segment-";

impl Spool {
    /// `None` where nothing can be kept: everything comes from the store then.
    pub fn open(app: &App, caller: &Caller) -> Option<Spool> {
        let state = caller.state(app, caller.control_file?.system_identifier);
        // Another repository may hold another segment of the same name.
        let places = app.settings.repositories.iter().map(|one| place::name_of(app, one));
        let whose = format!("spool of {}", places.collect::<Vec<_>>().join(" and "));
        state.room(&whose).map(Spool::in_folder)
    }

    /// In a folder that is there, and private.
    pub(super) fn in_folder(folder: PathBuf) -> Spool {
        Spool { folder, is_closed: Mutex::new(false) }
    }

    // What fetch does.

    pub fn tell_wanted(&self, wanted: Wanted) -> io::Result<()> {
        let mut pending = PendingFile::create(&self.folder.join(WANTED), 0o600)?;
        let state = if wanted.is_served { "served" } else { "asked" };
        pending.write(format!("{} {state}\n", wanted.segment).as_bytes())?;
        pending.hand_over()
    }

    /// What was put there lately: an old one is of a recovery that ended long ago, and since then
    /// another server may have archived another segment of this name.
    pub fn find(&self, name: &SegmentName) -> Option<Spooled> {
        let named = self.segments().into_iter().find(|spooled| spooled.name == *name)?;
        if state::is_young(&named.path, LASTS) {
            return Some(named);
        }
        named.remove();
        None
    }

    /// Whether the prefetcher is fetching it, if there is one.
    pub fn is_coming(&self, name: &SegmentName) -> bool {
        self.coming(name).exists()
    }

    pub fn has_prefetcher(&self) -> bool {
        Lock::is_held(&self.folder.join(LOCK))
    }

    // What the prefetcher does.

    /// `None` where another prefetcher lives.
    pub fn occupy(&self) -> io::Result<Option<Lock>> {
        Lock::take(&self.folder.join(LOCK))
    }

    pub fn wanted(&self) -> Option<Wanted> {
        let text = fs::read_to_string(self.folder.join(WANTED)).ok()?;
        let (segment, state) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Wanted { segment: SegmentName::parse(segment)?, is_served: state == "served" })
    }

    pub fn announce(&self, name: &SegmentName) -> io::Result<Coming> {
        let _open = self.open_still()?;
        let path = self.coming(name);
        File::create(&path).map(|_| Coming(path))
    }

    /// For a segment to be written; gone again when dropped.
    pub fn pending(&self) -> io::Result<PendingFile> {
        let _open = self.open_still()?;
        PendingFile::create_as(UNFINISHED, &self.folder.join("segment"), 0o600)
    }

    /// Gives a checked segment its name.
    pub fn keep(&self, checked: PendingFile, name: &WalFileName, crc32: u32) -> io::Result<()> {
        let _open = self.open_still()?;
        checked.hand_over_as(&format!("{name}.{crc32:08X}"))
    }

    /// What is there, by name; nothing where the folder cannot be read.
    pub fn segments(&self) -> Vec<Spooled> {
        let spooled = |path: PathBuf| {
            let (segment, crc32) = path.file_name()?.to_str()?.split_once('.')?;
            let crc32 = u32::from_str_radix(crc32, 16).ok().filter(|_| crc32.len() == 8)?;
            Some(Spooled { name: SegmentName::parse(segment)?, crc32, path })
        };
        self.entries().into_iter().filter_map(spooled).collect()
    }

    /// What prefetchers that were killed left behind. Only for who occupies the spool.
    pub fn sweep(&self) {
        self.segments().iter().for_each(Spooled::remove);
        let is_left = |name: &str| name.ends_with(COMING) || name.starts_with(UNFINISHED);
        self.remove_where(is_left);
        let _ = atomic_file::sweep_stale(&self.folder);
    }

    /// Removes all but the lock, and lets nothing more in, whatever is still in flight. Only for
    /// who occupies the spool.
    pub fn close(&self) {
        *self.is_closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.segments().iter().for_each(Spooled::remove);
        self.remove_where(|name| {
            name.ends_with(COMING) || name.starts_with(UNFINISHED) || name == WANTED
        });
    }

    /// Bytes free on its disk; `None` where it is gone.
    pub fn bytes_free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.folder).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// What tells this very folder from one made anew in its place; `None` where it is gone.
    pub fn identity(&self) -> Option<(u64, u64)> {
        identity(&self.folder)
    }

    fn open_still(&self) -> io::Result<MutexGuard<'_, bool>> {
        let is_closed = self.is_closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_closed { Err(io::Error::other("the spool is closed")) } else { Ok(is_closed) }
    }

    fn coming(&self, name: &SegmentName) -> PathBuf {
        self.folder.join(format!("{name}{COMING}"))
    }

    fn remove_where(&self, is_meant: impl Fn(&str) -> bool) {
        for path in self.entries() {
            if path.file_name().and_then(|name| name.to_str()).is_some_and(&is_meant) {
                remove(&path);
            }
        }
    }

    fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

impl Spooled {
    /// Hands all of it to `sink`, and says at the end whether it is what was put there.
    pub fn read(&self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let unreadable = |error: io::Error| {
            let message = format!("cannot read {}", self.path.display());
            Error::new(ErrorKind::Host, message).source(error)
        };
        let mut file = File::open(&self.path).map_err(unreadable)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut crc32 = crc32fast::Hasher::new();
        loop {
            let length = match file.read(&mut piece) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(unreadable)?,
            };
            crc32.update(&piece[..length]);
            sink(&piece[..length])?;
        }
        if crc32.finalize() == self.crc32 {
            return Ok(());
        }
        let message = format!("{} does not match its CRC-32", self.path.display());
        Err(Error::new(ErrorKind::Corrupt, message))
    }

    /// Whether moving it there would copy nothing.
    pub fn is_on_disk_of(&self, destination: &Path) -> bool {
        let folder = destination.parent().filter(|folder| !folder.as_os_str().is_empty());
        let disks = [&*self.path, folder.unwrap_or(Path::new("."))].map(identity);
        matches!(disks, [Some((ours, _)), Some((theirs, _))] if ours == theirs)
    }

    pub fn move_to(&self, destination: &Path) -> io::Result<()> {
        atomic_file::move_over(&self.path, destination)
    }

    pub fn remove(&self) {
        remove(&self.path);
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// What is gone already is as good as removed.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(place = %path.display(), %error, "cannot remove");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Spool, Wanted};
    use crate::error::ErrorKind;
    use crate::postgres::{SegmentName, WalFileName};

    const NAME: &str = "0000000100000000000000A1";

    fn segment() -> SegmentName {
        SegmentName::parse(NAME).unwrap()
    }

    fn spool(folder: &Path) -> Spool {
        Spool::in_folder(folder.to_owned())
    }

    fn keep(spool: &Spool, bytes: &[u8]) {
        let mut pending = spool.pending().unwrap();
        pending.write(bytes).unwrap();
        let name = WalFileName::Segment(segment());
        spool.keep(pending, &name, crc32fast::hash(bytes)).unwrap();
    }

    #[test]
    fn what_was_put_there_is_read_back_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        assert_eq!(spool.find(&segment()), None);
        keep(&spool, b"content");
        let spooled = spool.find(&segment()).unwrap();
        let mut read = Vec::new();
        let mut sink = |piece: &[u8]| {
            read.extend_from_slice(piece);
            Ok(())
        };
        spooled.read(&mut sink).unwrap();
        assert_eq!(read, b"content");
        for damaged in [&b"contenT"[..], b"", b"content\0"] {
            fs::write(&spooled.path, damaged).unwrap();
            let refused = spooled.read(&mut |_| Ok(())).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt, "{damaged:?}");
        }
    }

    #[test]
    fn what_is_wanted_is_told_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        assert_eq!(spool.wanted(), None);
        for is_served in [false, true] {
            let wanted = Wanted { segment: segment(), is_served };
            spool.tell_wanted(wanted).unwrap();
            assert_eq!(spool.wanted(), Some(wanted));
        }
        for cut in ["", NAME, "0000000100000000000000A1 asked", "x asked\n"] {
            fs::write(folder.path().join("wanted"), cut).unwrap();
            assert_eq!(spool.wanted(), None, "{cut:?}");
        }
    }

    #[test]
    fn only_whole_segments_are_listed_and_all_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        let coming = spool.announce(&segment()).unwrap();
        assert!(spool.is_coming(&segment()));
        keep(&spool, b"content");
        for name in [".segment-1-a.tmp", "lock", &format!("{NAME}.12"), "x.12345678"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(spool.segments().len(), 1);
        spool.sweep();
        assert!(!spool.is_coming(&segment()) && !folder.path().join(".segment-1-a.tmp").exists());
        assert!(spool.segments().is_empty(), "of whoever was here before");
        drop(coming);
    }

    #[test]
    fn what_was_put_there_long_ago_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        keep(&spool, b"content");
        let spooled = spool.find(&segment()).unwrap();
        let file = fs::File::options().write(true).open(&spooled.path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert!(spool.find(&segment()).is_none() && spool.segments().is_empty());
    }

    #[test]
    fn once_closed_nothing_gets_in() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(folder.path());
        let late = spool.pending().unwrap();
        let _coming = spool.announce(&segment()).unwrap();
        keep(&spool, b"content");
        spool.close();
        assert!(spool.announce(&segment()).is_err() && spool.pending().is_err());
        assert!(spool.keep(late, &WalFileName::Segment(segment()), 0).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

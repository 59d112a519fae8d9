//! Files that appear whole or not at all, and that a power cut does not take back.

#![allow(clippy::disallowed_methods, reason = "what others are told to use in their place")]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags};

use steps::{Step, took};

/// A temporary file of a process that lives no more: no request runs for a day.
const TEMPORARY_PREFIX: &str = ".walden-";
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A file under a temporary name beside its destination, until it is published; dropped before that
/// it is removed.
///
/// A process killed in between leaves the temporary file behind. It is in nobody's way: its name is
/// never used again, and `is_temporary` tells it from what was published.
#[derive(Debug)]
pub struct PendingFile {
    file: File,
    temporary: PathBuf,
    destination: PathBuf,
    published: bool,
}

impl PendingFile {
    /// The folder must be there; `mode` as in chmod, narrowed by the umask.
    pub fn create(destination: &Path, mode: u32) -> io::Result<Self> {
        PendingFile::create_as(TEMPORARY_PREFIX, destination, mode)
    }

    /// As `create`, with a temporary name that begins with `prefix`.
    pub fn create_as(prefix: &str, destination: &Path, mode: u32) -> io::Result<Self> {
        let folder = folder_of(destination);
        loop {
            let name = format!("{prefix}{}-{:016x}.tmp", std::process::id(), fastrand::u64(..));
            let temporary = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary) {
                // Hosts that share a folder share process ids, and a fork shares the seed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => {
                    let (file, destination) = (opened?, destination.to_owned());
                    took(Step::Create, &[&temporary]);
                    if !unpublished().insert(&temporary) {
                        let _ = fs::remove_file(&temporary);
                        return Err(io::Error::other("the process is about to end"));
                    }
                    return Ok(PendingFile { file, temporary, destination, published: false });
                }
            }
        }
    }

    /// To this uid and gid, where that is allowed.
    pub fn give(&mut self, (uid, gid): (u32, u32)) {
        let _ = fchown(&self.file, Some(uid), Some(gid));
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Publishes under a name that must be free, else `AlreadyExists`: of many publishers exactly
    /// one succeeds.
    ///
    /// Durable on return, except the entries of the folders above: see `host::folders`.
    pub fn publish_new(mut self) -> io::Result<()> {
        self.sync_file()?;
        self.move_to_free_name()?;
        self.published = true;
        sync_folder(folder_of(&self.destination))
    }

    /// Publishes in the place of what may be there, without a wait for the disk: for somebody who
    /// will see to it that the file lasts.
    pub fn hand_over(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.destination)?;
        self.published = true;
        Ok(())
    }

    /// As `hand_over`, under a name beside the destination that is known only now.
    pub fn hand_over_as(mut self, name: &str) -> io::Result<()> {
        self.destination.set_file_name(name);
        self.hand_over()
    }

    fn sync_file(&self) -> io::Result<()> {
        self.file.sync_all()?;
        took(Step::SyncFile, &[&self.temporary]);
        Ok(())
    }

    /// One atomic step where the file system has it. NFS has not (EINVAL): there a hard link is the
    /// one operation that refuses a taken name atomically, on the server.
    fn move_to_free_name(&self) -> io::Result<()> {
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(CWD, &self.temporary, CWD, &self.destination, flags) {
            Ok(()) => {
                took(Step::Move, &[&self.temporary, &self.destination]);
                Ok(())
            }
            Err(
                rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP,
            ) => self.link_to_free_name(),
            Err(error) => Err(error.into()),
        }
    }

    fn link_to_free_name(&self) -> io::Result<()> {
        match fs::hard_link(&self.temporary, &self.destination) {
            // An NFS client that lost the answer asks again and is told of its own first success.
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists && self.is_at_destination() => {}
            linked => linked?,
        }
        took(Step::Move, &[&self.temporary, &self.destination]);
        // A failure leaves a stale temporary file, which is harmless; the object is there.
        let _ = fs::remove_file(&self.temporary);
        Ok(())
    }

    fn is_at_destination(&self) -> bool {
        let identity = |path: &Path| fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()));
        match (identity(&self.temporary), identity(&self.destination)) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            _ => false,
        }
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.temporary);
        }
        unpublished().paths.remove(&self.temporary);
    }
}

/// For a process that ends while threads of it still write: removes what they have not published,
/// and from now on they fail.
pub fn abandon_unpublished() {
    unpublished().abandon();
}

/// The temporary files of this process.
struct Unpublished {
    paths: BTreeSet<PathBuf>,
    is_abandoned: bool,
}

impl Unpublished {
    fn insert(&mut self, path: &Path) -> bool {
        !self.is_abandoned && self.paths.insert(path.to_owned())
    }

    fn abandon(&mut self) {
        self.is_abandoned = true;
        for path in std::mem::take(&mut self.paths) {
            let _ = fs::remove_file(path);
        }
    }
}

fn unpublished() -> MutexGuard<'static, Unpublished> {
    static UNPUBLISHED: Mutex<Unpublished> =
        Mutex::new(Unpublished { paths: BTreeSet::new(), is_abandoned: false });
    UNPUBLISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves a file that is whole already, in the place of what may be there, without a wait for the
/// disk.
pub fn move_over(file: &Path, destination: &Path) -> io::Result<()> {
    fs::rename(file, destination)
}

/// Whether a file of this name is one that was never published.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY_PREFIX) && name.ends_with(".tmp")
}

/// Removes what processes that died a day ago or earlier left in `folder`; tells whether there was
/// any.
pub fn sweep_stale(folder: &Path) -> io::Result<bool> {
    let mut swept = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_old = |modified: SystemTime| modified.elapsed().is_ok_and(|age| age > STALE);
        if entry.file_name().to_str().is_some_and(is_temporary)
            && entry.metadata()?.modified().is_ok_and(is_old)
        {
            fs::remove_file(entry.path())?;
            swept = true;
        }
    }
    Ok(swept)
}

/// The entries of a folder, made durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot sync a folder and do not need it; PostgreSQL forgives
        // them too.
        Err(error) if matches!(error.raw_os_error(), Some(INVAL | BADF)) => {}
        synced => synced?,
    }
    took(Step::SyncFolder, &[folder]);
    Ok(())
}

const INVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();
const BADF: i32 = rustix::io::Errno::BADF.raw_os_error();

pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What was done in which order, for the crash double below; nothing at all outside tests.
pub(super) mod steps {
    #[cfg(not(test))]
    use std::path::Path;

    #[derive(Debug, Clone, Copy, PartialEq)]
    pub enum Step {
        Create,
        SyncFile,
        /// From, to; a hard link and the unlinking of the old name too.
        Move,
        SyncFolder,
    }

    #[cfg(not(test))]
    pub fn took(_: Step, _: &[&Path]) {}

    #[cfg(test)]
    pub use super::tests::{STEPS, took};
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::io;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, SystemTime};

    use super::steps::Step;
    use super::{PendingFile, Unpublished, is_temporary, sweep_stale};
    use crate::host::folders::Folders;

    #[test]
    fn publishing_never_replaces_unless_asked_to() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        publish(&path, b"first").unwrap();
        let refused = publish(&path, b"second").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");

        let mut pending = PendingFile::create(&path, 0o600).unwrap();
        pending.write(b"third").unwrap();
        pending.hand_over().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(names(root.path()), ["a"], "temporary files are gone");
    }

    #[test]
    fn the_hard_link_way_refuses_a_taken_name_and_knows_its_own_success() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        let mut pending = PendingFile::create(&path, 0o600).unwrap();
        pending.write(b"first").unwrap();
        fs::hard_link(&pending.temporary, &path).unwrap();
        pending.link_to_free_name().expect("the link is ours: its answer was lost");
        drop(pending);

        let other = PendingFile::create(&path, 0o600).unwrap();
        let refused = other.link_to_free_name().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        drop(other);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(root.path()), ["a"]);
    }

    #[test]
    fn what_is_dropped_unpublished_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let mut pending = PendingFile::create(&root.path().join("a"), 0o600).unwrap();
        pending.write(b"half").unwrap();
        assert!(names(root.path()).iter().all(|name| is_temporary(name)));
        drop(pending);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn what_is_abandoned_leaves_nothing_and_nothing_new_begins() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, "half").unwrap();
        let mut unpublished = Unpublished { paths: BTreeSet::new(), is_abandoned: false };
        assert!(unpublished.insert(&path));
        unpublished.abandon();
        assert!(!path.exists());
        assert!(!unpublished.insert(&path));
    }

    #[test]
    fn only_stale_temporary_files_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let two_days_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
        for (name, time) in [
            (".walden-1-a.tmp", two_days_ago),
            (".walden-1-b.tmp", SystemTime::now()),
            ("object", two_days_ago),
        ] {
            fs::File::create(root.path().join(name)).unwrap().set_modified(time).unwrap();
        }
        assert!(sweep_stale(root.path()).unwrap());
        assert_eq!(names(root.path()), [".walden-1-b.tmp", "object"]);
        assert!(!sweep_stale(root.path()).unwrap());
    }

    /// The crash double: at every instant a power cut leaves no half file under the final name, and
    /// once publishing has returned, the file and all folders above it survive.
    #[test]
    fn no_power_cut_leaves_half_a_file_or_takes_a_published_one_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("x/y/z");
        let path = folder.join("object");
        STEPS.take();
        Folders::new(root.path(), None).create(&folder, 0o700).unwrap();
        publish(&path, b"content").unwrap();
        let steps = STEPS.take();
        for cut in 0..=steps.len() {
            let mut disk = Disk::new(root.path());
            steps[..cut].iter().for_each(|step| disk.take(step));
            assert!(!disk.may_show_half(&path), "after {cut} of {steps:#?}");
            assert_eq!(disk.keeps(&path), cut == steps.len(), "after {cut} of {steps:#?}");
        }
    }

    fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut pending = PendingFile::create(path, 0o600)?;
        pending.write(bytes)?;
        pending.publish_new()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    thread_local! {
        pub static STEPS: RefCell<Vec<Taken>> = const { RefCell::new(Vec::new()) };
    }

    pub type Taken = (Step, Vec<PathBuf>);

    pub fn took(step: Step, paths: &[&Path]) {
        let paths = paths.iter().map(|path| path.to_path_buf()).collect();
        STEPS.with_borrow_mut(|steps| steps.push((step, paths)));
    }

    /// What POSIX promises of a disk, and no more: a name survives when its folder was synced
    /// since, a content when its file was; anything not synced may survive or not, as it likes.
    struct Disk {
        root: PathBuf,
        /// Names in memory, each with the temporary name its content was written under.
        seen: BTreeMap<PathBuf, PathBuf>,
        kept: BTreeSet<PathBuf>,
        whole: BTreeSet<PathBuf>,
    }

    impl Disk {
        fn new(root: &Path) -> Self {
            let (seen, kept, whole) = Default::default();
            Disk { root: root.to_owned(), seen, kept, whole }
        }

        fn take(&mut self, (step, paths): &Taken) {
            let path = &paths[0];
            match step {
                Step::Create => {
                    self.seen.insert(path.clone(), path.clone());
                }
                Step::SyncFile => {
                    self.whole.insert(path.clone());
                }
                Step::Move => {
                    let origin = self.seen.remove(path).unwrap();
                    self.seen.insert(paths[1].clone(), origin);
                }
                Step::SyncFolder => {
                    let inside = |name: &&PathBuf| name.parent() == Some(path);
                    self.kept.extend(self.seen.keys().filter(inside).cloned());
                }
            }
        }

        fn may_show_half(&self, path: &Path) -> bool {
            self.seen.get(path).is_some_and(|origin| !self.whole.contains(origin))
        }

        fn keeps(&self, path: &Path) -> bool {
            path.ancestors().take_while(|&above| above != self.root).all(|p| self.kept.contains(p))
        }
    }
}

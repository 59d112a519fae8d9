//! A store in a directory: one object, one file; durable when `put_new` returns.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::host::atomic_file::{self, PendingFile};
use crate::host::folders::Folders;
use crate::host::privileges;
use crate::host::state::StateDirectory;
use crate::storage::{Body, Key, Listing, ObjectInfo, Storage, body};

/// Narrowed by the umask. WAL holds what the tables hold: others have no business here, a group
/// may.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// The root is never made here: where it is missing, a disk is not mounted, and what filled the
/// mount point instead would be gone the moment it is.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    folders: Folders,
}

/// How writing a file went, as far as the disk it is on is not to blame.
enum Written {
    Whole,
    /// Not what the checksum was made of: nothing was published.
    Changed,
    /// What was to be written could not be read.
    Unread(io::Error),
}

impl Directory {
    pub fn new(root: impl Into<PathBuf>, memory: Option<StateDirectory>) -> Self {
        let root = root.into();
        Directory { folders: Folders::new(&root, memory), root }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn write_new(&self, path: &Path, folder: &Path, body: &Body) -> io::Result<Written> {
        self.folders.create(folder, FOLDER_MODE)?;
        let mut pending = PendingFile::create(path, FILE_MODE)?;
        if let Some(owner) = self.owner_to_be() {
            self.give_folders(folder, owner);
            pending.give(owner);
        }
        let mut crc32 = crc32fast::Hasher::new();
        for piece in body.pieces() {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return Ok(Written::Unread(error)),
            };
            crc32.update(&piece);
            pending.write(&piece)?;
        }
        if crc32.finalize() != body.crc32 {
            return Ok(Written::Changed);
        }
        pending.publish_new().map(|()| Written::Whole)
    }

    /// Uid and gid. What root writes by the way, an index say, is the server's to read and to
    /// remove: it belongs to whom the repository does.
    fn owner_to_be(&self) -> Option<(u32, u32)> {
        let root = privileges::is_root().then(|| fs::metadata(&self.root).ok())??;
        (root.uid() != 0).then(|| (root.uid(), root.gid()))
    }

    /// Those that root has made. Where that is not allowed, as on some NFS, they stay root's.
    fn give_folders(&self, folder: &Path, (uid, gid): (u32, u32)) {
        for folder in folder.ancestors().take_while(|&folder| folder != self.root) {
            if fs::metadata(folder).is_ok_and(|found| found.uid() == 0) {
                let _ = chown(folder, Some(uid), Some(gid));
            }
        }
    }

    /// An object of that name may be so young that its maker has not synced the folders yet, or
    /// never will; who compares it and finds it the same may say "archived" all the same, so it is
    /// made durable first.
    fn already_exists(&self, key: &Key, folder: &Path) -> Error {
        let synced = File::open(self.path(key)).and_then(|file| file.sync_all());
        match synced.and_then(|()| self.folders.sync(folder)) {
            Ok(()) => Error::new(ErrorKind::AlreadyExists, format!("{key} is there already"))
                .hint("Objects are written once; nothing was changed."),
            Err(error) => self.failed("sync", key, error),
        }
    }

    fn open(&self, key: &Key) -> Result<(File, fs::Metadata)> {
        let path = self.path(key);
        let opened = File::open(&path).and_then(|file| {
            let metadata = file.metadata()?;
            Ok((file, metadata))
        });
        let (file, metadata) = opened.map_err(|error| self.failed("read", key, error))?;
        if metadata.is_file() { Ok((file, metadata)) } else { Err(self.not_found(key)) }
    }

    fn read(&self, file: &File, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start)
            .map_err(|error| self.failed("read", key, error))?;
        Ok(bytes.into())
    }

    fn info(&self, key: Key, metadata: &fs::Metadata) -> ObjectInfo {
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|time| jiff::Timestamp::try_from(time).ok());
        ObjectInfo { key, size: metadata.len(), modified: modified.unwrap_or_default() }
    }

    /// What lies in `folder` under a name an object may have; others are not ours.
    fn entries(&self, folder: Option<&Key>) -> io::Result<Listing> {
        let path = folder.map_or_else(|| self.root.clone(), |folder| self.path(folder));
        let mut listing = Listing::default();
        for entry in fs::read_dir(path)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let key = folder.map_or_else(|| name.clone(), |folder| format!("{folder}/{name}"));
            let Ok(key) = Key::new(key) else { continue };
            if name.starts_with('.') {
                continue;
            }
            match fs::metadata(self.path(&key)) {
                Ok(metadata) if metadata.is_dir() => listing.folders.push(name),
                Ok(metadata) if metadata.is_file() => {
                    listing.objects.push(self.info(key, &metadata));
                }
                // A socket, a device; or deleted since the folder was read.
                Ok(_) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        listing.folders.sort();
        listing.objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listing)
    }

    fn listing(&self, folder: Option<&Key>) -> Result<Listing> {
        match self.entries(folder) {
            Err(error) if is_missing(&error) => Ok(Listing::default()),
            listed => listed.map_err(|error| {
                let path = folder.map_or_else(|| self.root.clone(), |folder| self.path(folder));
                let (kind, hint) = sort(&error);
                let message = format!("cannot list {}", path.display());
                Error::new(kind, message).hint(hint).source(error)
            }),
        }
    }

    /// Object stores have no empty folders, so none is left here. What processes that died long ago
    /// left in it goes with the folder's last object: the one place where stale temporary files are
    /// swept.
    fn remove_empty_folders(&self, path: &Path) {
        let above = path.ancestors().skip(1).take_while(|&folder| folder != self.root);
        for folder in above {
            let removed = fs::remove_dir(folder).or_else(|error| {
                match error.kind() == io::ErrorKind::DirectoryNotEmpty
                    && atomic_file::sweep_stale(folder)?
                {
                    true => fs::remove_dir(folder),
                    false => Err(error),
                }
            });
            // In use again, or not ours to remove: an empty folder harms nobody.
            if removed.is_err() {
                return;
            }
        }
    }

    fn not_found(&self, key: &Key) -> Error {
        Error::new(ErrorKind::NotFound, format!("{key} is not in {}", self.root.display()))
            .hint("Look whether this is the right repository.")
    }

    fn failed(&self, verb: &str, key: &Key, error: io::Error) -> Error {
        self.failed_at(verb, &self.path(key), error, || self.not_found(key))
    }

    fn failed_at(
        &self,
        verb: &str,
        path: &Path,
        error: io::Error,
        missing: impl FnOnce() -> Error,
    ) -> Error {
        if is_missing(&error) {
            let elsewhere = self.root_is_there().and_then(|()| self.no_link_leads_nowhere(path));
            return elsewhere.err().unwrap_or_else(missing);
        }
        let (kind, hint) = sort(&error);
        let message = format!("cannot {verb} {}", path.display());
        Error::new(kind, message).hint(hint).source(error)
    }

    /// Old WAL is sometimes moved to another disk and linked to; while that is not mounted, its
    /// objects are not absent.
    fn no_link_leads_nowhere(&self, path: &Path) -> Result<()> {
        let below = path.ancestors().take_while(|&part| part != self.root);
        let is_link = |part: &Path| fs::symlink_metadata(part).is_ok_and(|m| m.is_symlink());
        let Some(link) = below.filter(|part| is_link(part)).find(|part| !part.exists()) else {
            return Ok(());
        };
        let message = format!("{} is a link that leads nowhere", link.display());
        Err(Error::new(ErrorKind::WrongPlace, message).hint("Mount the disk it leads to."))
    }

    fn root_is_there(&self) -> Result<()> {
        let root = self.root.display();
        match fs::metadata(&self.root) {
            Ok(root) if root.is_dir() => Ok(()),
            Ok(_) => {
                let message = format!("the repository directory {root} is not a directory");
                Err(Error::new(ErrorKind::WrongPlace, message)
                    .hint("Let the repository's URL name a directory."))
            }
            Err(error) if is_missing(&error) => {
                let message = format!("the repository directory {root} is not there");
                Err(Error::new(ErrorKind::WrongPlace, message)
                    .hint("Create it, or mount the disk it is on."))
            }
            Err(error) => {
                let (kind, hint) = sort(&error);
                let message = format!("cannot look at the repository directory {root}");
                Err(Error::new(kind, message).hint(hint).source(error))
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for Directory {
    fn put_new(&self, key: &Key, body: &Body) -> Result<()> {
        self.root_is_there()?;
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root);
        let mut written = self.write_new(&path, folder, body);
        // Whoever deletes the last object of a folder removes the folder, maybe right under our
        // feet.
        for _ in 0..8 {
            match &written {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    written = self.write_new(&path, folder, body);
                }
                _ => break,
            }
        }
        match written {
            Ok(Written::Whole) => Ok(()),
            Ok(Written::Changed) => {
                let message = format!("{key} changed in memory before it was written");
                Err(Error::new(ErrorKind::Corrupt, message)
                    .hint("If this happens again, test the memory and the disks of this machine."))
            }
            Ok(Written::Unread(error)) => Err(body::unreadable(key, error)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(self.already_exists(key, folder))
            }
            Err(error) => Err(self.failed("write", key, error)),
        }
    }

    fn get(&self, key: &Key) -> Result<Bytes> {
        let (_, metadata) = self.open(key)?;
        self.get_range(key, 0..metadata.len())
    }

    fn get_start(&self, key: &Key, max: u64) -> Result<(Bytes, u64)> {
        let (file, metadata) = self.open(key)?;
        let size = metadata.len();
        let start = self.read(&file, key, 0..size.min(max))?;
        Ok((start, size))
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let (file, metadata) = self.open(key)?;
        if range.start > range.end || range.end > metadata.len() {
            let (start, end, size) = (range.start, range.end, metadata.len());
            let message = format!("{key} has {size} bytes, not those from {start} to {end}");
            return Err(Error::new(ErrorKind::Corrupt, message)
                .hint("The object was cut short: bring it back from a copy."));
        }
        self.read(&file, key, range)
    }

    fn head(&self, key: &Key) -> Result<ObjectInfo> {
        let metadata = fs::metadata(self.path(key));
        match metadata.map_err(|error| self.failed("look at", key, error))? {
            metadata if metadata.is_file() => Ok(self.info(key.clone(), &metadata)),
            _ => Err(self.not_found(key)),
        }
    }

    fn list(&self, folder: Option<&Key>) -> Result<Listing> {
        self.root_is_there()?;
        self.listing(folder)
    }

    fn list_all(&self, folder: &Key, after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        self.root_is_there()?;
        let mut objects = Vec::new();
        let mut folders = vec![folder.clone()];
        while let Some(folder) = folders.pop() {
            let listing = self.listing(Some(&folder))?;
            let wanted = |key: &Key| after.is_none_or(|after| key > after);
            objects.extend(listing.objects.into_iter().filter(|object| wanted(&object.key)));
            let inner = listing.folders.iter().filter_map(|name| folder.join(name).ok());
            folders.extend(inner.filter(|inner| {
                // What begins with it and a `/` comes after `after` as a whole, or not at all,
                // unless `after` itself lies in it.
                let inside = format!("{inner}/");
                after.is_none_or(|after| {
                    inside.as_str() > after.as_str() || after.as_str().starts_with(&inside)
                })
            }));
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Durable too: a manifest must not come back after the packs it names have gone.
    fn delete(&self, key: &Key) -> Result<()> {
        self.root_is_there()?;
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root);
        match fs::remove_file(&path).and_then(|()| atomic_file::sync_folder(folder)) {
            Err(error) if !is_missing(&error) => Err(self.failed("delete", key, error)),
            _ => {
                self.remove_empty_folders(&path);
                Ok(())
            }
        }
    }

    fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }
}

/// No such file, or a file where a folder would have to be.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

fn sort(error: &io::Error) -> (ErrorKind, &'static str) {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Full, "Free space on the repository's disk, or raise its quota.")
        }
        io::ErrorKind::PermissionDenied => (
            ErrorKind::NotAllowed,
            "Let the user that PostgreSQL runs as read and write the repository directory.",
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::NotAllowed, "Mount the repository's disk writable.")
        }
        _ => (ErrorKind::Unreachable, "Look at the repository's disk and its mount."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, chown};

    use super::Directory;
    use crate::error::ErrorKind;
    use crate::host::privileges;
    use crate::storage::{Body, Key, Storage, contract};

    #[test]
    fn a_directory_keeps_the_contract() {
        let root = tempfile::tempdir().unwrap();
        let count = std::cell::Cell::new(0);
        contract::run_all(&|| {
            count.set(count.get() + 1);
            let root = root.path().join(count.get().to_string());
            fs::create_dir(&root).unwrap();
            Box::new(Directory::new(root, None))
        });
        contract::folders_are_no_objects(&Directory::new(root.path(), None));
    }

    #[test]
    fn a_missing_root_is_the_wrong_place_and_stays_missing() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("not mounted");
        let store = Directory::new(&root, None);
        let key = Key::new("main/1/cluster.json").unwrap();
        let body = Body::new("{}");
        for error in [
            store.put_new(&key, &body).unwrap_err(),
            store.get(&key).unwrap_err(),
            store.head(&key).unwrap_err(),
            store.list(None).unwrap_err(),
            store.delete(&key).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::WrongPlace, "{error}");
            assert!(error.hint_text().unwrap().contains("mount"), "{}", error.one_line());
        }
        assert!(!root.exists());
    }

    #[test]
    fn temporary_and_hidden_files_are_not_objects() {
        let root = tempfile::tempdir().unwrap();
        let store = Directory::new(root.path(), None);
        store.put_new(&Key::new("a").unwrap(), &Body::new("1")).unwrap();
        for foreign in [".walden-1-2.tmp", ".snapshot", "a name with spaces", "ü"] {
            fs::write(root.path().join(foreign), "x").unwrap();
        }
        let listing = store.list(None).unwrap();
        let keys: Vec<_> = listing.objects.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(keys, ["a"]);
        assert!(listing.folders.is_empty());
    }

    /// Only root can give away.
    #[test]
    fn what_root_writes_belongs_to_whom_the_repository_does() {
        if !privileges::is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let store = Directory::new(root.path(), None);
        store.put_new(&Key::new("ours/a").unwrap(), &Body::new("1")).unwrap();
        chown(root.path(), Some(12_345), Some(54_321)).unwrap();
        store.put_new(&Key::new("index/1/a").unwrap(), &Body::new("1")).unwrap();
        let owner = |path: &str| {
            let found = fs::metadata(root.path().join(path)).unwrap();
            (found.uid(), found.gid())
        };
        for path in ["index", "index/1", "index/1/a"] {
            assert_eq!(owner(path), (12_345, 54_321), "{path}");
        }
        assert_eq!(owner("ours/a").0, 0, "what was there is left alone");
    }

    #[test]
    fn bytes_that_do_not_match_their_checksum_are_not_written() {
        let root = tempfile::tempdir().unwrap();
        let store = Directory::new(root.path(), None);
        let mut body = Body::new("content");
        body.crc32 ^= 1;
        let error = store.put_new(&Key::new("a").unwrap(), &body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    /// Mounting takes root; without it the full disk is tested by `sort` alone.
    #[test]
    fn a_full_disk_is_full_and_shows_no_half_object() {
        use std::process::Command;
        let root = tempfile::tempdir().unwrap();
        let mount = |args: &[&str]| Command::new("mount").args(args).arg(root.path()).status();
        if !mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).is_ok_and(|status| status.success())
        {
            let full = super::sort(&std::io::ErrorKind::StorageFull.into());
            assert_eq!(full.0, ErrorKind::Full);
            return;
        }
        let store = Directory::new(root.path(), None);
        let written = store.put_new(&Key::new("x/a").unwrap(), &Body::new(vec![7; 1 << 20]));
        let left = fs::read_dir(root.path().join("x")).unwrap().count();
        let unmounted = Command::new("umount").arg(root.path()).status().unwrap();
        assert!(unmounted.success());
        assert_eq!(written.unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(left, 0);
    }
}

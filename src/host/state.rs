//! What this host remembers from call to call. A cache: losing it costs time. The one exception is
//! told in docs/configuration.md: which directories were repositories, and are mount points now.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::atomic_file::{self, PendingFile};

/// Where state is kept when nobody says otherwise and it can be written.
pub(super) const DEFAULT: &str = "/var/lib/walden";

/// The memory of one data directory, or of one cluster seen from elsewhere. Where none can be kept
/// it forgets at once: never an error.
#[derive(Debug, Clone)]
pub struct StateDirectory {
    folder: Option<PathBuf>,
    identity: String,
}

impl StateDirectory {
    /// `identity` tells whose memory this is: the system identifier and the data directory, or
    /// cluster and repository. Nothing is ever kept inside `data_directory`.
    pub fn open(
        configured: Option<&Path>,
        data_directory: Option<&Path>,
        identity: impl Into<String>,
    ) -> Self {
        let identity = identity.into();
        let folder = match configured {
            Some(base) => prepare(base, data_directory, &identity)
                .inspect_err(|error| {
                    tracing::warn!(place = %base.display(), %error, "state_dir cannot be used");
                })
                .ok(),
            None => {
                let private = std::env::temp_dir().join(format!("walden-{}", own_user()));
                prepare(Path::new(DEFAULT), data_directory, &identity)
                    .or_else(|_| prepare(&private, data_directory, &identity))
                    .inspect_err(|error| {
                        tracing::warn!(place = %private.display(), %error, "nothing is remembered");
                    })
                    .ok()
            }
        };
        StateDirectory { folder, identity }
    }

    /// For who only reads, and may be another user than the server's: it never makes the folder
    /// that the server will want for itself, and says nothing where it cannot use it.
    pub fn of_reader(configured: Option<&Path>, identity: impl Into<String>) -> Self {
        let identity = identity.into();
        let base = configured.unwrap_or(Path::new(DEFAULT));
        let shared = base.is_dir().then(|| prepare(base, None, &identity).ok()).flatten();
        let private = || {
            let private = std::env::temp_dir().join(format!("walden-{}", own_user()));
            prepare(&private, None, &identity)
        };
        let folder = shared.or_else(|| {
            private().inspect_err(|error| tracing::info!(%error, "nothing is remembered")).ok()
        });
        StateDirectory { folder, identity }
    }

    /// Writes a fact down, for later calls on this host.
    pub fn remember(&self, fact: &str) {
        let Some(path) = self.path(fact) else { return };
        let write = || {
            let mut pending = PendingFile::create(&path, 0o600)?;
            pending.write(self.line(fact).as_bytes())?;
            pending.hand_over()
        };
        if let Err(error) = write() {
            tracing::warn!(place = %path.display(), %error, "cannot remember, will ask again");
        }
    }

    pub fn remembers(&self, fact: &str) -> bool {
        // A file that was cut short, or of another fact with the same hash, says nothing.
        let said = self.path(fact).and_then(|path| fs::read(path).ok());
        said.is_some_and(|said| said == self.line(fact).as_bytes())
    }

    /// As `remembers`, for what may have changed since: only if it was written down lately.
    pub fn remembers_for(&self, fact: &str, time: Duration) -> bool {
        self.path(fact).is_some_and(|path| is_young(&path, time)) && self.remembers(fact)
    }

    /// Writes down `text` under `name`, in the place of what stood there.
    pub fn note(&self, name: &str, text: &str) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut pending = PendingFile::create(&folder.join(name), 0o600)?;
        pending.write(self.line(text).as_bytes())?;
        pending.hand_over()
    }

    /// What was written down under `name` lately, and is whole.
    pub fn noted(&self, name: &str, lasts: Duration) -> Option<String> {
        let path = self.folder.as_ref()?.join(name);
        if !is_young(&path, lasts) {
            return None;
        }
        let said = fs::read_to_string(path).ok()?;
        let said = said.strip_prefix(&self.identity)?.strip_prefix('\n')?.strip_suffix('\n')?;
        Some(said.to_owned())
    }

    pub fn forget(&self, name: &str) {
        // Not there, or not ours to remove: what it says is checked whenever it is read.
        let _ = self.folder.as_ref().map(|folder| fs::remove_file(folder.join(name)));
    }

    /// Removes the notes whose name begins with `prefix` and that are older than `lasts`, and what
    /// processes that were killed left half written.
    pub fn forget_old(&self, prefix: &str, lasts: Duration) {
        let Some(folder) = &self.folder else { return };
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_note = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
            if is_note && !is_young(&entry.path(), lasts) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let _ = atomic_file::sweep_stale(folder);
    }

    /// Where it is kept; `None` where nothing can be.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// A private folder in it, for what is larger than a fact; `whose` keeps two apart.
    pub fn room(&self, whose: &str) -> Option<PathBuf> {
        let room = self.folder.as_ref()?.join(format!("room-{}", hash(whose)));
        let made = private_directory(&room);
        made.inspect_err(|error| tracing::warn!(place = %room.display(), %error, "no room"))
            .ok()
            .map(|()| room)
    }

    fn path(&self, fact: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(hash(fact)))
    }

    fn line(&self, fact: &str) -> String {
        format!("{}\n{fact}\n", self.identity)
    }
}

/// Whether a file was written within this time.
pub fn is_young(path: &Path, lasts: Duration) -> bool {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    // In the future, after the clock was set back: not lately.
    let age = written.and_then(|written| written.elapsed().ok());
    age.is_some_and(|age| age < lasts)
}

/// Makes the folder of one identity under `base`, both private, or says why not.
fn prepare(base: &Path, data_directory: Option<&Path>, identity: &str) -> io::Result<PathBuf> {
    if data_directory.is_some_and(|data_directory| lies_inside(base, data_directory)) {
        return Err(io::Error::other("it lies in PostgreSQL's data directory"));
    }
    private_directory(base)?;
    let folder = base.join(hash(identity));
    private_directory(&folder)?;
    Ok(folder)
}

/// Makes a directory that only we can write, or makes sure that it is one. Anybody may have put
/// something else in its place under /tmp: a link to where we should not write, or a directory
/// where they could exchange what we read.
fn private_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        outcome => return outcome,
    }
    let found = fs::symlink_metadata(path)?;
    let fault = if !found.is_dir() {
        "it is no directory"
    } else if found.uid() != own_user() {
        "it belongs to another user"
    } else if found.mode() & 0o022 != 0 {
        "others can write it"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, fault))
}

/// The parent is asked, because the directory itself need not exist yet.
pub(super) fn lies_inside(path: &Path, data_directory: &Path) -> bool {
    let Ok(data_directory) = data_directory.canonicalize() else { return false };
    let is_inside =
        |path: &Path| path.canonicalize().is_ok_and(|real| real.starts_with(&data_directory));
    is_inside(path) || path.parent().is_some_and(is_inside)
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A file name of fixed length for any text; what is written inside tells two of one hash apart.
fn hash(text: &str) -> String {
    format!("{:016x}", crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;
    use std::time::Duration;

    use crate::host::state::StateDirectory;

    fn open(base: &Path) -> StateDirectory {
        StateDirectory::open(Some(base), None, "7512345 /data")
    }

    #[test]
    fn a_fact_is_remembered_from_call_to_call() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().join("state");
        assert!(!open(&base).remembers("claimed s3://bucket"));
        open(&base).remember("claimed s3://bucket");
        assert!(open(&base).remembers("claimed s3://bucket"));
        assert!(!open(&base).remembers("claimed s3://other"));
    }

    #[test]
    fn what_may_have_changed_is_asked_again_after_a_while() {
        let scratch = tempfile::tempdir().unwrap();
        let state = open(scratch.path());
        let hour = Duration::from_secs(3600);
        assert!(!state.remembers_for("claimed", hour));
        state.remember("claimed");
        assert!(state.remembers_for("claimed", hour));
        let file = fs::read_dir(state.folder().unwrap()).unwrap().next().unwrap().unwrap().path();
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert!(!state.remembers_for("claimed", hour));
        assert!(state.remembers("claimed"));
    }

    #[test]
    fn notes_are_read_whole_and_young_or_not_at_all() {
        let scratch = tempfile::tempdir().unwrap();
        let state = open(scratch.path());
        let hour = Duration::from_secs(3600);
        let path = |name: &str| state.folder().unwrap().join(name);
        for (name, text) in [("note-a", "one"), ("note-b", "two\nlines"), ("else", "three")] {
            state.note(name, text).unwrap();
            assert_eq!(state.noted(name, hour).as_deref(), Some(text));
        }
        state.forget("note-a");
        assert_eq!(state.noted("note-a", hour), None);
        fs::write(path("note-c"), "7512345 /data\ntor").unwrap();
        assert_eq!(state.noted("note-c", hour), None);
        for name in ["note-b", "else"] {
            let file = fs::File::options().write(true).open(path(name)).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(state.noted(name, hour), None);
        }
        state.forget_old("note-", hour);
        assert!(!path("note-b").exists() && path("note-c").exists() && path("else").exists());
    }

    #[test]
    fn one_cluster_does_not_know_what_another_does() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().join("state");
        open(&base).remember("claimed");
        assert!(!StateDirectory::open(Some(&base), None, "7512346 /data").remembers("claimed"));
    }

    #[test]
    fn a_file_cut_short_says_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let state = open(scratch.path());
        state.remember("claimed");
        let file = fs::read_dir(state.folder().unwrap()).unwrap().next().unwrap().unwrap().path();
        fs::write(file, "7512345 /data\ncla").unwrap();
        assert!(!state.remembers("claimed"));
    }

    #[test]
    fn all_of_it_is_private() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().join("state");
        let state = open(&base);
        state.remember("claimed");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let folder = state.folder().unwrap();
        let file = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        assert_eq!([mode(&base), mode(folder), mode(&file)], [0o700, 0o700, 0o600]);
    }

    #[test]
    fn each_room_is_private_and_its_own() {
        let scratch = tempfile::tempdir().unwrap();
        let state = open(scratch.path());
        let [one, other] = ["s3://one", "s3://other"].map(|whose| state.room(whose).unwrap());
        assert_ne!(one, other);
        assert_eq!(state.room("s3://one"), Some(one.clone()));
        assert_eq!(fs::metadata(&one).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&one, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(state.room("s3://one"), None);
    }

    #[test]
    fn what_another_could_have_prepared_is_not_used() {
        let scratch = tempfile::tempdir().unwrap();
        let victim = scratch.path().join("victim");
        fs::create_dir(&victim).unwrap();
        let link = scratch.path().join("link");
        symlink(&victim, &link).unwrap();
        let open_to_all = scratch.path().join("open");
        fs::create_dir(&open_to_all).unwrap();
        fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        let mut traps = vec![link, open_to_all, file, scratch.path().join("no/parent")];
        if rustix::process::geteuid().is_root() {
            let foreign = scratch.path().join("foreign");
            fs::create_dir(&foreign).unwrap();
            std::os::unix::fs::chown(&foreign, Some(65534), None).unwrap();
            traps.push(foreign);
        }
        for trap in traps {
            let state = open(&trap);
            state.remember("claimed");
            assert!(state.folder().is_none() && !state.remembers("claimed"), "{}", trap.display());
        }
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_kept_inside_the_data_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let data_directory = scratch.path().join("data");
        fs::create_dir(&data_directory).unwrap();
        let base = data_directory.join("state");
        let state = StateDirectory::open(Some(&base), Some(&data_directory), "7512345");
        assert!(state.folder().is_none());
        assert!(!base.exists());
    }
}

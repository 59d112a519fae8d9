//! The private directory of one drill: made, held by a lock as long as the drill lives, and removed
//! with all that runs in it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::commands::drill::processes;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::host::lock::Lock;
use crate::host::privileges::{self, User};
use crate::repository::BackupId;

pub const PREFIX: &str = "walden-drill-";
/// Held by the drill; who can take it knows that the drill is gone.
pub const LOCK: &str = "lock";
/// It was asked to stay, and is swept only where that is asked for.
pub const KEPT: &str = "kept";
const DATA: &str = "data";
const SOCKETS: &str = "run";
/// Where sockets go when the directory's path is too long for one.
const SHORT_ROOT: &str = "/tmp";
const SOCKET_PATH_BYTES_MAX: usize = 107;
const SOCKET_NAME: &str = ".s.PGSQL.5432.lock";
/// How long a sweep may keep another drill from making its directory.
const ROOT_LOCK: Duration = Duration::from_secs(10);
/// A process that was told to end may still write for a moment.
const REMOVAL: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Scratch {
    directory: PathBuf,
    socket_directory: PathBuf,
    user: Option<User>,
    _lock: Lock,
    /// Somebody else's from here on, or gone.
    is_let_go: bool,
}

impl Scratch {
    /// Below `root`, which must be there; what the server needs belongs to `user`.
    pub fn make(root: &Path, id: &BackupId, user: Option<User>) -> Result<Scratch> {
        let directory = Scratch::place(root, id);
        let made = {
            let _quiet = hold(root);
            // Root keeps the directory itself, so that nobody puts a link into its way.
            let mode = if user.is_some() { 0o711 } else { 0o700 };
            let made = DirBuilder::new().mode(mode).create(&directory);
            made.and_then(|()| Lock::take(&directory.join(LOCK)))
        };
        let lock = made.map_err(|error| failed(&directory, error))?.ok_or_else(|| {
            Error::new(ErrorKind::Host, format!("{} is taken", directory.display()))
                .hint("Another drill began in the same second: try again.")
        })?;
        let socket_directory = socket_directory(&directory);
        let scratch = Scratch { directory, socket_directory, user, _lock: lock, is_let_go: false };
        scratch.make_private(&scratch.socket_directory)?;
        scratch.make_private(&scratch.state())?;
        Ok(scratch)
    }

    /// Where that of a drill will be.
    pub fn place(root: &Path, id: &BackupId) -> PathBuf {
        root.join(format!("{PREFIX}{id}"))
    }

    pub fn path(&self) -> &Path {
        &self.directory
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join(DATA)
    }

    pub fn tablespaces(&self) -> PathBuf {
        self.directory.join("tablespaces")
    }

    pub fn configuration(&self) -> PathBuf {
        self.directory.join("conf")
    }

    /// What `fetch` remembers and fetches ahead.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    pub fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// Whom the server runs as; `None`: as us.
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// This program, where the server's user can run it.
    pub fn bring_program(&self, program: &Path) -> Result<PathBuf> {
        if self.user.is_none() || privileges::everybody_can_read(program) {
            return Ok(program.to_owned());
        }
        let copy = self.directory.join("walden");
        fs::copy(program, &copy).map_err(|error| failed(&copy, error))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&copy, mode).map_err(|error| failed(&copy, error))?;
        Ok(copy)
    }

    /// It stays after us, and no drill sweeps it.
    pub fn keep(mut self) -> Result<()> {
        self.is_let_go = true;
        let kept = self.directory.join(KEPT);
        fs::write(&kept, "").map_err(|error| failed(&kept, error))
    }

    /// Ends what still runs in it and removes it.
    pub fn remove(mut self) -> Result<()> {
        self.is_let_go = true;
        remove(&self.directory)
    }

    fn make_private(&self, folder: &Path) -> Result<()> {
        let made = DirBuilder::new().mode(0o700).create(folder);
        made.map_err(|error| failed(folder, error))?;
        privileges::give(folder, self.user.as_ref())
    }
}

/// Also where a panic goes by.
impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_let_go
            && let Err(error) = remove(&self.directory)
        {
            tracing::warn!("{error}");
        }
    }
}

/// Ends what runs in a drill's directory, by process ids, and removes all of it.
pub fn remove(directory: &Path) -> Result<()> {
    let until = Deadline::after(REMOVAL);
    processes::end_all_in(&directory.join(DATA));
    // Where its sockets lie inside, a directory of the other name is somebody else's.
    let is_inside = directory.join(SOCKETS).exists();
    loop {
        let removed = gone(fs::remove_dir_all(directory)).and_then(|()| match is_inside {
            true => Ok(()),
            false => gone(remove_sockets(&short_socket_directory(directory))),
        });
        match removed {
            // What was being started when it was looked for shows up now.
            Ok(()) if processes::all_in(&directory.join(DATA)).is_empty() => return Ok(()),
            Err(error) if until.has_passed() => return Err(failed(directory, error)),
            Ok(()) if until.has_passed() => {
                let what = format!("processes that worked in {} do not end", directory.display());
                return Err(Error::new(ErrorKind::Host, what)
                    .hint("Look for them with ps; the directory itself is removed."));
            }
            _ => {
                processes::end_all_in(&directory.join(DATA));
                thread::sleep(POLL);
            }
        }
    }
}

/// The drills' directories below `root`, whoever left them there.
pub fn all_in(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let drills = entries.flatten().filter(|entry| is_name_of_drill(&entry.path()));
    // A link is nobody's drill.
    let drills = drills.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut drills: Vec<PathBuf> = drills.map(|entry| entry.path()).collect();
    drills.sort();
    drills
}

pub fn is_name_of_drill(directory: &Path) -> bool {
    let name = directory.file_name().and_then(OsStr::to_str);
    let id = name.and_then(|name| name.strip_prefix(PREFIX));
    id.is_some_and(|id| id.parse::<BackupId>().is_ok())
}

/// While it is held no directory of a drill is without its lock. Nobody waits for it for long: it
/// is there for drills that begin at the same time.
pub fn hold(root: &Path) -> Option<File> {
    let folder = File::open(root).ok()?;
    let until = Deadline::after(ROOT_LOCK);
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(_) if until.has_passed() => return None,
            Err(_) => thread::sleep(POLL),
        }
    }
}

fn socket_directory(directory: &Path) -> PathBuf {
    let own = directory.join(SOCKETS);
    match own.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        true => own,
        false => short_socket_directory(directory),
    }
}

/// Known by the drill's own name, so that whoever sweeps the one finds the other.
fn short_socket_directory(directory: &Path) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    Path::new(SHORT_ROOT).join(name.replace(PREFIX, "walden-socket-"))
}

/// Nothing but sockets: a directory of that name that holds something else is not ours.
fn remove_sockets(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(".s.PGSQL.") {
            fs::remove_file(&path)?;
        }
    }
    fs::remove_dir(folder)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Host,
    };
    Error::new(kind, format!("the drill's directory: {}", path.display()))
        .hint("Name a directory with room where you may write: --scratch DIR.")
        .source(error)
}

//! The guard of a drill: a process of its own session that waits for the drill to end. However that
//! ends, by kill -9 too, the guard stops its server and removes its directory.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::commands::drill::scratch;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::host::lock::Lock;
use crate::host::termination::{self, Errand};

/// The hidden command.
pub const COMMAND: &str = "drill-guard";
/// What the drill says when there is nothing left to guard. Silence means that it died.
const DISMISSED: &[u8] = b"dismissed\n";
/// A drill that is told to stop waits so long for the guard to clean up.
const CLEANING: Duration = Duration::from_millis(3500);
const POLL: Duration = Duration::from_millis(20);

/// The drill's end of it.
#[derive(Debug)]
pub struct Guard {
    watched: Arc<Mutex<Watched>>,
    /// Told to stop, the drill lets the guard clean up and waits for it.
    _errand: Errand,
}

#[derive(Debug)]
struct Watched {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Over a directory that is about to be made.
    pub fn post(directory: &Path) -> Result<Guard> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Host, "start the guard of the drill")
                .hint("walden starts itself anew for that: is its program still there?")
                .source(error)
        };
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg(COMMAND)
            .arg(directory)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let pipe = child.stdin.take();
        let watched = Arc::new(Mutex::new(Watched { child, pipe }));
        let theirs = watched.clone();
        let errand = termination::before_leaving(move || lock(&theirs).let_it_clean_up());
        Ok(Guard { watched, _errand: errand })
    }

    /// There is nothing left to guard.
    pub fn dismiss(self) {
        let mut watched = lock(&self.watched);
        if let Some(mut pipe) = watched.pipe.take() {
            // One that is gone needs no word.
            let _ = pipe.write_all(DISMISSED);
        }
        let _ = watched.child.wait();
    }
}

fn lock(watched: &Mutex<Watched>) -> std::sync::MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    fn let_it_clean_up(&mut self) {
        drop(self.pipe.take());
        let until = Deadline::after(CLEANING);
        while !until.has_passed() && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(POLL);
        }
    }
}

/// The guard itself: returns when there is nothing left to guard.
pub fn stand(directory: &Path) -> Result<()> {
    // It fails only for a process that leads a group already, whose session nobody shares.
    let _ = rustix::process::setsid();
    let heard = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        // Whoever ends the drill and everything around it still wants it cleaned up.
        signal_hook::flag::register(signal, heard.clone()).map_err(|error| {
            Error::new(ErrorKind::Host, "listen for signals").hint("Try again.").source(error)
        })?;
    }
    let mut said = Vec::new();
    let mut pipe = std::io::stdin().lock();
    let mut piece = [0; 64];
    loop {
        match pipe.read(&mut piece) {
            Ok(0) => break,
            Ok(bytes) => said.extend_from_slice(&piece[..bytes]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    if said == DISMISSED || !directory.exists() {
        return Ok(());
    }
    clean_up(directory)
}

/// Unless another drill is at it already. While the drill itself still lives, told to stop, it
/// keeps the lock and leaves the rest to us.
fn clean_up(directory: &Path) -> Result<()> {
    let _lock = Lock::take(&directory.join(scratch::LOCK));
    scratch::remove(directory)
}

/// It removes what has the name of a drill's directory, and nothing else.
pub fn refuse_other(directory: &Path) -> Result<()> {
    match directory.is_absolute() && scratch::is_name_of_drill(directory) {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Usage, "this is no directory of a drill")
            .hint("walden drill starts this command by itself; there is no need to call it.")),
    }
}

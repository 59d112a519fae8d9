//! Starting the server and watching its recovery, until it accepts writes.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::statvfs;

use crate::commands::archive::fetch::rehearsal;
use crate::commands::drill::isolation::{self, PORT};
use crate::commands::drill::moments::Moments;
use crate::commands::drill::scratch::Scratch;
use crate::error::{Error, ErrorKind};
use crate::host::clock::{self, Deadline};
use crate::postgres::installation::Installation;
use crate::postgres::recovery_log::RecoveryLog;
use crate::postgres::server::{Launch, Server, State};

const POLL: Duration = Duration::from_millis(100);
/// Less than this must never be left on the file system: others live from it, a server's WAL maybe.
pub const ROOM_MIN: u64 = 512 << 20;

/// A server that came through its recovery.
#[derive(Debug)]
pub struct Come {
    pub server: Server,
    pub log: RecoveryLog,
    pub moments: Moments,
    /// By our clock, which is also the server's.
    pub started: Timestamp,
    /// What `fetch` has said of tablespaces.
    pub tablespaces: Vec<String>,
}

/// A server that did not, with what it said until then.
#[derive(Debug)]
pub struct Stuck {
    pub error: Error,
    pub moments: Moments,
    pub started: Timestamp,
    /// The last words of `fetch`, where it complained.
    pub fetch: Option<String>,
    /// Whether it had begun to replay.
    pub replayed: bool,
    /// The last line that says why it ended.
    pub fatal: Option<String>,
}

pub fn launch(scratch: &Scratch, installation: &Installation) -> Launch {
    Launch {
        installation: installation.clone(),
        pgdata: scratch.data(),
        socket_directory: scratch.socket_directory().to_owned(),
        port: PORT,
        log: scratch.log(),
        settings: isolation::settings(scratch),
        environment: Vec::new(),
        user: scratch.user().cloned(),
    }
}

/// `progress` is told the file that was replayed last.
pub fn recover(
    launch: Launch,
    deadline: Deadline,
    progress: &dyn Fn(&str),
) -> Result<Come, Box<Stuck>> {
    let started = clock::now();
    // What our own shell says of other servers is none of its business; what says where the
    // repository is, and with which credentials, is.
    let environment = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        !name.starts_with("PG") && name != "LC_ALL"
    });
    let mut server = match Server::start_inheriting(launch, environment) {
        Ok(server) => server,
        Err(error) => return Err(Box::new(stuck(error, "", started))),
    };
    let mut listener = Listener::of(&server);
    loop {
        let state = server.state();
        // After the state: what is read then is all an ended server has said.
        listener.listen(state == State::Ended);
        let log = &listener.log;
        if let Some(file) = &log.restored {
            progress(file);
        }
        if log.promoted && state == State::Ready {
            let (log, text) = (log.clone(), server.log());
            let (moments, tablespaces) = (Moments::read(&text), tablespaces(&text));
            return Ok(Come { server, log, moments, started, tablespaces });
        }
        if let Some(error) = trouble(&server, state, log, deadline) {
            return Err(Box::new(stuck(error, &server.log(), started)));
        }
        thread::sleep(POLL);
    }
}

/// Hears a log line by line while it grows: it has a line for each segment.
struct Listener {
    path: PathBuf,
    heard: u64,
    /// A line that has not ended yet.
    begun: Vec<u8>,
    log: RecoveryLog,
}

impl Listener {
    fn of(server: &Server) -> Listener {
        let path = server.launch().log.clone();
        Listener { path, heard: 0, begun: Vec::new(), log: RecoveryLog::default() }
    }

    /// What cannot be read now is read the next time.
    fn listen(&mut self, is_over: bool) {
        let Ok(mut file) = File::open(&self.path) else { return };
        if file.seek(SeekFrom::Start(self.heard)).is_err() {
            return;
        }
        let before = self.begun.len();
        // However it ends, what came is in `begun`.
        let _ = file.read_to_end(&mut self.begun);
        self.heard += (self.begun.len() - before) as u64;
        let whole = match self.begun.iter().rposition(|byte| *byte == b'\n') {
            _ if is_over => self.begun.len(),
            Some(end) => end + 1,
            None => 0,
        };
        let lines: Vec<u8> = self.begun.drain(..whole).collect();
        self.log.hear(&String::from_utf8_lossy(&lines));
    }
}

fn trouble(server: &Server, state: State, log: &RecoveryLog, deadline: Deadline) -> Option<Error> {
    let directory = &server.launch().pgdata;
    if state == State::Ended {
        let said = log.fatal.as_deref().or(log.warning.as_deref()).unwrap_or("it says nothing");
        let said = said.split_once("]").map_or(said, |(_, rest)| rest.trim());
        return Some(Error::new(
            ErrorKind::Server,
            format!("the server ended before the target: {said}"),
        ));
    }
    if deadline.has_passed() {
        return Some(
            Error::new(ErrorKind::CouldNotCheck, "the time that was given is over")
                .hint("Give it more by --timeout, or take backups more often: less is replayed."),
        );
    }
    let left = statvfs(directory).ok().map(|room| room.f_bavail * room.f_frsize);
    left.filter(|left| *left < ROOM_MIN).map(|left| {
        Error::new(
            ErrorKind::Full,
            format!("only {} MiB are left at {}", left >> 20, directory.display()),
        )
        .hint("The drill ends before it takes the room of others: name another --scratch DIR.")
    })
}

fn stuck(error: Error, text: &str, started: Timestamp) -> Stuck {
    let complains = |line: &&str| line.contains("walden: ") && !line.contains(" LOG: ");
    let fetch = text.lines().rfind(complains);
    Stuck {
        error,
        moments: Moments::read(text),
        started,
        fetch: fetch.map(|line| line.trim().to_owned()),
        replayed: text.contains("LOG:  redo starts at "),
        fatal: RecoveryLog::read(text).fatal,
    }
}

/// Each once, whatever was fetched twice.
fn tablespaces(text: &str) -> Vec<String> {
    let mut said: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix(rehearsal::MARK))
        .map(str::to_owned)
        .collect();
    said.sort();
    said.dedup();
    said
}

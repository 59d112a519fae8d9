//! A PostgreSQL server of our own: make its cluster, start it, know how it is, stop it for certain.
//!
//! Scratch servers listen on a Unix socket only. The server is our child, so that its end is seen
//! at once, and it leads a process group of its own, so that Ctrl-C on our terminal reaches us and
//! not it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::host::privileges::{self, User};
use crate::postgres::installation::Installation;

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Launch {
    pub installation: Installation,
    pub pgdata: PathBuf,
    /// Short: PostgreSQL refuses socket paths of more than 107 bytes.
    pub socket_directory: PathBuf,
    /// Names the socket; nothing listens on TCP.
    pub port: u16,
    /// What the server says is appended here.
    pub log: PathBuf,
    /// Settings that beat every configuration file, as `postgres -c`.
    pub settings: Vec<(String, String)>,
    pub environment: Vec<(OsString, OsString)>,
    /// Whom to run as; `privileges::server_user()` where root starts it, else `None`.
    pub user: Option<User>,
}

/// How a server is, as `postmaster.pid` says it (`LOCK_FILE_LINE_PM_STATUS`, pidfile.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    /// Accepts connections, be it as a primary or as a hot standby.
    Ready,
    /// In recovery and, with `hot_standby = off` or before consistency, without connections.
    Standby,
    Stopping,
    Ended,
}

/// How to stop, by the words of `pg_ctl stop -m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ends sessions, writes a checkpoint, archives what is left.
    Fast,
    /// As a crash: recovery at the next start.
    Immediate,
}

/// A running server; stopped when dropped.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    child: Child,
    ended: Option<ExitStatus>,
    left_alone: bool,
}

/// How long a server may take to stop after SIGQUIT before it gets SIGKILL.
const IMMEDIATE_STOP: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Makes a new cluster in `pgdata` with `initdb`: superuser `postgres`, UTF-8, `trust` (its socket
/// is for us alone).
///
/// Its parent must be writable for the user; no fsync, it is for rehearsals.
pub fn initialize(
    installation: &Installation,
    pgdata: &Path,
    arguments: &[String],
    user: Option<&User>,
) -> Result<()> {
    let mut initdb = Command::new(installation.program("initdb"));
    initdb.arg("--pgdata").arg(pgdata).args(arguments).args([
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        "--no-instructions",
    ]);
    let failed = |why: String| {
        Error::new(ErrorKind::Server, format!("initdb {}: {why}", pgdata.display()))
            .hint("Look at what initdb says and at the directory's permissions.")
    };
    let output = privileges::run_as(initdb.current_dir("/"), user)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

impl Server {
    /// Starts the server and returns at once; `wait_until_up` says when it is there.
    pub fn start(launch: Launch) -> Result<Server> {
        Server::start_inheriting(launch, std::env::vars_os())
    }

    /// The same with only this of our environment, and with what `launch` adds to it.
    pub fn start_inheriting(
        launch: Launch,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Server> {
        let failed = |what: String, error: std::io::Error| {
            Error::new(ErrorKind::Server, what)
                .hint("Look at the permissions on the way there.")
                .source(error)
        };
        let log =
            open_log(&launch).map_err(|e| failed(format!("open {}", launch.log.display()), e))?;
        let errors = log.try_clone().map_err(|e| failed("share the log".to_owned(), e))?;
        let program = launch.installation.program("postgres");
        let mut postgres = Command::new(&program);
        postgres.arg("-D").arg(&launch.pgdata);
        for (name, value) in &settings_of(&launch) {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        postgres.env_clear().envs(environment);
        postgres.envs(launch.environment.iter().map(|(name, value)| (name, value)));
        privileges::run_as(&mut postgres, launch.user.as_ref())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let child = postgres
            .spawn()
            .map_err(|error| failed(format!("start {}", program.display()), error))?;
        Ok(Server { launch, child, ended: None, left_alone: false })
    }

    /// Waits until the server is `Ready` or `Standby`; an error with its last words where it ends
    /// or stays away.
    pub fn wait_until_up(&mut self, deadline: Deadline) -> Result<State> {
        loop {
            match self.state() {
                state @ (State::Ready | State::Standby) => return Ok(state),
                State::Ended => return Err(self.complaint("ended before it was up")),
                State::Starting | State::Stopping if deadline.has_passed() => {
                    return Err(self.complaint("is not up yet"));
                }
                State::Starting | State::Stopping => thread::sleep(POLL),
            }
        }
    }

    /// Waits until the server has ended by itself; whether it has.
    pub fn wait_until_ended(&mut self, deadline: Deadline) -> bool {
        while !self.has_ended() {
            if deadline.has_passed() {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    pub fn state(&mut self) -> State {
        if self.has_ended() {
            return State::Ended;
        }
        // A file left by an earlier server has that one's process id in its first line.
        let file = self.launch.pgdata.join("postmaster.pid");
        let content = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = content.lines().map(str::trim).collect();
        let is_ours = lines.first() == Some(&self.child.id().to_string().as_str());
        match lines.get(7) {
            Some(&"ready") if is_ours => State::Ready,
            Some(&"standby") if is_ours => State::Standby,
            Some(&"stopping") if is_ours => State::Stopping,
            _ => State::Starting,
        }
    }

    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_some()
    }

    /// How it ended, once it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.has_ended();
        self.ended
    }

    /// Stops the server by the deadline. Where a fast stop does not get there, say because
    /// `archive_command` hangs, it is stopped as by a crash, and where that fails it is killed;
    /// both are errors, but it has ended.
    pub fn stop(&mut self, how: Stop, deadline: Deadline) -> Result<()> {
        if how == Stop::Fast {
            self.signal(Signal::INT);
            if self.wait_until_ended(deadline) {
                return Ok(());
            }
        }
        let by_now = if how == Stop::Fast { Deadline::after(IMMEDIATE_STOP) } else { deadline };
        self.signal(Signal::QUIT);
        let quit = self.wait_until_ended(by_now);
        if !quit {
            self.signal(Signal::KILL);
            self.wait_until_ended(Deadline::after(IMMEDIATE_STOP));
        }
        match (how, quit) {
            (Stop::Immediate, true) => Ok(()),
            (Stop::Fast, true) => {
                Err(self.complaint("did not stop in time and was stopped as by a crash"))
            }
            (_, false) => Err(self.complaint("did not stop and was killed")),
        }
    }

    /// Rereads its configuration files.
    pub fn reload(&mut self) {
        self.signal(Signal::HUP);
    }

    /// Lets the server run on after us; its process id.
    pub fn leave_running(mut self) -> u32 {
        self.left_alone = true;
        self.child.id()
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// All it has said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.launch.log).unwrap_or_default()).into_owned()
    }

    /// Does nothing once the child has been waited for: its process id may be somebody else's by
    /// now.
    fn signal(&mut self, signal: Signal) {
        if self.has_ended() {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It fails only when the process is gone, which the caller is about to see.
            let _ = kill_process(pid, signal);
        }
    }

    fn complaint(&mut self, what: &str) -> Error {
        let status = self.exit_status().map(|status| format!(" ({status})")).unwrap_or_default();
        let (pgdata, log) = (self.launch.pgdata.display(), self.launch.log.display());
        let log_text = self.log();
        let last_words = last_words(&log_text);
        let message =
            format!("the server in {pgdata} {what}{status}; its last words: {last_words}");
        Error::new(ErrorKind::Server, message).hint(format!("Its log is {log}."))
    }
}

/// A server left behind would hold its directory and its socket for ever.
impl Drop for Server {
    fn drop(&mut self) {
        if !self.left_alone && !self.has_ended() {
            let _ = self.stop(Stop::Immediate, Deadline::after(IMMEDIATE_STOP));
        }
    }
}

fn open_log(launch: &Launch) -> std::io::Result<File> {
    let log = OpenOptions::new().create(true).append(true).open(&launch.log)?;
    if let Some(user) = &launch.user {
        std::os::unix::fs::fchown(&log, Some(user.uid), Some(user.gid))?;
    }
    Ok(log)
}

/// Ours come first, so that the caller's word is the last one.
fn settings_of(launch: &Launch) -> Vec<(String, String)> {
    let own = [
        ("listen_addresses", String::new()),
        ("port", launch.port.to_string()),
        ("unix_socket_directories", launch.socket_directory.display().to_string()),
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    own.chain(launch.settings.iter().cloned()).collect()
}

/// The last line of the kind that says why, else the last line.
fn last_words(log: &str) -> &str {
    let says_why = |line: &&str| ["FATAL:", "PANIC:"].iter().any(|word| line.contains(word));
    let mut lines = log.lines().rev().filter(|line| !line.trim().is_empty());
    let recent = lines.clone().take(30).find(says_why);
    recent.or_else(|| lines.next()).unwrap_or("none").trim()
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn the_last_words_are_those_that_say_why() {
        let log = "LOG:  starting\nFATAL:  could not restore file \"00000002.history\"\n\
                   LOG:  startup process exited\nLOG:  database system is shut down\n";
        assert_eq!(last_words(log), "FATAL:  could not restore file \"00000002.history\"");
        assert_eq!(last_words("LOG:  one\nLOG:  two\n\n"), "LOG:  two");
        assert_eq!(last_words(""), "none");
    }
}

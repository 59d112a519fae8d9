//! `--wait`: starts the restored server, watches its recovery, and says where it ended.
//!
//! The server's log is what decides: it needs no login and outlives a server that has ended.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use crate::catalog::Target;
use crate::commands::restore::{Prepared, host_failed};
use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges;
use crate::postgres::connection::{Connection, ConnectionOptions};
use crate::postgres::installation::Installation;
use crate::postgres::recovery_log::RecoveryLog;
use crate::postgres::server::{Launch, Server, State};
use crate::postgres::{Lsn, TimelineId};

const LOG_FILE: &str = "walden-recovery.log";
/// Names the socket only, in a directory where nobody else has one.
const PORT: u16 = 5432;
const SOCKET_PATH_BYTES_MAX: usize = 107;
const POLL: Duration = Duration::from_millis(200);

/// How recovery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    Promoted,
    Paused,
    ShutDown,
    /// A standby that goes on following the archive.
    Following,
}

#[derive(Debug, Clone, serde::Serialize)]
pub struct Outcome {
    pub ended: Ended,
    /// Of the last transaction replayed; none was, where there is none.
    pub last_commit: Option<Timestamp>,
    /// Where replay stands.
    pub lsn: Option<Lsn>,
    pub timeline: TimelineId,
    /// PostgreSQL's words about the target, for example `recovery stopping before commit of …`.
    pub stopped: Option<String>,
    /// Of the server that was left running.
    pub process_id: Option<u32>,
    pub socket_directory: PathBuf,
    pub port: u16,
    pub log: PathBuf,
    pub installation: PathBuf,
}

/// The server for the backup's version; before anything is changed, so that a missing one refuses.
pub fn find_server(prepared: &Prepared, bin: Option<&Path>) -> Result<Installation> {
    if !prepared.has_configuration() {
        return Err(Error::new(
            ErrorKind::Refused,
            "the backup has no postgresql.conf, so the server cannot be started from here",
        )
        .hint(
            "This cluster keeps it outside of its data directory, as Debian does: bring it by \
             --configuration DIR, or leave --wait away and start the server as usual.",
        ));
    }
    Installation::find(prepared.version(), bin)
}

/// Starts the server and waits for the end of its recovery; `progress` is told the file replayed.
///
/// It listens on a socket in its own directory only, so that nobody takes it for the real one. It
/// is left running where it was promoted, is paused or follows; stopped where it is `FoundWrong`.
pub fn wait(
    prepared: &Prepared,
    installation: &Installation,
    progress: &dyn Fn(&str),
) -> Result<Outcome> {
    let mut server = Server::start(launch(prepared, installation)?)?;
    loop {
        let state = server.state();
        // After the state: what is read then is all an ended server has said.
        let log = RecoveryLog::read(&server.log());
        if let Some(file) = &log.restored {
            progress(file);
        }
        if let Some(ended) = ended(prepared, state, &log)? {
            let mut outcome = outcome(prepared, ended, &log, &server);
            if ended != Ended::ShutDown {
                outcome.process_id = Some(server.leave_running());
            }
            return Ok(outcome);
        }
        thread::sleep(POLL);
    }
}

fn launch(prepared: &Prepared, installation: &Installation) -> Result<Launch> {
    let directory = prepared.directory().to_owned();
    let settings = [
        ("lc_messages", "C".to_owned()),
        ("log_min_messages", "warning".to_owned()),
        // The source may name its own directory in its postgresql.conf.
        ("data_directory", directory.display().to_string()),
    ];
    let mut settings: Vec<_> =
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if let Some(configuration) = &prepared.configuration {
        let brought = configuration.settings().into_iter();
        settings.extend(brought.map(|(name, value)| (name.to_owned(), value)));
        // Certificates lie elsewhere still, and nobody reaches this server but by its socket.
        settings.push(("ssl".to_owned(), "off".to_owned()));
    }
    Ok(Launch {
        installation: installation.clone(),
        socket_directory: socket_directory(prepared)?,
        port: PORT,
        log: directory.join(LOG_FILE),
        settings,
        environment: Vec::new(),
        user: prepared.owner().cloned(),
        pgdata: directory,
    })
}

/// The data directory, which is private already; where its path is too long for a socket, a private
/// directory under the temporary one.
fn socket_directory(prepared: &Prepared) -> Result<PathBuf> {
    let directory = prepared.directory();
    let socket = directory.join(format!(".s.PGSQL.{PORT}"));
    if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(directory.to_owned());
    }
    let short = std::env::temp_dir().join(format!("walden-{:08x}", fastrand::u32(..)));
    let made = DirBuilder::new().mode(0o700).create(&short);
    made.map_err(|error| host_failed(format!("make {}", short.display()), error))?;
    privileges::give(&short, prepared.owner())?;
    Ok(short)
}

/// `None` while it goes on.
fn ended(prepared: &Prepared, state: State, log: &RecoveryLog) -> Result<Option<Ended>> {
    let request = prepared.request();
    if log.paused_at_target {
        return Ok(Some(Ended::Paused));
    }
    if log.promoted {
        return expect_end_of_archive(prepared, log).map(|()| Some(Ended::Promoted));
    }
    if log.paused_elsewhere {
        return Err(wrong(prepared, "recovery paused before the target", log.warning.as_ref()));
    }
    if state == State::Ended {
        if log.shut_down_at_target {
            return Ok(Some(Ended::ShutDown));
        }
        return Err(wrong(prepared, "the server ended before the target", log.fatal.as_ref()));
    }
    let follows = request.standby && request.wanted.target == Target::Latest;
    let is_up = matches!(state, State::Ready | State::Standby);
    Ok((follows && is_up && log.consistent).then_some(Ended::Following))
}

/// PostgreSQL takes damaged WAL for the end of it and promotes; with `latest` nobody else would
/// notice that later segments are there.
fn expect_end_of_archive(prepared: &Prepared, log: &RecoveryLog) -> Result<()> {
    let last = &prepared.decision.run.last;
    let Some(redo_done) = log.redo_done else { return Ok(()) };
    let start = last.start(prepared.chain.newest().wal_segment_size);
    if prepared.request().wanted.target != Target::Latest || redo_done >= start {
        return Ok(());
    }
    let message = format!("recovery ended at {redo_done}, but WAL up to {last} is archived");
    Err(Error::new(ErrorKind::FoundWrong, message).hint(format!(
        "WAL on the way may be damaged: read {}.",
        prepared.directory().join(LOG_FILE).display()
    )))
}

/// Whatever else keeps a server from starting, a port or a library, is not about the target.
fn wrong(prepared: &Prepared, what: &str, line: Option<&String>) -> Error {
    let said = line.map_or("it says nothing of why".to_owned(), |line| format!("it says: {line}"));
    let of_recovery = ["recovery", "restore", "timeline", "WAL", "checkpoint", "hot standby"];
    let is_recovery = line.is_none_or(|line| of_recovery.iter().any(|word| line.contains(word)));
    let kind = if is_recovery { ErrorKind::FoundWrong } else { ErrorKind::Server };
    Error::new(kind, format!("{what}; {said}"))
        .hint(format!("Its log is {}.", prepared.directory().join(LOG_FILE).display()))
}

fn outcome(prepared: &Prepared, ended: Ended, log: &RecoveryLog, server: &Server) -> Outcome {
    let asked = match ended {
        Ended::Paused | Ended::Following => ask(server),
        Ended::Promoted | Ended::ShutDown => None,
    };
    let (lsn, last_commit) = asked.unwrap_or((log.redo_done, log.last_commit));
    let launch = server.launch();
    Outcome {
        ended,
        last_commit,
        lsn,
        timeline: log.new_timeline.unwrap_or(prepared.decision.path.last()),
        stopped: log.stopped.clone(),
        process_id: None,
        socket_directory: launch.socket_directory.clone(),
        port: launch.port,
        log: launch.log.clone(),
        installation: launch.installation.bin.clone(),
    }
}

/// Where replay stands: a detail, left out where nobody may log in.
fn ask(server: &Server) -> Option<(Option<Lsn>, Option<Timestamp>)> {
    let launch = server.launch();
    let text = ask_as_ourselves(launch).or_else(|| ask_by_psql(launch))?;
    let mut words = text.split_whitespace();
    Some((words.next().and_then(|lsn| lsn.parse().ok()), words.next().and_then(|t| t.parse().ok())))
}

fn ask_as_ourselves(launch: &Launch) -> Option<String> {
    let user = std::env::var("PGUSER").unwrap_or_else(|_| "postgres".to_owned());
    let options = ConnectionOptions::local(&launch.socket_directory, launch.port, &user);
    Connection::connect(&options).ok()?.value(WHERE_REPLAY_STANDS).ok()?
}

/// Peer authentication, the default of packages, wants the server's own user, which root is not.
fn ask_by_psql(launch: &Launch) -> Option<String> {
    let mut psql = Command::new(launch.installation.program("psql"));
    psql.args(["-X", "-A", "-t", "-w", "-d", "postgres", "-c", WHERE_REPLAY_STANDS]);
    psql.arg("-h").arg(&launch.socket_directory).args(["-p", &launch.port.to_string()]);
    let asked = privileges::run_as(&mut psql, launch.user.as_ref())
        .current_dir("/")
        .env("PGCONNECT_TIMEOUT", "5")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(asked.stdout).ok()
}

const WHERE_REPLAY_STANDS: &str = "select concat_ws(' ', pg_last_wal_replay_lsn(), to_char( \
    pg_last_xact_replay_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))";

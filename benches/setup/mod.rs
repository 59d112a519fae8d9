//! What the benches share: a real server to make WAL and data with, and a way to time whole
//! processes.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use walden::host::clock::Deadline;
use walden::host::privileges;
use walden::postgres::connection::{Connection, ConnectionOptions};
use walden::postgres::installation::Installation;
use walden::postgres::server::{self, Launch, Server};

const PATIENCE: Duration = Duration::from_secs(120);
pub const PORT: u16 = 5432;

/// A server with 16 MiB segments that keeps its WAL, and a directory that goes with it.
pub struct Bench {
    pub server: Server,
    pub directory: tempfile::TempDir,
}

impl Bench {
    pub fn start(settings: &[(&str, &str)]) -> Bench {
        let directory = tempfile::Builder::new().prefix("walden-bench-").tempdir_in("/tmp");
        let directory = directory.expect("make a temporary directory");
        let user = privileges::server_user().expect("find the server's user");
        privileges::give(directory.path(), user.as_ref()).expect("give the directory away");
        let launch = Launch {
            installation: installation(),
            pgdata: directory.path().join("data"),
            socket_directory: directory.path().to_owned(),
            port: PORT,
            log: directory.path().join("log"),
            settings: settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            environment: Vec::new(),
            user: user.clone(),
        };
        let Launch { installation, pgdata, .. } = &launch;
        server::initialize(installation, pgdata, &[], user.as_ref()).expect("initdb");
        let mut server = Server::start(launch).expect("start the server");
        server.wait_until_up(Deadline::after(PATIENCE)).expect("the server accepts connections");
        Bench { server, directory }
    }

    pub fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let options = ConnectionOptions::local(self.directory.path(), PORT, "postgres");
        let mut connection = Connection::connect(&options).expect("connect");
        connection.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub fn pgdata(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

/// Any supported version of those the tests use.
fn installation() -> Installation {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgresql/17/bin");
    Installation::at(&tests.canonicalize().unwrap_or(tests))
        .or_else(|_| Installation::newest(None))
        .expect("run tests/setup/postgres.sh 17")
}

/// What one run of a process took.
#[derive(Clone, Copy)]
pub struct Took {
    pub wall: Duration,
    /// User and system time of the process and its children.
    pub cpu: Duration,
    /// The most memory it held, in KiB, as often as it could be asked.
    pub peak_kib: u64,
}

/// Runs a command to its end, asking the kernel every few milliseconds how much memory it holds.
pub fn run(command: &mut Command) -> Took {
    let before = children_cpu();
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let status = loop {
        peak_kib = peak_kib.max(resident_peak(&status_file));
        match child.try_wait().expect("ask for its end") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_micros(200)),
        }
    };
    let wall = started.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    Took { wall, cpu: children_cpu().saturating_sub(before), peak_kib }
}

fn resident_peak(status_file: &str) -> u64 {
    let status = fs::read_to_string(status_file).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

/// CPU time of all children that have ended: `cutime` and `cstime` of proc_pid_stat(5), in ticks of
/// 10 ms.
fn children_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("read /proc/self/stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks =
        |field: usize| fields.get(field - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis(10 * (ticks(16) + ticks(17)))
}

pub fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

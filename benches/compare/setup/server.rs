//! PostgreSQL servers of the benches: version 15, the newest that the packaged pgBackRest knows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use walden::host::clock::Deadline;
use walden::postgres::MajorVersion;
use walden::postgres::connection::{Connection, ConnectionOptions};
use walden::postgres::installation::{self, Installation};
use walden::postgres::server::{self, Launch, Server, Stop};

use super::{interrupt, scratch};

pub const PORT: u16 = 5432;
const MAJOR: MajorVersion = MajorVersion(15);
const PATIENCE: Duration = Duration::from_secs(300);

pub type Settings<'a> = &'a [(&'a str, &'a str)];

/// A server on a data directory; the socket lies beside it.
pub struct Bench {
    server: Server,
    socket_directory: PathBuf,
}

impl Bench {
    /// Makes a cluster where there is none.
    pub fn start(pgdata: &Path, settings: Settings<'_>) -> Bench {
        if !pgdata.join("PG_VERSION").exists() {
            let user = scratch::user();
            server::initialize(&installation(), pgdata, &[], user.as_ref()).expect("initdb");
        }
        let mut bench = Bench::launch(pgdata, settings);
        bench.server.wait_until_up(Deadline::after(PATIENCE)).expect("the server is up");
        bench
    }

    /// Starts it and returns at once.
    pub fn launch(pgdata: &Path, settings: Settings<'_>) -> Bench {
        let socket_directory = pgdata.parent().expect("it has a parent").to_owned();
        let launch = Launch {
            installation: installation(),
            pgdata: pgdata.to_owned(),
            socket_directory: socket_directory.clone(),
            port: PORT,
            log: pgdata.with_extension("log"),
            settings: settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            environment: Vec::new(),
            user: scratch::user(),
        };
        let server = Server::start(launch).expect("start the server");
        interrupt::server_started(server.process_id());
        Bench { server, socket_directory }
    }

    pub fn connect(&self) -> Connection {
        let options = ConnectionOptions::local(&self.socket_directory, PORT, "postgres");
        Connection::connect(&options).expect("connect")
    }

    pub fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.connect().query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The first column of the first row.
    pub fn value(&self, sql: &str) -> String {
        self.sql(sql)[0][0].clone().expect("a value")
    }

    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Processor time of the server and of those of its processes that have ended, a walsender's
    /// after its backup.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.process_id()));
        let stat = stat.unwrap_or_default();
        // proc(5): utime, stime, cutime and cstime stand 11 words after the name.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 =
            after_name.split(' ').skip(11).take(4).filter_map(|n| n.parse::<u64>().ok()).sum();
        // Linux counts hundredths for those who read it.
        Duration::from_millis(ticks * 10)
    }

    pub fn has_ended(&mut self) -> bool {
        self.server.has_ended()
    }

    /// With a checkpoint, everything on disk.
    pub fn stop(mut self) {
        self.server.stop(Stop::Fast, Deadline::after(PATIENCE)).expect("stop the server");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Its own drop stops it.
        interrupt::server_ends(self.server.process_id());
    }
}

/// The distribution's where it has this version: it has lz4, for `wal_compression`.
pub fn installation() -> Installation {
    if let Some(packaged) = installation::installed().into_iter().find(|one| one.major == MAJOR) {
        return packaged;
    }
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/postgresql/{MAJOR}/bin"));
    let bin = bin.canonicalize().unwrap_or(bin);
    Installation::at(&bin).expect("run tests/setup/postgres.sh 15")
}

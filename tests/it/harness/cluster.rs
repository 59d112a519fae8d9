//! A real PostgreSQL cluster in a temporary directory, spoken of as a DBA would.
//!
//! Every wait has an end, and every failure shows the server's log. Dropped, also by a panic, the
//! server is stopped and its directories are gone.

mod kill;
mod standby;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use walden::host::clock::Deadline;
use walden::host::privileges;
use walden::postgres::server::{self, Launch, Server, State, Stop};
use walden::postgres::{Lsn, MajorVersion};

use super::session::{Rows, Session};
use super::{Reference, Scratch, Walden, installation, program};

/// The longest a test waits for PostgreSQL to do anything.
const PATIENCE: Duration = Duration::from_secs(90);
/// Names the socket only; every cluster has a directory of its own.
pub const PORT: u16 = 5432;

/// Small and quick, and quiet between the statements of a test: WAL is written when the test writes
/// it.
const SETTINGS: [(&str, &str); 10] = [
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
    ("max_connections", "20"),
    ("shared_buffers", "16MB"),
    ("fsync", "off"),
    ("autovacuum", "off"),
    ("log_checkpoints", "off"),
    ("wal_retrieve_retry_interval", "200ms"),
    ("timezone", "'UTC'"),
    ("log_timezone", "'UTC'"),
];

pub struct ClusterBuilder {
    major: MajorVersion,
    segment_size_mib: u32,
    data_checksums: bool,
    settings: Vec<(String, String)>,
    environment: Vec<(OsString, OsString)>,
    tablespaces: Vec<String>,
    archive: Option<Archive>,
}

/// Where a cluster archives to, by the real binary.
#[derive(Clone)]
struct Archive {
    repository: String,
    cluster: String,
}

pub struct Cluster {
    server: Option<Server>,
    launch: Launch,
    archive: Option<Archive>,
    // Last: the server must be gone before its directory goes.
    scratch: Scratch,
}

impl ClusterBuilder {
    /// 1 MiB if not said, which makes tests quick.
    pub fn segment_size_mib(mut self, mebibytes: u32) -> Self {
        self.segment_size_mib = mebibytes;
        self
    }

    pub fn data_checksums(mut self) -> Self {
        self.data_checksums = true;
        self
    }

    /// A line for postgresql.conf: the value stands as there, with its quotes.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// For the server and so for walden in its archive_command: credentials, say.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// In a directory beside the cluster's; `Cluster::tablespace` names it.
    pub fn tablespace(mut self, name: &str) -> Self {
        self.tablespaces.push(name.to_owned());
        self
    }

    /// Archives to `repository` under the name `cluster`.
    pub fn archive_to(mut self, repository: impl Into<String>, cluster: &str) -> Self {
        self.archive = Some(Archive { repository: repository.into(), cluster: cluster.to_owned() });
        self
    }

    /// As `archive_to`, with a copy of each file for `reference` first.
    pub fn archive_past(mut self, reference: &Reference, repository: &str) -> Self {
        let archive = Archive { repository: repository.to_owned(), cluster: "main".to_owned() };
        let command = reference.around(&archive.command(r#"push "%p""#));
        self.archive = Some(archive);
        self.setting("archive_command", &quoted(&command))
    }

    #[track_caller]
    pub fn start(self) -> Cluster {
        let scratch = Scratch::new();
        let launch = launch(self.major, &scratch, scratch.join("data"), self.environment);
        let mut arguments = vec![format!("--wal-segsize={}", self.segment_size_mib)];
        // Version 18 has checksums unless told otherwise; before, --no-data-checksums was unknown.
        match (self.data_checksums, self.major >= MajorVersion(18)) {
            (true, _) => arguments.push("--data-checksums".to_owned()),
            (false, true) => arguments.push("--no-data-checksums".to_owned()),
            (false, false) => {}
        }
        let user = launch.user.as_ref();
        server::initialize(&launch.installation, &launch.pgdata, &arguments, user)
            .unwrap_or_else(|error| panic!("{}", error.one_line()));
        let mut cluster = Cluster { server: None, launch, archive: self.archive, scratch };
        for (name, value) in SETTINGS {
            cluster.configure(name, value);
        }
        if let Some(archive) = cluster.archive.clone() {
            cluster.configure("archive_mode", "on");
            cluster.configure("archive_command", &quoted(&archive.command(r#"push "%p""#)));
        }
        for (name, value) in &self.settings {
            cluster.configure(name, value);
        }
        cluster.start_again();
        for name in &self.tablespaces {
            let directory = cluster.scratch.directory(&format!("tablespace-{name}"));
            cluster.sql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", directory.display()));
        }
        cluster
    }
}

impl Archive {
    /// A command line for the shell, `%` doubled where it is not PostgreSQL's.
    fn command(&self, rest: &str) -> String {
        let binary = program::binary().display();
        let Archive { repository, cluster } = self;
        let words = format!("'{binary}' --repository '{repository}' --cluster '{cluster}'");
        format!("{} {rest}", words.replace('%', "%%"))
    }
}

impl Cluster {
    /// A cluster of this version with nothing special about it.
    #[track_caller]
    pub fn start(major: MajorVersion) -> Cluster {
        Cluster::builder(major).start()
    }

    pub fn builder(major: MajorVersion) -> ClusterBuilder {
        ClusterBuilder {
            major,
            segment_size_mib: 1,
            data_checksums: false,
            settings: Vec::new(),
            environment: Vec::new(),
            tablespaces: Vec::new(),
            archive: None,
        }
    }

    /// A data directory that is there already, restored say; not started yet. It stays when this is
    /// dropped.
    pub fn over(major: MajorVersion, pgdata: &Path) -> Cluster {
        let scratch = Scratch::new();
        let launch = launch(major, &scratch, pgdata.to_owned(), Vec::new());
        privileges::give_tree(pgdata, launch.user.as_ref()).expect("give the directory away");
        Cluster { server: None, launch, archive: None, scratch }
    }

    /// Such a directory as the cluster it was made from, for `walden`: its repository and name.
    pub fn archiving_as(mut self, source: &Cluster) -> Cluster {
        self.archive.clone_from(&source.archive);
        self
    }

    // Starting and stopping.

    #[track_caller]
    pub fn start_again(&mut self) {
        if let Err(why) = self.try_start() {
            panic!("{why}\n{}", self.log());
        }
    }

    /// With a setting that beats every configuration file, from this start on.
    #[track_caller]
    pub fn start_with(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let value = value.as_ref().to_string_lossy().into_owned();
        self.launch.settings.push((name.to_owned(), value));
        self.start_again();
    }

    /// Starts it where the start itself may be what fails; the server's last words where it does.
    pub fn try_start(&mut self) -> Result<State, String> {
        self.server = None;
        let mut server = Server::start(self.launch.clone()).map_err(|error| error.one_line())?;
        let up = server.wait_until_up(Deadline::after(PATIENCE)).map_err(|error| error.one_line());
        self.server = Some(server);
        up
    }

    /// From the next start on, also on TCP, at localhost.
    pub fn listen_on(&mut self, port: u16) {
        self.launch.port = port;
        self.launch.settings.push(("listen_addresses".to_owned(), "localhost".to_owned()));
    }

    /// A fast stop, as an administrator would.
    #[track_caller]
    pub fn stop(&mut self) {
        self.stop_by(Stop::Fast);
    }

    /// Stops it as a power cut would: recovery at the next start.
    #[track_caller]
    pub fn crash(&mut self) {
        self.stop_by(Stop::Immediate);
    }

    fn stop_by(&mut self, how: Stop) {
        let stopped = self.server().stop(how, Deadline::after(PATIENCE));
        if let Err(error) = stopped {
            panic!("{}\n{}", error.one_line(), self.log());
        }
        self.server = None;
    }

    /// The server itself, for what this harness has no word for.
    #[track_caller]
    pub fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("the cluster is running")
    }

    /// Whether the server ends by itself within the patience of a test: recovery that must not go
    /// on.
    pub fn ends_by_itself(&mut self) -> bool {
        match &mut self.server {
            Some(server) => server.wait_until_ended(Deadline::after(PATIENCE)),
            None => true,
        }
    }

    // Asking and telling.

    #[track_caller]
    pub fn sql(&self, sql: &str) -> Rows {
        match self.try_sql(sql) {
            Ok(rows) => rows,
            Err(why) => panic!("{sql}: {why}\n{}", self.log()),
        }
    }

    pub fn try_sql(&self, sql: &str) -> Result<Rows, String> {
        self.session("postgres")?.query(sql)
    }

    /// A connection that stays, to a database.
    pub fn session(&self, database: &str) -> Result<Session, String> {
        Session::open(&self.launch.socket_directory, self.launch.port, database)
    }

    /// The first column of the first row, `NULL` as the empty text.
    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        let first = self.sql(sql).into_iter().next().and_then(|row| row.into_iter().next());
        first.unwrap_or_else(|| panic!("{sql}: no row")).unwrap_or_default()
    }

    /// The first column of every row.
    #[track_caller]
    pub fn column(&self, sql: &str) -> Vec<String> {
        let rows = self.sql(sql).into_iter();
        rows.filter_map(|row| row.into_iter().next().flatten()).collect()
    }

    #[track_caller]
    pub fn wait_until(&self, condition: &str) {
        let reached = || {
            let rows = self.try_sql(&format!("SELECT 1 WHERE {condition}"));
            rows.is_ok_and(|rows| !rows.is_empty())
        };
        assert!(within(PATIENCE, reached), "never came true: {condition}\n{}", self.log());
    }

    #[track_caller]
    pub fn promote(&self) {
        self.sql("SELECT pg_promote(true, 60)");
        self.wait_until("NOT pg_is_in_recovery()");
    }

    // WAL.

    /// Fills and ends `count` segments; their names.
    #[track_caller]
    pub fn write_wal(&self, count: usize) -> Vec<String> {
        let mut session = self.session("postgres").unwrap_or_else(|why| panic!("{why}"));
        let mut segments = Vec::new();
        for _ in 0..count {
            // A transaction of its own, so that each segment has a commit to recover to.
            let message = "SELECT pg_logical_emit_message(true, 'test', repeat('walden', 1000))";
            let switch = "SELECT pg_walfile_name(pg_switch_wal())";
            let rows = session.query(message).and_then(|_| session.query(switch));
            let rows = rows.unwrap_or_else(|why| panic!("{why}\n{}", self.log()));
            segments.extend(rows.into_iter().flatten().flatten());
        }
        segments
    }

    pub fn current_lsn(&self) -> Lsn {
        let text = self.value("SELECT pg_current_wal_lsn()");
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Ends the current segment and waits until all of it is archived.
    #[track_caller]
    pub fn archive_everything(&self) {
        self.write_wal(1);
        self.wait_archived();
    }

    /// Waits until PostgreSQL has handed over every finished file.
    #[track_caller]
    pub fn wait_archived(&self) {
        let done = within(PATIENCE, || self.files_to_archive().is_empty());
        assert!(done, "not archived: {:?}\n{}", self.files_to_archive(), self.log());
    }

    /// What waits for archive_command: the names of the `.ready` files.
    pub fn files_to_archive(&self) -> Vec<String> {
        let status = fs::read_dir(self.pgdata().join("pg_wal/archive_status"));
        let names = status.into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut ready: Vec<String> =
            names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned)).collect();
        ready.sort();
        ready
    }

    // Where things are.

    pub fn pgdata(&self) -> &Path {
        &self.launch.pgdata
    }

    pub fn major(&self) -> MajorVersion {
        self.launch.installation.major
    }

    pub fn socket_directory(&self) -> &Path {
        &self.launch.socket_directory
    }

    /// The directory of a tablespace made by the builder.
    pub fn tablespace(&self, name: &str) -> PathBuf {
        self.scratch.join(&format!("tablespace-{name}"))
    }

    /// Where tests may put what belongs to this cluster; gone with it.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.launch.log).unwrap_or_default()
    }

    pub fn system_identifier(&self) -> String {
        self.value("SELECT system_identifier FROM pg_control_system()")
    }

    /// walden as this cluster's administrator would call it: its repository and name, its socket,
    /// its user.
    pub fn walden(&self) -> Walden {
        let mut walden = Walden::new().as_server_user().current_dir(self.pgdata());
        if let Some(Archive { repository, cluster }) = &self.archive {
            walden = walden.repository(repository).cluster(cluster);
        }
        for (name, value) in &self.launch.environment {
            walden = walden.env(name, value);
        }
        let (socket, port) = (self.socket_directory(), self.launch.port.to_string());
        walden.env("PGHOST", socket).env("PGPORT", port).env("PGUSER", "postgres")
    }

    /// Appends to postgresql.conf; the next start or `reload` reads it.
    pub fn configure(&self, name: &str, value: &str) {
        let file = self.pgdata().join("postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(file).expect("postgresql.conf");
        writeln!(file, "{name} = {value}").expect("write postgresql.conf");
    }

    #[track_caller]
    pub fn reload(&mut self) {
        self.server().reload();
    }
}

fn launch(
    major: MajorVersion,
    scratch: &Scratch,
    pgdata: PathBuf,
    mut environment: Vec<(OsString, OsString)>,
) -> Launch {
    // What walden remembers goes with the cluster, and no other test knows of it.
    environment.push(("WALDEN_STATE_DIR".into(), scratch.join("state").into()));
    Launch {
        installation: installation(major),
        pgdata,
        socket_directory: scratch.path().to_owned(),
        port: PORT,
        log: scratch.join("log"),
        settings: Vec::new(),
        environment,
        user: privileges::server_user().expect("find the server's user"),
    }
}

/// A value for postgresql.conf.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Asks until it is so, or until the time is up.
pub fn within(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if started.elapsed() > patience {
            return false;
        }
        thread::sleep(Duration::from_millis(25));
    }
}

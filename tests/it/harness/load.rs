//! Who writes into a cluster for as long as a test wants: sessions that know what was committed,
//! and pgbench where a distribution has it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::Cluster;
use super::session::Session;

/// Sessions that write numbered rows, one transaction each, and go on after the server was away.
pub struct Load {
    stop: Arc<AtomicBool>,
    pause: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Written>>,
}

/// What one session knows of its rows 1 to `last`.
#[derive(Debug, Default)]
struct Written {
    last: u64,
    /// The server went away before it said whether they are committed.
    unknown: BTreeSet<u64>,
}

/// What one session writes, again and again.
struct Row {
    writer: usize,
    kib: usize,
}

/// Between two attempts to reach a server that is away.
const AWAY: Duration = Duration::from_millis(20);

/// What must be in a cluster.
#[derive(Debug, Default)]
pub struct Ledger(Vec<Written>);

impl Load {
    /// `kib` is what a row has in it, of what hardly compresses.
    #[track_caller]
    pub fn start(cluster: &Cluster, writers: usize, kib: usize) -> Load {
        cluster.sql(
            "CREATE TABLE IF NOT EXISTS ledger (writer int, n bigint, what text, \
             PRIMARY KEY (writer, n)); \
             ALTER TABLE ledger ALTER what SET STORAGE EXTERNAL",
        );
        let (stop, pause) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let begin = |writer: usize| {
            let before = cluster
                .value(&format!("SELECT coalesce(max(n), 0) FROM ledger WHERE writer = {writer}"));
            assert_eq!(before, "0", "one load for one cluster");
            let row = Row { writer, kib };
            let (stop, pause) = (stop.clone(), pause.clone());
            let place = cluster.socket_directory().to_owned();
            thread::spawn(move || {
                let mut written = Written::default();
                let mut session = None;
                while !stop.load(Ordering::Relaxed) {
                    if pause.load(Ordering::Relaxed) || !written.one(&mut session, &place, &row) {
                        thread::sleep(AWAY);
                    }
                }
                written
            })
        };
        let writers = (0..writers).map(begin).collect();
        Load { stop, pause, writers }
    }

    pub fn pause(&self, is_wanted: bool) {
        self.pause.store(is_wanted, Ordering::Relaxed);
    }

    #[track_caller]
    pub fn finish(mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let writers = std::mem::take(&mut self.writers);
        Ledger(writers.into_iter().map(|writer| writer.join().expect("a writer")).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
    }
}

impl Written {
    /// Whether the server was there to be told.
    fn one(&mut self, session: &mut Option<Session>, place: &Path, row: &Row) -> bool {
        if session.is_none() {
            *session = Session::open(place, super::cluster::PORT, "postgres").ok();
        }
        let Some(open) = session else { return false };
        self.last += 1;
        if open.query(&row.insert(self.last)).is_err() {
            self.unknown.insert(self.last);
            *session = None;
        }
        true
    }
}

impl Row {
    fn insert(&self, n: u64) -> String {
        let Row { writer, kib } = self;
        // 32 letters of md5 each.
        format!(
            "INSERT INTO ledger SELECT {writer}, {n}, string_agg(md5(random()::text), '') \
             FROM generate_series(1, {})",
            kib * 32
        )
    }
}

impl Ledger {
    pub fn rows(&self) -> u64 {
        self.0.iter().map(|writer| writer.last - writer.unknown.len() as u64).sum()
    }

    pub fn unknown(&self) -> usize {
        self.0.iter().map(|writer| writer.unknown.len()).sum()
    }

    /// Every row whose commit was acknowledged is there.
    #[track_caller]
    pub fn expect_all_in(&self, cluster: &Cluster) {
        for (number, writer) in self.0.iter().enumerate() {
            let missing = cluster.column(&format!(
                "SELECT n FROM generate_series(1, {}) n WHERE NOT EXISTS \
                 (SELECT FROM ledger l WHERE l.writer = {number} AND l.n = n.n)",
                writer.last
            ));
            let missing = missing.iter().map(|n| n.parse().expect("a number"));
            let lost: Vec<u64> = missing.filter(|n| !writer.unknown.contains(n)).collect();
            assert!(lost.is_empty(), "writer {number} lost {lost:?}\n{}", cluster.log());
        }
    }

    /// What two clusters of the same rows agree on.
    #[track_caller]
    pub fn digest_in(cluster: &Cluster) -> String {
        cluster.value(
            "SELECT count(*) || ' rows, ' || coalesce(sum(hashtextextended(l::text, 0)), 0) \
             FROM ledger l",
        )
    }
}

/// pgbench at work; killed when dropped.
pub struct Pgbench(Child);

impl Pgbench {
    /// `None` where there is none: the package of the tests' servers has none.
    #[track_caller]
    pub fn start(cluster: &Cluster, scale: u32, clients: u32) -> Option<Pgbench> {
        let program = pgbench()?;
        let call = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            command.arg("-h").arg(cluster.socket_directory()).args(["-U", "postgres", "-n"]);
            command.args(["-p", &super::cluster::PORT.to_string()]).args(arguments);
            command.arg("postgres").stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::null());
            command
        };
        let filled = call(&["-i", "-s", &scale.to_string()]).status().expect("run pgbench");
        assert!(filled.success(), "pgbench -i: {filled}\n{}", cluster.log());
        // It ends when it is killed, or when nobody did for a day.
        let clients = clients.to_string();
        let writing = call(&["-c", &clients, "-j", "1", "-T", "86400"]).spawn();
        Some(Pgbench(writing.expect("run pgbench")))
    }
}

impl Pgbench {
    pub fn pause(&self, is_wanted: bool) {
        let signal = if is_wanted { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(&self.0), signal).expect("pgbench is there");
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pgbench() -> Option<PathBuf> {
    let packaged = walden::postgres::installation::installed();
    let packaged = packaged.iter().map(|found| found.program("pgbench"));
    let tools =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/postgresql-17/bin/pgbench");
    packaged.chain([tools]).find(|program| program.exists())
}

//! A backup that is told to stop, or killed, at any instant: nothing that looks like one, and no
//! backup going on at the server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::cluster::within;
use crate::harness::site::files_below;
use crate::harness::{ANY_MAJOR, Bucket, Cluster, ClusterBuilder, Fault, Running, Scratch, Walden};

/// Far less than a spread checkpoint takes, far more than a server needs to hear of it.
const SOON: Duration = Duration::from_secs(10);
const MODES: [&str; 2] = ["stream", "local"];
const LINE: &str = "walden: backup: told to stop; no backup was published\n";

struct Stage {
    cluster: Cluster,
    repository: Scratch,
}

impl Stage {
    fn set(builder: ClusterBuilder) -> Stage {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let cluster = builder.archive_to(url, "main").start();
        cluster.archive_everything();
        Stage { cluster, repository }
    }

    fn backup(&self, mode: &str) -> Walden {
        self.cluster.walden().args(["backup", "--mode", mode])
    }

    fn files(&self, name: &str) -> usize {
        let files = files_below(self.repository.path()).into_iter();
        files.filter(|file| file.to_string_lossy().contains(name)).count()
    }

    /// Of the server: it sends a backup to nobody, and no session of ours is left that could be in
    /// backup mode.
    #[track_caller]
    fn assert_nothing_goes_on(&self) {
        let nothing = "SELECT NOT EXISTS (SELECT FROM pg_stat_progress_basebackup) \
            AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'walden%')";
        let gone = within(SOON, || self.cluster.value(nothing) == "t");
        let left = self.cluster.sql("SELECT application_name, state, query FROM pg_stat_activity");
        assert!(gone, "{left:?}\n{}", self.cluster.log());
        assert_eq!(self.files("manifest.json"), 0);
        let list = self.cluster.walden().args(["list", "--quiet"]).run().succeeds();
        assert_eq!(list.stdout, "", "nothing is listed");
    }

    /// What the server says of the one that `pg_backup_start` began (`do_pg_abort_backup`, xlog.c).
    #[track_caller]
    fn assert_backup_mode_was_ended(&self) {
        let log = self.cluster.log();
        assert!(log.contains("aborting backup due to backend exiting"), "{log}");
    }

    #[track_caller]
    fn wait_until_it_waits_for_a_checkpoint(&self, mode: &str) {
        self.cluster.wait_until(match mode {
            "stream" => {
                "EXISTS (SELECT FROM pg_stat_progress_basebackup \
                 WHERE phase = 'waiting for checkpoint to finish')"
            }
            _ => {
                "EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'walden%' \
                 AND query ILIKE '%pg_backup_start%' AND state = 'active')"
            }
        });
    }
}

impl Stage {
    #[track_caller]
    fn wait_until_it_copies(&self, mode: &str, running: &Running) {
        if mode == "stream" {
            let sent = "SELECT FROM pg_stat_progress_basebackup WHERE backup_streamed > 1000000";
            return self.cluster.wait_until(&format!("EXISTS ({sent})"));
        }
        // Those that read and store are started once the server is in backup mode; before there are
        // three at most.
        let tasks = format!("/proc/{}/task", running.process_id());
        let is_at_work = || fs::read_dir(&tasks).is_ok_and(|tasks| tasks.count() > 4);
        assert!(within(Duration::from_secs(60), is_at_work), "{}", self.cluster.log());
    }
}

fn interrupt(running: &Running) {
    let process = i32::try_from(running.process_id()).ok().and_then(Pid::from_raw);
    kill_process(process.unwrap(), Signal::INT).unwrap();
}

#[track_caller]
fn ends_as_told(running: Running) {
    let output = running.wait().exits(75);
    assert_eq!(output.stderr, LINE);
    assert_eq!(output.stdout, "");
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn with_much_to_write() -> Stage {
    // A page at a time and never more than a tenth of a second apart: minutes.
    let builder = Cluster::builder(ANY_MAJOR).setting("checkpoint_timeout", "1h");
    let stage = Stage::set(builder);
    stage.cluster.sql("CREATE TABLE t (n int)");
    stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 200000)");
    stage
}

#[test]
fn told_while_the_server_writes_its_checkpoint_it_ends_both() {
    let stage = with_much_to_write();
    for mode in MODES {
        let running = stage.backup(mode).args(["--checkpoint", "spread"]).spawn();
        stage.wait_until_it_waits_for_a_checkpoint(mode);

        interrupt(&running);

        ends_as_told(running);
        stage.assert_nothing_goes_on();
        assert_eq!(stage.files("data-"), 0, "nothing was copied yet");
    }
}

#[test]
fn told_while_it_copies_it_ends_both() {
    let stage = Stage::set(Cluster::builder(ANY_MAJOR));
    for mode in MODES {
        let mut running = stage.backup(mode).args(["--max-rate", "1MiB"]).spawn();
        stage.wait_until_it_copies(mode, &running);

        running.terminate();

        ends_as_told(running);
        stage.assert_nothing_goes_on();
    }
    stage.assert_backup_mode_was_ended();
    stage.backup(MODES[0]).run().succeeds();
}

#[test]
fn killed_while_it_copies_it_leaves_nothing_that_counts() {
    let stage = Stage::set(Cluster::builder(ANY_MAJOR));
    for mode in MODES {
        let mut running = stage.backup(mode).args(["--max-rate", "1MiB"]).spawn();
        stage.wait_until_it_copies(mode, &running);

        running.kill();
        drop(running.wait());

        stage.assert_nothing_goes_on();
    }
    stage.assert_backup_mode_was_ended();
}

#[test]
fn told_while_it_waits_for_its_wal_it_leaves_packs_that_are_no_backup() {
    let mut stage = Stage::set(Cluster::builder(ANY_MAJOR));
    stage.cluster.configure("archive_command", "'/bin/true'");
    stage.cluster.reload();
    stage.cluster.wait_until("current_setting('archive_command') = '/bin/true'");
    for (number, mode) in MODES.iter().enumerate() {
        let mut running = stage.backup(mode).arg("--no-archive-check").spawn();
        let waits = within(Duration::from_secs(60), || stage.files("names.json") > number);
        assert!(waits, "the names are saved before the wait");

        running.terminate();

        ends_as_told(running);
        stage.assert_nothing_goes_on();
        assert!(stage.files("data-") > number, "orphans, until they are removed");
    }
}

/// With a certificate of its own, for whoever asks for TLS.
fn offer_tls(cluster: &Cluster) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let owner = walden::host::privileges::server_user().unwrap();
    for (name, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
        let path = cluster.pgdata().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        walden::host::privileges::give(&path, owner.as_ref()).unwrap();
    }
    cluster.configure("ssl", "on");
}

#[test]
fn over_tcp_the_server_is_told_as_it_was_reached_with_tls_or_without() {
    let mut stage = with_much_to_write();
    let port = free_port();
    stage.cluster.stop();
    offer_tls(&stage.cluster);
    stage.cluster.listen_on(port);
    stage.cluster.start_again();
    for sslmode in ["disable", "require"] {
        stage.cluster.sql("UPDATE t SET n = n");
        let there = format!("host=localhost port={port} user=postgres sslmode={sslmode}");
        let backup = stage.backup("stream").args(["--dbname", &there, "--checkpoint", "spread"]);
        let running = backup.spawn();
        stage.wait_until_it_waits_for_a_checkpoint("stream");

        interrupt(&running);

        ends_as_told(running);
        stage.assert_nothing_goes_on();
    }
}

/// A cluster that archives to a bucket, and a backup of it that is just storing its manifest, which
/// the store takes as `fault` says.
fn publishing(fault: Fault) -> (Cluster, Bucket, Running) {
    let bucket = Bucket::start();
    let builder = Cluster::builder(ANY_MAJOR).archive_to(bucket.url(), "main");
    let environment = bucket.environment().into_iter();
    let builder = environment.fold(builder, |builder, (name, value)| builder.env(name, value));
    let cluster = builder.start();
    cluster.archive_everything();
    bucket.proxy.fault_times(Some("PUT"), "manifest.json", 1, fault);
    let running = cluster.walden().arg("backup").spawn();
    let is_asked = || {
        let requests = bucket.proxy.requests();
        requests.iter().any(|seen| seen.method == "PUT" && seen.path.contains("manifest.json"))
    };
    assert!(within(Duration::from_secs(60), is_asked), "the manifest is stored last");
    (cluster, bucket, running)
}

#[test]
fn told_while_it_publishes_it_is_a_backup() {
    let (cluster, _bucket, mut running) = publishing(Fault::Delay(Duration::from_secs(3)));

    running.terminate();

    running.wait().succeeds();
    let list = cluster.walden().args(["list", "--quiet"]).run().succeeds();
    assert_eq!(list.stdout.lines().count(), 1);
}

#[test]
fn told_twice_while_it_publishes_it_ends_and_does_not_say_what_it_does_not_know() {
    let (_cluster, _bucket, mut running) = publishing(Fault::Hang);

    running.terminate();
    interrupt(&running);

    let output = running.wait().exits(75);
    assert!(!output.stderr.contains("no backup was published"), "{output}");
    output.stderr_has("told to stop while it published");
}

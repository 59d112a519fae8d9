//! What is told of a backup and kept with it: labels, notes, facts, and the configuration that a
//! packaged cluster keeps outside of its data directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use walden::host::privileges;

use crate::harness::cluster::within;
use crate::harness::session::Session;
use crate::harness::{ANY_MAJOR, Cluster, Scratch, Walden, installation};

fn archiving(scratch: &Scratch) -> Cluster {
    let url = format!("file://{}", scratch.path().display());
    let cluster = Cluster::builder(ANY_MAJOR).data_checksums().archive_to(url, "main").start();
    cluster.archive_everything();
    cluster
}

fn json(walden: &Walden) -> Value {
    let output = walden.clone().arg("--json").run().succeeds();
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
}

#[test]
fn labels_notes_and_facts_are_kept_and_shown() {
    let repository = Scratch::new();
    let cluster = archiving(&repository);
    let backup = cluster.walden().args(["backup", "--label", "it's nightly", "--nice", "5"]);
    let backup = backup.args(["--note", "ticket=OPS-1", "--note", "why=before the upgrade"]);

    let report = json(&backup.args(["--jobs", "1"]));

    assert_eq!(report["notes"]["ticket"], "OPS-1");
    let taken = &report["taken"];
    assert!(taken["server_version"].as_str().unwrap().starts_with("17."), "{report:#}");
    assert_eq!(taken["data_checksums"], true);
    assert_eq!((&taken["database_user"], &taken["jobs"]), (&"postgres".into(), &1.into()));
    assert!(!taken["os_user"].as_str().unwrap().is_empty());
    assert_eq!(taken["compression_level"], 1);
    assert!(taken["rate"].as_u64() > Some(0) && taken["copy_ms"].as_u64() > Some(0));
    assert!(taken["copy_ms"].as_u64() <= taken["duration_ms"].as_u64());
    assert_eq!(report["configuration"], Value::Array(vec![]), "all of it is in PGDATA");

    let id = report["id"].as_str().unwrap();
    let listed = &json(&cluster.walden().arg("list"))["clusters"][0]["backups"][0];
    assert_eq!(listed["notes"]["why"], "before the upgrade");
    assert_eq!((&listed["label"], &listed["mode"]), (&"it's nightly".into(), &report["mode"]));
    let one = &json(&cluster.walden().args(["list", id]))["clusters"][0]["backups"][0];
    assert_eq!(&one["taken"], taken);
    let text = cluster.walden().args(["list", id]).run().succeeds();
    let text = text.stdout_has("it's nightly").stdout_has("ticket: OPS-1");
    text.stdout_has("with data checksums").stdout_has("1 job, level 1");
}

#[test]
fn what_could_not_be_shown_is_refused_before_anything_is_done() {
    for words in [["--note", "no"], ["--note", "Key=v"], ["--note", "k=\u{7}"], ["--label", ""]] {
        let refused = Walden::new().repository("file:///nowhere").arg("backup").args(words).run();
        refused.exits(2).stderr_has("hint: ");
    }
}

/// As Debian's packages lay it out: PGDATA has no configuration but `postgresql.auto.conf`.
fn become_debian(cluster: &mut Cluster, etc: &Path) {
    cluster.stop();
    let owner = privileges::server_user().unwrap();
    fs::create_dir_all(etc.join("conf.d")).unwrap();
    for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::rename(cluster.pgdata().join(file), etc.join(file)).unwrap();
    }
    fs::write(etc.join("conf.d/memory.conf"), "work_mem = 7MB\n").unwrap();
    fs::write(etc.join("start.conf"), "auto\n").unwrap();
    fs::write(etc.join("server.key"), "secret").unwrap();
    let main = etc.join("postgresql.conf");
    let own = format!(
        "data_directory = '{}'\nhba_file = '{}'\nident_file = '{}'\ninclude_dir = 'conf.d'\n",
        cluster.pgdata().display(),
        etc.join("pg_hba.conf").display(),
        etc.join("pg_ident.conf").display()
    );
    fs::write(&main, fs::read_to_string(&main).unwrap() + &own).unwrap();
    privileges::give_tree(etc, owner.as_ref()).unwrap();
    cluster.start_with("config_file", &main);
}

fn names(paths: &Value) -> Vec<String> {
    let name = |path: &Value| {
        let path = path.as_str().or_else(|| path["path"].as_str()).unwrap();
        PathBuf::from(path).file_name().unwrap().to_string_lossy().into_owned()
    };
    paths.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn configuration_outside_of_the_data_directory_comes_along_and_back() {
    let (repository, etc, new) = (Scratch::new(), Scratch::new(), Scratch::new());
    let etc = etc.path().join("etc/17/main");
    let mut cluster = archiving(&repository);
    become_debian(&mut cluster, &etc);
    assert_eq!(cluster.value("SHOW work_mem"), "7MB");
    let expected = ["memory.conf", "pg_hba.conf", "pg_ident.conf", "postgresql.conf", "start.conf"];
    for mode in ["local", "stream"] {
        let report = json(&cluster.walden().args(["backup", "--mode", mode]));
        assert_eq!(names(&report["configuration"]), expected, "{mode}");
    }

    let target = new.path().join("data");
    let restore = cluster.walden().arg("restore").arg(&target).arg("--target-latest");
    let told = restore.clone().arg("--dry-run").run().succeeds();
    told.stdout_has("--configuration DIR").stdout_has("postgresql.conf");
    restore.clone().arg("--wait").run().exits(4).stderr_has("--configuration");

    let root = new.path().join("configuration");
    let restore = restore.arg("--configuration").arg(&root).args(["--max-rate", "500MiB"]);
    let bin = installation(ANY_MAJOR).bin;
    let outcome = json(&restore.args(["--wait", "--pg-bin"]).arg(bin));
    assert_eq!(names(&outcome["configuration"]), expected, "{outcome:#}");
    let below = root.join(etc.strip_prefix("/").unwrap());
    assert_eq!(fs::read(below.join("start.conf")).unwrap(), b"auto\n");
    let own = fs::read(etc.join("postgresql.conf")).unwrap();
    assert_eq!(fs::read(below.join("postgresql.conf")).unwrap(), own);
    assert!(!below.join("server.key").exists());

    // It runs with the settings that came along.
    let server = LeftRunning(outcome["recovery"]["process_id"].as_u64().unwrap());
    let socket = PathBuf::from(outcome["recovery"]["socket_directory"].as_str().unwrap());
    let port = u16::try_from(outcome["recovery"]["port"].as_u64().unwrap()).unwrap();
    let rows = Session::open(&socket, port, "postgres").unwrap().query("SHOW work_mem").unwrap();
    drop(server);
    assert_eq!(rows, [[Some("7MB".to_owned())]]);
}

/// By `--wait`; ends with the test.
struct LeftRunning(u64);

impl Drop for LeftRunning {
    fn drop(&mut self) {
        let process = i32::try_from(self.0).ok().and_then(Pid::from_raw).unwrap();
        let _ = kill_process(process, Signal::INT);
        let gone = || test_kill_process(process).is_err();
        assert!(within(Duration::from_secs(60), gone), "the restored server does not stop");
    }
}

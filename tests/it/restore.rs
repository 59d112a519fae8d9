//! `restore` on real PostgreSQL: what is refused, what is written, where recovery ends.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use walden::host::privileges;
use walden::postgres::MajorVersion;

use crate::harness::{self, ANY_MAJOR, Cluster, Output, Scratch, Walden};

/// A cluster that was backed up and went on: rows 1 to 3 each with its time, all archived.
struct Past {
    source: Cluster,
    /// After row n was committed, and before the next.
    after: Vec<String>,
    repository: Scratch,
}

impl Past {
    fn of(major: MajorVersion, tablespace: bool) -> Past {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let mut builder = Cluster::builder(major).archive_to(url, "main");
        if tablespace {
            builder = builder.tablespace("fast");
        }
        let source = builder.start();
        source.sql("CREATE TABLE t (n int)");
        if tablespace {
            source.sql("CREATE TABLE f TABLESPACE fast AS SELECT 42 AS n");
        }
        source.walden().arg("backup").run().succeeds();
        let mut after = Vec::new();
        for n in 1..=3 {
            source.sql(&format!("INSERT INTO t VALUES ({n})"));
            after.push(now(&source));
        }
        source.archive_everything();
        Past { source, after, repository }
    }

    fn restore(&self, directory: &Path) -> Walden {
        self.source.walden().arg("restore").arg(directory)
    }
}

/// One past for the tests that only read it, for as long as any of them holds it: what is static is
/// never dropped, and its server would outlive the tests.
fn past() -> Arc<Past> {
    static PAST: Mutex<Weak<Past>> = Mutex::new(Weak::new());
    let mut kept = PAST.lock().unwrap_or_else(PoisonError::into_inner);
    kept.upgrade().unwrap_or_else(|| {
        let past = Arc::new(Past::of(ANY_MAJOR, false));
        *kept = Arc::downgrade(&past);
        past
    })
}

fn now(cluster: &Cluster) -> String {
    cluster.value("SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
}

fn bin(major: MajorVersion) -> PathBuf {
    harness::installation(major).bin
}

/// `--wait` leaves a server running; this ends it with the test.
struct LeftRunning(u32);

impl LeftRunning {
    fn of(report: &serde_json::Value) -> LeftRunning {
        let process = report["recovery"]["process_id"].as_u64().expect("a running server");
        LeftRunning(u32::try_from(process).unwrap())
    }
}

impl Drop for LeftRunning {
    fn drop(&mut self) {
        let process = i32::try_from(self.0).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        let _ = rustix::process::kill_process(process, rustix::process::Signal::QUIT);
    }
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"))
}

#[test]
fn what_must_be_refused_is_refused_and_nothing_changes() {
    let past = past();
    let place = Scratch::new();
    let new = place.join("new");
    let restore = || past.restore(&new);
    let refused = |walden: Walden, why: &str| walden.run().exits(4).stderr_has(why);
    refused(restore(), "no recovery target");
    let civil = past.after[0].trim_end_matches('Z').replace('T', " ");
    let readings = refused(restore().args(["--target-time", &civil]), "has no time zone");
    readings.stderr_has("In UTC: --target-time '").stderr_has("In this host's zone (");
    let early = "2020-01-01T00:00:00Z";
    refused(restore().args(["--target-time", early]), "earliest possible target");
    refused(restore().args(["--target-time", "2999-01-01T00:00:00Z"]), "in the future");
    refused(restore().args(["--target-lsn", "FF/0"]), "behind the last possible target");
    refused(
        restore().args(["--target-latest", "--target-timeline", "7"]),
        "00000007.history is not in the repository",
    );
    let known = restore().args(["--target-latest", "--backup", "20200101T000000Z-0000"]);
    refused(known, "no such backup");
    restore().args(["--target-latest", "--target-immediate"]).run().exits(2);
    let unheeded = restore().args(["--target-latest", "--target-action", "pause"]).run();
    unheeded.exits(2).stderr_has("--target-latest ends in a promotion");
    assert!(!new.exists());

    let running = past.source.pgdata();
    let over = past.restore(running).arg("--target-latest");
    refused(over, "a server runs in");
    fs::write(place.directory("full").join("mine"), "x").unwrap();
    refused(past.restore(&place.join("full")).arg("--target-latest"), "not empty: it holds mine");
    refused(past.restore(&running.join("base/x")).arg("--target-latest"), "data directory");
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let past = past();
    let place = Scratch::new();
    let new = place.join("new");
    let time = &past.after[1];
    let output = past.restore(&new).args(["--target-time", time, "--dry-run"]).run().succeeds();
    let output = output.stdout_has("recovery_target_time = '").stdout_has("archive_mode = 'off'");
    output.stdout_has("--adopt").stdout_has(", then pause").stdout_has("nothing was changed");
    let output = past.restore(&new).args(["--target-latest", "--dry-run", "--json"]).run();
    let plan = json(&output.succeeds());
    assert_eq!((&plan["walden"], &plan["restored"]), (&1.into(), &false.into()));
    assert_eq!(plan["target"]["kind"], "latest");
    assert_eq!(plan["timeline"], 1);
    assert!(!new.exists());
}

#[test]
fn a_restored_directory_is_the_servers_alone() {
    let past = past();
    let place = Scratch::new();
    let new = place.join("new");
    past.restore(&new).arg("--target-latest").run().succeeds();
    let owner = privileges::server_user().unwrap();
    for file in ["", "base", "global/pg_control", "postgresql.auto.conf", "recovery.signal"] {
        let metadata = fs::metadata(new.join(file)).unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o7777, expected, "{file:?}");
        let ours = owner.as_ref().map_or(metadata.uid(), |user| user.uid);
        assert_eq!(metadata.uid(), ours, "{file:?}");
    }
    assert!(!new.join("postmaster.pid").exists() && !new.join("standby.signal").exists());
}

#[test]
fn waiting_says_where_recovery_ended() {
    let past = past();
    let place = Scratch::new();
    let waited = |name: &str, words: &[&str]| {
        let wait = past.restore(&place.join(name)).args(["--wait", "--json", "--pg-bin"]);
        wait.arg(bin(ANY_MAJOR)).args(words).run()
    };
    let time = &past.after[1];
    let paused = waited("paused", &["--target-time", time]).succeeds();
    let _server = LeftRunning::of(&json(&paused));
    let recovery = &json(&paused)["recovery"];
    assert_eq!(recovery["ended"], "paused");
    let stopped = recovery["stopped"].as_str().unwrap();
    assert!(stopped.starts_with("recovery stopping before commit of transaction"), "{stopped}");
    let last_commit = recovery["last_commit"].as_str().unwrap();
    assert!(last_commit <= time.as_str() && last_commit > past.after[0].as_str(), "{recovery}");

    let promoted = waited("promoted", &["--target-latest"]).succeeds();
    let _server = LeftRunning::of(&json(&promoted));
    let recovery = &json(&promoted)["recovery"];
    assert_eq!((&recovery["ended"], &recovery["timeline"]), (&"promoted".into(), &2.into()));

    let down = ["--target-time", time, "--target-action", "shutdown"];
    let down = waited("down", &down).succeeds();
    assert_eq!(json(&down)["recovery"]["ended"], "shut-down");
    assert!(json(&down)["recovery"]["process_id"].is_null());

    let never = waited("never", &["--target-name", "never made", "--target-action", "promote"]);
    never.exits(4).stderr_has("restore point \"never made\" is not in the archived WAL");
    assert!(!place.join("never").exists());
}

/// The digest is of what was pushed: whether the object still holds it, `--check-wal` tells before
/// anything is written, and else the server, after hours.
#[test]
fn wal_that_was_damaged_in_the_store_is_found_before_or_while_it_is_replayed() {
    let past = Past::of(ANY_MAJOR, false);
    let place = Scratch::new();
    let latest = |name: &str| {
        let restore = past.restore(&place.join(name)).args(["--target-latest", "--json"]);
        restore.args(["--pg-bin"]).arg(bin(ANY_MAJOR)).arg("--wait")
    };
    let checked = latest("dry").args(["--check-wal", "--dry-run"]).run().succeeds();
    let checked = &json(&checked)["wal"]["checked"];
    assert!(checked["segments"].as_u64() >= Some(2) && checked["records"].as_u64() > Some(10));

    let home = past.repository.path().join("main").join(past.source.system_identifier());
    let log = home.join("wal/00000001/0000000100000000");
    let objects = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let newest = objects.max().expect("an archived segment");
    let mut bytes = fs::read(&newest).unwrap();
    let near_its_end = bytes.len() - 6;
    bytes[near_its_end] ^= 1;
    fs::write(&newest, bytes).unwrap();

    let name = newest.file_stem().unwrap().to_string_lossy().into_owned();
    latest("checked").arg("--check-wal").run().exits(30).stderr_has(&name);
    assert!(!place.join("checked").exists());
    latest("unchecked").run().exits(5).stderr_has(&format!("could not restore file \"{name}\""));
    assert!(!place.join("unchecked/postmaster.pid").exists(), "no server is left behind");
}

#[test]
fn the_plan_tells_where_recovery_stops_and_the_last_commit_itself_is_a_target() {
    let past = past();
    let place = Scratch::new();
    let plan = |words: &[&str]| {
        let restore = past.restore(&place.join("new")).args(words).args(["--dry-run", "--json"]);
        json(&restore.run().succeeds())
    };
    let by_time = plan(&["--target-time", &past.after[1]]);
    assert_eq!(
        (&by_time["stop"]["side"], &by_time["stop"]["record"]),
        (&"before".into(), &"commit".into())
    );
    assert!(by_time["commits_after"]["commits"].as_u64() >= Some(1), "{by_time:#}");
    assert_eq!(by_time["commits_after"]["at_least"], false);
    assert_eq!(by_time["instants"]["server"].as_array().unwrap().len(), 1, "UTC is both zones");
    assert!(by_time["estimate"]["wal_segments"].as_u64() >= Some(1));

    let all = plan(&["--target-latest"]);
    assert_eq!(
        (&all["stop"], &all["commits_after"]["commits"]),
        (&serde_json::Value::Null, &0.into())
    );
    let latest = all["last_commit"]["time"].as_str().unwrap();
    let last = plan(&["--target-time", latest]);
    assert_eq!(last["stop"]["lsn"], all["last_commit"]["lsn"]);
    assert!(last["settings"].as_str().unwrap().contains("recovery_target_lsn = '"), "{last:#}");
    let recovered = place.join("recovered");
    let restore = past.restore(&recovered).args(["--target-time", latest]);
    restore.args(["--target-action", "promote"]).run().succeeds();
    let mut recovered = Cluster::over(ANY_MAJOR, &recovered);
    recovered.start_again();
    recovered.wait_until("NOT pg_is_in_recovery()");
    assert_eq!(recovered.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t"), "1 2 3");

    let text =
        past.restore(&place.join("new")).args(["--target-time", &past.after[1], "--dry-run"]);
    let text = text.run().succeeds().stdout_has("  stops       before the commit of transaction");
    text.stdout_has("after the target (until ").stdout_has("  estimate    about ");
    let now = past.restore(&place.join("new")).args(["--target-time", "-0s", "--dry-run"]).run();
    now.exits(4).stderr_has("lies after the last commit that is archived").stderr_has(latest);
}

#[test]
fn tablespaces_come_back_elsewhere_and_never_by_themselves() {
    let past = Past::of(ANY_MAJOR, true);
    let old = past.source.tablespace("fast");
    let place = Scratch::new();
    let new = place.join("new");
    let refused = past.restore(&new).arg("--target-latest").run().exits(4);
    refused.stderr_has(&format!("--tablespace-map {}=NEW", old.display()));
    let same = format!("{0}={0}", old.display());
    let taken = past.restore(&new).args(["--target-latest", "--tablespace-map", &same]).run();
    taken.exits(4).stderr_has("is not empty");
    assert!(!new.exists());

    let elsewhere = place.join("elsewhere");
    let map = format!("{}={}", old.display(), elsewhere.display());
    past.restore(&new).args(["--target-latest", "--tablespace-map", &map]).run().succeeds();
    let mut recovered = Cluster::over(ANY_MAJOR, &new);
    recovered.start_again();
    recovered.wait_until("NOT pg_is_in_recovery()");
    assert_eq!(recovered.value("SELECT n FROM f"), "42");
    let location = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'";
    assert_eq!(recovered.value(location), elsewhere.display().to_string());
    assert_eq!(recovered.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t"), "1 2 3");
}

#[test]
fn a_standby_follows_the_archive() {
    let past = Past::of(ANY_MAJOR, false);
    let place = Scratch::new();
    let new = place.join("new");
    past.restore(&new).args(["--target-latest", "--standby"]).run().succeeds();
    assert!(new.join("standby.signal").exists() && !new.join("recovery.signal").exists());
    let mut standby = Cluster::over(ANY_MAJOR, &new);
    standby.start_again();
    past.source.sql("INSERT INTO t VALUES (4)");
    past.source.archive_everything();
    standby.wait_until("EXISTS (SELECT FROM t WHERE n = 4)");
    assert_eq!(standby.value("SELECT pg_is_in_recovery()"), "t");
}

#[test]
fn an_adopted_restore_archives_its_new_timeline_and_can_be_restored_in_turn() {
    let past = Past::of(ANY_MAJOR, false);
    let place = Scratch::new();
    let new = place.join("new");
    let words = ["--target-time", &past.after[1], "--target-action", "promote", "--adopt"];
    past.restore(&new).args(words).run().succeeds();
    let mut adopted = Cluster::over(ANY_MAJOR, &new);
    adopted.start_again();
    adopted.wait_until("NOT pg_is_in_recovery()");
    assert_eq!(adopted.value("SHOW archive_mode"), "on");
    adopted.sql("INSERT INTO t VALUES (20)");
    adopted.archive_everything();
    adopted.stop();

    // The newest timeline is followed, across the fork; the old one where it is asked for.
    for (timeline, rows) in [("latest", "1 2 20"), ("2", "1 2 20"), ("1", "1 2 3")] {
        let again = place.join(&format!("again-{timeline}"));
        let words = ["--target-latest", "--target-timeline", timeline];
        past.restore(&again).args(words).run().succeeds();
        let mut recovered = Cluster::over(ANY_MAJOR, &again);
        recovered.start_again();
        recovered.wait_until("NOT pg_is_in_recovery()");
        let found = recovered.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t");
        assert_eq!(found, rows, "timeline {timeline}");
    }
}

/// The settings of the source's own recovery, in either file, must not steer this one: of two
/// targets PostgreSQL would take neither. The names of these differ by version.
#[test]
fn stale_recovery_settings_of_the_source_are_switched_off_on_every_version() {
    for major in harness::every_major() {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let source = Cluster::builder(major)
            .archive_to(url, "main")
            .setting("recovery_target_name", "'stale'")
            .setting("recovery_target_action", "'shutdown'")
            .setting("recovery_end_command", "'exit 255'")
            .setting("primary_conninfo", "'host=nowhere'")
            .start();
        source.sql("ALTER SYSTEM SET restore_command = 'exit 255'");
        source.sql("CREATE TABLE t (n int)");
        source.walden().arg("backup").run().succeeds();
        source.sql("INSERT INTO t VALUES (1)");
        let time = now(&source);
        source.sql("INSERT INTO t VALUES (2)");
        source.archive_everything();

        let place = Scratch::new();
        let new = place.join("new");
        let words = ["--target-time", &time, "--target-action", "promote"];
        source.walden().arg("restore").arg(&new).args(words).run().succeeds();
        let mut recovered = Cluster::over(major, &new);
        recovered.start_again();
        recovered.wait_until("NOT pg_is_in_recovery()");
        assert_eq!(recovered.column("SELECT n FROM t"), ["1"], "PostgreSQL {major}");
    }
}

/// The recipe of docs/format.md, with nothing but cat, zstd, tar and sh.
#[test]
fn a_backup_is_restored_by_hand_as_the_documentation_says() {
    let format = include_str!("../../docs/format.md");
    let (_, recipe) = format.split_once("\n## Restoring by hand\n").unwrap();
    let blocks = recipe.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let theirs = ["recovery_target_time", "pg_ctl start"];
    let lines =
        blocks.flat_map(str::lines).filter(|line| !theirs.iter().any(|t| line.starts_with(t)));
    let script = lines.fold("set -e\n".to_owned(), |script, line| script + line + "\n");
    let script = script.replace("16384", "$oid").replace("/new/place", "$place");
    let past = Past::of(ANY_MAJOR, true);
    let oid = past.source.value("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'");
    let home = past.repository.path().join("main").join(past.source.system_identifier());
    let backups = fs::read_dir(home.join("backup")).unwrap().flatten();
    let id = backups.map(|entry| entry.file_name()).next().unwrap();
    let place = Scratch::new();
    let (new, elsewhere) = (place.join("new"), place.join("elsewhere"));
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).env("home", home).env("id", id).env("oid", oid);
    shell.env("new", &new).env("place", &elsewhere).current_dir("/");
    let user = privileges::server_user().unwrap();
    let done = privileges::run_as(&mut shell, user.as_ref()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let mut recovered = Cluster::over(ANY_MAJOR, &new);
    recovered.start_again();
    recovered.wait_until("NOT pg_is_in_recovery()");
    assert_eq!(recovered.value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t"), "1 2 3");
    assert_eq!(recovered.value("SELECT n FROM f"), "42");
    assert!(recovered.log().contains("archive recovery complete"), "{}", recovered.log());
}

//! `drill` on real PostgreSQL: what it proves, what it leaves alone, and that nothing of it stays.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::scratch::SmallDisk;
use crate::harness::{self, ANY_MAJOR, Cluster, ClusterBuilder, Output, Scratch, Walden};

/// A live cluster with an archive to rehearse from, and a place for drills.
struct Scene {
    live: Cluster,
    repository: Scratch,
    drills: Scratch,
    /// A table is in it that was made while WAL was archived.
    created: Scratch,
}

impl Scene {
    fn of(builder: ClusterBuilder) -> Scene {
        let (repository, drills, created) = (Scratch::new(), Scratch::new(), Scratch::new());
        let url = format!("file://{}", repository.path().display());
        let live = builder.archive_to(url, "main").tablespace("fast").start();
        live.sql("CREATE TABLE t (n int)");
        live.sql("CREATE TABLE f TABLESPACE fast AS SELECT 42 AS n");
        live.walden().arg("backup").run().succeeds();
        for n in 1..=3 {
            live.sql(&format!("INSERT INTO t VALUES ({n})"));
        }
        let place = created.directory("later");
        live.sql(&format!("CREATE TABLESPACE later LOCATION '{}'", place.display()));
        live.sql("CREATE TABLE l TABLESPACE later AS SELECT generate_series(1, 1000) AS n");
        live.archive_everything();
        Scene { live, repository, drills, created }
    }

    fn drill(&self) -> Walden {
        let bin = harness::installation(self.live.major()).bin;
        let drill = self.live.walden().arg("drill").arg("--scratch").arg(self.drills.path());
        drill.arg("--pg-bin").arg(bin)
    }

    /// Every file of the live cluster; of its WAL the names, since it writes there by itself.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let places = [self.live.pgdata().to_owned(), self.live.tablespace("fast")];
        for place in places.iter().map(PathBuf::as_path).chain([self.created.path()]) {
            collect(place, &mut files);
        }
        files
    }

    /// A drill's directory, and whoever works in it or names it.
    fn left(&self) -> Vec<String> {
        let mut left = processes_about(&self.drills.path().display().to_string());
        let entries = fs::read_dir(self.drills.path()).unwrap().flatten();
        left.extend(entries.map(|entry| entry.path().display().to_string()));
        left
    }

    #[track_caller]
    fn leaves_nothing(&self) {
        assert_eq!(self.left(), [""; 0]);
    }

    fn home(&self) -> PathBuf {
        self.repository.join("main").join(self.live.system_identifier())
    }
}

fn collect(place: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(place).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            files.insert(path.clone(), Vec::new());
            collect(&path, files);
        } else if kind.is_file() {
            let is_wal = place.ends_with("pg_wal");
            let content = if is_wal { Vec::new() } else { fs::read(&path).unwrap_or_default() };
            files.insert(path.clone(), content);
        }
    }
}

/// Whoever works in a directory below, or names it.
fn processes_about(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let process = entry.path();
        let cwd = fs::read_link(process.join("cwd")).unwrap_or_default();
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if number != std::process::id()
            && (cwd.to_string_lossy().starts_with(mark) || line.contains(mark))
        {
            found.push(format!("{number} {line}"));
        }
    }
    found
}

fn record(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"))
}

#[track_caller]
fn passed(output: Output) -> Value {
    let record = record(&output);
    assert_eq!(record["verdict"], "passed", "{output}");
    output.succeeds();
    record
}

#[test]
fn every_point_is_reached_beside_the_live_cluster_and_nothing_of_it_is_touched() {
    let scene = Scene::of(Cluster::builder(ANY_MAJOR));
    scene.live.sql("CHECKPOINT");
    let archived = "SELECT archived_count::text || ' ' || failed_count FROM pg_stat_archiver";
    let (files, counters) = (scene.files(), scene.live.value(archived));
    let time = scene.live.value("SELECT now()::text");
    let latest = passed(scene.drill().args(["--latest", "--json"]).run());
    assert_eq!(latest["target"]["mode"], "latest");
    for seed in 1..=2 {
        let output = scene.drill().args(["--seed", &seed.to_string(), "--json"]).run();
        let random = passed(output);
        assert_eq!(random["target"]["seed"], seed);
        assert_eq!(random["checks"][0]["kind"], "target");
    }
    scene.drill().args(["--target-immediate"]).run().succeeds().stdout_has("passed");
    scene.drill().args(["--target-time", &time]).run().exits(5).stderr_has("last commit");
    assert_eq!(scene.live.value(archived), counters);
    let after = scene.files();
    for (path, bytes) in &files {
        assert!(after.get(path) == Some(bytes), "{} is other", path.display());
    }
    assert_eq!(after.len(), files.len(), "nothing new");
    scene.leaves_nothing();
    let drills = fs::read_dir(scene.home().join("drill")).unwrap();
    assert_eq!(drills.count(), 5, "each is written down");
}

/// What is made while WAL is replayed would be made on this host, in the live cluster's own place.
#[test]
fn a_tablespace_that_only_the_wal_makes_stays_inside_on_every_version() {
    std::thread::scope(|scope| {
        for major in harness::every_major().filter(|major| *major != ANY_MAJOR) {
            scope.spawn(move || {
                let scene = Scene::of(Cluster::builder(major));
                scene.live.sql("CHECKPOINT");
                let files = scene.files();
                let questions = scene.created.join("questions.sql");
                fs::write(&questions, "select count(*) = 1000 from l; select count(*) = 3 from t;")
                    .unwrap();
                scene.created.give("questions.sql");
                let files_after = |scene: &Scene| {
                    let mut after = scene.files();
                    after.remove(&questions);
                    after
                };
                let drill = scene.drill().args(["--latest", "--json", "--sql"]).arg(&questions);
                let record = passed(drill.run());
                let notes = record["notes"].to_string();
                let place = scene.created.join("later").display().to_string();
                assert!(notes.contains("The WAL makes tablespace"), "{notes}");
                assert!(notes.contains(&place), "{notes}");
                assert!(files == files_after(&scene), "{major}: the live cluster was touched");
                scene.leaves_nothing();
            });
        }
    });
}

#[test]
fn the_sources_settings_steer_no_drill() {
    let scene = Scene::of(Cluster::builder(ANY_MAJOR));
    // None of these is there; each would keep a server or a session from starting.
    scene.live.configure("shared_preload_libraries", "'no_such_library'");
    scene.live.sql("ALTER SYSTEM SET archive_command = 'touch /no/such/place'");
    scene.live.walden().arg("backup").run().succeeds();
    let mut session = scene.live.session("postgres").unwrap();
    for statement in [
        "ALTER ROLE postgres SET session_preload_libraries = 'no_such_library'",
        "ALTER ROLE postgres SET default_transaction_read_only = on",
        "SELECT pg_switch_wal()",
    ] {
        session.query(statement).unwrap();
    }
    scene.live.wait_archived();
    // Where the tests run as root, so does this drill, and its server does not.
    let url = format!("file://{}", scene.repository.path().display());
    let drill = Walden::new().repository(url).cluster("main").arg("drill").arg("--scratch");
    let drill = drill.arg(scene.drills.path()).arg("--pg-bin");
    let drill = drill.arg(harness::installation(ANY_MAJOR).bin);
    let record = passed(drill.args(["--latest", "--json"]).run());
    assert_eq!(record["target"]["options"][0], "--target-latest");
    let notes = record["notes"].to_string();
    assert!(notes.contains("The source preloads no_such_library"), "{notes}");

    let question = scene.created.join("preloaded.sql");
    fs::write(&question, "SELECT current_setting('shared_preload_libraries') = 'auto_explain'")
        .unwrap();
    fs::set_permissions(&question, fs::Permissions::from_mode(0o644)).unwrap();
    let asking = || scene.drill().args(["--latest", "--json", "--sql"]).arg(&question);
    asking().run().exits(5);
    passed(asking().args(["--allow-preload", "auto_explain"]).run());
    // That it is not on this host says nothing of the backup.
    asking().args(["--allow-preload", "no_such_library"]).run().exits(6);
    scene.leaves_nothing();
}

#[test]
fn another_minor_version_is_a_note_or_refused_and_a_missing_one_leaves_it_open() {
    let scene = Scene::of(Cluster::builder(ANY_MAJOR));
    let real = harness::installation(ANY_MAJOR).bin;
    let other = scene.created.directory("bin");
    for program in ["initdb", "pg_ctl"] {
        std::os::unix::fs::symlink(real.join(program), other.join(program)).unwrap();
    }
    let postgres = other.join("postgres");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'postgres (PostgreSQL) 17.99' && exit\n\
         exec {}/postgres \"$@\"\n",
        real.display()
    );
    fs::write(&postgres, script).unwrap();
    fs::set_permissions(&postgres, fs::Permissions::from_mode(0o755)).unwrap();
    let walden = || scene.live.walden().arg("drill").arg("--scratch").arg(scene.drills.path());
    let record = passed(walden().arg("--pg-bin").arg(&other).args(["--latest", "--json"]).run());
    assert_eq!(record["postgresql"]["used"], "17.99");
    assert!(record["notes"].to_string().contains("Of another minor version"), "{record}");
    let refused = walden().arg("--pg-bin").arg(&other).args(["--same-minor", "--latest"]).run();
    refused.exits(6).stderr_has("17.99");
    let missing = walden().args(["--pg-bin", "/no/such/bin", "--latest"]).run();
    missing.exits(6).stderr_has("/no/such/bin");
    // Too deep for a socket.
    let deep = scene.drills.directory(&"x".repeat(90));
    let drill = scene.live.walden().arg("drill").arg("--pg-bin").arg(&real).arg("--scratch");
    let record = passed(drill.arg(&deep).args(["--target-immediate", "--json"]).run());
    let socket = format!("/tmp/walden-socket-{}", record["id"].as_str().unwrap());
    assert!(!Path::new(&socket).exists());
    fs::remove_dir(&deep).unwrap();
    let late = scene.drill().args(["--latest", "--timeout", "1ms"]).run();
    late.exits(6).stderr_has("the time that was given is over");
    let inside = scene.live.walden().arg("drill").arg("--scratch").arg(scene.live.pgdata());
    let inside = inside.arg("--pg-bin").arg(&real).arg("--latest").run();
    inside.exits(6).stderr_has("lies in the data directory");
    scene.leaves_nothing();
}

#[test]
fn objectives_make_it_fail_and_what_is_measured_is_what_the_log_says() {
    let scene = Scene::of(Cluster::builder(ANY_MAJOR));
    let drill = |name: &str, value: &str| scene.drill().arg("--json").env(name, value).run();
    let output = drill("WALDEN_OBJECTIVES_RTO", "1ms");
    let failed = record(&output);
    output.exits(5).stderr_has("rto: recovery takes 0.001 s at most");
    assert_eq!(failed["verdict"], "failed");
    let met = record(&drill("WALDEN_OBJECTIVES_RPO", "1h"));
    let rpo = met["checks"].as_array().unwrap().iter().find(|check| check["kind"] == "rpo");
    assert_eq!(rpo.unwrap()["verdict"], "passed");
    let kept = passed(scene.drill().args(["--latest", "--keep", "--json"]).run());
    let directory = PathBuf::from(kept["kept"]["directory"].as_str().unwrap());
    let log = fs::read_to_string(directory.join("server.log")).unwrap();
    let at = |what: &str| {
        let line = log.lines().find(|line| line.ends_with(what) || line.contains(what)).unwrap();
        let clock = line.split_whitespace().nth(1).unwrap();
        let parts: Vec<f64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
        (parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]) * 1000.0
    };
    let timings = &kept["timings"];
    let is_close = |name: &str, from: f64, to: f64| {
        let measured = timings[name].as_f64().unwrap();
        // Over midnight a day is missing.
        let said = (to - from).rem_euclid(86_400_000.0);
        assert!((measured - said).abs() < 1000.0, "{name}: {measured} and {said}\n{log}");
    };
    let (started, consistent) = (at("starting PostgreSQL"), at("consistent recovery state"));
    let (redone, ready) = (at("redo done at"), at("ready to accept connections"));
    is_close("consistent_ms", started, consistent);
    is_close("replay_ms", consistent, redone);
    is_close("ready_ms", redone, ready);
    let parts = ["choose_ms", "fetch_ms", "consistent_ms", "replay_ms", "ready_ms"];
    let sum: u64 = parts.iter().map(|part| timings[*part].as_u64().unwrap()).sum();
    assert_eq!(timings["rto_ms"].as_u64(), Some(sum));
    // What is kept stays, until it is asked for.
    passed(scene.drill().args(["--target-immediate", "--json"]).run());
    assert!(directory.exists());
    scene.drill().arg("--sweep").run().succeeds().stdout_has("removed ");
    scene.leaves_nothing();
}

#[test]
fn what_is_damaged_is_named_and_a_store_that_is_away_leaves_it_open() {
    let scene = Scene::of(Cluster::builder(ANY_MAJOR));
    scene.live.write_wal(3);
    scene.live.wait_archived();
    let objects = harness::site::files_below(&scene.home());
    let object = |part: &str, nth_last: usize| {
        let mut found: Vec<&PathBuf> =
            objects.iter().filter(|path| path.to_string_lossy().contains(part)).collect();
        found.sort();
        found[found.len() - 1 - nth_last].clone()
    };
    let damaged = |path: &Path, expected: &str| {
        let good = fs::read(path).unwrap();
        let mut bytes = good.clone();
        // In the content: a small object is its header for the most part.
        let at = bytes.len() * 19 / 20;
        bytes[at] ^= 0x04;
        fs::write(path, bytes).unwrap();
        let drill = scene.drill().arg("--latest").env("WALDEN_FETCH_RETRY_FOR", "1s").run();
        drill.exits(5).stderr_has(expected);
        fs::write(path, good).unwrap();
        scene.leaves_nothing();
    };
    let segment = object("/wal/", 1);
    let name = segment.file_name().unwrap().to_string_lossy()[..24].to_owned();
    damaged(&segment, &name);
    damaged(&object("/data-", 0), "pack ");
    // Without the last one there would be nothing to miss.
    let between = object("/wal/", 2);
    let name = between.file_name().unwrap().to_string_lossy()[..24].to_owned();
    fs::rename(&between, scene.repository.join("away")).unwrap();
    scene.drill().arg("--latest").run().exits(5).stderr_has(&name);
    fs::rename(scene.repository.join("away"), &between).unwrap();
    let (here, away) = (scene.repository.join("main"), scene.repository.join("away"));
    fs::rename(&here, &away).unwrap();
    scene.drill().arg("--latest").run().exits(6);
    fs::rename(&away, &here).unwrap();
    passed(scene.drill().args(["--latest", "--json"]).run());
}

#[test]
fn a_full_disk_leaves_it_open_and_nothing_behind() {
    let scene = Scene::of(Cluster::builder(ANY_MAJOR));
    scene.live.sql(
        "CREATE TABLE large AS SELECT n, repeat(md5(n::text), 30) AS what \
         FROM generate_series(1, 60000) n",
    );
    scene.live.archive_everything();
    // Too little for the backup; too little to be left beside what the WAL adds; enough.
    let Some(disk) = SmallDisk::mount(scene.drills.path(), 16) else { return };
    for (mib, words) in [(16, "not enough space"), (610, "MiB are left at")] {
        disk.resize(mib);
        let output = scene.drill().args(["--latest", "--json"]).run();
        assert_eq!(record(&output)["verdict"], "incomplete", "{output}");
        output.exits(6).stderr_has(words);
        scene.leaves_nothing();
    }
    disk.resize(1024);
    passed(scene.drill().args(["--latest", "--json"]).run());
    scene.leaves_nothing();
}

//! `drill` on real PostgreSQL: what it proves, what it leaves alone, and that nothing of it stays.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

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

    /// Every file of the live cluster, but for those it writes by itself all the time.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let places = [self.live.pgdata().to_owned(), self.live.tablespace("fast")];
        for place in places.iter().map(PathBuf::as_path).chain([self.created.path()]) {
            collect(place, &mut files);
        }
        files
    }

    fn leaves_nothing(&self) {
        let left: Vec<_> = fs::read_dir(self.drills.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let mark = self.drills.path().display().to_string();
        let alive = processes_about(&mark);
        assert!(alive.is_empty(), "{alive:?}");
    }
}

fn collect(place: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(place).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            files.insert(path.clone(), Vec::new());
            collect(&path, files);
        } else if kind.is_file() {
            files.insert(path.clone(), fs::read(&path).unwrap_or_default());
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
    let drills = scene.repository.join("main").join(scene.live.system_identifier()).join("drill");
    assert_eq!(fs::read_dir(drills).unwrap().count(), 5, "each is written down");
}

//! `restore` into what is there already, in several attempts, and in part, with real servers.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use walden::codec::SeekTable;
use walden::repository::Manifest;

use crate::harness::{self, ANY_MAJOR, Cluster, Output, Scratch, Walden};

/// A cluster with a backup, and what was written after it.
struct Past {
    source: Cluster,
    repository: Scratch,
}

impl Past {
    fn new() -> Past {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let source = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
        source
            .sql("CREATE TABLE t AS SELECT n, md5(n::text) AS x FROM generate_series(1, 60000) n");
        source.sql("CREATE TABLE still AS SELECT n FROM generate_series(1, 20000) n");
        source.sql("VACUUM (FREEZE, ANALYZE) still");
        source.sql("CHECKPOINT");
        source.walden().arg("backup").run().succeeds();
        source.sql("INSERT INTO t VALUES (0, 'after')");
        source.archive_everything();
        Past { source, repository }
    }

    fn restore(&self, place: &Path) -> Walden {
        self.source.walden().arg("restore").arg(place)
    }

    fn backup(&self) -> PathBuf {
        let home = self.repository.path().join("main").join(self.source.system_identifier());
        fs::read_dir(home.join("backup")).unwrap().next().unwrap().unwrap().path()
    }

    /// The pack that holds this byte of a file, and where the frame lies in it.
    fn frame_of(&self, path: &str, at: u64) -> (PathBuf, Range<u64>) {
        let manifest = fs::read(self.backup().join("manifest.json.zst")).unwrap();
        let manifest = Manifest::open(&manifest).unwrap();
        let entry = manifest.files.iter().find(|entry| entry.path == path).unwrap();
        let at = entry.offset + at;
        let pack = self.packs().swap_remove((at / manifest.pack_bytes) as usize);
        let sealed = fs::read(&pack).unwrap();
        let table = SeekTable::parse(&sealed, sealed.len() as u64).unwrap();
        let at = at % manifest.pack_bytes;
        let frame = table.frames_of(&(at..at + 1))[0].stored.clone();
        (pack, frame)
    }

    fn packs(&self) -> Vec<PathBuf> {
        let objects = fs::read_dir(self.backup()).unwrap().map(|entry| entry.unwrap().path());
        let is_pack = |path: &PathBuf| path.to_string_lossy().contains("/data-");
        let mut packs: Vec<PathBuf> = objects.filter(is_pack).collect();
        packs.sort();
        packs
    }
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"))
}

/// Every file below, with its content.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().to_owned();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                found.insert(name, Vec::new());
                open.push(path);
            } else {
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

#[track_caller]
fn expect_same(one: &Path, other: &Path) {
    let (one, other) = (tree(one), tree(other));
    let names = |tree: &BTreeMap<PathBuf, Vec<u8>>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    let differs: Vec<&PathBuf> = one.keys().filter(|name| one[*name] != other[*name]).collect();
    assert!(differs.is_empty(), "{differs:?}");
}

fn recovered(directory: &Path) -> Cluster {
    let mut cluster = Cluster::over(ANY_MAJOR, directory);
    cluster.start_again();
    cluster.wait_until("NOT pg_is_in_recovery()");
    cluster
}

#[test]
fn delta_turns_a_cluster_that_went_on_into_what_a_fresh_restore_is() {
    let past = Past::new();
    let place = Scratch::new();
    let (new, fresh) = (place.join("new"), place.join("fresh"));
    past.restore(&new).arg("--target-latest").run().succeeds();
    let mut cluster = recovered(&new);
    cluster.sql("DELETE FROM t WHERE n % 100 = 0");
    cluster.sql("CREATE TABLE stranger AS SELECT n FROM generate_series(1, 50000) n");
    cluster.sql("DROP TABLE still");
    cluster.sql("ALTER SYSTEM SET work_mem = '5MB'");
    cluster.sql("CHECKPOINT");
    let running = past.restore(&new).args(["--target-latest", "--delta"]).run().exits(4);
    running.stderr_has("a server runs in");
    cluster.stop();

    let refused = past.restore(&new).arg("--target-latest").run().exits(4);
    refused.stderr_has("is not empty").stderr_has("--delta keeps the files in it that are right");
    let dry = past.restore(&new).args(["--target-latest", "--delta", "--dry-run"]).run();
    let dry = dry.succeeds().stdout_has("  in place    this cluster, which is changed (--delta): ");
    dry.stdout_has("  removes     ").stdout_has("that do not belong there");
    let delta = past.restore(&new).args(["--target-latest", "--delta", "--json"]).run().succeeds();
    let done = &json(&delta)["done"];
    let [kept, written] = ["kept", "written"].map(|key| done[key].as_u64().unwrap());
    assert!(kept > written && written > 0, "{done}");
    assert!(done["removed_files"].as_u64() > Some(0), "{done}");
    past.restore(&fresh).arg("--target-latest").run().succeeds();
    expect_same(&new, &fresh);
    let cluster = recovered(&new);
    assert_eq!(cluster.value("SELECT count(*) FROM t"), "60001");
    assert_eq!(cluster.value("SELECT count(*) FROM still"), "20000");
}

#[test]
fn a_restore_that_is_killed_goes_on_and_ends_as_if_nothing_had_been() {
    let past = Past::new();
    let place = Scratch::new();
    let (new, fresh) = (place.join("new"), place.join("fresh"));
    let began = std::time::Instant::now();
    past.restore(&fresh).arg("--target-latest").run().succeeds();
    let usual = began.elapsed();
    let mut random = fastrand::Rng::with_seed(harness::seed());
    let mut killed = 0;
    for _ in 0..8 {
        let mut running = past.restore(&new).arg("--target-latest").spawn();
        std::thread::sleep(usual.mul_f64(random.f64()));
        running.kill();
        let output = running.wait();
        if output.code() == Some(0) {
            fs::remove_dir_all(&new).unwrap();
            continue;
        }
        killed += 1;
        let is_finished = !new.join("walden-restore.unfinished").exists();
        let has_control = new.join("global/pg_control").exists();
        if has_control && is_finished {
            // It was killed after its last word to the directory.
            fs::remove_dir_all(&new).unwrap();
        }
    }
    let other = past.restore(&new).arg("--target-immediate").run();
    let holds_one = new.join("walden-restore.unfinished").exists();
    if holds_one {
        other.exits(4).stderr_has("holds an unfinished restore of backup").stderr_has("--delta");
    } else {
        fs::remove_dir_all(&new).unwrap();
    }
    past.restore(&new).arg("--target-latest").run().succeeds();
    expect_same(&new, &fresh);
    assert!(killed > 0, "not one was killed");
}

#[test]
fn a_directory_of_another_cluster_is_never_touched() {
    let past = Past::new();
    let mut other = Cluster::start(ANY_MAJOR);
    other.stop();
    let before = tree(other.pgdata());
    let delta = past.restore(other.pgdata()).args(["--target-latest", "--delta"]).run().exits(4);
    delta.stderr_has("of another cluster").stderr_has("hint: ");
    assert!(tree(other.pgdata()) == before);
    let place = Scratch::new();
    fs::write(place.directory("full").join("mine"), "x").unwrap();
    let full = past.restore(&place.join("full")).args(["--target-latest", "--delta"]).run();
    full.exits(4).stderr_has("not empty: it holds mine");
}

#[test]
fn a_flipped_byte_is_found_on_both_ways_and_named() {
    let past = Past::new();
    let place = Scratch::new();
    let (new, whole) = (place.join("new"), place.join("whole"));
    let delta = || past.restore(&new).args(["--target-latest", "--delta"]).run();
    past.restore(&new).arg("--target-latest").run().succeeds();
    let path = past.source.value("SELECT pg_relation_filepath('t')");
    let at = 2_000_000;
    // One chunk is wrong, so only its frame is fetched; and in that a byte is flipped.
    let spoil = || {
        let mut content = fs::read(new.join(&path)).unwrap();
        content[at] ^= 1;
        fs::write(new.join(&path), &content).unwrap();
    };
    spoil();
    let (pack, frame) = past.frame_of(&path, at as u64);
    let good = fs::read(&pack).unwrap();
    let mut bad = good.clone();
    bad[(frame.start + frame.end) as usize / 2] ^= 1;
    fs::write(&pack, &bad).unwrap();
    let named = |output: Output| {
        let named = output.exits(30).stderr_has("place pack 0 of backup ").stderr_has(&path);
        named.stderr_has("data-00000").stderr_has("hint: ");
    };
    named(delta());
    assert!(!new.join("global/pg_control").exists());
    named(past.restore(&whole).arg("--target-latest").run());
    assert!(!whole.join("global/pg_control").exists());
    fs::write(&pack, &good).unwrap();
    past.restore(&whole).arg("--target-latest").run().succeeds();
    delta().succeeds();
    expect_same(&new, &whole);

    // A frame that nobody needs is not looked at, and a table that lies finds nothing.
    spoil();
    let (_, other) = past.frame_of("base/1/1259", 0);
    bad = good.clone();
    bad[other.start as usize + 20] ^= 1;
    fs::write(&pack, &bad).unwrap();
    delta().succeeds();
    spoil();
    bad = good.clone();
    bad[good.len() - 20] ^= 1;
    fs::write(&pack, &bad).unwrap();
    delta().exits(30).stderr_has("pack 0 of backup ").stderr_has("is not the one of its manifest");
    fs::write(&pack, &good).unwrap();
    delta().succeeds();
    expect_same(&new, &whole);
}

/// A page that WAL changes without an image of it, as VACUUM does without checksums, is one of
/// those that must not end recovery.
#[test]
fn one_database_comes_back_and_the_others_can_be_dropped() {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let source = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    for name in ["wanted", "other"] {
        source.sql(&format!("CREATE DATABASE {name}"));
        let mut session = source.session(name).unwrap();
        let rows = "SELECT n, repeat('x', 200) x FROM generate_series(1, 9000) n";
        session.query(&format!("CREATE TABLE t AS {rows}")).unwrap();
    }
    source.sql("CHECKPOINT");
    source.walden().arg("backup").run().succeeds();
    for name in ["wanted", "other"] {
        let mut session = source.session(name).unwrap();
        session.query("VACUUM t").unwrap();
        session.query("UPDATE t SET x = 'new' WHERE n % 10 = 0").unwrap();
    }
    source.archive_everything();
    let place = Scratch::new();
    let new = place.join("new");
    let restore = |names: &[&str]| {
        let walden = source.walden().arg("restore").arg(&new).arg("--target-latest");
        names.iter().fold(walden, |walden, name| walden.args(["--include-database", name]))
    };
    let unknown = restore(&["typo"]).run().exits(4);
    unknown.stderr_has("has no database typo").stderr_has("wanted");
    let restored = restore(&["wanted"]).run().succeeds();
    restored.stdout_has("the files of other are left empty").stdout_has("ignore_invalid_pages");
    let cluster = recovered(&new);
    let mut session = cluster.session("wanted").unwrap();
    let counted = session.query("SELECT count(*), sum((x = 'new')::int) FROM t").unwrap();
    assert_eq!(counted, [[Some("9000".to_owned()), Some("900".to_owned())]]);
    cluster.sql("DROP DATABASE other");
    assert_eq!(cluster.value("SELECT count(*) FROM pg_database WHERE datname = 'other'"), "0");
}

#[test]
fn one_file_is_had_as_the_source_has_it() {
    let past = Past::new();
    let place = Scratch::new();
    let path = past.source.value("SELECT pg_relation_filepath('still')");
    let folder = path.rsplit_once('/').unwrap().0;
    let expected = fs::read(past.source.pgdata().join(&path)).unwrap();
    let restore = |to: &Path| past.restore(to);

    let file = place.join("file");
    restore(&file).args(["--file", &path]).run().succeeds().stdout_has("1 file (");
    assert!(fs::read(&file).unwrap() == expected);
    restore(&file).args(["--file", &path]).run().exits(4).stderr_has("cannot make");
    let version = restore(Path::new("-")).args(["--file", "PG_VERSION"]).run().succeeds();
    assert_eq!(version.stdout, format!("{ANY_MAJOR}\n"));
    restore(Path::new("-"))
        .args(["--file", "base/9/9"])
        .run()
        .exits(4)
        .stderr_has("has no base/9/9");
    restore(Path::new("-")).args(["--file", &path, "--target-latest"]).run().exits(2);

    let some = place.join("some");
    let only =
        restore(&some).args(["--only", folder, "--only", "global/pg_control", "--json"]).run();
    let report = json(&only.succeeds());
    assert!(report["files"].as_u64() > Some(100), "{report}");
    assert!(fs::read(some.join(&path)).unwrap() == expected);
    assert!(some.join("global/pg_control").exists() && !some.join("recovery.signal").exists());
    assert_eq!(fs::read_dir(&some).unwrap().count(), 2, "base and global");

    // A pack with a wrong byte ends in an error, and leaves no half of a file.
    for pack in past.packs() {
        let mut bytes = fs::read(&pack).unwrap();
        for at in (0..bytes.len()).step_by(1000) {
            bytes[at] ^= 1;
        }
        fs::write(&pack, bytes).unwrap();
    }
    let half = place.join("half");
    restore(&half).args(["--file", &path]).run().exits(30);
    assert!(!half.exists());
}

//! Backups and restores that are killed, that find a damaged store, a full disk, a place they may
//! not write to, a store that goes away: what is left is whole, or is not called a backup.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;
use walden::host::privileges;

use crate::harness::scratch::SmallDisk;
use crate::harness::site::files_below;
use crate::harness::{self, ANY_MAJOR, Bucket, Cluster, Output, Scratch, Walden};

/// How often something is killed, or a byte is flipped.
const ROUNDS: &str = "WALDEN_TEST_FAULT_ROUNDS";
const FEW: u64 = 4;

/// A cluster of several packs, and where its backups go.
struct Kept {
    source: Cluster,
    repository: Scratch,
    place: Scratch,
}

impl Kept {
    #[track_caller]
    fn begin() -> Kept {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let source = Cluster::builder(ANY_MAJOR).data_checksums().archive_to(url, "main").start();
        fill(&source);
        Kept { source, repository, place: Scratch::new() }
    }

    fn backup(&self, mode: &str) -> Walden {
        self.source.walden().args(["backup", "--json", "--mode", mode])
    }

    #[track_caller]
    fn full(&self) -> String {
        id_of(&self.backup("local").run().succeeds())
    }

    #[track_caller]
    fn incremental(&self) -> String {
        id_of(&self.backup("local").arg("--incremental").run().succeeds())
    }

    fn restore(&self, id: &str, to: &str) -> Walden {
        let restore = self.source.walden().arg("restore").arg(self.place.join(to));
        restore.args(["--backup", id, "--target-immediate"])
    }

    /// The objects of a backup, packs and all.
    fn objects(&self, id: &str) -> Vec<PathBuf> {
        let home = self.repository.join("main").join(self.source.system_identifier());
        files_below(&home.join("backup").join(id))
    }

    #[track_caller]
    fn listed(&self) -> Vec<Value> {
        let list = self.source.walden().args(["list", "--json"]).run();
        let answer: Value = serde_json::from_str(&list.succeeds().stdout).unwrap();
        let clusters = answer["clusters"].as_array().expect("a list").iter();
        clusters.flat_map(|cluster| cluster["backups"].as_array().unwrap().clone()).collect()
    }

    fn is_whole(&self, to: &str) -> bool {
        self.place.join(to).join("global/pg_control").exists()
    }

    fn clear(&self, to: &str) {
        let directory = self.place.join(to);
        if directory.exists() {
            fs::remove_dir_all(directory).unwrap();
        }
    }

    fn content(&self, to: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        content(&self.place.join(to))
    }
}

/// 80 MiB that hardly compress, and an index.
fn fill(source: &Cluster) {
    source.sql(
        "CREATE TABLE kept AS SELECT n, sha512(n::text::bytea) a, sha512((n + 7)::text::bytea) b, \
         sha512((n * 3)::text::bytea) c FROM generate_series(1, 330000) n; \
         CREATE INDEX ON kept (n)",
    );
    // Else the next to look at a page changes it.
    source.sql("VACUUM (FREEZE) kept");
}

fn id_of(output: &Output) -> String {
    let report: Value = serde_json::from_str(&output.stdout).expect("a report");
    report["id"].as_str().expect("an id").to_owned()
}

/// All files but the settings, which tell the time.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_below(directory).into_iter();
    let files = files.map(|path| (path.strip_prefix(directory).unwrap().to_owned(), path));
    let files = files.filter(|(relative, _)| *relative != Path::new("postgresql.auto.conf"));
    files.map(|(relative, path)| (relative, fs::read(path).unwrap())).collect()
}

#[track_caller]
fn expect_same(found: &BTreeMap<PathBuf, Vec<u8>>, expected: &BTreeMap<PathBuf, Vec<u8>>) {
    let names = |content: &BTreeMap<PathBuf, Vec<u8>>| content.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    let others: Vec<_> = expected.iter().filter(|(path, bytes)| found[*path] != **bytes).collect();
    assert!(others.is_empty(), "{:?}", others.iter().map(|(path, _)| path).collect::<Vec<_>>());
}

/// Another bit in one byte, as a failing disk makes it; the same again mends it.
fn flip(object: &Path, at: u64) {
    let mut bytes = fs::read(object).unwrap();
    bytes[at as usize] ^= 0x10;
    fs::write(object, bytes).unwrap();
}

fn name_of(object: &Path) -> String {
    object.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_flipped_byte_in_a_pack_is_caught_before_postgresql_sees_it_and_named() {
    let kept = Kept::begin();
    let id = kept.full();
    kept.restore(&id, "right").run().succeeds();
    let right = kept.content("right");
    let mut random = Rng::with_seed(harness::seed());
    let packs: Vec<_> =
        kept.objects(&id).into_iter().filter(|path| name_of(path).starts_with("data-")).collect();
    assert!(packs.len() >= 3, "{packs:?}");
    for round in 0..harness::amount(ROUNDS, FEW) {
        let pack = &packs[round as usize % packs.len()];
        let at = random.u64(..fs::metadata(pack).unwrap().len());
        println!("{} byte {at}", name_of(pack));
        flip(pack, at);
        // Read whole.
        let restored = kept.restore(&id, "wrong").run().exits(30);
        restored.stderr_has(&name_of(pack));
        assert!(!kept.is_whole("wrong"), "a server would start on it");
        // Read by ranges: found where it is needed, no harm where it is not.
        kept.clear("wrong");
        copy(&kept.place.join("right"), &kept.place.join("wrong"));
        let changed = change_pages(&kept.place.join("wrong"), 20, &mut random);
        let delta = kept.restore(&id, "wrong").arg("--delta").run();
        match delta.code() {
            Some(0) => expect_same(&kept.content("wrong"), &right),
            _ => {
                delta.exits(30).stderr_has(&name_of(pack));
                assert!(!kept.is_whole("wrong"), "{changed} pages");
            }
        }
        flip(pack, at);
        // It goes on from there.
        kept.restore(&id, "wrong").arg("--delta").run().succeeds();
        expect_same(&kept.content("wrong"), &right);
        kept.clear("wrong");
    }
}

#[test]
fn a_flipped_byte_in_a_backup_that_others_rest_on_is_caught_and_named() {
    let kept = Kept::begin();
    let full = kept.full();
    kept.source.sql("UPDATE kept SET a = b WHERE n % 1000 = 0");
    let child = kept.incremental();
    let parents: Vec<_> =
        kept.objects(&full).into_iter().filter(|path| name_of(path).starts_with("data-")).collect();
    let middle = fs::metadata(&parents[1]).unwrap().len() / 2;
    flip(&parents[1], middle);
    let restored = kept.restore(&child, "wrong").run().exits(30);
    restored.stderr_has(&name_of(&parents[1])).stderr_has(&full);
    assert!(!kept.is_whole("wrong"));
    kept.clear("wrong");
    // Gone is as bad, and known before anything is placed.
    fs::remove_file(&parents[1]).unwrap();
    kept.restore(&child, "wrong").run().stderr_has(&full);
    assert!(!kept.is_whole("wrong"));
    let usable = kept.listed().into_iter().filter(|backup| backup["usable"] == true);
    println!("{} usable", usable.count());
}

#[test]
fn a_backup_that_is_killed_is_none_and_the_next_one_works() {
    let kept = Kept::begin();
    let mut random = Rng::with_seed(harness::seed());
    for mode in ["local", "stream"] {
        let began = Instant::now();
        let mut whole = vec![id_of(&kept.backup(mode).run().succeeds())];
        let usual = began.elapsed();
        for _ in 0..harness::amount(ROUNDS, FEW) {
            let mut running = kept.backup(mode).spawn();
            let instant = usual.mul_f64(random.f64());
            thread::sleep(instant);
            running.kill();
            let output = running.wait();
            println!("{mode}: killed after {instant:?}");
            if output.code() == Some(0) {
                whole.push(id_of(&output));
            }
            for backup in kept.listed() {
                let id = backup["id"].as_str().expect("an id").to_owned();
                assert_eq!(backup["usable"], true, "{backup:#}");
                let has_manifest = |path: &PathBuf| path.ends_with("manifest.json.zst");
                assert!(kept.objects(&id).iter().any(has_manifest), "{id}");
            }
            kept.source.wait_until("NOT EXISTS (SELECT FROM pg_stat_progress_basebackup)");
        }
        whole.push(id_of(&kept.backup(mode).run().succeeds()));
        let listed = kept.listed();
        let is_listed = |id: &&String| listed.iter().any(|backup| backup["id"] == id.as_str());
        assert_eq!(whole.iter().filter(is_listed).count(), whole.len());
        let last = whole.last().expect("one at least");
        kept.restore(last, "after").run().succeeds();
        kept.clear("after");
    }
}

#[test]
fn a_restore_that_is_killed_goes_on_where_it_was() {
    let kept = Kept::begin();
    kept.full();
    kept.source.sql("UPDATE kept SET a = b WHERE n % 500 = 0");
    let id = kept.incremental();
    let began = Instant::now();
    kept.restore(&id, "right").run().succeeds();
    let usual = began.elapsed();
    let right = kept.content("right");
    let mut random = Rng::with_seed(harness::seed());
    for round in 0..harness::amount(ROUNDS, FEW) {
        let is_delta = round % 2 == 1;
        if is_delta {
            copy(&kept.place.join("right"), &kept.place.join("killed"));
            change_pages(&kept.place.join("killed"), 50, &mut random);
        }
        let restore = || {
            let restore = kept.restore(&id, "killed");
            if is_delta { restore.arg("--delta") } else { restore }
        };
        // Now and then a second time.
        let kills = 1 + random.u32(..2);
        for _ in 0..kills {
            let mut running = restore().spawn();
            let instant = usual.mul_f64(random.f64());
            println!("delta {is_delta}: killed after {instant:?}");
            thread::sleep(instant);
            running.kill();
            if running.wait().code() == Some(0) {
                kept.clear("killed");
            }
        }
        if is_delta && !kept.place.join("killed").exists() {
            continue;
        }
        restore().run().succeeds();
        expect_same(&kept.content("killed"), &right);
        kept.clear("killed");
    }
}

#[test]
fn a_disk_that_is_full_ends_a_restore_and_room_lets_it_go_on() {
    let kept = Kept::begin();
    let id = kept.full();
    let small = kept.place.directory("small");
    let Some(disk) = SmallDisk::mount(&small, 60) else { return };
    let refused = kept.restore(&id, "small/data").run();
    assert_ne!(refused.code(), Some(0), "{refused}");
    assert!(refused.stderr.to_lowercase().contains("space"), "{refused}");
    assert!(!kept.is_whole("small/data"));
    disk.resize(400);
    kept.restore(&id, "small/data").run().succeeds();
    kept.restore(&id, "right").run().succeeds();
    expect_same(&kept.content("small/data"), &kept.content("right"));
    drop(disk);
}

#[test]
fn where_nothing_may_be_written_nothing_is_restored() {
    let kept = Kept::begin();
    let id = kept.full();
    if !privileges::is_root() {
        return;
    }
    let closed = kept.place.join("closed");
    fs::create_dir(&closed).unwrap();
    let refused = kept.restore(&id, "closed/data").run();
    assert!(matches!(refused.code(), Some(4 | 6)), "{refused}");
    assert!(refused.stderr.contains("closed"), "{refused}");
    assert_eq!(fs::read_dir(&closed).unwrap().count(), 0);
}

#[test]
fn a_store_that_is_away_for_a_while_is_waited_for() {
    let bucket = Bucket::start();
    let mut builder = Cluster::builder(ANY_MAJOR).data_checksums().archive_to(bucket.url(), "main");
    for (name, value) in bucket.environment() {
        builder = builder.env(name, value);
    }
    let source = builder.start();
    fill(&source);
    let place = Scratch::new();
    let away_amid = |method: &'static str| {
        let before = bucket.proxy.count(method);
        let begun = || bucket.proxy.count(method) > before + 1;
        assert!(harness::cluster::within(Duration::from_secs(60), begun));
        bucket.proxy.refuse_connections();
        thread::sleep(Duration::from_secs(3));
        bucket.proxy.accept_connections();
    };
    for mode in ["local", "stream"] {
        let running = source.walden().args(["backup", "--json", "--mode", mode]).spawn();
        away_amid("PUT");
        let id = id_of(&running.wait().succeeds());
        let to = place.join(mode);
        let restore = source.walden().arg("restore").arg(&to).args(["--backup", &id]);
        let running = restore.arg("--target-immediate").spawn();
        away_amid("GET");
        running.wait().succeeds();
        let mut restored = Cluster::over(ANY_MAJOR, &to);
        for (name, value) in bucket.environment() {
            restored.set_env(name, &value);
        }
        restored.start_again();
        assert_eq!(restored.value("SELECT count(*) FROM kept"), "330000");
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// So many pages of the databases get other bytes.
fn change_pages(directory: &Path, count: usize, random: &mut Rng) -> usize {
    let files = files_below(&directory.join("base"));
    let files: Vec<_> = files.iter().filter(|path| fs::metadata(path).unwrap().len() > 0).collect();
    for _ in 0..count {
        let path = random.choice(&files).expect("a file");
        let mut bytes = fs::read(path).unwrap();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 0x20;
        fs::write(path, bytes).unwrap();
    }
    count
}

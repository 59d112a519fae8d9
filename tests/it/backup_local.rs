//! `backup --mode local`: what it reads beside a running server is a backup like any other.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use walden::postgres::MajorVersion;

use crate::harness::cluster::within;
use crate::harness::site::files_below;
use crate::harness::soundness;
use crate::harness::{ANY_MAJOR, Cluster, ClusterBuilder, Load, Scratch, Walden};

/// A cluster that archives, and where to.
struct Site {
    cluster: Cluster,
    repository: Scratch,
}

impl Site {
    fn start(builder: ClusterBuilder) -> Site {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let cluster = builder.archive_to(url, "main").start();
        cluster.archive_everything();
        Site { cluster, repository }
    }

    fn backup(&self) -> Walden {
        self.cluster.walden().args(["backup", "--mode", "local", "--json"])
    }

    fn manifests(&self) -> Vec<PathBuf> {
        let mut files = files_below(self.repository.path());
        files.retain(|file| file.ends_with("manifest.json.zst"));
        files
    }

    fn packs(&self, id: &str) -> Vec<PathBuf> {
        let place = format!("main/{}/backup/{id}", self.cluster.system_identifier());
        let mut packs = files_below(&self.repository.path().join(place));
        packs.retain(|file| file.to_string_lossy().contains("/data-"));
        packs
    }

    /// A backup unpacked by hand: packs one after another, zstd, tar.
    fn unpack(&self, id: &str) -> Scratch {
        let mut stream = Vec::new();
        for pack in self.packs(id) {
            let raw = zstd::stream::decode_all(&fs::read(pack).unwrap()[..]).unwrap();
            stream.extend_from_slice(&raw);
        }
        let target = Scratch::new();
        tar::Archive::new(&stream[..]).unpack(target.path()).unwrap();
        target
    }

    /// The newest backup, recovered to the end of the archive.
    fn restore(&self, place: &Scratch) -> Cluster {
        let target = place.join("restored");
        let spaces = place.directory("tablespaces");
        let mut restore = self.cluster.walden().arg("restore").arg(&target);
        restore = restore.args(["--target-latest", "--target-action", "promote"]);
        restore.arg("--tablespace-root").arg(&spaces).run().succeeds();
        let mut restored = Cluster::over(self.cluster.major(), &target);
        restored.start_again();
        restored.wait_until("NOT pg_is_in_recovery()");
        restored
    }
}

fn report(answer: &str) -> Value {
    serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Every file that walden's `backup_manifest` lists is there with its size and CRC-32C, and none
/// besides.
#[track_caller]
fn assert_is_what_its_manifest_says(directory: &Path) {
    let manifest = fs::read(directory.join("backup_manifest")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let listed = manifest["Files"].as_array().unwrap();
    assert!(listed.len() > 500, "{} files", listed.len());
    for file in listed {
        let path = file["Path"].as_str().unwrap();
        let content = fs::read(directory.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(content.len() as u64, file["Size"].as_u64().unwrap(), "{path}");
        let crc = crc_fast::crc32_iscsi(&content).to_le_bytes();
        let hex: String = crc.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, file["Checksum"].as_str().unwrap(), "{path}");
    }
    assert_eq!(files_below(directory).len(), listed.len() + 1, "backup_manifest and no more");
}

fn every_version_is_restored(major: MajorVersion) {
    let builder = Cluster::builder(major).data_checksums().tablespace("space");
    let site = Site::start(builder.setting("allow_in_place_tablespaces", "on"));
    let cluster = &site.cluster;
    soundness::bring_amcheck(cluster);
    cluster.sql("CREATE TABLESPACE inside LOCATION ''");
    cluster.sql(
        "CREATE TABLE here AS SELECT n, md5(n::text) AS what FROM generate_series(1, 20000) n; \
         CREATE INDEX ON here (n); \
         CREATE TABLE there TABLESPACE space AS SELECT * FROM here; \
         CREATE TABLE within TABLESPACE inside AS SELECT * FROM here; \
         CREATE UNLOGGED TABLE unlogged AS SELECT * FROM here",
    );
    cluster.sql("CREATE DATABASE other");
    let unlogged = cluster.value("SELECT pg_relation_filepath('unlogged')");
    let mut session = cluster.session("postgres").unwrap();
    session.query("CREATE TEMP TABLE temporary AS SELECT * FROM here").unwrap();
    let temporary = session.query("SELECT pg_relation_filepath('temporary')").unwrap();
    let temporary = temporary[0][0].clone().unwrap();
    let load = Load::start(cluster, 2, 8);

    let output = site.backup().args(["--jobs", "3"]).run().succeeds();
    let report = report(&output.stdout);
    assert_eq!(report["mode"], "local");
    let id = report["id"].as_str().unwrap();
    let unpacked = site.unpack(id);
    let at = |path: &str| unpacked.path().join(path);
    assert_is_what_its_manifest_says(unpacked.path());
    assert!(!at(&unlogged).exists() && at(&format!("{unlogged}_init")).exists());
    assert!(cluster.pgdata().join(&temporary).exists() && !at(&temporary).exists());
    assert!(at("pg_wal/archive_status").is_dir() && !at("postmaster.pid").exists());
    assert_eq!(report["tablespaces"].as_array().unwrap().len(), 1);

    let ledger = load.finish();
    cluster.archive_everything();
    let place = Scratch::new();
    let restored = site.restore(&place);
    ledger.expect_all_in(&restored);
    for table in ["here", "there", "within"] {
        let digest = format!("SELECT count(*), sum(hashtext(t::text)) FROM {table} t");
        assert_eq!(restored.sql(&digest), cluster.sql(&digest), "{table}");
    }
    assert_eq!(restored.value("SELECT count(*) FROM unlogged"), "0");
    soundness::expect_sound(&restored);
}

#[test]
fn fifteen_is_restored_with_all_it_has() {
    every_version_is_restored(MajorVersion(15));
}

#[test]
fn sixteen_is_restored_with_all_it_has() {
    every_version_is_restored(MajorVersion(16));
}

#[test]
fn seventeen_is_restored_with_all_it_has() {
    every_version_is_restored(MajorVersion(17));
}

#[test]
fn eighteen_is_restored_with_all_it_has() {
    every_version_is_restored(MajorVersion(18));
}

#[test]
fn a_damaged_page_is_named_and_the_backup_is_marked() {
    let site = Site::start(Cluster::builder(ANY_MAJOR).data_checksums());
    let cluster = &site.cluster;
    cluster.sql(
        "CREATE SCHEMA \"My\"; \
         CREATE TABLE \"My\".damaged AS SELECT n, repeat('x', 500) FROM generate_series(1, 500) n",
    );
    let path = cluster.value("SELECT pg_relation_filepath('\"My\".damaged')");
    cluster.sql("CHECKPOINT");
    let file = fs::File::options().read(true).write(true).open(cluster.pgdata().join(&path));
    let (file, mut byte) = (file.unwrap(), [0]);
    let at = 7 * 8192 + 5000;
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();

    let output = site.backup().run().exits(5);

    let whose = format!("block 7 of postgres.\"My\".damaged, in {path} at byte 57344");
    let output = output.stderr_has(&whose).stderr_has("1 page damaged on the server itself");
    let report = report(&output.stdout);
    assert_eq!((&report["damaged"], &report["damaged_pages"][0]["block"]), (&1.into(), &7.into()));
    assert_eq!(report["damaged_pages"][0]["path"], path);
    let id = report["id"].as_str().unwrap();
    cluster.walden().arg("list").run().succeeds().stdout_has(&format!("{id} has 1 page damaged"));
    cluster.walden().args(["list", id]).run().succeeds().stdout_has("damaged on the server");
    // It is the page as it is, and not one of zeros.
    assert_is_what_its_manifest_says(site.unpack(id).path());

    file.write_all_at(&byte, at).unwrap();
    let sound = site.backup().run().succeeds();
    assert!(!sound.stderr.contains("damaged"), "{sound}");
}

#[test]
fn a_role_without_the_rights_is_told_which_grant_lets_it() {
    let site = Site::start(Cluster::builder(ANY_MAJOR));
    let cluster = &site.cluster;
    cluster.sql("CREATE ROLE plain LOGIN");
    let plain = |mode: &str| {
        let plain =
            cluster.walden().args(["backup", "--mode", mode, "--dbname", "dbname=postgres"]);
        plain.env("PGUSER", "plain").arg("--pgdata").arg(cluster.pgdata())
    };
    let grant = "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) \
                 TO plain";
    plain("local").run().exits(4).stderr_has(grant);
    // Neither by files nor by the protocol.
    plain("auto").arg("-v").run().exits(6).stderr_has("may not execute pg_backup_start");

    cluster.sql(grant);
    plain("auto").arg("-v").run().succeeds().stderr_has("(--mode local)");
}

#[test]
fn files_that_are_not_the_servers_are_not_taken_for_them() {
    let site = Site::start(Cluster::builder(ANY_MAJOR));
    let cluster = &site.cluster;
    let scratch = Scratch::new();
    let copy = scratch.join("copy");
    // As a snapshot would have them, the lock file of the running server included.
    for file in ["global/pg_control", "postmaster.pid"] {
        let target = copy.join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(cluster.pgdata().join(file), target).unwrap();
    }
    walden::host::privileges::give_tree(&scratch.path().join("copy"), server_user().as_ref())
        .unwrap();
    let backup = || site.backup().arg("--pgdata").arg(&copy);
    backup().run().exits(4).stderr_has("is not the directory that the server works in");
    assert_eq!(cluster.value("SELECT count(*) FROM pg_stat_progress_basebackup"), "0");
    fs::remove_file(copy.join("postmaster.pid")).unwrap();
    // The server itself says where its files are.
    backup().run().succeeds().stderr_has("is read instead of pgdata");
}

fn server_user() -> Option<walden::host::privileges::User> {
    walden::host::privileges::server_user().unwrap()
}

#[test]
fn a_standby_gives_a_local_backup_that_recovers() {
    let site = Site::start(Cluster::builder(ANY_MAJOR).data_checksums());
    site.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS n");
    site.cluster.archive_everything();
    let standby = Cluster::standby_of(&site.cluster);
    standby.wait_until("EXISTS (SELECT FROM pg_tables WHERE tablename = 't')");
    let mut running = standby.walden().args(["backup", "--mode", "local", "--json"]).spawn();
    let finished = within(std::time::Duration::from_secs(60), || {
        // The end of the standby's replay lies in a segment that only the primary can finish.
        site.cluster.write_wal(1);
        running.has_ended()
    });
    assert!(finished, "{}", standby.log());
    let report = report(&running.wait().succeeds().stdout);
    assert_eq!((&report["from_standby"], &report["mode"]), (&true.into(), &"local".into()));
    let unpacked = site.unpack(report["id"].as_str().unwrap());
    assert_is_what_its_manifest_says(unpacked.path());
    let label = fs::read_to_string(unpacked.path().join("backup_label")).unwrap();
    assert!(label.contains("BACKUP FROM: standby"), "{label}");
    site.cluster.archive_everything();
    let place = Scratch::new();
    let restored = site.restore(&place);
    assert_eq!(restored.value("SELECT count(*), sum(n) FROM t"), "10000");
}

#[test]
fn a_promotion_in_the_middle_ends_the_backup_of_a_standby() {
    let site = Site::start(Cluster::builder(ANY_MAJOR));
    site.cluster.archive_everything();
    let standby = Cluster::standby_of(&site.cluster);
    let backup = standby.walden().args(["backup", "--mode", "local", "--max-rate", "8MiB"]);
    let running = backup.spawn();
    standby.wait_until(
        "EXISTS (SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
         AND query LIKE '%pg_is_in_recovery%' AND state = 'idle')",
    );
    standby.promote();
    running.wait().exits(4).stderr_has("was promoted during the backup");
    assert_eq!(site.manifests(), Vec::<PathBuf>::new());
}

//! `backup` from real servers: what it stores is what the server sent, and what cannot be a backup
//! never looks like one.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use walden::postgres::MajorVersion;

use crate::harness::cluster::within;
use crate::harness::site::files_below;
use crate::harness::{ANY_MAJOR, Cluster, ClusterBuilder, Running, Scratch, Walden, every_major};

/// A cluster that archives, and where to.
struct Archiving {
    cluster: Cluster,
    repository: Scratch,
}

impl Archiving {
    fn start(major: MajorVersion) -> Archiving {
        Archiving::start_with(Cluster::builder(major))
    }

    fn start_with(builder: ClusterBuilder) -> Archiving {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let cluster = builder.archive_to(url, "main").start();
        cluster.archive_everything();
        Archiving { cluster, repository }
    }

    fn backup(&self) -> Walden {
        self.cluster.walden().args(["backup", "--mode", "stream"])
    }

    /// So slow that a test can do something meanwhile.
    fn start_slow_backup(&self) -> Running {
        let running = self.backup().args(["--max-rate", "1MiB"]).spawn();
        self.cluster.wait_until(
            "EXISTS (SELECT FROM pg_stat_progress_basebackup WHERE backup_streamed > 1000000)",
        );
        running
    }

    fn manifests(&self) -> Vec<PathBuf> {
        let mut files = files_below(self.repository.path());
        files.retain(|file| file.ends_with("manifest.json.zst"));
        files
    }

    /// A backup unpacked by hand: packs one after another, zstd, tar.
    fn unpack(&self, id: &str) -> Scratch {
        let place = format!("main/{}/backup/{id}", self.cluster.system_identifier());
        let mut packs = files_below(&self.repository.path().join(place));
        packs.retain(|file| file.to_string_lossy().contains("/data-"));
        let mut stream = Vec::new();
        for pack in packs {
            let raw = zstd::stream::decode_all(&fs::read(pack).unwrap()[..]).unwrap();
            stream.extend_from_slice(&raw);
        }
        let target = Scratch::new();
        tar::Archive::new(&stream[..]).unpack(target.path()).unwrap();
        target
    }
}

fn report(answer: &str) -> Value {
    serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Every file of the server's own manifest is there with its size and CRC-32C, and none besides.
#[track_caller]
fn assert_is_what_the_server_sent(directory: &Path) {
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

#[test]
fn every_version_is_backed_up_as_it_was_sent_tablespaces_too() {
    for major in every_major() {
        let archiving = Archiving::start_with(Cluster::builder(major).tablespace("space"));
        let sql =
            "CREATE TABLE elsewhere TABLESPACE space AS SELECT generate_series(1, 10000) AS n";
        archiving.cluster.sql(sql);

        let output = archiving.backup().arg("--json").run().succeeds();

        let report = report(&output.stdout);
        let id = report["id"].as_str().unwrap();
        assert_eq!(report["server_version_num"].as_u64().unwrap() / 10_000, u64::from(major.0));
        assert_eq!(report["tablespaces"].as_array().unwrap().len(), 1);
        assert_eq!(archiving.manifests().len(), 1);
        let unpacked = archiving.unpack(id);
        assert_is_what_the_server_sent(unpacked.path());
        let oid = report["tablespaces"][0]["oid"].as_u64().unwrap();
        let in_space = files_below(&unpacked.path().join(format!("pg_tblspc/{oid}")));
        assert!(!in_space.is_empty(), "the tablespace's files come along");
        assert!(!unpacked.path().join("pg_wal/000000010000000000000001").exists());
    }
}

#[test]
fn a_broken_archive_command_is_noticed_before_anything_is_copied() {
    let mut archiving = Archiving::start(ANY_MAJOR);
    archiving.cluster.configure("archive_command", "'false'");
    archiving.cluster.reload();
    let segments = archiving.cluster.write_wal(1);
    archiving.cluster.wait_until("EXISTS (SELECT FROM pg_stat_archiver WHERE failed_count > 0)");

    archiving.backup().run().exits(4).stderr_has(&segments[0]).stderr_has("--no-archive-check");

    archiving.cluster.configure("archive_command", "''");
    archiving.cluster.reload();
    archiving.cluster.wait_until("current_setting('archive_command') = ''");
    let quiet = archiving.cluster.walden();
    archiving.cluster.sql("SELECT pg_stat_reset_shared('archiver')");
    quiet.arg("backup").run().exits(4).stderr_has("archive_command is empty");
    let place = format!("main/{}/backup", archiving.cluster.system_identifier());
    assert!(!archiving.repository.join(&place).exists(), "nothing was copied");
}

#[test]
fn archiving_that_leads_elsewhere_ends_a_backup_in_its_first_minute() {
    let mut archiving = Archiving::start(ANY_MAJOR);
    archiving.cluster.configure("archive_command", "'/bin/true'");
    archiving.cluster.reload();
    archiving.cluster.wait_until("current_setting('archive_command') = '/bin/true'");
    archiving.cluster.write_wal(2);
    archiving.cluster.wait_archived();

    let began = Instant::now();
    let slow = archiving.backup().env("WALDEN_BACKUP_ARCHIVE_CHECK", "2s");
    let slow = slow.args(["--max-rate", "1MiB"]).run().exits(4);
    slow.stderr_has("no WAL of this backup arrived at").stderr_has("archived well");
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());

    // Without the check it waits for its WAL, in vain.
    let blind = archiving.backup().args(["--no-archive-check", "--wal-timeout", "2s"]);
    blind.run().exits(4).stderr_has("WAL segment 0000000100000000").stderr_has("is not at");
    assert_eq!(archiving.manifests(), Vec::<PathBuf>::new());
}

#[test]
fn an_interrupted_backup_leaves_no_manifest_and_no_backup_running() {
    let archiving = Archiving::start(ANY_MAJOR);
    let mut running = archiving.start_slow_backup();

    running.terminate();

    let told = Instant::now();
    running.wait().exits(75).stderr_has("no backup was published");
    assert!(told.elapsed() < Duration::from_secs(20));
    let cluster = &archiving.cluster;
    cluster.wait_until("NOT EXISTS (SELECT FROM pg_stat_progress_basebackup)");
    assert_eq!(archiving.manifests(), Vec::<PathBuf>::new());
    archiving.backup().run().succeeds();
}

#[test]
fn a_server_that_goes_away_leaves_no_manifest() {
    let mut archiving = Archiving::start(ANY_MAJOR);
    let running = archiving.start_slow_backup();

    archiving.cluster.crash();

    running.wait().exits(6);
    assert_eq!(archiving.manifests(), Vec::<PathBuf>::new());
}

#[test]
fn two_backups_at_once_are_two_backups() {
    let archiving = Archiving::start(ANY_MAJOR);
    let backups =
        [archiving.backup().arg("--json").spawn(), archiving.backup().arg("--json").spawn()];
    let ids = backups.map(|running| {
        let output = running.wait().succeeds();
        report(&output.stdout)["id"].as_str().unwrap().to_owned()
    });
    assert_ne!(ids[0], ids[1]);
    assert_eq!(archiving.manifests().len(), 2);
    for id in ids {
        assert_is_what_the_server_sent(archiving.unpack(&id).path());
    }
}

#[test]
fn a_server_that_finds_damaged_pages_gets_no_backup() {
    let mut archiving = Archiving::start_with(Cluster::builder(ANY_MAJOR).data_checksums());
    archiving.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS n");
    let file = archiving.cluster.value("SELECT pg_relation_filepath('t')");
    archiving.cluster.stop();
    let path = archiving.cluster.pgdata().join(file);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8192 + 4000] ^= 1;
    fs::write(&path, bytes).unwrap();
    archiving.cluster.start_again();

    archiving.backup().run().exits(30).stderr_has("damaged pages");

    assert_eq!(archiving.manifests(), Vec::<PathBuf>::new());
}

#[test]
fn a_standby_gives_a_backup_once_the_primary_has_archived_its_wal() {
    let archiving = Archiving::start(ANY_MAJOR);
    let standby = Cluster::standby_of(&archiving.cluster);
    // The end of the standby's replay lies in a segment that only the primary can finish.
    let running = standby.walden().args(["backup", "--mode", "stream", "--json"]).spawn();
    let finished = within(Duration::from_secs(60), || {
        archiving.cluster.write_wal(1);
        !archiving.manifests().is_empty()
    });
    assert!(finished, "{}", standby.log());
    let output = running.wait().succeeds();
    let report = report(&output.stdout);
    assert_eq!(report["from_standby"], Value::Bool(true));
    assert_eq!(report["names"]["databases"], 2);
    assert_is_what_the_server_sent(archiving.unpack(report["id"].as_str().unwrap()).path());
}

#[test]
fn a_repository_to_which_nothing_is_archived_is_no_place_for_a_backup() {
    let archiving = Archiving::start(ANY_MAJOR);
    let other = Scratch::new();
    let elsewhere = archiving.backup().repository(format!("file://{}", other.path().display()));
    // The server has archived, and not to there: known before anything is copied.
    elsewhere.clone().run().exits(20).stderr_has("cluster.json");
    elsewhere.arg("--no-archive-check").run().exits(20).stderr_has("cluster.json");
    assert!(files_below(other.path()).is_empty());
}

#[test]
fn a_server_that_was_just_told_to_archive_gets_its_first_backup() {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let cluster = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    cluster.walden().arg("backup").run().succeeds();
}

#[test]
fn an_archive_that_began_after_a_promotion_gets_the_history_by_the_backup() {
    let mut archiving = Archiving::start(ANY_MAJOR);
    archiving.cluster.stop();
    archiving.cluster.configure("restore_command", "'false'");
    archiving.cluster.signal("standby.signal");
    archiving.cluster.start_again();
    archiving.cluster.promote();
    archiving.cluster.archive_everything();
    let files = || files_below(archiving.repository.path()).into_iter();
    let is_history = |path: &PathBuf| path.ends_with("00000002.history.zst");
    fs::remove_file(files().find(is_history).unwrap()).unwrap();

    archiving.backup().run().succeeds();
    assert!(files().any(|path| is_history(&path)));
    let there = archiving.cluster.scratch().join("restored");
    let restore = archiving.cluster.walden().arg("restore").arg(&there);
    restore.args(["--target-latest", "--dry-run"]).run().succeeds();
}

/// A server that takes only TLS and a password from afar.
fn guarded() -> (Archiving, PathBuf) {
    let mut archiving = Archiving::start_with(
        Cluster::builder(ANY_MAJOR).setting("password_encryption", "'scram-sha-256'"),
    );
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let pgdata = archiving.cluster.pgdata().to_owned();
    let root = archiving.cluster.scratch().join("root.crt");
    fs::write(&root, certificate.pem()).unwrap();
    for (name, content) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())]
    {
        let path = pgdata.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let owner = walden::host::privileges::server_user().unwrap();
        walden::host::privileges::give(&path, owner.as_ref()).unwrap();
    }
    let hba = "local all all trust\nlocal replication all trust\n\
               hostssl replication walden localhost scram-sha-256\n\
               hostssl postgres walden localhost scram-sha-256\n";
    fs::write(pgdata.join("pg_hba.conf"), hba).unwrap();
    archiving.cluster.sql("CREATE ROLE walden LOGIN REPLICATION PASSWORD 's3cret: \\ word'");
    archiving.cluster.stop();
    archiving.cluster.configure("ssl", "on");
    (archiving, root)
}

/// A port nobody has, as far as one can know.
fn free_port() -> u16 {
    std::net::TcpListener::bind("localhost:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn tls_and_a_password_from_the_pass_file_reach_a_server_far_away() {
    let (mut archiving, root) = guarded();
    let port = free_port();
    archiving.cluster.listen_on(port);
    archiving.cluster.start_again();
    let pass_file = archiving.cluster.scratch().join("pgpass");
    let write_pass = |password: &str| {
        fs::write(&pass_file, format!("localhost:*:*:walden:{password}\n")).unwrap();
        fs::set_permissions(&pass_file, fs::Permissions::from_mode(0o600)).unwrap();
        let owner = walden::host::privileges::server_user().unwrap();
        walden::host::privileges::give(&pass_file, owner.as_ref()).unwrap();
    };
    let far = |backup: Walden| {
        backup
            .env("PGHOST", "localhost")
            .env("PGPORT", port.to_string())
            .env("PGUSER", "walden")
            .env("PGPASSFILE", &pass_file)
            .env("PGSSLROOTCERT", &root)
            .env("PGSSLMODE", "verify-full")
            .env("PGCHANNELBINDING", "require")
    };

    write_pass(r"s3cret\: \\ word");
    far(archiving.backup()).run().succeeds();

    write_pass("wrong");
    far(archiving.backup()).run().exits(6).stderr_has("28P01").stderr_has("PGPASSFILE");

    write_pass(r"s3cret\: \\ word");
    let plain = far(archiving.backup()).env("PGSSLMODE", "disable");
    plain.env("PGCHANNELBINDING", "prefer").run().exits(6).stderr_has("pg_hba.conf");
    let no_trust = far(archiving.backup()).env("PGSSLROOTCERT", "system");
    no_trust.run().exits(6).stderr_has("TLS");
    let other_name = far(archiving.backup()).env("PGHOST", "127.0.0.1");
    other_name.run().exits(6).stderr_has("not valid for name");
    assert_eq!(archiving.manifests().len(), 1);
}

#[test]
fn a_pack_is_ordinary_zstd_of_ordinary_tar() {
    let archiving = Archiving::start(ANY_MAJOR);
    let output = archiving.backup().arg("--quiet").run().succeeds();
    let unpacked = archiving.unpack(output.stdout.trim());
    let mut version = String::new();
    fs::File::open(unpacked.path().join("PG_VERSION"))
        .unwrap()
        .read_to_string(&mut version)
        .unwrap();
    assert_eq!(version.trim(), ANY_MAJOR.to_string());
    assert!(unpacked.path().join("backup_label").exists());
    assert!(unpacked.path().join("pg_wal/archive_status").is_dir());
}

//! Incremental backups: what a chain of them holds is the cluster, block by block; and where none
//! can be taken a full one is, with the reason.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use walden::postgres::MajorVersion;

use crate::harness::cluster::within;
use crate::harness::combiner::{assert_pages_are_right, combine};
use crate::harness::site::files_below;
use crate::harness::{ANY_MAJOR, Cluster, ClusterBuilder, Load, Scratch, Walden};

/// A cluster that archives, and what its backups were.
struct Archiving {
    cluster: Cluster,
    repository: Scratch,
    /// The chain so far, the full one first.
    chain: Vec<String>,
    mode: &'static str,
}

/// Dropped in this order.
struct Recovered {
    cluster: Cluster,
    directory: Scratch,
    _spaces: Scratch,
}

fn stream_of(major: u16) -> ClusterBuilder {
    Cluster::builder(MajorVersion(major)).data_checksums().setting("summarize_wal", "on")
}

impl Archiving {
    fn start(mode: &'static str, builder: ClusterBuilder) -> Archiving {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let cluster = builder.archive_to(url, "main").start();
        cluster.archive_everything();
        Archiving { cluster, repository, chain: Vec::new(), mode }
    }

    fn backup(&self, words: &[&str]) -> Walden {
        self.cluster.walden().args(["backup", "--json", "--mode", self.mode]).args(words)
    }

    fn take(&self, words: &[&str]) -> Value {
        let output = self.backup(words).run().succeeds();
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
    }

    #[track_caller]
    fn take_full(&mut self, words: &[&str]) -> Value {
        let report = self.take(words);
        assert_eq!(report["type"], "full", "{report}");
        assert_eq!(report["parent"], Value::Null);
        self.chain = vec![report["id"].as_str().unwrap().to_owned()];
        report
    }

    /// To the last of the chain, or to another.
    #[track_caller]
    fn take_incremental(&mut self, words: &[&str]) -> Value {
        let report = self.take(&[&["--incremental"][..], words].concat());
        assert_eq!(report["type"], "incremental", "{report}");
        assert_eq!(report["parent"], self.chain.last().unwrap().as_str());
        assert_eq!(report["chain_length"], self.chain.len() + 1);
        self.chain.push(report["id"].as_str().unwrap().to_owned());
        report
    }

    /// A backup unpacked by hand: packs one after another, zstd, tar.
    fn unpack(&self, id: &str) -> Scratch {
        let place = format!("main/{}/backup/{id}", self.cluster.system_identifier());
        let mut packs = files_below(&self.repository.path().join(place));
        packs.retain(|file| file.to_string_lossy().contains("/data-"));
        let mut stream = Vec::new();
        for pack in packs {
            stream.extend(zstd::stream::decode_all(&fs::read(pack).unwrap()[..]).unwrap());
        }
        let target = Scratch::new();
        tar::Archive::new(&stream[..]).unpack(target.path()).unwrap();
        target
    }

    /// The chain put together by the reference combiner below.
    fn combined(&self) -> (Scratch, Scratch) {
        let links: Vec<Scratch> = self.chain.iter().map(|id| self.unpack(id)).collect();
        let paths: Vec<&Path> = links.iter().map(Scratch::path).collect();
        combine(&paths);
        let directory = links.into_iter().last().unwrap();
        let spaces = Scratch::new();
        move_tablespaces(directory.path(), spaces.path());
        (directory, spaces)
    }

    /// What was combined, recovered to the end of the archive.
    #[track_caller]
    fn recovered(&self) -> Recovered {
        let (directory, spaces) = self.combined();
        self.assert_walden_puts_together(directory.path());
        let owner = walden::host::privileges::server_user().unwrap();
        walden::host::privileges::give_tree(spaces.path(), owner.as_ref()).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut cluster =
            Cluster::over(self.cluster.major(), directory.path()).archiving_as(&self.cluster);
        cluster.configure("archive_mode", "off");
        let url = format!("file://{}", self.repository.path().display());
        cluster.restore_from(&url);
        let _ = fs::remove_file(directory.path().join("standby.signal"));
        cluster.signal("recovery.signal");
        cluster.start_again();
        cluster.wait_until("NOT pg_is_in_recovery()");
        Recovered { cluster, directory, _spaces: spaces }
    }

    /// `restore` makes of the chain what the reference made of it, byte by byte.
    #[track_caller]
    fn assert_walden_puts_together(&self, reference: &Path) {
        let place = self.cluster.scratch().directory("placed");
        let (placed, spaces) = (place.join("data"), place.join("spaces"));
        let restore = self.cluster.walden().arg("restore").arg(&placed).arg("--target-latest");
        restore.args(["--tablespace-root", spaces.to_str().unwrap()]).run().succeeds();
        for folder in ["base", "global", "pg_xact"] {
            let names = |root: &Path| {
                let files = files_below(&root.join(folder)).into_iter();
                files.map(|file| file.strip_prefix(root).unwrap().to_owned()).collect::<Vec<_>>()
            };
            assert_eq!(names(&placed), names(reference));
            for name in names(reference) {
                let same = fs::read(placed.join(&name)).unwrap()
                    == fs::read(reference.join(&name)).unwrap();
                assert!(same, "{}", name.display());
            }
        }
        fs::remove_dir_all(place).unwrap();
    }

    /// What was combined recovers to the end of the archive and is the source then.
    #[track_caller]
    fn assert_restores(&self, tables: &[&str]) {
        self.cluster.archive_everything();
        let Recovered { cluster: mut restored, directory, _spaces } = self.recovered();
        for table in tables {
            let sql = format!(
                "SELECT count(*), md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) \
                 FROM {table} t"
            );
            assert_eq!(restored.sql(&sql), self.cluster.sql(&sql), "{table}");
        }
        let last = self.cluster.value("SELECT last_value FROM counter");
        assert_eq!(restored.value(&format!("SELECT nextval('counter') > {last}")), "t");
        restored.sql("VACUUM (FREEZE, DISABLE_PAGE_SKIPPING)");
        restored.stop();
        assert_pages_are_right(directory.path());
    }
}

/// To directories of their own; the map says where they are, and recovery makes the links.
fn move_tablespaces(pgdata: &Path, to: &Path) {
    let map = pgdata.join("tablespace_map");
    let Ok(text) = fs::read_to_string(&map) else { return };
    let moved = text.lines().map(|line| {
        let oid = line.split(' ').next().unwrap();
        fs::rename(pgdata.join("pg_tblspc").join(oid), to.join(oid)).unwrap();
        format!("{oid} {}\n", to.join(oid).display())
    });
    fs::write(&map, moved.collect::<String>()).unwrap();
}

/// Rows that hardly compress.
const NOISE: &str = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 12) \
                     WHERE n IS NOT NULL)";

fn make_tables(cluster: &Cluster) {
    cluster.sql(&format!(
        "CREATE TABLE large AS SELECT n, {NOISE} AS what FROM generate_series(1, 20000) n; \
         ALTER TABLE large ADD PRIMARY KEY (n); \
         CREATE TABLE shrinking AS SELECT n, {NOISE} AS what FROM generate_series(1, 3000) n; \
         CREATE TABLE still AS SELECT n FROM generate_series(1, 1000) n; \
         CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS n; \
         CREATE TABLE gone AS SELECT 1 AS n; \
         CREATE SEQUENCE counter; \
         CREATE TABLE spots AS SELECT point(n % 97, n % 89) AS p FROM generate_series(1, 3000) n; \
         CREATE INDEX ON spots USING gist (p)"
    ));
    cluster.sql("VACUUM");
}

/// One day after another: what happens between two backups.
fn live(cluster: &Cluster, day: usize) {
    cluster.sql(&format!(
        "UPDATE large SET what = 'day {day}' || substr(what, 7) WHERE n % 997 = {day}; \
         SELECT nextval('counter') FROM generate_series(1, 40); \
         CREATE TABLE new_{day} AS SELECT n FROM generate_series(1, 500) n; \
         INSERT INTO spots SELECT point(n, {day}) FROM generate_series(1, 50) n; \
         DELETE FROM still WHERE n % 50 = {day}"
    ));
    match day % 3 {
        1 => cluster.sql("DELETE FROM shrinking WHERE n > 500; DROP TABLE IF EXISTS gone"),
        2 => cluster.sql(&format!(
            "INSERT INTO shrinking SELECT n, {NOISE} FROM generate_series(1, 2000) n"
        )),
        _ => cluster.sql("TRUNCATE shrinking; INSERT INTO shrinking VALUES (1, 'one')"),
    };
    cluster.sql("VACUUM");
}

const TABLES: [&str; 5] = ["large", "shrinking", "still", "spots", "new_1"];

#[track_caller]
fn assert_small(full: &Value, incremental: &Value) {
    let [full, small] = [full, incremental].map(|report| report["stored"].as_u64().unwrap());
    assert!(small * 100 <= full * 3, "{small} of {full}");
}

/// A full backup and several after it, in whose time everything happens that can.
fn story(archiving: &mut Archiving) {
    make_tables(&archiving.cluster);
    let full = archiving.take_full(&[]);
    // One per cent of the pages, and no more.
    archiving.cluster.sql("UPDATE large SET what = 'x' || substr(what, 2) WHERE n <= 200");
    let small = archiving.take_incremental(&[]);
    assert_small(&full, &small);
    live(&archiving.cluster, 1);
    live(&archiving.cluster, 2);
    archiving.take_incremental(&[]);
    // What comes after the last one is the WAL's.
    archiving.cluster.sql("UPDATE still SET n = n + 1");
}

#[test]
fn a_chain_by_the_server_itself_is_the_cluster() {
    for major in [17, 18] {
        let mut archiving = Archiving::start("stream", stream_of(major));
        story(&mut archiving);
        archiving.assert_restores(&TABLES);
    }
}

fn by_files(major: MajorVersion) {
    let builder = Cluster::builder(major).data_checksums().tablespace("space");
    let mut archiving = Archiving::start("local", builder);
    archiving
        .cluster
        .sql("CREATE TABLE elsewhere TABLESPACE space AS SELECT n FROM generate_series(1, 9000) n");
    story(&mut archiving);
    archiving.cluster.sql("UPDATE elsewhere SET n = -n WHERE n % 100 = 0");
    let load = Load::start(&archiving.cluster, 2, 1);
    live(&archiving.cluster, 3);
    archiving.take_incremental(&[]);
    load.finish();
    archiving.assert_restores(&[&TABLES[..], &["elsewhere", "ledger"]].concat());
}

#[test]
fn a_chain_of_changed_blocks_is_the_cluster_of_15() {
    by_files(MajorVersion(15));
}

#[test]
fn a_chain_of_changed_blocks_is_the_cluster_of_16() {
    by_files(MajorVersion(16));
}

#[test]
fn a_chain_of_changed_blocks_is_the_cluster_of_17() {
    by_files(MajorVersion(17));
}

#[test]
fn a_chain_of_changed_blocks_is_the_cluster_of_18() {
    by_files(MajorVersion(18));
}

impl Archiving {
    /// An incremental backup of a standby, to the last of the chain. The primary ends the segments
    /// that it needs.
    #[track_caller]
    fn take_from(&mut self, standby: &Cluster) {
        // A restartpoint, where the backup begins.
        standby.sql("CHECKPOINT");
        let words = ["backup", "--json", "--mode", "local", "--incremental"];
        let running = standby.walden().args(words).spawn();
        let is_done = || {
            self.cluster.write_wal(1);
            self.manifests() > self.chain.len()
        };
        assert!(within(Duration::from_secs(60), is_done), "{}", standby.log());
        let output = running.wait().succeeds();
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(report["from_standby"], true);
        assert_eq!(report["parent"], self.chain.last().unwrap().as_str(), "{report}");
        self.chain.push(report["id"].as_str().unwrap().to_owned());
    }

    fn manifests(&self) -> usize {
        let files = files_below(self.repository.path()).into_iter();
        files.filter(|file| file.ends_with("manifest.json.zst")).count()
    }
}

/// As if the standby had been made long ago: its databases are those of the parent then.
fn age(pgdata: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60);
    let versions = files_below(pgdata).into_iter().filter(|file| file.ends_with("PG_VERSION"));
    for version in versions {
        fs::File::options().write(true).open(version).unwrap().set_modified(long_ago).unwrap();
    }
}

#[test]
fn a_chain_goes_on_after_a_promotion_from_what_both_servers_have() {
    let mut archiving = Archiving::start("local", Cluster::builder(ANY_MAJOR).data_checksums());
    make_tables(&archiving.cluster);
    let mut standby = Cluster::standby_of(&archiving.cluster);
    age(standby.pgdata());
    let full = archiving.take_full(&[]);
    live(&archiving.cluster, 1);
    archiving.take_incremental(&[]);
    let reached = archiving.cluster.current_lsn();
    archiving.cluster.archive_everything();
    standby.wait_until(&format!("pg_last_wal_replay_lsn() >= '{reached}'"));
    archiving.take_from(&standby);
    standby.archive_again();
    standby.stop();
    standby.start_again();
    standby.promote();
    // The old one goes on for a while, and is backed up: that is of no history but its own.
    archiving.cluster.sql("UPDATE large SET what = 'lost' WHERE n % 11 = 0");
    archiving.take_incremental(&[]);
    archiving.chain.pop();
    archiving.cluster.stop();

    archiving.cluster = standby;
    live(&archiving.cluster, 2);
    let report = archiving.take_incremental(&[]);
    assert_eq!(report["timeline"], 2);
    let [whole, part] = [&full, &report].map(|report| report["stored"].as_u64().unwrap());
    assert!(part * 2 < whole, "{part} of {whole}");
    archiving.assert_restores(&TABLES);
}

/// Pages of a template that are older than the parent, in files of the names the parent has.
#[test]
fn a_database_made_anew_under_its_old_number_is_stored_whole() {
    let mut archiving = Archiving::start("local", Cluster::builder(ANY_MAJOR).data_checksums());
    let cluster = &archiving.cluster;
    let tell = |database: &str, sql: &str| {
        let mut session = cluster.session(database).unwrap();
        session.query(sql).unwrap_or_else(|why| panic!("{sql}: {why}"))
    };
    let copy = |name: &str, template: &str, more: &str| {
        let words = format!("TEMPLATE {template} STRATEGY file_copy {more}");
        tell("postgres", &format!("CREATE DATABASE {name} {words}"));
    };
    copy("one", "template1", "");
    tell("one", "CREATE TABLE t AS SELECT n, 'of one' AS what FROM generate_series(1, 5000) n");
    copy("two", "one", "");
    tell("two", "UPDATE t SET what = 'of two'");
    tell("two", "VACUUM FULL pg_class");
    copy("it", "one", "OID 70000");
    archiving.take_full(&[]);
    // To the next second: the times of files are known to the second.
    std::thread::sleep(Duration::from_millis(1100));
    let cluster = &archiving.cluster;
    cluster.sql("DROP DATABASE it");
    cluster.sql("CREATE DATABASE it TEMPLATE two STRATEGY file_copy OID 70000");

    archiving.take_incremental(&[]);

    archiving.cluster.archive_everything();
    let restored = archiving.recovered();
    let mut session = restored.cluster.session("it").unwrap();
    let rows = session.query("SELECT what, count(*) FROM t GROUP BY what").unwrap();
    assert_eq!(rows, [[Some("of two".to_owned()), Some("5000".to_owned())]]);
}

#[test]
fn without_proof_that_pages_tell_of_every_change_everything_is_stored() {
    let mut archiving = Archiving::start("local", Cluster::builder(ANY_MAJOR));
    archiving.take_full(&[]);
    let because = |report: &Value| report["full_because"].as_str().unwrap().to_owned();
    let bare = archiving.take(&["--incremental"]);
    assert!(because(&bare).contains("neither data checksums nor wal_log_hints"));

    archiving.cluster.configure("wal_log_hints", "on");
    archiving.cluster.stop();
    archiving.cluster.start_again();
    let before = archiving.take(&["--incremental"]);
    assert!(because(&before).contains("nothing tells that wal_log_hints was on then"));
    archiving.chain = vec![before["id"].as_str().unwrap().to_owned()];
    archiving.take_incremental(&[]);
    archiving.cluster.stop();
    archiving.cluster.start_again();
    let after = archiving.take(&["--incremental"]);
    assert!(because(&after).contains("the server was started since backup"));
}

#[test]
fn where_no_incremental_can_be_taken_a_full_one_is_and_the_reason_is_said() {
    let old = Archiving::start("stream", Cluster::builder(MajorVersion(16)));
    let because = |report: &Value| report["full_because"].as_str().unwrap().to_owned();
    let first = old.take(&["--incremental"]);
    assert_eq!(because(&first), "there is no backup yet to build on");
    let output = old.backup(&["--incremental"]).run().succeeds();
    output.stderr_has("taking a full backup: PostgreSQL 16 cannot send an incremental one");

    let mut young = Archiving::start("stream", Cluster::builder(ANY_MAJOR));
    let first = young.take(&[]);
    assert_eq!(first["full_because"], Value::Null);
    assert!(because(&young.take(&["--incremental"])).contains("summarize_wal is off"));
    young.cluster.configure("summarize_wal", "on");
    young.cluster.reload();
    young.cluster.wait_until("current_setting('summarize_wal') = 'on'");
    // What was before the summaries began is not in them.
    young.cluster.sql("CREATE TABLE t (n int); CHECKPOINT");
    let id = first["id"].as_str().unwrap().to_owned();
    young.cluster.write_wal(2);
    let named = because(&young.take(&["--parent", &id]));
    assert!(named.contains("WAL summaries are required"), "{named}");
    let full = young.take_full(&[])["id"].as_str().unwrap().to_owned();
    young.take_incremental(&[]);
    assert_eq!(young.take(&["--parent", &full])["parent"], full.as_str());
    young.backup(&["--incremental", "--full"]).run().exits(2);
    let chain = young.backup(&["--incremental"]).env("WALDEN_BACKUP_CHAIN_MAX", "2");
    chain.run().succeeds().stdout_has("backup.chain_max");
    let aged = young.backup(&["--incremental"]).env("WALDEN_BACKUP_FULL_EVERY", "1ms");
    aged.run().succeeds().stdout_has("backup.full_every");
}

/// A slip of the pen is no reason for a backup that nobody asked for.
#[test]
fn a_parent_that_is_not_there_is_refused_before_anything_is_done() {
    let archiving = Archiving::start("stream", Cluster::builder(ANY_MAJOR));
    let unknown = ["--parent", "20200101T000000Z-0000"];
    let refused = archiving.backup(&unknown).run().exits(4);
    refused.stderr_has("is not in the repository").stderr_has("There is no backup");
    let ids: Vec<String> =
        (0..2).map(|_| archiving.take(&["--full"])["id"].as_str().unwrap().to_owned()).collect();
    let files = || files_below(archiving.repository.path());
    let place = || archiving.cluster.sql("SELECT pg_current_wal_insert_lsn()");
    archiving.cluster.archive_everything();
    let before = (files(), place());
    let refused = archiving.backup(&unknown).run().exits(4);
    let refused = refused.stderr_has("backup 20200101T000000Z-0000 is not in the repository");
    refused.stderr_has("The newest are: ").stderr_has(&ids[0]).stderr_has(&ids[1]);
    assert_eq!((files(), place()), before, "neither the server nor the repository was touched");

    // What is there and cannot be read is no slip: a backup is more than none.
    let home = archiving.repository.path().join("main").join(archiving.cluster.system_identifier());
    let manifest = home.join("backup").join(&ids[0]).join("manifest.json.zst");
    fs::write(manifest, "damaged").unwrap();
    let report = archiving.take(&["--parent", &ids[0]]);
    let because = report["full_because"].as_str().unwrap();
    assert!(because.contains(&format!("backup {} cannot be read", ids[0])), "{because}");
}

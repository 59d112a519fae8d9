//! Chains of incremental backups beside PostgreSQL's own `pg_combinebackup`: what walden restores
//! is, byte for byte, what that puts together from the packs unpacked by `zstd` and `tar` alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use walden::postgres::MajorVersion;

use crate::harness::cluster::PORT;
use crate::harness::site::files_below;
use crate::harness::{self, Cluster, Scratch, soundness};

/// After the full one; across a timeline switch always so many.
const INCREMENTALS: usize = 6;
/// Anything but 0: no backup of a chain is left out.
const EVERY_LINK: &str = "WALDEN_TEST_EVERY_LINK";

/// The version the client programs are of (`tests/setup/clients.sh`).
const CLIENTS: MajorVersion = MajorVersion(17);

/// What differs for a reason. The label of a combined backup is the last one without the lines that
/// say what it is the difference to, and it is the same in both; the manifest has other times and
/// lists what the other program wrote; the rest is how walden and its recovery are set up.
const OUR_OWN: [&str; 4] =
    ["backup_manifest", "postgresql.auto.conf", "recovery.signal", "tablespace_map"];

#[test]
fn a_chain_of_the_servers_own_is_what_pg_combinebackup_makes_of_it() {
    let mut chain = Chain::begin(MajorVersion(17), "stream");
    chain.take(incrementals(), None);
    chain.expect_same_as_combined();
    chain.expect_recovered_as_dumped();
}

#[test]
fn a_chain_of_the_servers_own_goes_across_a_timeline_switch() {
    let mut chain = Chain::begin(MajorVersion(17), "stream");
    chain.take(INCREMENTALS, Some(3));
    chain.expect_same_as_combined();
    chain.expect_recovered_as_dumped();
}

#[test]
fn a_chain_by_page_lsn_is_what_pg_combinebackup_makes_of_it() {
    let mut chain = Chain::begin(MajorVersion(17), "local");
    chain.take(incrementals(), None);
    chain.expect_same_as_combined();
    chain.expect_recovered_as_dumped();
}

#[test]
fn a_chain_by_page_lsn_goes_across_a_timeline_switch() {
    let mut chain = Chain::begin(MajorVersion(17), "local");
    chain.take(INCREMENTALS, Some(3));
    chain.expect_same_as_combined();
    chain.expect_recovered_as_dumped();
}

/// Before 17 there is no program to combine, and none for 18 is packaged by a stable Debian: what
/// they recover to is what counts.
#[test]
fn chains_of_other_versions_recover_to_what_was_dumped() {
    for (major, mode, switch) in [(15, "local", None), (16, "local", Some(1)), (18, "stream", None)]
    {
        let mut chain = Chain::begin(MajorVersion(major), mode);
        chain.take(2, switch);
        chain.expect_recovered_as_dumped();
    }
}

/// The parent may be of the other mode.
#[test]
fn a_chain_of_both_modes_is_one_chain() {
    let mut chain = Chain::begin(MajorVersion(17), "mixed");
    chain.take(incrementals(), None);
    chain.expect_same_as_combined();
    chain.expect_recovered_as_dumped();
}

struct Chain {
    source: Cluster,
    mode: &'static str,
    links: Vec<Link>,
    repository: Scratch,
    /// Of the unpacked backups and what is made of them.
    place: Scratch,
}

struct Link {
    id: String,
    /// By `zstd -dc | tar x`.
    unpacked: PathBuf,
    /// The source's content at its end, where it is compared.
    contents: Option<soundness::Contents>,
    dump: Option<String>,
}

impl Chain {
    #[track_caller]
    fn begin(major: MajorVersion, mode: &'static str) -> Chain {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let mut builder = Cluster::builder(major).data_checksums().tablespace("space");
        builder = builder.archive_to(url, "main").setting("restore_command", "'/bin/false'");
        if major >= MajorVersion(17) {
            builder = builder.setting("summarize_wal", "on");
        }
        let source = builder.start();
        soundness::bring_amcheck(&source);
        source.sql(
            "CREATE TABLE kept AS SELECT n, repeat(md5(n::text), 9) what, 0 AS round \
             FROM generate_series(1, 6000) n; CREATE INDEX ON kept (n); \
             CREATE INDEX ON kept USING gist (int4range(n, n + 1)); \
             CREATE TABLE elsewhere TABLESPACE space AS SELECT * FROM kept LIMIT 3000; \
             CREATE TABLE shrinks AS SELECT * FROM kept; \
             CREATE TABLE emptied AS SELECT * FROM kept; \
             CREATE TABLE rewritten AS SELECT * FROM kept; \
             CREATE TABLE goes AS SELECT * FROM kept; \
             CREATE TABLE still AS SELECT * FROM kept; \
             CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS n",
        );
        let place = Scratch::new();
        Chain { source, mode, links: Vec::new(), repository, place }
    }

    /// A full backup and so many more, each after changes; a new timeline before the one of this
    /// number.
    #[track_caller]
    fn take(&mut self, incrementals: usize, switch_before: Option<usize>) {
        for number in 0..=incrementals {
            self.change(number);
            if switch_before == Some(number) {
                self.switch_timeline();
            }
            let is_looked_at = looked_at(incrementals + 1).any(|wanted| wanted == number);
            let link = self.back_up(number, is_looked_at);
            self.links.push(link);
        }
    }

    #[track_caller]
    fn change(&self, number: usize) {
        let from = number * 100;
        let always = [
            format!("UPDATE kept SET round = {number} WHERE n BETWEEN {from} AND {from} + 60"),
            format!("INSERT INTO kept SELECT n, 'new', {number} FROM generate_series(1, 300) n"),
            format!("UPDATE elsewhere SET round = {number} WHERE n % 1000 = {number}"),
            format!("CREATE TABLE of_{number} AS SELECT * FROM kept LIMIT 500"),
        ];
        let once = match number {
            1 => vec!["DELETE FROM shrinks WHERE n > 1000", "VACUUM (TRUNCATE) shrinks"],
            2 => vec!["TRUNCATE emptied", "INSERT INTO shrinks SELECT * FROM kept"],
            3 => vec!["VACUUM FULL rewritten", "DROP TABLE goes", "CREATE INDEX ON kept (what)"],
            4 => vec!["VACUUM (FREEZE) kept", "CREATE DATABASE another STRATEGY file_copy"],
            5 => vec!["ALTER TABLE rewritten SET TABLESPACE space", "VACUUM FULL pg_class"],
            6 => vec!["DROP DATABASE another", "INSERT INTO emptied SELECT * FROM still"],
            _ => Vec::new(),
        };
        for statement in always.iter().map(String::as_str).chain(once) {
            self.source.sql(statement);
        }
    }

    #[track_caller]
    fn switch_timeline(&mut self) {
        self.source.stop();
        self.source.signal("recovery.signal");
        self.source.start_again();
        self.source.wait_until("NOT pg_is_in_recovery()");
        self.source.archive_everything();
    }

    #[track_caller]
    fn back_up(&self, number: usize, is_looked_at: bool) -> Link {
        let kind = if number == 0 { "--full" } else { "--incremental" };
        let mode = match (self.mode, number % 2) {
            ("mixed", 0) => "stream",
            ("mixed", _) => "local",
            (mode, _) => mode,
        };
        let backup = self.source.walden().args(["backup", "--json", "--mode", mode, kind]);
        let output = backup.run().succeeds();
        let report: Value = serde_json::from_str(&output.stdout).expect("a report");
        let parent = self.links.last().map(|link| link.id.as_str());
        assert_eq!(report["parent"].as_str(), parent, "{report:#}\n{}", output.stderr);
        let id = report["id"].as_str().expect("an id").to_owned();
        let unpacked = self.unpack(&id);
        if self.source.major() == CLIENTS {
            let verified = run(client("pg_verifybackup").arg("--no-parse-wal").arg(&unpacked));
            assert!(verified.contains("successfully verified"), "{verified}");
        }
        let contents = is_looked_at.then(|| soundness::contents(&self.source, false));
        let dump = if is_looked_at { dump(&self.source) } else { None };
        Link { id, unpacked, contents, dump }
    }

    /// With nothing of walden's.
    #[track_caller]
    fn unpack(&self, id: &str) -> PathBuf {
        let home = self.repository.join("main").join(self.source.system_identifier());
        let target = self.place.directory(id);
        let line = "set -o pipefail; zstd -dqc \"$1\"/data-*.tar.zst | tar -x -C \"$2\"";
        let mut bash = Command::new("bash");
        bash.args(["-c", line, "bash"]).arg(home.join("backup").join(id)).arg(&target);
        run(&mut bash);
        target
    }

    #[track_caller]
    fn restore(&self, link: &Link) -> PathBuf {
        let parent = self.place.directory(&format!("restored-{}", link.id));
        let directory = parent.join("data");
        let space = self.source.tablespace("space");
        let map = format!("{}={}", space.display(), parent.join("space").display());
        let restore = self.source.walden().arg("restore").arg(&directory);
        let restore = restore.args(["--backup", &link.id, "--target-immediate"]);
        let restore = restore.args(["--target-action", "promote", "--tablespace-map", &map]);
        restore.run().succeeds();
        directory
    }

    #[track_caller]
    fn expect_same_as_combined(&self) {
        for last in looked_at(self.links.len()).filter(|last| *last > 0) {
            let combined = self.place.join("combined");
            let mut combine = client("pg_combinebackup");
            combine.arg("--no-sync").arg("--output").arg(&combined);
            combine.args(self.links[..=last].iter().map(|link| &link.unpacked));
            assert_eq!(run(&mut combine), "", "it complains of nothing");
            let restored = self.restore(&self.links[last]);
            expect_same(&restored, &combined);
            fs::remove_dir_all(&combined).unwrap();
            fs::remove_dir_all(restored.parent().unwrap()).unwrap();
        }
    }

    #[track_caller]
    fn expect_recovered_as_dumped(mut self) {
        self.source.stop();
        for number in looked_at(self.links.len()) {
            let link = &self.links[number];
            let restored = self.restore(link);
            let mut recovered = Cluster::over(self.source.major(), &restored);
            recovered.start_again();
            recovered.wait_until("NOT pg_is_in_recovery()");
            soundness::expect_sound(&recovered);
            let contents = soundness::contents(&recovered, true);
            assert_eq!(Some(contents), link.contents, "backup {number}\n{}", recovered.log());
            // Unlogged rows are not recovered.
            assert_eq!(dump(&recovered), link.dump, "backup {number}");
            recovered.stop();
            soundness::expect_right_checksums(recovered.pgdata());
            fs::remove_dir_all(restored.parent().unwrap()).unwrap();
        }
    }
}

/// As many where every backup is looked at, else fewer.
fn incrementals() -> usize {
    if harness::amount(EVERY_LINK, 0) > 0 { INCREMENTALS } else { 3 }
}

/// All of so many backups where that is asked for, else the last and one between.
fn looked_at(count: usize) -> impl Iterator<Item = usize> {
    let all = harness::amount(EVERY_LINK, 0) > 0;
    (0..count).filter(move |number| all || *number == count - 1 || *number == count / 2)
}

fn client(program: &str) -> Command {
    Command::new(harness::client(CLIENTS, program))
}

/// What it says, both ways.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// By `pg_dump`, where it is not older than the server.
#[track_caller]
fn dump(cluster: &Cluster) -> Option<String> {
    if cluster.major() > CLIENTS {
        return None;
    }
    let mut dump = client("pg_dump");
    dump.arg("-h").arg(cluster.socket_directory()).args(["-p", &PORT.to_string()]);
    dump.args(["-U", "postgres", "--no-unlogged-table-data", "--restrict-key=walden", "postgres"]);
    Some(run(&mut dump))
}

/// The same files with the same bytes, but for those that are ours; and as many of them.
#[track_caller]
fn expect_same(restored: &Path, combined: &Path) {
    let (restored, combined) = (content(restored), content(combined));
    let mut faults = Vec::new();
    for (path, path_in_combined) in &combined {
        let Some(found) = restored.get(path) else {
            faults.push(format!("{path} is missing"));
            continue;
        };
        if fs::read(found).unwrap() != fs::read(path_in_combined).unwrap() {
            faults.push(format!("{path} is another file"));
        }
    }
    let unexpected = restored.keys().filter(|path| !combined.contains_key(*path));
    faults.extend(unexpected.map(|path| format!("what is {path}?")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(combined.len() > 900, "only {} files", combined.len());
}

fn content(directory: &Path) -> BTreeMap<String, PathBuf> {
    let files = files_below(directory).into_iter().map(|path| {
        let relative = path.strip_prefix(directory).expect("it lies below");
        (relative.to_string_lossy().into_owned(), path)
    });
    files.filter(|(path, _)| !OUR_OWN.contains(&path.as_str())).collect()
}

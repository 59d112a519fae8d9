//! `window` beside real PostgreSQL: what it says of the last commit is what the server says.

use std::fs;
use std::path::PathBuf;
use std::thread;

use serde_json::Value;

use walden::postgres::MajorVersion;

use crate::harness::{ANY_MAJOR, Bucket, Cluster, Pgbench, Scratch, Site, every_major};

/// A cluster that keeps the time of each commit itself, and its repository.
struct Witness {
    cluster: Cluster,
    repository: Scratch,
}

impl Witness {
    fn start(major: MajorVersion) -> Witness {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let builder = Cluster::builder(major).archive_to(url, "main");
        let builder = builder.setting("track_commit_timestamp", "on");
        let cluster = builder.setting("max_prepared_transactions", "5").start();
        cluster.sql("CREATE TABLE t (n int)");
        Witness { cluster, repository }
    }

    fn backed_up(major: MajorVersion) -> Witness {
        let witness = Witness::start(major);
        witness.cluster.walden().arg("backup").run().succeeds();
        witness
    }

    #[track_caller]
    fn window(&self) -> Value {
        let output = self.cluster.walden().args(["window", "--json"]).run().succeeds();
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"))
    }

    /// What is archived of a timeline ends with the last commit that this server knows.
    #[track_caller]
    fn agrees(&self, server: &Cluster, timeline: usize) -> Value {
        server.archive_everything();
        let report = self.window();
        let found = &report["timelines"][timeline - 1];
        assert_eq!(found["timeline"], timeline, "{report:#}");
        assert_eq!(found["latest_is_exact"], true, "{report:#}");
        let last = server
            .sql(&format!("SELECT xid, {} FROM pg_last_committed_xact()", micros("timestamp")));
        let last: Vec<String> = last.into_iter().flatten().flatten().collect();
        assert_eq!([text(&found["latest_xid"]), text(&found["latest"])], *last, "{report:#}");
        report
    }

    /// Restore takes the latest and the earliest time of every window, and nothing later.
    #[track_caller]
    fn is_believed_by_restore(&self, report: &Value) {
        let plan = |timeline: &Value, time: &str| {
            let new = self.cluster.scratch().join("never");
            let restore = self.cluster.walden().arg("restore").arg(new).arg("--dry-run");
            let restore = restore.args(["--target-timeline", &text(timeline)]);
            restore.args(["--target-time", time]).run()
        };
        for timeline in report["timelines"].as_array().unwrap() {
            for window in timeline["windows"].as_array().unwrap() {
                plan(&timeline["timeline"], &text(&window["earliest"])).succeeds();
                plan(&timeline["timeline"], &text(&window["latest"])).succeeds();
            }
            let latest: jiff::Timestamp = text(&timeline["latest"]).parse().unwrap();
            let later = latest + jiff::SignedDuration::from_micros(1);
            plan(&timeline["timeline"], &format!("{later:.6}")).exits(4);
        }
    }

    fn object(&self, segment: &str) -> PathBuf {
        let home = self.repository.path().join("main").join(self.cluster.system_identifier());
        home.join(format!("wal/{}/{}/{segment}.zst", &segment[..8], &segment[..16]))
    }
}

/// A time as RFC 3339 with all its microseconds.
fn micros(time: &str) -> String {
    format!("to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The time of this transaction's commit, by the server.
#[track_caller]
fn committed_at(cluster: &Cluster, xid: &str) -> String {
    let time = format!("pg_xact_commit_timestamp('{xid}'::xid)");
    cluster.value(&format!("SELECT {}", micros(&time)))
}

#[test]
fn the_latest_time_is_that_of_the_servers_last_commit_to_the_microsecond() {
    thread::scope(|scope| {
        for major in every_major() {
            scope.spawn(move || busy_and_idle(major));
        }
    });
}

fn busy_and_idle(major: MajorVersion) {
    let witness = Witness::backed_up(major);
    let cluster = &witness.cluster;
    // Several at once, and records of all sizes across the edges of segments.
    thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                let mut session = cluster.session("postgres").unwrap();
                for n in 0..150 {
                    let message = "pg_logical_emit_message(true, 'test', repeat('w', 9000))";
                    let insert = format!("INSERT INTO t SELECT {writer} FROM {message}");
                    session.query(&insert).unwrap();
                    if n % 10 == 0 {
                        session.query("BEGIN; INSERT INTO t VALUES (9); ROLLBACK").unwrap();
                    }
                }
            });
        }
    });
    witness.agrees(cluster, 1);
    // Idle, and then a single commit.
    cluster.sql("CHECKPOINT");
    let report = witness.agrees(cluster, 1);
    witness.is_believed_by_restore(&report);
}

#[test]
fn what_is_archived_under_load_ends_with_a_commit_of_that_very_time() {
    let witness = Witness::backed_up(ANY_MAJOR);
    let cluster = &witness.cluster;
    let load = Pgbench::start(cluster, 1, 4);
    if load.is_none() {
        cluster.write_wal(3);
    }
    for _ in 0..5 {
        cluster.write_wal(1);
        let report = witness.window();
        let found = &report["timelines"][0];
        let xid = text(&found["latest_xid"]);
        assert_eq!(text(&found["latest"]), committed_at(cluster, &xid), "{report:#}");
        let (earliest, latest) = (text(&found["earliest"]), text(&found["latest"]));
        assert!(earliest < latest, "{report:#}");
    }
}

#[test]
fn a_prepared_transaction_counts_when_it_is_committed() {
    let witness = Witness::backed_up(ANY_MAJOR);
    let cluster = &witness.cluster;
    let xid = cluster.column(
        "BEGIN; INSERT INTO t VALUES (1); SELECT pg_current_xact_id()::xid; \
         PREPARE TRANSACTION 'p'",
    );
    let before = witness.agrees(cluster, 1);
    assert_ne!(text(&before["timelines"][0]["latest_xid"]), xid[0]);
    cluster.sql("COMMIT PREPARED 'p'");
    cluster.sql("SELECT pg_switch_wal()");
    cluster.wait_archived();
    let after = witness.window();
    let found = &after["timelines"][0];
    assert_eq!(text(&found["latest_xid"]), xid[0], "{after:#}");
    assert_eq!(text(&found["latest"]), committed_at(cluster, &xid[0]), "{after:#}");
}

#[test]
fn a_promoted_copy_goes_on_on_a_timeline_of_its_own() {
    let witness = Witness::backed_up(ANY_MAJOR);
    let source = &witness.cluster;
    source.sql("INSERT INTO t VALUES (1)");
    let first = witness.agrees(source, 1);
    let new = source.scratch().join("new");
    let restore = source.walden().arg("restore").arg(&new);
    restore.args(["--target-latest", "--adopt"]).run().succeeds();
    let mut adopted = Cluster::over(ANY_MAJOR, &new);
    adopted.start_again();
    adopted.wait_until("NOT pg_is_in_recovery()");
    adopted.sql("INSERT INTO t VALUES (2)");
    let both = witness.agrees(&adopted, 2);
    let [one, two] = [&both["timelines"][0], &both["timelines"][1]];
    assert_eq!(one["latest"], first["timelines"][0]["latest"], "{both:#}");
    assert_eq!((&two["parent"], &two["earliest_backup"]), (&1.into(), &one["earliest_backup"]));
    let fork = adopted.value("SELECT pg_read_file('pg_wal/00000002.history')");
    assert!(fork.contains(&text(&two["switch_lsn"])), "{fork}\n{both:#}");
    witness.is_believed_by_restore(&both);
    let words = source.walden().arg("window").run().succeeds();
    words.stdout_has("\n└─ timeline 2, from 1 at ");
    let only = source.walden().args(["window", "--timeline", "2"]).run().succeeds();
    assert!(only.stdout.contains("\ntimeline 2\n") && !only.stdout.contains("\ntimeline 1\n"));
    let unknown = source.walden().args(["window", "--timeline", "7"]).run();
    unknown.exits(4).stderr_has("Known here: 1, 2.");
}

#[test]
fn it_ends_at_a_missing_segment_and_says_so_and_a_new_backup_begins_anew() {
    let witness = Witness::backed_up(ANY_MAJOR);
    let cluster = &witness.cluster;
    let last = |n: u32| cluster.value(&format!("INSERT INTO t VALUES ({n}) RETURNING xmin"));
    let before = last(1);
    cluster.sql("SELECT pg_switch_wal()");
    let segments = [cluster.write_wal(1), cluster.write_wal(1)].concat();
    let after = last(2);
    cluster.archive_everything();
    for segment in &segments {
        fs::remove_file(witness.object(segment)).unwrap();
    }
    let report = witness.window();
    let found = &report["timelines"][0];
    assert_eq!(text(&found["latest_xid"]), before, "{report:#}");
    assert_eq!(text(&found["latest"]), committed_at(cluster, &before));
    let gap = &found["gaps"][0];
    assert_eq!(found["gaps"].as_array().unwrap().len(), 1, "{report:#}");
    assert_eq!((&gap["cause"], &gap["segments"]), (&"missing".into(), &2.into()), "{report:#}");
    assert_eq!(
        (text(&gap["first_missing"]), &gap["bytes"]),
        (segments[0].clone(), &(2 << 20).into())
    );
    let around = [&before, &after].map(|xid| committed_at(cluster, xid));
    assert_eq!([text(&gap["after"]), text(&gap["before"])], around, "{report:#}");
    let words = cluster.walden().arg("window").run().succeeds();
    words.stdout_has(&format!("2 segments missing (2.0 MiB): from {} on", segments[0]));

    cluster.walden().arg("backup").run().succeeds();
    let report = witness.agrees(cluster, 1);
    let windows = report["timelines"][0]["windows"].as_array().unwrap();
    assert_eq!(windows.len(), 2, "{report:#}");
    witness.is_believed_by_restore(&report);
    assert_eq!(text(&windows[0]["latest_xid"]), before);
}

#[test]
fn on_the_servers_host_it_tells_caught_up_from_writing_from_behind() {
    let mut witness = Witness::backed_up(ANY_MAJOR);
    let report = witness.agrees(&witness.cluster, 1);
    let state = |report: &Value| text(&report["unarchived"]["state"]);
    assert_eq!(state(&report), "caught-up", "{report:#}");
    assert_eq!(report["unarchived"]["last_commit"], report["timelines"][0]["latest"]);
    let latest = text(&report["timelines"][0]["latest"]);
    let words = witness.cluster.walden().arg("window").run().succeeds();
    words.stdout_has(&format!("caught up, no commits since {latest}"));

    let xid = witness.cluster.value("INSERT INTO t VALUES (1) RETURNING xmin");
    let report = witness.window();
    let unarchived = &report["unarchived"];
    assert_eq!(
        (state(&report).as_str(), &unarchived["commits"]),
        ("writing", &1.into()),
        "{report:#}"
    );
    assert_eq!(text(&unarchived["last_commit"]), committed_at(&witness.cluster, &xid));

    witness.cluster.configure("archive_command", "'false'");
    witness.cluster.reload();
    witness.cluster.wait_until("current_setting('archive_command') = 'false'");
    witness.cluster.write_wal(3);
    let report = witness.window();
    let unarchived = &report["unarchived"];
    assert_eq!(
        (state(&report).as_str(), &unarchived["segments"]),
        ("behind", &3.into()),
        "{report:#}"
    );
    assert_eq!((&unarchived["bytes"], &unarchived["commits"]), (&(3 << 20).into(), &4.into()));
    let words = witness.cluster.walden().arg("window").run().succeeds();
    words.stdout_has("behind: 3 segments, 3.0 MiB, oldest ");

    // Without a server the files tell the same.
    witness.cluster.stop();
    let report = witness.window();
    assert_eq!(state(&report), "behind", "{report:#}");
    let elsewhere = witness.cluster.walden().current_dir("/").args(["window", "--json"]).run();
    let elsewhere: Value = serde_json::from_str(&elsewhere.succeeds().stdout).unwrap();
    assert_eq!(elsewhere["unarchived"], Value::Null, "{elsewhere:#}");
}

#[test]
fn without_a_backup_it_says_that_nothing_can_be_recovered() {
    let witness = Witness::start(ANY_MAJOR);
    let nothing = witness.cluster.walden().arg("window").run().exits(4);
    nothing.stderr_has("nothing is archived in ");
    witness.cluster.archive_everything();
    let report = witness.window();
    let found = &report["timelines"][0];
    assert_eq!((&found["earliest"], &found["latest"]), (&Value::Null, &Value::Null), "{report:#}");
    let words = witness.cluster.walden().arg("window").run().succeeds();
    words.stdout_has("nothing can be recovered: there is no backup");
}

#[test]
fn a_backup_after_the_last_commit_is_itself_the_latest_time() {
    let witness = Witness::start(ANY_MAJOR);
    witness.cluster.archive_everything();
    witness.cluster.walden().arg("backup").run().succeeds();
    let report = witness.window();
    let found = &report["timelines"][0];
    assert_eq!((&found["latest"], &found["latest_xid"]), (&found["earliest"], &Value::Null));
    witness.is_believed_by_restore(&report);
}

#[test]
fn marked_and_unreadable_segments_are_gaps_with_their_cause() {
    let site = Site::new();
    let name = |number: u8| format!("000000010000000000000A{number:02X}");
    for number in 1..=7 {
        let mut bytes = site.segment(&name(number), number);
        if number == 3 {
            bytes[500_000] ^= 4;
            site.file(&name(number), &bytes);
        }
        let push = site.push(&name(number)).env("WALDEN_PUSH_ON_INVALID", "archive");
        push.run().succeeds();
    }
    fs::remove_file(site.object(&name(5))).unwrap();
    fs::write(site.object(&name(6)), "not an object").unwrap();
    let output = site.walden().args(["window", "--json"]).run().succeeds();
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let gaps = report["timelines"][0]["gaps"].as_array().unwrap();
    let told: Vec<_> =
        gaps.iter().map(|gap| (text(&gap["cause"]), text(&gap["first_missing"]))).collect();
    let expected = [("invalid", name(3)), ("missing", name(5)), ("damaged", name(6))];
    assert_eq!(told, expected.map(|(cause, name)| (cause.to_owned(), name)), "{report:#}");
    let record: walden::postgres::Lsn = text(&gaps[0]["from_lsn"]).parse().unwrap();
    assert!((0xA030_0000..=0xA030_0000 + 500_000).contains(&record.0), "{record}");
    assert!(text(&report["notes"]).contains(&name(6)), "{report:#}");
    let words = site.walden().arg("window").run().succeeds();
    let words = words.stdout_has(&format!("{} is not valid from {record} on", name(3)));
    words.stdout_has(&format!("{} cannot be read", name(6)));
}

/// Where listings may be remembered, what has just come or gone is seen all the same.
#[test]
fn on_s3_what_was_just_archived_or_lost_is_seen_at_once() {
    let bucket = Bucket::start();
    let site = Site::on(&bucket.url(), bucket.environment());
    let name = |number: u8| format!("000000010000000000000A{number:02X}");
    let archive = |number: u8| {
        site.segment(&name(number), number);
        site.push(&name(number)).patiently().run().succeeds();
    };
    let told = || {
        let output = site.walden().args(["window", "--json"]).run().succeeds();
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        let timeline = &report["timelines"][0];
        (text(&timeline["segments"]), timeline["gaps"].as_array().unwrap().len())
    };
    (1..=3).for_each(archive);
    assert_eq!(told(), ("3".to_owned(), 0));
    archive(4);
    assert_eq!(told(), ("4".to_owned(), 0));
    let objects = bucket.objects();
    let second = objects.iter().find(|key| key.contains(&name(2))).unwrap();
    bucket.lose(second);
    assert_eq!(told(), ("3".to_owned(), 1));
}

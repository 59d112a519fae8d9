//! `find` on real PostgreSQL: what happened in a busy cluster is named, what only looks like it is
//! not, and the printed lines bring it back.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use walden::host::privileges;
use walden::postgres::MajorVersion;

use crate::harness::{Cluster, ClusterBuilder, Load, Pgbench, Scratch, program, reference};

/// A cluster with a backup of many kinds of relations, busy since.
struct Site {
    /// Busy while they live.
    load: Option<(Option<Pgbench>, Load)>,
    cluster: Cluster,
    /// After the backup.
    since: String,
    repository: Scratch,
}

const RELATIONS: &str = "\
    CREATE TABLE orders (id int PRIMARY KEY, what text); \
    INSERT INTO orders SELECT n, 'order ' || n FROM generate_series(1, 2500) n; \
    CREATE TABLE lines (LIKE orders INCLUDING ALL); INSERT INTO lines SELECT * FROM orders; \
    CREATE TABLE visits (LIKE orders INCLUDING ALL); INSERT INTO visits SELECT * FROM orders; \
    CREATE TABLE \"Odd.Name\" (n int); \
    CREATE TABLE rewritten (LIKE orders INCLUDING ALL); INSERT INTO rewritten TABLE orders; \
    CREATE INDEX rewritten_what ON rewritten (what); \
    CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM orders; \
    CREATE UNIQUE INDEX totals_count ON totals (count); \
    CREATE SCHEMA shop; CREATE TABLE shop.a (x serial PRIMARY KEY, y text); \
    CREATE TABLE shop.b (z int REFERENCES shop.a); \
    CREATE TABLE kept (id int PRIMARY KEY, what text); INSERT INTO kept TABLE orders; \
    CREATE TABLE prepared (n int); CREATE TABLE witness (what text); \
    CREATE TABLE parts (n int) PARTITION BY RANGE (n); \
    CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10); \
    INSERT INTO parts VALUES (1)";

/// None of these loses a row that was there before.
const FALSE_FRIENDS: [&str; 24] = [
    "VACUUM FULL rewritten",
    "CLUSTER rewritten USING rewritten_pkey",
    "REINDEX TABLE rewritten",
    "REINDEX TABLE CONCURRENTLY rewritten",
    "REINDEX INDEX rewritten_what",
    "ALTER TABLE rewritten ALTER id TYPE bigint",
    "ALTER TABLE rewritten SET UNLOGGED",
    "ALTER TABLE rewritten SET LOGGED",
    "ALTER TABLE rewritten ADD c int DEFAULT random()::int",
    "ALTER TABLE rewritten DROP c",
    "REFRESH MATERIALIZED VIEW totals",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY totals",
    "CREATE TEMP TABLE t (n int PRIMARY KEY, s text)",
    "INSERT INTO t SELECT n, 'x' FROM generate_series(1, 2000) n",
    "DELETE FROM t",
    "TRUNCATE t",
    "DROP TABLE IF EXISTS t",
    "BEGIN; CREATE TEMP TABLE u (s text) ON COMMIT DROP; INSERT INTO u VALUES ('x'); COMMIT",
    "BEGIN; CREATE TABLE short (n int); INSERT INTO short VALUES (1); TRUNCATE short; \
     DROP TABLE short; COMMIT",
    "BEGIN; DROP TABLE kept; ROLLBACK",
    "BEGIN; SAVEPOINT a; DROP TABLE kept; ROLLBACK TO a; INSERT INTO witness VALUES ('s'); COMMIT",
    "BEGIN; TRUNCATE kept; ROLLBACK",
    "BEGIN; DELETE FROM kept; ROLLBACK",
    "VACUUM FULL pg_class",
];

impl Site {
    fn start(major: MajorVersion) -> Site {
        Site::start_with(major, &[])
    }

    fn start_with(major: MajorVersion, settings: &[(&str, &str)]) -> Site {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let builder = Cluster::builder(major).archive_to(url, "main");
        let builder = builder.setting("max_prepared_transactions", "2");
        let set =
            |builder: ClusterBuilder, (name, value): &(&str, &str)| builder.setting(name, value);
        let cluster = settings.iter().fold(builder, set).start();
        cluster.sql(RELATIONS);
        cluster.sql("CREATE DATABASE doomed");
        let load = (Pgbench::start(&cluster, 1, 2), Load::start(&cluster, 1, 1));
        cluster.walden().arg("backup").run().succeeds();
        let now = "SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        let since = cluster.value(now);
        Site { load: Some(load), cluster, since, repository }
    }

    /// In one transaction; its id.
    fn xid_of(&self, sql: &str) -> String {
        self.cluster.value(&format!("BEGIN; {sql}; SELECT pg_current_xact_id(); COMMIT"))
    }

    fn find(&self, words: &[&str]) -> Value {
        self.find_since(&self.since, words)
    }

    fn find_since(&self, since: &str, words: &[&str]) -> Value {
        let find = self.cluster.walden().arg("find").args(["--since", since, "--json"]);
        let output = find.args(words).run().succeeds();
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"))
    }

    /// Of a segment.
    fn object_of(&self, name: &str) -> PathBuf {
        let home = self.repository.path().join("main").join(self.cluster.system_identifier());
        home.join(reference::place_of(name))
    }

    /// The line as a person would paste it into a shell, with a directory for `<dir>`.
    fn carry_out(&self, line: &str, directory: &Path) -> Cluster {
        let line = line.replace("<dir>", &directory.display().to_string());
        let script = format!("walden() {{ '{}' \"$@\"; }}; {line}", program::binary().display());
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir("/").env_remove("WALDEN_CONFIG");
        let user = privileges::server_user().unwrap();
        let done = privileges::run_as(&mut shell, user.as_ref()).output().unwrap();
        let told = format!("{line}\n{}", String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{told}");
        let mut restored = Cluster::over(self.cluster.major(), directory);
        restored.start_again();
        restored
    }
}

/// `drop postgres.public.orders 745`, one line for each event.
fn lines(found: &Value) -> Vec<String> {
    let events = found["events"].as_array().expect("events");
    let line = |event: &Value| {
        let text = |key: &str| match &event[key] {
            Value::String(text) => format!(" {text}"),
            Value::Number(number) => format!(" {number}"),
            _ => String::new(),
        };
        let (action, relation) = (text("action"), text("relation"));
        let name = if relation.is_empty() { text("database") + &text("name") } else { relation };
        format!("{action}{name}{}{}", text("rows"), text("xid")).trim().to_owned()
    };
    events.iter().map(line).collect()
}

fn event<'f>(found: &'f Value, action: &str, relation: &str) -> &'f Value {
    let events = found["events"].as_array().expect("events");
    let is_it = |event: &&Value| event["action"] == action && event["relation"] == relation;
    events.iter().find(is_it).unwrap_or_else(|| panic!("no {action} of {relation}: {found:#}"))
}

fn event_of<'f>(found: &'f Value, action: &str) -> &'f Value {
    let events = found["events"].as_array().expect("events");
    events.iter().find(|event| event["action"] == action).expect("such an event")
}

#[test]
fn what_happened_in_a_busy_cluster_is_named_and_what_looks_like_it_is_not_on_17() {
    names_what_happened(Site::start(MajorVersion(17)));
}

#[test]
fn what_happened_in_a_busy_cluster_is_named_and_what_looks_like_it_is_not_on_15() {
    names_what_happened(Site::start(MajorVersion(15)));
}

#[test]
fn with_logical_wal_and_compressed_pages_the_same_is_found() {
    let settings = [("wal_level", "logical"), ("wal_compression", "pglz")];
    names_what_happened(Site::start_with(MajorVersion(18), &settings));
}

fn names_what_happened(mut site: Site) {
    let mut session = site.cluster.session("postgres").unwrap();
    for statements in FALSE_FRIENDS {
        session.query(statements).unwrap_or_else(|why| panic!("{statements}: {why}"));
    }
    drop(session);
    let mut expected = Vec::new();
    let mut did = |what: &str, xid: &str| expected.push(format!("{what} {xid}"));
    let xid = site.xid_of("DROP TABLE orders CASCADE");
    did("drop postgres.public.orders", &xid);
    did("drop postgres.public.totals", &xid);
    did("truncate postgres.public.lines", &site.xid_of("TRUNCATE lines"));
    did("truncate postgres.public.rewritten", &site.xid_of("TRUNCATE rewritten"));
    let some = "DELETE FROM visits WHERE id <= 1200";
    did("delete postgres.public.visits 1200", &site.xid_of(some));
    let within = "SAVEPOINT s; DROP TABLE \"Odd.Name\"; RELEASE s";
    did("drop postgres.public.\"Odd.Name\"", &site.xid_of(within));
    let xid = site.xid_of("DROP SCHEMA shop CASCADE");
    did("drop postgres.shop.a", &xid);
    did("drop postgres.shop.b", &xid);
    did("truncate postgres.public.part1", &site.xid_of("TRUNCATE parts"));
    let sql = "BEGIN; DROP TABLE prepared; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'p'";
    let xid = site.cluster.value(sql);
    site.cluster.sql("COMMIT PREPARED 'p'");
    did("drop postgres.public.prepared", &xid);
    site.cluster.sql("SELECT pg_create_restore_point('here')");
    expected.push("restore_point here".to_owned());
    site.cluster.sql("DROP DATABASE doomed");
    site.load = None;
    site.cluster.archive_everything();

    let found = site.find(&[]);
    let (databases, mut others): (Vec<_>, Vec<_>) =
        lines(&found).into_iter().partition(|line| line.starts_with("drop_database doomed "));
    assert_eq!(databases.len(), 1, "{found:#}");
    let prepared = event(&found, "drop", "postgres.public.prepared");
    assert!(prepared["note"].as_str().is_some_and(|note| note.contains("ROLLBACK PREPARED")));
    others.sort();
    expected.sort();
    assert_eq!(others, expected, "{found:#}");
}

/// The row of another session that was committed while the table was being dropped is kept, the
/// one after it is not there.
#[test]
fn the_printed_lines_bring_back_every_row_and_keep_what_others_committed() {
    let mut site = Site::start(MajorVersion(17));
    let mut session = site.cluster.session("postgres").unwrap();
    session.query("BEGIN; DROP TABLE lines; DELETE FROM visits").unwrap();
    site.cluster.sql("INSERT INTO witness VALUES ('before')");
    session.query("COMMIT").unwrap();
    site.cluster.sql("INSERT INTO witness VALUES ('after')");
    site.load = None;
    site.cluster.sql("CREATE TABLE of_no_backup (n int)");
    site.cluster.sql("INSERT INTO witness VALUES ('before the database')");
    site.cluster.sql("DROP DATABASE doomed");
    site.cluster.archive_everything();
    let found = site.find(&[]);
    let place = Scratch::new();

    let dropped = event(&found, "drop", "postgres.public.lines");
    assert_eq!(dropped["commit_lsn"], dropped["restore_lsn"]);
    let line = dropped["extract"].as_str().unwrap();
    let target =
        format!("--target-lsn {} --target-exclusive", dropped["restore_lsn"].as_str().unwrap());
    assert!(line.starts_with("walden drill --extract postgres.public.lines "), "{line}");
    assert!(line.contains(&target) && line.ends_with("--into <conninfo>"), "{line}");
    let line = dropped["restore"].as_str().unwrap();
    let restored = site.carry_out(line, &place.join("restored"));
    restored.wait_until("NOT pg_is_in_recovery()");
    assert_eq!(restored.column("SELECT what FROM witness"), ["before"]);
    assert_eq!(restored.value("SELECT count(*) FROM lines"), "2500");
    assert_eq!(restored.value("SELECT count(*) FROM visits"), "2500");
    drop(restored);

    // Paused before the lock was taken, the table can be read.
    assert!(dropped["inspect_gives_up"].as_u64().unwrap() >= 1, "{dropped:#}");
    let line = dropped["inspect"].as_str().unwrap();
    let paused = site.carry_out(line, &place.join("paused"));
    paused.wait_until("pg_get_wal_replay_pause_state() = 'paused'");
    assert_eq!(paused.value("SELECT count(*) FROM lines"), "2500");
    assert!(paused.column("SELECT what FROM witness").is_empty());
    drop(paused);

    let database = event_of(&found, "drop_database");
    let line = database["restore"].as_str().unwrap();
    let restored = site.carry_out(line, &place.join("database"));
    restored.wait_until("NOT pg_is_in_recovery()");
    assert_eq!(restored.value("SELECT count(*) FROM witness"), "3");
    let mut inside = restored.session("doomed").expect("the database is there and lets one in");
    assert_eq!(inside.query("SELECT 42").unwrap(), [[Some("42".to_owned())]]);
}

/// Names that no backup saved are in the WAL where the tables were made.
#[test]
fn tables_made_and_lost_since_the_backup_are_named_from_the_wal() {
    for major in [MajorVersion(16), MajorVersion(18)] {
        let mut site = Site::start(major);
        site.load = None;
        site.cluster.sql("CREATE SCHEMA made");
        site.cluster.sql(
            "CREATE TABLE late (id serial PRIMARY KEY, what text UNIQUE); \
             INSERT INTO late (what) SELECT n FROM generate_series(1, 1500) n",
        );
        site.cluster.sql("CREATE TABLE made.later (n int); INSERT INTO made.later VALUES (1)");
        site.cluster.sql("CREATE INDEX late_index ON late (what)");
        site.cluster.sql("CHECKPOINT; SELECT pg_switch_wal()");
        site.cluster.sql("CREATE TABLE in_an_image (n int)");
        site.cluster.sql("REINDEX INDEX late_index");
        site.cluster.sql("REINDEX TABLE late");
        site.cluster.sql("VACUUM FULL late");
        let truncate = site.xid_of("TRUNCATE late");
        let later = site.xid_of("DELETE FROM late; DROP TABLE made.later");
        let image = site.xid_of("DROP TABLE in_an_image");
        site.cluster.archive_everything();
        // Without the server: it knows what is still there.
        let found = site.find(&["--dbname", "host=/nowhere"]);
        let told = lines(&found);
        let truncated = format!("truncate postgres.public.late {truncate}");
        let image = format!("drop postgres.public.in_an_image {image}");
        assert_eq!((&told[0], &told[2], told.len()), (&truncated, &image, 3), "{found:#}");
        assert!(told[1].starts_with("drop postgres.\"schema "), "{found:#}");
        assert!(told[1].ends_with(&format!(".later {later}")), "{found:#}");
    }
}

#[test]
fn a_search_is_narrowed_by_name_kind_time_and_transaction() {
    let mut site = Site::start(MajorVersion(17));
    site.load = None;
    let drop = site.xid_of("DROP TABLE lines");
    site.cluster.sql("SELECT pg_create_restore_point('between')");
    let plain = site.xid_of("INSERT INTO witness VALUES ('plain')");
    let inner = site.cluster.value(
        "BEGIN; SAVEPOINT s; INSERT INTO witness VALUES ('inner'); \
         SELECT xmin FROM witness WHERE what = 'inner'; RELEASE s; COMMIT",
    );
    let undone = site.cluster.value("BEGIN; SELECT pg_current_xact_id(); ROLLBACK");
    let truncate = site.xid_of("TRUNCATE visits");
    let time = site.cluster.value("SELECT to_char(now(), 'YYYY-MM-DD HH24:MI:SS.USOF')");
    site.cluster.archive_everything();
    let drop = format!("drop postgres.public.lines {drop}");
    let truncate = format!("truncate postgres.public.visits {truncate}");
    let told = |words: &[&str]| lines(&site.find(words));
    assert_eq!(told(&["--dropped"]), [drop.as_str()]);
    assert_eq!(told(&["--restore-points"]), ["restore_point between"]);
    assert_eq!(told(&["public.v*", "postgres.public.none"]), [truncate.as_str()]);
    assert!(told(&["--deleted"]).is_empty());
    assert!(told(&["--until", &site.since]).is_empty());
    assert!(lines(&site.find_since(&time, &[])).iter().all(|line| *line == truncate));
    assert_eq!(told(&["--xid", &plain]), [format!("commit {plain}")]);
    assert_eq!(told(&["--xid", &inner]).len(), 1);
    assert!(told(&["--xid", "3"]).is_empty());
    let around = told(&["--around", &time, "--within", "1h"]);
    assert!(around.contains(&drop) && around.contains(&format!("commit {plain}")), "{around:?}");
    assert!(around.contains(&format!("abort {undone}")), "{around:?}");

    let nothing = site.cluster.walden().args(["find", "--since", "now"]).run().succeeds();
    nothing.stdout_has("nothing found between ").stdout_has(" segments of timeline 1");
    let refused = site.cluster.walden().args(["find", "--timeline", "7"]).run();
    refused.exits(4).stderr_has("00000007.history is not in the repository");
    let vague = site.cluster.walden().args(["find", "--since", "2026-11-21 10:00"]).run();
    vague.exits(4).stderr_has("--since '2026-11-21T10:00:00Z'");
}

/// More than a digest holds, and the end of the transaction in another segment than the beginning.
#[test]
fn what_is_too_much_for_a_digest_is_read_and_a_gap_is_told() {
    let mut site = Site::start(MajorVersion(17));
    site.load = None;
    site.cluster.sql(
        "DO $$ BEGIN FOR n IN 1..400 LOOP \
         EXECUTE format('CREATE TABLE shop.many%s (n int PRIMARY KEY, t text)', n); \
         END LOOP; END $$",
    );
    site.cluster.walden().arg("backup").run().succeeds();
    let since = site.cluster.value("SELECT to_char(now(), 'YYYY-MM-DD HH24:MI:SS.USOF')");
    let mut session = site.cluster.session("postgres").unwrap();
    session.query("BEGIN; DELETE FROM visits; SELECT pg_switch_wal()").unwrap();
    site.cluster.write_wal(3);
    session.query("INSERT INTO witness VALUES ('late'); COMMIT").unwrap();
    // Some of the deletes lie in two segments.
    site.cluster.sql("CREATE TABLE big AS SELECT n FROM generate_series(1, 60000) n");
    site.cluster.sql("DELETE FROM big WHERE n <= 59000");
    site.cluster.sql("DROP TABLE orders CASCADE");
    let lost = site.cluster.write_wal(2);
    site.cluster.sql("DROP SCHEMA shop CASCADE");
    site.cluster.archive_everything();
    let told = lines(&site.find_since(&since, &["--dropped", "--deleted"]));
    let of_schema = told.iter().filter(|line| line.starts_with("drop postgres.shop."));
    assert_eq!(of_schema.count(), 402, "{told:?}");
    assert!(told[0].starts_with("delete postgres.public.visits 2500 "), "{told:?}");
    assert!(told[1].starts_with("delete postgres.public.big 59000 "), "{told:?}");
    assert_eq!(told.len(), 402 + 4, "{told:?}");

    let object = site.object_of(&lost[1]);
    std::fs::remove_file(object).unwrap();
    let find = site.cluster.walden().args(["find", "--since", &since]);
    find.run()
        .succeeds()
        .stdout_has("note: 1 segments are missing before ")
        .stdout_has("shop.many400");
}

/// Before the fork the parent's WAL counts, behind it the child's.
#[test]
fn a_search_follows_the_branch_that_was_taken() {
    let mut site = Site::start(MajorVersion(17));
    site.load = None;
    site.cluster.sql("DROP TABLE lines");
    site.cluster.sql("SELECT pg_create_restore_point('fork')");
    site.cluster.sql("DROP TABLE visits");
    site.cluster.archive_everything();
    let place = Scratch::new();
    let words = ["--target-name", "fork", "--target-action", "promote", "--adopt"];
    let restore = site.cluster.walden().arg("restore").arg(place.join("branch")).args(words);
    restore.run().succeeds();
    site.cluster.stop();
    let mut branch = Cluster::over(MajorVersion(17), &place.join("branch"));
    branch.start_again();
    branch.wait_until("NOT pg_is_in_recovery()");
    branch.sql("DROP TABLE rewritten");
    branch.archive_everything();

    let found = site.find(&["--dropped"]);
    let names = ["lines", "rewritten"].map(|name| format!("postgres.public.{name}"));
    let told: Vec<_> = found["events"].as_array().unwrap().iter().collect();
    let relations: Vec<_> = told.iter().map(|event| event["relation"].as_str().unwrap()).collect();
    assert_eq!(relations, names, "{found:#}");
    assert_eq!((&told[0]["timeline"], &told[1]["timeline"]), (&1.into(), &2.into()));
    assert!(found["notes"].as_array().unwrap().is_empty(), "{found:#}");
    let older = site.find(&["--dropped", "--timeline", "1"]);
    event(&older, "drop", "postgres.public.visits");
    assert!(older["notes"][0].as_str().unwrap().contains("--timeline 2"), "{older:#}");

    drop(branch);
    for (event, table) in told.iter().zip(["lines", "rewritten"]) {
        let restored = site.carry_out(event["restore"].as_str().unwrap(), &place.join(table));
        restored.wait_until("NOT pg_is_in_recovery()");
        assert_eq!(restored.value(&format!("SELECT count(*) FROM {table}")), "2500");
    }
}

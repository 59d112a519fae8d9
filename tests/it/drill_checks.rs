//! What a drill asks of a server: every kind of answer, from real servers, sound and damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use walden::commands::drill::Recovered;
use walden::commands::drill::checks::{
    self, Answers, Checksums, CountRows, DumpSchema, Wanted, questions,
};
use walden::host::clock::Deadline;
use walden::postgres::MajorVersion;
use walden::repository::drill_record::{Check, Verdict};

use crate::harness::{self, ANY_MAJOR, Cluster, Output, Scratch};

fn recovered(cluster: &mut Cluster) -> Recovered {
    let launch = cluster.server().launch().clone();
    let deadline = Deadline::after(Duration::from_secs(120));
    Recovered::find_superuser(launch, &["postgres".to_owned()], deadline).unwrap()
}

fn ask(cluster: &mut Cluster, wanted: &Wanted) -> Answers {
    checks::ask(&recovered(cluster), wanted, None)
}

fn asking(sql: &str) -> Wanted {
    let scratch = Scratch::new();
    let file = scratch.join("checks.sql");
    fs::write(&file, sql).unwrap();
    Wanted {
        questions: questions::read(&file).unwrap(),
        question_timeout: Duration::from_secs(30),
        ..Wanted::default()
    }
}

fn counting() -> Wanted {
    Wanted { rows: Some(CountRows::default()), ..Wanted::default() }
}

#[track_caller]
fn expect(check: &Check, verdict: Verdict, words: &str) {
    assert_eq!(check.verdict, verdict, "{check:?}");
    assert!(check.answer.contains(words), "{words} is not in {check:?}");
}

/// A relation's first file, for a stopped server to be damaged.
fn file_of(cluster: &Cluster, relation: &str) -> PathBuf {
    let path = cluster.value(&format!("SELECT pg_relation_filepath('{relation}')"));
    cluster.pgdata().join(path)
}

fn damage(cluster: &mut Cluster, relation: &str, at: usize, bytes: &[u8]) {
    let file = file_of(cluster, relation);
    cluster.sql("CHECKPOINT");
    cluster.stop();
    let mut content = fs::read(&file).unwrap();
    content[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(&file, content).unwrap();
    cluster.start_again();
}

#[test]
fn statements_are_asked_each_alone_and_their_answers_judged() {
    let mut cluster = Cluster::start(ANY_MAJOR);
    cluster.sql("CREATE DATABASE shop");
    let mut shop = cluster.session("shop").unwrap();
    shop.query("CREATE TABLE orders AS SELECT n AS id FROM generate_series(1, 1234) n").unwrap();
    let mut wanted = asking(
        "-- database: shop\n\
         -- name: orders are there\n\
         SELECT count(*) FROM orders; -- expect >= 1000\n\
         SELECT count(*) FROM orders; -- expect > 1234\n\
         DELETE FROM orders RETURNING true;\n\
         SELECT count(*) = 1234 FROM orders;\n\
         SELECT id FROM orders WHERE false;\n\
         SELECT nothing FROM orders;\n\
         SELECT NULL;\n\
         SELECT true UNION ALL SELECT false;\n\
         SET work_mem = '1MB';\n\
         SELECT pg_sleep(60);\n\
         -- database: nowhere\n\
         SELECT true;\n",
    );
    wanted.question_timeout = Duration::from_secs(5);
    wanted.questions.iter_mut().filter(|one| one.sql.contains("sleep")).for_each(|one| {
        one.name = Some("sleeping".to_owned());
    });
    let answers = ask(&mut cluster, &wanted).checks;
    assert!(answers.iter().all(|check| check.kind == "sql"));
    assert_eq!(answers[0].what, "orders are there (checks.sql:3)");
    expect(&answers[0], Verdict::Passed, "1234");
    expect(&answers[1], Verdict::Failed, "1234; expected > 1234");
    expect(&answers[2], Verdict::Passed, "1234 rows");
    expect(&answers[3], Verdict::Passed, "t");
    expect(&answers[4], Verdict::Failed, "no rows");
    expect(&answers[5], Verdict::Failed, "column \"nothing\" does not exist");
    expect(&answers[6], Verdict::Failed, "NULL");
    expect(&answers[7], Verdict::Failed, "row 2: false");
    expect(&answers[8], Verdict::Failed, "no rows");
    expect(&answers[9], Verdict::Failed, "took too long");
    expect(&answers[10], Verdict::Failed, "nowhere");
    // And nothing of it stays.
    assert_eq!(shop.query("SELECT count(*) FROM orders").unwrap()[0][0].as_deref(), Some("1234"));
}

#[test]
fn rows_of_every_table_are_counted() {
    let mut cluster = Cluster::start(ANY_MAJOR);
    cluster.sql("CREATE DATABASE shop");
    let mut shop = cluster.session("shop").unwrap();
    shop.query(
        "CREATE SCHEMA \"Odd \"\"one\"; \
         CREATE TABLE \"Odd \"\"one\".\"t.t\" AS SELECT 1 FROM generate_series(1, 7); \
         CREATE UNLOGGED TABLE gone AS SELECT 1; \
         CREATE MATERIALIZED VIEW seen AS SELECT 1 FROM generate_series(1, 3); \
         CREATE MATERIALIZED VIEW unseen AS SELECT 1 WITH NO DATA; \
         CREATE TABLE whole (n int) PARTITION BY RANGE (n); \
         CREATE TABLE low PARTITION OF whole FOR VALUES FROM (0) TO (10); \
         CREATE TABLE high PARTITION OF whole FOR VALUES FROM (10) TO (100); \
         INSERT INTO whole SELECT generate_series(5, 24); \
         CREATE TABLE empty ()",
    )
    .unwrap();
    let answers = ask(&mut cluster, &counting());
    expect(&answers.checks[0], Verdict::Passed, "6 tables, 50 rows");
    let counted: Vec<(&str, u64)> =
        answers.tables.iter().map(|table| (table.relation.as_str(), table.rows)).collect();
    let expected = [
        ("\"Odd \"\"one\".\"t.t\"", 7),
        ("public.empty", 0),
        ("public.high", 15),
        ("public.low", 5),
        ("public.seen", 3),
        ("public.whole", 20),
    ];
    assert_eq!(counted, expected);
    let only = CountRows { of: vec!["shop.public.whole".parse().unwrap()], loss_max: None };
    let answers = ask(&mut cluster, &Wanted { rows: Some(only), ..Wanted::default() });
    assert_eq!(answers.tables.len(), 1);
    assert_eq!((answers.tables[0].database.as_str(), answers.tables[0].rows), ("shop", 20));
}

#[test]
fn a_page_that_does_not_match_its_checksum_is_found() {
    let mut cluster = Cluster::builder(ANY_MAJOR).data_checksums().tablespace("aside").start();
    cluster.sql(
        "CREATE TABLE t TABLESPACE aside AS SELECT n, md5(n::text) FROM generate_series(1, 9000) n",
    );
    cluster.sql("UPDATE t SET n = n + 1 WHERE n % 7 = 0");
    let wanted = Wanted { checksums: Checksums::WhereThereAre, ..counting() };
    // Pages that were only changed in memory are written first.
    let answers = ask(&mut cluster, &wanted).checks;
    expect(&answers[0], Verdict::Passed, "each as its checksum says");
    damage(&mut cluster, "t", 5 * 8192 + 5000, b"\x00\xFF");
    let answers = ask(&mut cluster, &wanted).checks;
    assert_eq!(answers[0].kind, "checksums");
    expect(&answers[0], Verdict::Failed, "block 5: checksum");
    expect(&answers[0], Verdict::Failed, "pg_tblspc/");
    assert_eq!(answers[1].kind, "rows");
    expect(&answers[1], Verdict::Failed, "cannot be read: public.t in postgres");
}

#[test]
fn without_checksums_nothing_is_said_to_be_right() {
    let mut cluster = Cluster::start(ANY_MAJOR);
    let asking = |checksums| Wanted { checksums, ..Wanted::default() };
    let answers = ask(&mut cluster, &asking(Checksums::Yes)).checks;
    expect(&answers[0], Verdict::Incomplete, "no data checksums");
    for unasked in [Checksums::No, Checksums::WhereThereAre] {
        assert!(ask(&mut cluster, &asking(unasked)).checks.is_empty());
    }
}

#[test]
fn amcheck_finds_an_index_out_of_order_and_a_row_that_cannot_be() {
    for major in [MajorVersion(15), MajorVersion(18)] {
        let mut cluster = Cluster::start(major);
        cluster.sql("CREATE TABLE t (n int PRIMARY KEY, x text)");
        cluster.sql(
            "INSERT INTO t SELECT n, repeat(md5(n::text), 200) FROM generate_series(1, 300) n",
        );
        cluster.sql("CREATE TABLE heap AS SELECT n FROM generate_series(1, 300) n");
        let wanted = Wanted { amcheck: true, ..Wanted::default() };
        let answers = ask(&mut cluster, &wanted).checks;
        let what: Vec<&str> = answers.iter().map(|check| check.what.as_str()).collect();
        assert_eq!(what, ["postgres", "template1"]);
        answers.iter().for_each(|check| expect(check, Verdict::Passed, "are sound"));
        let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'walden%'";
        assert_eq!(cluster.value(schemas), "0", "nothing of it is left");

        // The key of the first row in the first leaf, behind all that follow it.
        damage(&mut cluster, "t_pkey", 8192 + 8192 - 16 - 16 + 8, &1_000_000u32.to_le_bytes());
        let answers = ask(&mut cluster, &wanted).checks;
        expect(&answers[0], Verdict::Failed, "1 are damaged: public.t_pkey: ");
        expect(&answers[1], Verdict::Passed, "are sound");

        // The first row is by a transaction that is yet to come: its place is in its line pointer.
        let page = fs::read(file_of(&cluster, "heap")).unwrap();
        let row = usize::from(u16::from_le_bytes([page[24], page[25]]) & 0x7FFF);
        damage(&mut cluster, "heap", row, &0x7000_0000u32.to_le_bytes());
        let answers = ask(&mut cluster, &wanted).checks;
        expect(&answers[0], Verdict::Failed, "2 are damaged");
        expect(&answers[0], Verdict::Failed, "public.heap: block 0: xmin");
    }
}

/// Debian's pg_dump of the same version.
#[test]
fn the_schema_of_every_database_is_summed_up_and_kept() {
    let mut cluster = Cluster::start(MajorVersion(15));
    cluster.sql("CREATE DATABASE \"a=b 'c'\"");
    cluster.sql("CREATE TABLE first_table (n int)");
    let scratch = Scratch::new();
    let dump = DumpSchema { directory: Some(scratch.join("schemas")), bin: None };
    let wanted = Wanted { schema: Some(dump), ..Wanted::default() };
    let answers = ask(&mut cluster, &wanted).checks;
    let what: Vec<&str> = answers.iter().map(|check| check.what.as_str()).collect();
    assert_eq!(what, ["a=b 'c'", "postgres"]);
    let again = ask(&mut cluster, &wanted).checks;
    let sum = |check: &Check| check.answer.clone();
    assert_eq!(
        answers.iter().map(sum).collect::<Vec<_>>(),
        again.iter().map(sum).collect::<Vec<_>>()
    );
    let kept = fs::read_to_string(scratch.join("schemas/postgres.sql")).unwrap();
    assert!(kept.contains("CREATE TABLE public.first_table"), "{kept}");
    cluster.sql("ALTER TABLE first_table ADD m int");
    let changed = ask(&mut cluster, &wanted).checks;
    assert_eq!(sum(&changed[0]), sum(&answers[0]));
    assert_ne!(sum(&changed[1]), sum(&answers[1]));
    expect(&changed[1], Verdict::Passed, "XXH3 ");
}

/// From a repository, by the command.
#[test]
fn a_drill_says_by_its_exit_code_what_came_of_the_questions() {
    let (repository, drills, words) = (Scratch::new(), Scratch::new(), Scratch::new());
    let url = format!("file://{}", repository.path().display());
    let live = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    live.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n");
    live.walden().arg("backup").run().succeeds();
    live.archive_everything();
    let bin = harness::installation(ANY_MAJOR).bin;
    let drill_by = |bin: &Path| {
        let drill = live.walden().arg("drill").arg("--latest").arg("--pg-bin").arg(bin);
        drill.arg("--json").arg("--scratch").arg(drills.path())
    };
    let drill = || drill_by(&bin);
    let asking = |sql: &str| {
        let file = words.join("checks.sql");
        fs::write(&file, sql).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        drill().arg("--sql").arg(file)
    };
    let record = |output: &Output| -> serde_json::Value {
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"))
    };
    let wrong = asking("SELECT 1;\n\\dt\n").run().exits(2);
    wrong.stderr_has("line 2: a command of psql");
    let first = asking("SELECT count(*) FROM t -- expect = 1000").arg("--amcheck").run().succeeds();
    let first = record(&first);
    assert_eq!(first["tables"][0]["rows"], 1000);
    assert_eq!(first["tables"][0]["before"], serde_json::Value::Null);

    live.sql("DELETE FROM t WHERE n > 300; CREATE TABLE other AS SELECT 1");
    live.archive_everything();
    let failed = asking("SELECT count(*) FROM t -- expect = 1000").run().exits(5);
    let failed = record(&failed);
    assert_eq!(failed["verdict"], "failed");
    assert_eq!(failed["tables"][1]["before"], 1000);
    drill().args(["--max-loss", "20"]).run().succeeds();
    live.sql("DROP TABLE other");
    live.archive_everything();
    let loss = drill().args(["--max-loss", "20"]).run().exits(5);
    assert!(loss.stdout.contains("public.other in postgres is gone, had 1 rows"), "{loss}");
    let open = drill().args(["--checksums", "--no-count"]).run().exits(6);
    assert_eq!(record(&open)["tables"].as_array().unwrap().len(), 0);

    let poor = words.join("poor");
    copy_without_contrib(bin.parent().unwrap(), &poor);
    let unasked = drill_by(&poor.join("bin")).arg("--amcheck").run().exits(6);
    assert_eq!(record(&unasked)["verdict"], "incomplete");
    assert!(unasked.stdout.contains("packages have it in postgresql-contrib"), "{unasked}");
    drill_by(&poor.join("bin")).run().succeeds();
}

/// Programs of which the packages with amcheck are not installed.
fn copy_without_contrib(installation: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-aL").arg(installation).arg(to).status().unwrap();
    assert!(copied.success());
    let extensions = to.join("share/postgresql/extension");
    for entry in fs::read_dir(extensions).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("amcheck") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

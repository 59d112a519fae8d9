//! Tables brought back from a recovered server: into files, and into a live one that keeps all it
//! has.

use std::fs;
use std::process::Command;
use std::time::Duration;

use walden::commands::drill::Recovered;
use walden::commands::drill::extract::{
    self, Content, Destination, NewPlace, Outcome, Request, To,
};
use walden::error::{ErrorKind, Result};
use walden::host::clock::Deadline;
use walden::postgres::MajorVersion;
use walden::postgres::connection::ConnectionOptions;

use crate::harness::cluster::PORT;
use crate::harness::{self, Cluster, Scratch, Walden};

/// Rows that the harness, which waits a minute for an answer, asks for at once.
const PART: u64 = 1_000_000;
const LONG: Duration = Duration::from_secs(1800);
/// Of which this machine has pg_dump.
const MAJOR: MajorVersion = MajorVersion(15);

/// A server as it was then, and the live one.
struct Both {
    past: Cluster,
    live: Cluster,
}

impl Both {
    fn new(past_sql: &str, live_sql: &str) -> Both {
        let (past, live) = (Cluster::start(MAJOR), Cluster::start(MAJOR));
        past.sql(past_sql);
        live.sql(live_sql);
        Both { past, live }
    }

    fn request(&self, tables: &[&str]) -> Request {
        let options = ConnectionOptions::local(self.live.socket_directory(), PORT, "postgres");
        Request {
            tables: tables.iter().map(|name| name.parse().unwrap()).collect(),
            database: None,
            content: Content::SchemaAndData,
            no_owner: false,
            bin: None,
            to: To::Database(Box::new(Destination {
                options,
                place: NewPlace::default(),
                append: false,
            })),
        }
    }

    fn bring_back(&mut self, request: Request) -> Result<Outcome> {
        let launch = self.past.server().launch().clone();
        let deadline = Deadline::after(Duration::from_secs(120));
        let server = Recovered::find_superuser(launch, &["postgres".to_owned()], deadline)?;
        extract::prepare(request)?.bring_back(&server, &|_| ())
    }

    #[track_caller]
    fn refuses(&mut self, request: Request, words: &str) {
        let error = self.bring_back(request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint_text().is_some(), "{error}");
    }
}

fn place(request: &mut Request, schema: Option<&str>, name: Option<&str>) {
    let To::Database(destination) = &mut request.to else { panic!("into no database") };
    destination.place =
        NewPlace { schema: schema.map(str::to_owned), name: name.map(str::to_owned) };
}

fn append(request: &mut Request) {
    let To::Database(destination) = &mut request.to else { panic!("into no database") };
    destination.append = true;
}

/// Every row, in any order.
fn sum_of(table: &str) -> String {
    format!(
        "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {table} t"
    )
}

const ORDERS: &str = "\
    CREATE TABLE customers (id int PRIMARY KEY); \
    INSERT INTO customers SELECT generate_series(1, 100); \
    CREATE TYPE state AS ENUM ('new', 'paid'); \
    CREATE TABLE orders ( \
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
        customer int REFERENCES customers, \
        note text, paid state[], at timestamptz, amount numeric(12, 2), odd float8, raw bytea, \
        doubled numeric GENERATED ALWAYS AS (amount * 2) STORED); \
    CREATE INDEX orders_by_customer ON orders (customer, at); \
    COMMENT ON TABLE orders IS 'with a ; and a '' in it'; \
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$; \
    CREATE TRIGGER stamp BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stamp(); \
    CREATE TABLE items (order_id bigint REFERENCES orders); \
    CREATE VIEW totals AS SELECT sum(amount) FROM orders; \
    INSERT INTO orders (customer, note, paid, at, amount, odd, raw) \
        SELECT n % 100 + 1, CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN E'tab\\tline\\nback\\\\' \
            ELSE repeat('ä', n % 50) END, ARRAY['new', 'paid']::state[], \
            timestamptz '2026-01-01' + n * interval '1 second', n / 3.0, \
            CASE n WHEN 1 THEN 'NaN' ELSE pi() * n END, decode(md5(n::text), 'hex') \
        FROM generate_series(1, 5000) n";

#[test]
fn a_dropped_table_comes_back_with_all_that_belongs_to_it() {
    let mut both = Both::new(ORDERS, ORDERS);
    both.live.sql("DROP TABLE orders CASCADE");
    let outcome = both.bring_back(both.request(&["orders"])).unwrap();
    assert_eq!((outcome.tables[0].rows, outcome.tables.len()), (5000, 1));
    assert_eq!(both.live.value(&sum_of("orders")), both.past.value(&sum_of("orders")));
    let notes = outcome.notes.join("\n");
    assert!(notes.contains("items_order_id_fkey of items") && notes.contains("totals"), "{notes}");
    let shape = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM ( \
        SELECT pg_get_indexdef(indexrelid) AS line FROM pg_index \
            WHERE indrelid = 'orders'::regclass \
        UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint \
            WHERE conrelid = 'orders'::regclass \
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger \
            WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal \
        UNION ALL SELECT obj_description('orders'::regclass)) s";
    assert_eq!(both.live.value(shape), both.past.value(shape));
    let next = "INSERT INTO orders (customer) VALUES (1) RETURNING id";
    assert_eq!(both.live.value(next), both.past.value(next));
    assert_eq!(both.past.value("SELECT count(*) FROM pg_namespace WHERE nspname ~ 'walden'"), "0");
}

#[test]
fn what_a_column_names_beside_the_table_is_told_of() {
    let mut both = Both::new(
        "CREATE TABLE scans (n int, page oid); INSERT INTO scans SELECT 1, lo_creat(-1)",
        "CREATE TABLE other (n int)",
    );
    let outcome = both.bring_back(both.request(&["scans"])).unwrap();
    let notes = outcome.notes.join("\n");
    assert!(notes.contains("Large objects do not come along"), "{notes}");
    assert!(notes.contains("scans.page"), "{notes}");
}

#[test]
fn beside_the_live_table_it_gets_another_schema_or_name() {
    let mut both = Both::new(ORDERS, ORDERS);
    both.live.sql("UPDATE orders SET amount = 0");
    both.live.sql(
        "ALTER TABLE items DROP CONSTRAINT items_order_id_fkey; DELETE FROM customers WHERE false",
    );
    let live_before = both.live.value(&sum_of("orders"));
    both.refuses(both.request(&["public.orders"]), "is there already");
    both.refuses(both.request(&["orders"]), "is there already");

    let past = both.past.value(&sum_of("orders"));
    let mut request = both.request(&["orders", "items"]);
    place(&mut request, Some("walden_restored"), None);
    let outcome = both.bring_back(request.clone()).unwrap();
    assert!(outcome.notes[0].contains("Foreign keys and triggers"), "{:?}", outcome.notes);
    assert_eq!(both.live.value(&sum_of("walden_restored.orders")), past);
    assert_eq!(both.live.value("SELECT count(*) FROM walden_restored.items"), "0");
    both.refuses(request, "is there already");

    // The past is another one now: what was staged in it stays there.
    let mut both = Both { past: Cluster::start(MAJOR), live: both.live };
    both.past.sql(ORDERS);
    let mut request = both.request(&["public.orders"]);
    place(&mut request, None, Some("orders_then"));
    both.bring_back(request).unwrap();
    assert_eq!(both.live.value(&sum_of("orders_then")), past);
    let indexes = "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes \
                   WHERE tablename = 'orders_then'";
    assert_eq!(both.live.value(indexes), "orders_then_by_customer orders_then_pkey");
    let bound = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' \
                 AND conrelid IN ('orders_then'::regclass, 'walden_restored.orders'::regclass)";
    assert_eq!(both.live.value(bound), "0");
    assert_eq!(both.live.value(&sum_of("orders")), live_before, "it was not touched");
}

#[test]
fn rows_alone_go_into_an_empty_table_or_are_added() {
    let mut both = Both::new(ORDERS, ORDERS);
    let rows = |both: &Both| {
        let mut request = both.request(&["orders"]);
        request.content = Content::DataOnly;
        request
    };
    both.refuses(rows(&both), "has rows already");
    both.live.sql("TRUNCATE orders CASCADE; ALTER TABLE orders ADD later int DEFAULT 7");
    both.bring_back(rows(&both)).unwrap();
    assert_eq!(both.live.value("SELECT count(*) FROM orders WHERE later = 7"), "5000");
    assert_eq!(
        both.live.value("SELECT sum(amount) || ' ' || max(note) FROM orders"),
        both.past.value("SELECT sum(amount) || ' ' || max(note) FROM orders")
    );
    // The same rows once more break the primary key, and nothing stays of them.
    let mut again = rows(&both);
    append(&mut again);
    let error = both.bring_back(again.clone()).unwrap_err();
    assert!(error.to_string().contains("orders_pkey"), "{error}");
    assert_eq!(both.live.value("SELECT count(*) FROM orders"), "5000");
    both.live.sql("DELETE FROM orders WHERE id <= 4000");
    both.past.sql("DELETE FROM orders WHERE id > 4000");
    both.bring_back(again).unwrap();
    assert_eq!(both.live.value("SELECT count(*) FROM orders"), "5000");

    both.live.sql("TRUNCATE orders CASCADE; ALTER TABLE orders DROP note");
    both.refuses(rows(&both), "no column note any more");
    both.live.sql("DROP TABLE orders CASCADE");
    both.refuses(rows(&both), "there is no");
}

#[test]
fn what_a_live_trigger_takes_away_undoes_it_all() {
    let mut both = Both::new(
        "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n",
        "CREATE TABLE t (n int); \
         CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN IF NEW.n % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW; END$$; \
         CREATE TRIGGER skip BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION skip()",
    );
    let mut request = both.request(&["t"]);
    request.content = Content::DataOnly;
    let error = both.bring_back(request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FoundWrong);
    assert!(error.to_string().contains("1000 rows were read, 500 arrived"), "{error}");
    assert_eq!(both.live.value("SELECT count(*) FROM t"), "0");
}

#[test]
fn partitions_come_with_their_whole_and_odd_names_stay() {
    let sql = "CREATE TABLE whole (n int, x text) PARTITION BY RANGE (n); \
        CREATE TABLE low PARTITION OF whole FOR VALUES FROM (0) TO (100); \
        CREATE TABLE high PARTITION OF whole FOR VALUES FROM (100) TO (1000) \
            PARTITION BY LIST (x); \
        CREATE TABLE high_a PARTITION OF high FOR VALUES IN ('a'); \
        CREATE TABLE high_b PARTITION OF high DEFAULT; \
        CREATE INDEX ON whole (n); \
        INSERT INTO whole SELECT n, chr(97 + n % 3) FROM generate_series(0, 999) n; \
        CREATE SCHEMA \"Odd.\"; \
        CREATE TABLE \"Odd.\".\"a\"\"b.* \\ c\" (\"select\" serial, \"D\" text); \
        INSERT INTO \"Odd.\".\"a\"\"b.* \\ c\" (\"D\") \
            SELECT md5(n::text) FROM generate_series(1, 50) n";
    let mut both = Both::new(sql, "SELECT 1");
    let outcome = both.bring_back(both.request(&["whole*", r#""Odd."."a""b.* \ c""#])).unwrap();
    assert_eq!(outcome.tables.len(), 2);
    for table in ["whole", "high_b", r#""Odd."."a""b.* \ c""#] {
        assert_eq!(both.live.value(&sum_of(table)), both.past.value(&sum_of(table)), "{table}");
    }
    assert_eq!(
        both.live.value(r#"INSERT INTO "Odd."."a""b.* \ c" DEFAULT VALUES RETURNING "select""#),
        "51"
    );
    let mut request = both.request(&["whole"]);
    place(&mut request, None, Some("then"));
    both.bring_back(request).unwrap();
    assert_eq!(both.live.value(&sum_of("\"then\"")), both.past.value(&sum_of("\"then\"")));
    // Four partitions and those of the index, twice.
    assert_eq!(both.live.value("SELECT count(*) FROM pg_inherits"), "16");

    both.refuses(both.request(&["hihg"]), "no table hihg");
    both.past.sql("CREATE VIEW seen AS SELECT 1; CREATE SCHEMA other");
    both.past.sql("CREATE TABLE other.twin (); CREATE TABLE twin ()");
    both.refuses(both.request(&["seen"]), "is a view");
    both.live.sql("DROP TABLE whole");
    both.refuses(both.request(&["twin"]), "twin may mean");
}

#[test]
fn into_files_for_pg_restore_for_psql_and_as_csv() {
    let mut both = Both::new(ORDERS, "SELECT 1");
    let scratch = Scratch::new();
    let to = |both: &Both, tables: &[&str], file: &str| Request {
        to: To::Files(scratch.join(file)),
        ..both.request(tables)
    };
    let outcome = both.bring_back(to(&both, &["orders"], "orders.csv")).unwrap();
    assert_eq!(outcome.tables[0].rows, 5000);
    let csv = fs::read_to_string(scratch.join("orders.csv")).unwrap();
    assert!(csv.starts_with("id,customer,note,paid,at,amount,odd,raw\n1,2,"), "{csv:.200}");

    both.bring_back(to(&both, &["orders", "items"], "orders.sql")).unwrap();
    let sql = fs::read_to_string(scratch.join("orders.sql")).unwrap();
    assert!(sql.contains("CREATE TABLE public.orders") && sql.contains("COPY public.orders"));

    fs::create_dir(scratch.join("all")).unwrap();
    both.bring_back(to(&both, &["orders", "customers"], "all")).unwrap();
    let archive = scratch.join("all/public.orders.dump");
    let listed =
        Command::new("/usr/lib/postgresql/15/bin/pg_restore").arg("-l").arg(archive).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert!(listed.contains("TABLE DATA public orders"), "{listed}");
    assert!(scratch.join("all/public.customers.dump").exists());
    both.refuses(to(&both, &["orders"], "orders.csv"), "is there already");
}

/// A live cluster with an archive, from which `orders` of the database `shop` was dropped.
struct Accident {
    live: Cluster,
    repository: Scratch,
    drills: Scratch,
    before: String,
}

impl Accident {
    fn new() -> Accident {
        let (repository, drills) = (Scratch::new(), Scratch::new());
        let url = format!("file://{}", repository.path().display());
        let live = Cluster::builder(MAJOR).archive_to(url, "main").start();
        live.sql("CREATE DATABASE shop");
        live.sql("CREATE DATABASE other");
        let mut other = live.session("other").unwrap();
        other.query("CREATE TABLE ballast AS SELECT generate_series(1, 50000)").unwrap();
        let mut shop = live.session("shop").unwrap();
        shop.query(ORDERS).unwrap();
        live.walden().arg("backup").run().succeeds();
        shop.query("UPDATE orders SET note = 'late' WHERE id > 4900").unwrap();
        other.query("INSERT INTO ballast SELECT generate_series(1, 50000)").unwrap();
        let before = shop.query(&sum_of("orders")).unwrap()[0][0].clone().unwrap();
        shop.query("SELECT pg_create_restore_point('before')").unwrap();
        shop.query("DROP TABLE orders CASCADE").unwrap();
        live.archive_everything();
        Accident { live, repository, drills, before }
    }

    fn extract(&self, tables: &[&str]) -> Walden {
        let bin = harness::installation(MAJOR).bin;
        let drill = self.live.walden().arg("drill").arg("--extract").args(tables);
        drill.arg("--scratch").arg(self.drills.path()).arg("--pg-bin").arg(bin)
    }

    fn shop(&self, sql: &str) -> String {
        self.live.session("shop").unwrap().query(sql).unwrap()[0][0].clone().unwrap_or_default()
    }

    fn audited(&self) -> Vec<serde_json::Value> {
        let home = self.repository.path().join("main").join(self.live.system_identifier());
        let mut entries: Vec<_> = fs::read_dir(home.join("audit")).unwrap().flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        let entries = entries.iter().map(|entry| fs::read(entry.path()).unwrap());
        let entries = entries.map(|json| serde_json::from_slice(&json).unwrap());
        entries.filter(|entry: &serde_json::Value| entry["verb"] == "extract").collect()
    }
}

#[test]
fn one_command_brings_a_dropped_table_back_into_the_live_database() {
    let accident = Accident::new();
    let words = ["--target-name", "before", "--into", "dbname=shop", "--json"];
    let output = accident.extract(&["orders"]).args(words).run().succeeds();
    let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["database"], "shop");
    assert_eq!(report["tables"][0]["rows"], 5000);
    assert_eq!(report["target"]["options"][0], "--target-name before");
    assert_eq!(accident.shop(&sum_of("orders")), accident.before);
    assert_eq!(fs::read_dir(accident.drills.path()).unwrap().count(), 0, "nothing is left");

    let again = accident.extract(&["public.orders"]).args(words).run().exits(4);
    again.stderr_has("is there already").stderr_has("--into-schema");
    accident.shop("UPDATE orders SET note = NULL RETURNING 1");
    let beside = ["--target-name", "before", "--into", "--into-schema", "walden_restored"];
    let beside = accident.extract(&["shop.public.orders"]).args(beside).env("PGDATABASE", "shop");
    beside.run().succeeds().stdout_has("5000 rows, in walden_restored.orders");
    assert_eq!(accident.shop(&sum_of("walden_restored.orders")), accident.before);

    let entries = accident.audited();
    assert_eq!(entries.len(), 2, "what was refused before it began is no deed");
    assert_eq!(entries[0]["outcome"], "done");
    assert_eq!(entries[0]["details"]["tables"][0]["rows"], 5000);
    assert_eq!(entries[0]["details"]["target"][0], "--target-name before");
}

#[test]
fn an_extraction_that_cannot_be_is_refused_and_leaves_nothing() {
    let accident = Accident::new();
    let into = ["--into", "dbname=shop"];
    accident.extract(&["orders"]).args(into).run().exits(4).stderr_has("no recovery target");
    accident.extract(&["orders"]).arg("--latest").run().exits(2).stderr_has("where to");
    let latest = accident.extract(&["orders"]).arg("--latest").args(into);
    latest.run().exits(4).stderr_has("there was no table orders at that time");
    let at = ["--target-name", "before"];
    let near = accident.extract(&["ordres"]).args(at).args(into);
    near.run().exits(4).stderr_has("Did you mean").stderr_has("orders?");
    let never = accident.extract(&["orders"]).args(["--target-name", "never"]).args(into);
    never.run().exits(4);
    let file = ["--to-file", "/nonexistent/orders.csv"];
    let file = accident.extract(&["shop.public.orders"]).args(at).args(file);
    file.run().exits(6);
    let nobody = accident.extract(&["orders"]).args(at).args(["--into", "host=/nonexistent"]);
    nobody.run().exits(6).stderr_has("look at the destination");
    assert_eq!(fs::read_dir(accident.drills.path()).unwrap().count(), 0, "nothing is left");
    let shop = accident.shop("SELECT to_regclass('orders') IS NULL");
    assert_eq!(shop, "t");
    let failed = accident.audited();
    assert!(failed.iter().all(|entry| entry["outcome"] == "failed"), "{failed:?}");
    assert_eq!(failed.len(), 4);
}

/// The criterion is 10 million rows: WALDEN_TEST_EXTRACT_ROWS.
#[test]
fn many_rows_with_fields_of_every_length_arrive_as_they_left() {
    let rows = harness::amount("WALDEN_TEST_EXTRACT_ROWS", 200_000);
    let (repository, drills) = (Scratch::new(), Scratch::new());
    let url = format!("file://{}", repository.path().display());
    let live = Cluster::builder(MAJOR).segment_size_mib(16).archive_to(url, "main").start();
    live.sql("CREATE TABLE big (id bigint, x text, y numeric, at timestamptz)");
    for first in (1..=rows).step_by(PART as usize) {
        let last = rows.min(first + PART - 1);
        live.sql(&format!(
            "INSERT INTO big SELECT n, md5(n::text), n / 7.0, now() FROM \
             generate_series({first}, {last}) n"
        ));
    }
    live.sql("ALTER TABLE big ADD PRIMARY KEY (id)");
    live.walden().arg("backup").timeout(LONG).run().succeeds();
    // Longer than any message that is held in memory as a whole.
    live.sql("ALTER TABLE big ALTER x SET STORAGE EXTERNAL");
    live.sql("INSERT INTO big VALUES (0, repeat('long ', 14 << 20)), (-1, NULL)");
    live.sql("DELETE FROM big WHERE id % 1000 = 0 AND id > 0");
    let sums = || -> Vec<String> {
        let parts = (0..=rows).step_by(PART as usize);
        parts
            .map(|first| {
                let part = format!(
                    "(SELECT * FROM big WHERE id BETWEEN {first} - 1 AND {first} + {PART})"
                );
                live.value(&sum_of(&part))
            })
            .collect()
    };
    let before = sums();
    let lsn = live.value("SELECT pg_current_wal_insert_lsn()");
    live.sql("DROP TABLE big");
    live.archive_everything();
    let bin = harness::installation(MAJOR).bin;
    let extract = live.walden().args(["drill", "--extract", "big", "--into", "dbname=postgres"]);
    let extract = extract.args(["--target-lsn", &lsn, "--target-exclusive"]).arg("--scratch");
    let output = extract.arg(drills.path()).arg("--pg-bin").arg(bin).timeout(LONG).run();
    println!("{}", output.succeeds().stdout);
    assert_eq!(sums(), before);
    assert_eq!(
        live.value("SELECT conname FROM pg_constraint WHERE conrelid = 'big'::regclass"),
        "big_pkey"
    );
}

#[test]
fn told_to_stop_it_leaves_the_live_database_as_it_was() {
    let accident = Accident::new();
    accident.shop("CREATE SCHEMA later; SELECT 1");
    let words = ["--target-name", "before", "--into", "dbname=shop", "--into-schema", "later"];
    let blocked = accident.live.session("shop");
    let mut blocked = blocked.unwrap();
    blocked.query("BEGIN; CREATE TABLE later.orders ()").unwrap();
    let mut running = accident.extract(&["orders"]).args(words).spawn();
    let waits = "EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'walden extract' \
                 AND wait_event_type = 'Lock')";
    accident.live.wait_until(waits);
    running.terminate();
    running.wait().exits(75);
    accident.live.wait_until(&format!("NOT {waits}"));
    blocked.query("ROLLBACK").unwrap();
    let gone = "NOT EXISTS (SELECT FROM pg_stat_activity \
                WHERE application_name = 'walden extract')";
    accident.live.wait_until(gone);
    assert_eq!(accident.shop("SELECT to_regclass('later.orders') IS NULL"), "t");
    assert_eq!(fs::read_dir(accident.drills.path()).unwrap().count(), 0, "nothing is left");
}

/// What was prepared by then holds its locks still, and is not part of the past.
#[test]
fn a_table_that_a_prepared_transaction_has_locked_comes_back() {
    let mut both = Both::new("CREATE TABLE t AS SELECT 1 AS n", "SELECT 1");
    both.past.configure("max_prepared_transactions", "5");
    both.past.stop();
    both.past.start_again();
    let mut session = both.past.session("postgres").unwrap();
    session.query("BEGIN; DROP TABLE t").unwrap();
    session.query("PREPARE TRANSACTION 'the drop'").unwrap();
    let outcome = both.bring_back(both.request(&["t"])).unwrap();
    assert!(outcome.notes.iter().any(|note| note.ends_with("the drop.")), "{:?}", outcome.notes);
    assert_eq!(both.live.value("SELECT n FROM t"), "1");
}

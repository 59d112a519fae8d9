//! The names saved with a backup: those of the server's own catalogs, whatever a database allows.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use walden::postgres::wal::digest::RelationFile;
use walden::postgres::{MajorVersion, Names};

use crate::harness::session::Rows;
use crate::harness::site::files_below;
use crate::harness::{ANY_MAJOR, Cluster, ClusterBuilder, Output, Scratch};

struct Archiving {
    cluster: Cluster,
    repository: Scratch,
}

impl Archiving {
    fn start(builder: ClusterBuilder) -> Archiving {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        Archiving { cluster: builder.archive_to(url, "main").start(), repository }
    }

    #[track_caller]
    fn backup_as(&self, role: &str) -> (Output, Value) {
        self.cluster.archive_everything();
        let walden = self.cluster.walden().env("PGUSER", role);
        let output = walden.args(["backup", "--json"]).run().succeeds();
        let report = serde_json::from_str(&output.stdout).unwrap();
        (output, report)
    }

    fn objects(&self) -> Vec<PathBuf> {
        let mut files = files_below(self.repository.path());
        files.retain(|file| file.ends_with("names.json.zst"));
        files
    }

    /// As anybody can read them: `zstd -d`, JSON.
    fn saved(&self) -> Names {
        let object = fs::read(&self.objects()[0]).unwrap();
        let json = zstd::stream::decode_all(&object[..]).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    fn allow(&mut self, lines: &str) {
        fs::write(self.cluster.pgdata().join("pg_hba.conf"), lines).unwrap();
        self.cluster.reload();
    }
}

/// What the server itself says of every relation of a database, as text.
fn relations_of(cluster: &Cluster, database: &str) -> Rows {
    let sql = "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relisshared, \
            coalesce(pg_relation_filenode(c.oid), 0), \
            coalesce(nullif(c.reltablespace, 0), d.dattablespace), d.oid, \
            c.relpersistence, \
            coalesce(i.indrelid, (SELECT t.oid FROM pg_class t WHERE t.reltoastrelid = c.oid \
                AND c.relkind = 't'), (SELECT d.refobjid FROM pg_depend d WHERE c.relkind = 'S' \
                AND d.objid = c.oid AND d.refobjsubid > 0), 0) \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
            LEFT JOIN pg_index i ON i.indexrelid = c.oid, pg_database d \
        WHERE d.datname = current_database() ORDER BY c.oid";
    cluster.session(database).unwrap().query(sql).unwrap()
}

/// Every relation of a database by its oid and by its file.
#[track_caller]
fn assert_knows(names: &Names, cluster: &Cluster, database: &str) -> usize {
    let rows = relations_of(cluster, database);
    for row in &rows {
        let text = |at: usize| row[at].as_deref().unwrap();
        let number = |at: usize| text(at).parse::<u32>().unwrap();
        let is_shared = text(4) == "t";
        let owner = if is_shared { 0 } else { number(7) };
        let named = names.by_oid(owner, number(0)).unwrap_or_else(|| panic!("{row:?}"));
        assert_eq!((named.schema, named.name), (text(1), text(2)));
        assert_eq!(named.database, (!is_shared).then_some(database), "{row:?}");
        assert_eq!(named.kind.word(), word(text(3)), "{row:?}");
        assert_eq!(named.is_temporary, text(8) == "t", "{row:?}");
        assert_eq!(named.is_unlogged, text(8) == "u", "{row:?}");
        assert_eq!(named.parent.unwrap_or(0), number(9), "{row:?}");
        let file = RelationFile { tablespace: number(6), database: owner, number: number(5) };
        match file.number {
            0 => assert_eq!(named.file, None, "{row:?}"),
            _ => assert_eq!(names.by_file(&file), Some(named), "{row:?}"),
        }
    }
    rows.len()
}

fn word(relkind: &str) -> &'static str {
    match relkind {
        "r" => "table",
        "i" => "index",
        "S" => "sequence",
        "t" => "toast table",
        "v" => "view",
        "m" => "materialized view",
        "c" => "composite type",
        "p" => "partitioned table",
        "I" => "partitioned index",
        other => panic!("{other}"),
    }
}

/// Of every kind one, under names that need care.
const RELATIONS: &str = r#"
    CREATE SCHEMA "Büro.Nord";
    CREATE TABLE "Büro.Nord"."Größe ""XL""" (id serial PRIMARY KEY, note text);
    CREATE TABLE moved (n int PRIMARY KEY) TABLESPACE space;
    CREATE TABLE parted (n int, note text) PARTITION BY RANGE (n);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100) TABLESPACE space;
    CREATE INDEX ON parted (n);
    CREATE VIEW seen AS SELECT 1 AS one;
    CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one;
    CREATE UNLOGGED TABLE quick (n int);
    CREATE TYPE pair AS (a int, b int);
    CREATE TABLE numbered (n int GENERATED ALWAYS AS IDENTITY);
    CREATE SEQUENCE alone;
    INSERT INTO moved SELECT generate_series(1, 1000);
    ANALYZE moved;
    TRUNCATE parted_1"#;

#[test]
fn they_are_those_of_the_catalogs_of_every_database_that_lets_us_in() {
    for major in [MajorVersion(15), MajorVersion(18)] {
        let mut archiving = Archiving::start(Cluster::builder(major).tablespace("space"));
        let cluster = &archiving.cluster;
        cluster.sql("CREATE DATABASE \"Zwölf \"\"12\"\"\" TABLESPACE space");
        for name in ["closed", "refused", "private"] {
            cluster.sql(&format!("CREATE DATABASE {name}"));
        }
        cluster.sql("ALTER DATABASE closed ALLOW_CONNECTIONS false");
        cluster.sql("REVOKE CONNECT ON DATABASE private FROM PUBLIC");
        // No right on any table, and no superuser: CONNECT, which everybody has, is enough.
        cluster.sql("CREATE ROLE reader LOGIN REPLICATION");
        let databases = ["postgres", "Zwölf \"12\""];
        for database in databases {
            cluster.session(database).unwrap().query(RELATIONS).unwrap();
            // Mapped catalogs get a file of another number.
            cluster.session(database).unwrap().query("VACUUM FULL pg_class").unwrap();
        }
        cluster.session("postgres").unwrap().query("VACUUM FULL pg_database").unwrap();
        let mut session = cluster.session("postgres").unwrap();
        session.query("CREATE TEMP TABLE scratch (note text)").unwrap();
        archiving
            .allow("local refused all reject\nlocal all all trust\nlocal replication all trust\n");
        let refused = || archiving.cluster.session("refused").is_err();
        assert!(crate::harness::cluster::within(std::time::Duration::from_secs(20), refused));

        let (output, report) = archiving.backup_as("reader");

        assert_eq!(output.stderr.lines().count(), 1, "{output}");
        let output = output.stderr_has("refused").stderr_has("pg_hba.conf").stderr_has("1 more");
        assert!(!output.stderr.contains("closed"), "what is closed on purpose is no news");
        let names = archiving.saved();
        let known: usize =
            databases.iter().map(|name| assert_knows(&names, &archiving.cluster, name)).sum();
        assert!(known > 800, "{known}");
        assert_knows(&names, &archiving.cluster, "template1");
        let mut unread: Vec<&str> = names.unread().map(|(database, _)| database).collect();
        unread.sort_unstable();
        assert_eq!(unread, ["closed", "private", "refused"]);
        assert_eq!(report["names"]["unread"].as_array().unwrap().len(), 3);
        assert_eq!(report["names"]["databases"], 3);
        assert_eq!(report["names"]["relations"], names.relation_count());

        let listed = archiving.cluster.sql("SELECT oid, datname FROM pg_database");
        for row in listed {
            let [oid, name] = <[_; 2]>::try_from(row).unwrap();
            assert_eq!(names.database(oid.unwrap().parse().unwrap()), name.as_deref());
        }
        let moved = names.iter().find(|named| named.name == "moved").unwrap();
        assert_eq!((moved.rows, moved.database), (Some(1000), Some("postgres")));
        let odd = names.iter().find(|named| named.schema == "Büro.Nord").unwrap();
        assert!(odd.to_string().starts_with("postgres.\"Büro.Nord\".\"Größe"), "{odd}");
        let identifier = names.system_identifier.map(|identifier| identifier.to_string());
        assert_eq!(identifier, Some(archiving.cluster.system_identifier()));
        assert!(names.lsn.is_some());
    }
}

#[test]
fn a_server_that_allows_replication_only_is_backed_up_without_them() {
    let mut archiving = Archiving::start(Cluster::builder(ANY_MAJOR));
    archiving.cluster.sql("CREATE ROLE copier LOGIN REPLICATION");
    archiving.allow("local all postgres trust\nlocal replication copier trust\n");

    let (output, report) = archiving.backup_as("copier");

    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    output.stderr_has("names of tables were not saved").stderr_has("pg_hba.conf");
    assert_eq!(report["names"], Value::Null);
    assert_eq!(archiving.objects(), Vec::<PathBuf>::new());
}

#[test]
fn more_relations_than_one_answer_holds_come_all() {
    let archiving = Archiving::start(Cluster::builder(ANY_MAJOR));
    archiving.cluster.sql("CREATE SCHEMA many");
    archiving.cluster.sql(
        "DO $$ BEGIN FOR n IN 1..5200 LOOP \
             EXECUTE format('CREATE TABLE many.t%s ()', n); \
             IF n % 200 = 0 THEN COMMIT; END IF; \
         END LOOP; END $$",
    );
    let (_, report) = archiving.backup_as("postgres");
    let names = archiving.saved();
    assert!(assert_knows(&names, &archiving.cluster, "postgres") > 5600);
    assert_eq!(report["names"]["relations"], names.relation_count());
}

//! Whether a recovered cluster is sound: by amcheck, by every page's checksum, by its content.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use walden::postgres::page::{self, BLOCKS_PER_FILE, PAGE_BYTES};

use super::Cluster;
use super::session::Session;
use super::site::files_below;

/// By `database.schema.table`: how many rows, and a sum over them.
pub type Contents = BTreeMap<String, String>;

const TABLES: &str = "SELECT c.oid::regclass::text, c.relpersistence FROM pg_class c \
                      WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' \
                      AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, \
                      'information_schema'::regnamespace) ORDER BY 1";

/// Every permanent b-tree, system catalogs included: its order, its parents, and that it has every
/// tuple of its table.
const INDEXES: &str = "SELECT c.oid::regclass::text, bt_index_parent_check(c.oid, true, true) \
                       FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                       JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree' \
                       WHERE c.relpersistence = 'p' AND i.indisready AND i.indisvalid";

/// Every permanent table, its TOAST values included: what is wrong with it.
const HEAPS: &str = "SELECT c.oid::regclass::text || ' block ' || v.blkno || ': ' || v.msg \
                     FROM pg_class c, verify_heapam(c.oid, check_toast => true) v \
                     WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'";

/// Once on a cluster, before anything else: databases made later have it from the template.
#[track_caller]
pub fn bring_amcheck(cluster: &Cluster) {
    for database in ["template1", "postgres"] {
        session(cluster, database).query("CREATE EXTENSION IF NOT EXISTS amcheck").unwrap();
    }
}

/// By amcheck, in every database.
#[track_caller]
pub fn expect_sound(cluster: &Cluster) {
    for database in databases(cluster) {
        let mut session = session(cluster, &database);
        let checked = session.query(INDEXES);
        let checked = checked.unwrap_or_else(|why| panic!("{database}: {why}\n{}", cluster.log()));
        assert!(checked.len() > 100, "{database}: only {} indexes", checked.len());
        let faults = session.query(HEAPS);
        let faults = faults.unwrap_or_else(|why| panic!("{database}: {why}\n{}", cluster.log()));
        let faults: Vec<String> = faults.into_iter().flatten().flatten().collect();
        assert!(faults.is_empty(), "{database}: {}", faults.join("\n"));
    }
}

/// What is logged, in every database. An unlogged table has lost its rows, and can be read.
#[track_caller]
pub fn contents(cluster: &Cluster, is_recovered: bool) -> Contents {
    let mut contents = Contents::new();
    for database in databases(cluster) {
        let mut session = session(cluster, &database);
        for row in session.query(TABLES).unwrap() {
            let [Some(table), Some(persistence)] = &row[..] else { panic!("{row:?}") };
            let sum = format!(
                "SELECT count(*) || ' rows, ' || coalesce(sum(hashtextextended(t::text, 0)), 0) \
                 FROM ONLY {table} t"
            );
            let rows = session.query(&sum);
            let rows = rows.unwrap_or_else(|why| panic!("{database}.{table}: {why}"));
            let mut sum = rows[0][0].clone().expect("a sum");
            if persistence == "u" {
                assert!(!is_recovered || sum == "0 rows, 0", "{database}.{table}: {sum}");
                sum = "unlogged".to_owned();
            }
            contents.insert(format!("{database}.{table}"), sum);
        }
    }
    contents
}

/// What pgbench keeps at any commit.
#[track_caller]
pub fn expect_pgbench_balanced(cluster: &Cluster) {
    let sums = cluster.sql(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), \
         (SELECT sum(bbalance) FROM pgbench_branches), \
         (SELECT sum(tbalance) FROM pgbench_tellers), \
         (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
    );
    assert!(sums[0].iter().all(|sum| *sum == sums[0][0]), "{:?}", sums[0]);
}

/// Every page of a stopped cluster that has checksums, all forks and tablespaces; how many.
#[track_caller]
pub fn expect_right_checksums(pgdata: &Path) -> u64 {
    let mut pages = 0;
    let mut faults = Vec::new();
    for path in
        ["base", "global", "pg_tblspc"].iter().flat_map(|part| files_below(&pgdata.join(part)))
    {
        let Some(segment) = segment_of_relation(&path) else { continue };
        let bytes = fs::read(&path).expect("read a file of a relation");
        let (whole, rest) = bytes.as_chunks::<PAGE_BYTES>();
        assert!(rest.is_empty(), "{}: {} bytes too many", path.display(), rest.len());
        for (number, content) in (segment * BLOCKS_PER_FILE..).zip(whole) {
            pages += 1;
            if let Err(mismatch) = page::check(content, number) {
                faults.push(format!("{} block {number}: {mismatch}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    pages
}

/// Of `16384`, `16384_vm`, `16384.1`: the number of the 1 GiB file; `None` of another file.
fn segment_of_relation(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) => (name, segment.parse().ok()?),
        None => (name, 0),
    };
    let (number, fork) = name.split_once('_').unwrap_or((name, "main"));
    let is_relation =
        number.parse::<u32>().is_ok() && ["main", "fsm", "vm", "init"].contains(&fork);
    is_relation.then_some(segment)
}

/// Without one whose `DROP DATABASE` recovery stopped amid: that cannot be connected to.
fn databases(cluster: &Cluster) -> Vec<String> {
    let whole = "datallowconn AND datconnlimit <> -2";
    cluster.column(&format!("SELECT datname FROM pg_database WHERE {whole} ORDER BY 1"))
}

#[track_caller]
fn session(cluster: &Cluster, database: &str) -> Session {
    cluster.session(database).unwrap_or_else(|why| panic!("{database}: {why}\n{}", cluster.log()))
}

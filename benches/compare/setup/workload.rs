//! How WAL comes to be: what the servers are told to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::server::Bench;

/// As pgbench's scale: 100,000 accounts each.
const SCALE: u32 = 20;
const CLIENTS: u64 = 8;

/// The tables of pgbench.
pub fn accounts(bench: &Bench) {
    bench.sql(&format!(
        "CREATE TABLE branches (bid int PRIMARY KEY, bbalance int, filler char(88)) \
             WITH (fillfactor = 100); \
         CREATE TABLE tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84)); \
         CREATE TABLE accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)); \
         CREATE TABLE history (tid int, bid int, aid int, delta int, mtime timestamp, \
             filler char(22)); \
         INSERT INTO branches SELECT n, 0, '' FROM generate_series(1, {SCALE}) n; \
         INSERT INTO tellers SELECT n, (n - 1) / 10 + 1, 0, '' \
             FROM generate_series(1, {SCALE} * 10) n; \
         INSERT INTO accounts SELECT n, (n - 1) / 100000 + 1, 0, '' \
             FROM generate_series(1, {SCALE} * 100000) n"
    ));
    bench.sql("VACUUM ANALYZE");
}

/// The transactions of pgbench ("TPC-B (sort of)") by several clients, until there are so many
/// segments. Where the clients let their images be compressed, there are many of them: a
/// checkpoint every five seconds.
pub fn transactions(bench: &Bench, segments: u64, compressed: bool) {
    let session = if compressed { "SET wal_compression = lz4" } else { "" };
    let enough = AtomicBool::new(false);
    let start = bench.value("SELECT pg_current_wal_lsn()");
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (enough, mut connection) = (&enough, bench.connect());
            connection.query(session).expect("begin a session");
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(client);
                while !enough.load(Ordering::Relaxed) {
                    connection.query(&transaction(&mut random)).expect("a transaction");
                }
            });
        }
        let written = format!("SELECT (pg_current_wal_lsn() - '{start}') / (16 * 1024 * 1024)");
        for step in 1.. {
            let written: f64 = bench.value(&written).parse().expect("a number");
            if written > segments as f64 {
                break;
            }
            thread::sleep(Duration::from_millis(100));
            if compressed && step % 50 == 0 {
                bench.sql("CHECKPOINT");
            }
        }
        enough.store(true, Ordering::Relaxed);
    });
}

fn transaction(random: &mut fastrand::Rng) -> String {
    let account = random.u32(1..=SCALE * 100_000);
    let (branch, teller) = (random.u32(1..=SCALE), random.u32(1..=SCALE * 10));
    let delta = random.i32(-5000..=5000);
    format!(
        "BEGIN; \
         UPDATE accounts SET abalance = abalance + {delta} WHERE aid = {account}; \
         SELECT abalance FROM accounts WHERE aid = {account}; \
         UPDATE tellers SET tbalance = tbalance + {delta} WHERE tid = {teller}; \
         UPDATE branches SET bbalance = bbalance + {delta} WHERE bid = {branch}; \
         INSERT INTO history VALUES ({teller}, {branch}, {account}, {delta}, now()); \
         END"
    )
}

/// Rows with uuids, hashes and jsonb and their indexes: WAL that compresses as real WAL does.
pub fn documents(bench: &Bench, segments: u64) {
    bench.sql("CREATE TABLE documents (id uuid PRIMARY KEY, hash text, document jsonb)");
    bench.sql("CREATE INDEX ON documents (hash)");
    let start = bench.value("SELECT pg_current_wal_lsn()");
    while written(bench, &start) <= segments {
        bench.sql(
            "INSERT INTO documents SELECT gen_random_uuid(), md5(random()::text), \
             jsonb_build_object('n', n, 'name', md5(n::text), 'tags', array[n % 7, n % 11]) \
             FROM generate_series(1, 20000) n",
        );
        bench.sql(
            "UPDATE documents SET document = document || '{\"seen\": true}' \
                   WHERE random() < 0.1",
        );
    }
}

/// A table filled at once, and its index.
pub fn bulk_load(bench: &Bench, segments: u64) {
    let rows = segments * 160_000;
    bench.sql("CREATE TABLE bulk (n int, name text, amount numeric, at timestamptz)");
    bench.sql(&format!(
        "INSERT INTO bulk SELECT n, 'customer number ' || n % 5000, n % 977 / 7.0, \
         now() + n * interval '1 second' FROM generate_series(1, {rows}) n"
    ));
    bench.sql("CREATE INDEX ON bulk (n)");
}

/// Segments that a switch ended after one row, as archive_timeout does on a quiet server.
pub fn switches(bench: &Bench, segments: u64) {
    bench.sql("CREATE TABLE quiet (n int, at timestamptz)");
    for _ in 0..=segments {
        bench.sql("INSERT INTO quiet VALUES (1, now())");
        bench.sql("SELECT pg_switch_wal()");
    }
}

fn written(bench: &Bench, start: &str) -> u64 {
    let bytes = bench.value(&format!("SELECT (pg_current_wal_lsn() - '{start}')::bigint"));
    bytes.parse::<u64>().expect("a number") >> 24
}

//! Who writes into several tables of a cluster and keeps the books in the same transactions: at any
//! commit the books say how many rows each table has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::{Cluster, cluster};
use crate::harness::session::Session;

/// Sessions at work; ended when dropped.
pub struct Clerks {
    stop: Arc<AtomicBool>,
    clerks: Vec<JoinHandle<u64>>,
}

/// What is in the books: by transaction, whose it is, and which of his.
pub type Entries = BTreeMap<u32, (i32, i64)>;

/// Tables here and in the tablespace `space`, and what a clerk does in one transaction. The books
/// say by how much it changed the number of rows, so that clerks need not know of each other.
const SCHEMA: &str = "
    CREATE TABLE books (clerk int, n bigint, xid xid, one bigint, two bigint, far bigint,
        made bigint, PRIMARY KEY (clerk, n));
    CREATE TABLE one (clerk int, n bigint, what text);
    CREATE INDEX ON one (clerk, n);
    CREATE TABLE two (clerk int, n bigint, what text);
    CREATE TABLE far (clerk int, n bigint, what text) TABLESPACE space;
    CREATE INDEX ON far (n) TABLESPACE space;
    CREATE FUNCTION work(who int, number bigint, kind int) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        one_more bigint; two_more bigint := 0; far_more bigint := 0; made_more bigint := 0;
        gone bigint; name text;
    BEGIN
        INSERT INTO one SELECT who, number, repeat(md5(random()::text), 4)
            FROM generate_series(1, 1 + kind * 3);
        GET DIAGNOSTICS one_more = ROW_COUNT;
        IF kind % 2 = 0 THEN
            INSERT INTO far SELECT who, number, md5(random()::text) FROM generate_series(1, 5);
            far_more := 5;
        END IF;
        CASE kind
        WHEN 0 THEN
            DELETE FROM one WHERE clerk = who AND n < number - 20;
            GET DIAGNOSTICS gone = ROW_COUNT;
            one_more := one_more - gone;
        WHEN 1 THEN
            LOCK TABLE two;
            SELECT count(*) INTO gone FROM two;
            TRUNCATE two;
            two_more := -gone;
        WHEN 2 THEN
            EXECUTE format('CREATE TABLE made_%s_%s AS SELECT n FROM generate_series(1, 50) n',
                who, number);
            made_more := 1;
        WHEN 3 THEN
            SELECT relname INTO name FROM pg_class
                WHERE relname LIKE format('made\\_%s\\_%%', who) AND relkind = 'r' LIMIT 1;
            IF name IS NOT NULL THEN
                EXECUTE format('DROP TABLE %I', name);
                made_more := -1;
            END IF;
        WHEN 4 THEN
            SELECT relname INTO name FROM pg_class
                WHERE relname LIKE format('made\\_%s\\_%%', who) AND relkind = 'r' LIMIT 1;
            IF name IS NOT NULL THEN
                EXECUTE format('ALTER TABLE %I SET TABLESPACE space', name);
                EXECUTE format('ALTER TABLE %I ADD COLUMN more_%s text DEFAULT md5(%L)',
                    name, number, number);
            END IF;
        ELSE
            INSERT INTO two SELECT who, number, 'x' FROM generate_series(1, kind);
            two_more := kind;
            UPDATE one SET what = reverse(what) WHERE clerk = who AND n = number - 1;
        END CASE;
        INSERT INTO books VALUES
            (who, number, pg_current_xact_id()::xid, one_more, two_more, far_more, made_more);
    END $$;";

/// True if and only if the tables are as the books say, and no clerk's books have a hole.
pub const AGREEMENT: &str = "SELECT \
    (SELECT count(*) FROM one) = coalesce(sum(one), 0) \
    AND (SELECT count(*) FROM two) = coalesce(sum(two), 0) \
    AND (SELECT count(*) FROM far) = coalesce(sum(far), 0) \
    AND (SELECT count(*) FROM pg_class WHERE relname LIKE 'made\\_%' AND relkind = 'r') \
        = coalesce(sum(made), 0) \
    AND (SELECT coalesce(bool_and(c = m), true) FROM \
        (SELECT count(*) AS c, max(n) AS m FROM books GROUP BY clerk) AS b) \
    FROM books";

pub fn prepare(cluster: &Cluster) {
    cluster.sql(SCHEMA);
}

impl Clerks {
    /// They go on where the books end.
    #[track_caller]
    pub fn begin(cluster: &Cluster, count: i32) -> Clerks {
        let stop = Arc::<AtomicBool>::default();
        let begin = |who: i32| {
            let last = cluster
                .value(&format!("SELECT coalesce(max(n), 0) FROM books WHERE clerk = {who}"));
            let mut number: u64 = last.parse().unwrap();
            let place = cluster.socket_directory().to_owned();
            let stop = stop.clone();
            thread::spawn(move || {
                let mut session = Session::open(&place, cluster::PORT, "postgres").unwrap();
                let mut random = fastrand::Rng::with_seed(number + who as u64);
                while !stop.load(Ordering::Relaxed) {
                    let (next, kind) = (number + 1, random.u8(0..9));
                    let work = format!("SELECT work({who}, {next}, {kind})");
                    // Where two wait for each other one is rolled back, and tries again.
                    number = session.query(&work).map_or(number, |_| next);
                    if random.u8(..8) == 0 {
                        let _ = session.query("BEGIN; INSERT INTO one VALUES (0, 0); ROLLBACK");
                    }
                }
                number
            })
        };
        Clerks { clerks: (0..count).map(begin).collect(), stop }
    }

    /// How many transactions there are in the books.
    #[track_caller]
    pub fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let clerks = std::mem::take(&mut self.clerks);
        clerks.into_iter().map(|clerk| clerk.join().expect("a clerk")).sum()
    }
}

impl Drop for Clerks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for clerk in self.clerks.drain(..) {
            let _ = clerk.join();
        }
    }
}

#[track_caller]
pub fn entries(cluster: &Cluster) -> Entries {
    let rows = cluster.sql("SELECT xid, clerk, n FROM books");
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<i64>().unwrap();
    let entry = |row: Vec<Option<String>>| {
        (number(&row[0]) as u32, (number(&row[1]) as i32, number(&row[2])))
    };
    rows.into_iter().map(entry).collect()
}

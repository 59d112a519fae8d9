//! What walden reads in WAL, record by record against PostgreSQL's own pg_walinspect.
//!
//! `WALDEN_TEST_WAL_RECORDS=500000` for more of it.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;

use walden::postgres::wal::digest::{Digest, Ending};
use walden::postgres::wal::record::ResourceManager;
use walden::postgres::wal::{Digester, joint, read_segment};
use walden::postgres::{Lsn, MajorVersion, SegmentName, TimelineId};

use crate::harness::{Cluster, amount, pg_waldump};

/// Of each version, if not said.
const RECORDS: u64 = 100_000;
/// Of trade, in one call.
const ROUNDS: u64 = 500;
/// What is asked of pg_walinspect at once.
const PORTION: u64 = 4 << 20;

#[test]
fn postgresql_15_wal_is_read_as_its_server_reads_it() {
    compare(MajorVersion(15), 1 << 20);
}

#[test]
fn postgresql_16_wal_is_read_as_its_server_reads_it() {
    compare(MajorVersion(16), 16 << 20);
}

#[test]
fn postgresql_17_wal_is_read_as_its_server_reads_it() {
    compare(MajorVersion(17), 2 << 20);
}

#[test]
fn postgresql_18_wal_is_read_as_its_server_reads_it() {
    compare(MajorVersion(18), 1 << 20);
}

/// A record as both sides tell it.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    lsn: Lsn,
    end: Lsn,
    /// `previous|xid|resource manager|length|main data|images`
    facts: String,
    /// The operation, of resource managers whose operations walden knows.
    operation: Option<String>,
}

/// What walden makes of a cluster's segments.
struct Reading {
    segment_size: u32,
    lines: Vec<Line>,
    endings: BTreeMap<Lsn, Ending>,
    digests: Vec<Digest>,
}

fn compare(major: MajorVersion, segment_size: u32) {
    let mut cluster = Cluster::builder(major)
        .segment_size_mib(segment_size >> 20)
        .setting("wal_keep_size", "'4GB'")
        .setting("max_wal_size", "'4GB'")
        .setting("track_commit_timestamp", "on")
        .setting("max_prepared_transactions", "5")
        .start();
    cluster.sql("CREATE EXTENSION pg_walinspect");
    prepare(&cluster);
    cluster.sql("SELECT pg_switch_wal()");
    cluster.sql("SELECT pg_current_xact_id()");
    let first = segment_of(cluster.current_lsn(), segment_size);
    let wanted = amount("WALDEN_TEST_WAL_RECORDS", RECORDS);

    work(&cluster, wanted / 2);
    // Also what a restart writes, and what only wal_level = logical does.
    cluster.stop();
    cluster.configure("wal_level", "logical");
    cluster.start_again();
    work(&cluster, wanted / 2);

    let last = cluster.value("SELECT pg_walfile_name(pg_switch_wal())");
    let last = SegmentName::parse(&last).expect("a segment's name");
    let reading = read(&cluster, first, last, segment_size);
    let start = first.start(segment_size);
    let end = last.next(segment_size).start(segment_size);
    let descriptions = compare_records(&cluster, &reading, start, end);
    assert!(reading.lines.len() as u64 >= wanted, "only {} records", reading.lines.len());
    println!("PostgreSQL {major}: {} records alike", reading.lines.len());
    compare_endings(&reading, &descriptions);
    compare_digests(&cluster, &reading, &descriptions);
    compare_with_waldump(&cluster, &reading, start, end);
}

fn segment_of(lsn: Lsn, size: u32) -> SegmentName {
    SegmentName::containing(TimelineId::new(1).expect("not 0"), lsn, size)
}

// What the servers do.

fn prepare(cluster: &Cluster) {
    cluster.sql(
        "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint, filler text); \
         INSERT INTO accounts SELECT n, 0, md5(n::text) FROM generate_series(1, 5000) n; \
         CREATE TABLE history (id int, delta int, at timestamptz DEFAULT now()); \
         CREATE SEQUENCE numbers; \
         CREATE PROCEDURE trade(times int) LANGUAGE plpgsql AS $$ BEGIN \
           FOR n IN 1..times LOOP \
             UPDATE accounts SET balance = balance + n WHERE id = 1 + floor(random() * 5000); \
             INSERT INTO history VALUES (n, nextval('numbers')); \
             IF n % 10 = 0 THEN ROLLBACK; ELSE COMMIT; END IF; \
           END LOOP; END $$; \
         CREATE PROCEDURE nest(times int) LANGUAGE plpgsql AS $$ BEGIN \
           FOR n IN 1..times LOOP \
             BEGIN \
               DELETE FROM history WHERE ctid IN (SELECT ctid FROM history LIMIT 1); \
               IF n % 3 = 0 THEN RAISE EXCEPTION 'undo'; END IF; \
             EXCEPTION WHEN raise_exception THEN NULL; END; \
           END LOOP; END $$",
    );
}

/// About `records` of pgbench's kind, and beside them all the rest.
fn work(cluster: &Cluster, records: u64) {
    let session = || cluster.session("postgres").unwrap_or_else(|why| panic!("{why}"));
    // The rest writes about 50,000, and each round of trade three or more.
    let calls = records.saturating_sub(40_000) / 3 / 3 / ROUNDS + 1;
    thread::scope(|scope| {
        for _ in 0..3 {
            let mut session = session();
            scope.spawn(move || {
                for _ in 0..calls {
                    session.query(&format!("CALL trade({ROUNDS})")).expect("trade");
                }
            });
        }
        let compressions = cluster
            .column("SELECT unnest(enumvals) FROM pg_settings WHERE name = 'wal_compression'");
        for compression in compressions.iter().filter(|it| *it != "on") {
            let mut session = session();
            let mut tell = |sql: &str| {
                session.query(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
            };
            tell(&format!("SET wal_compression = {compression}"));
            tell("CHECKPOINT");
            rearrange(&mut tell);
            tell(&format!("SELECT pg_create_restore_point('after {compression}')"));
        }
    });
}

/// Everything but plain trade.
fn rearrange(tell: &mut impl FnMut(&str)) {
    tell("CREATE TABLE things (id int PRIMARY KEY, what text, place point, words tsvector)");
    tell(
        "INSERT INTO things SELECT n, repeat(md5(n::text), 1 + n % 100), point(n, n), \
         to_tsvector('simple', md5(n::text)) FROM generate_series(1, 2000) n",
    );
    tell("CREATE INDEX ON things USING gin (words)");
    tell("CREATE INDEX ON things USING gist (place)");
    tell("CREATE INDEX ON things USING spgist (place)");
    tell("CREATE INDEX ON things USING hash (id)");
    tell("CREATE INDEX ON things USING brin (id)");
    tell(
        "DO $$ BEGIN EXECUTE format('COPY things TO %L', \
         current_setting('data_directory') || '/things.copy'); END $$",
    );
    tell("CREATE TABLE copies (LIKE things)");
    tell(
        "DO $$ BEGIN EXECUTE format('COPY copies FROM %L', \
         current_setting('data_directory') || '/things.copy'); END $$",
    );
    tell("UPDATE things SET what = what || 'x' WHERE id % 3 = 0");
    tell("DELETE FROM things WHERE id % 4 = 0");
    tell("VACUUM things");
    tell(
        "BEGIN; SELECT count(*) FROM things WHERE id < 9 GROUP BY id % 2; \
          SELECT * FROM things WHERE id < 500 FOR UPDATE; COMMIT",
    );
    tell("VACUUM (FREEZE) copies");
    tell("VACUUM FULL things");
    tell("CLUSTER things USING things_pkey");
    tell("REINDEX TABLE things");
    tell("ALTER TABLE things ALTER id TYPE bigint");
    tell("TRUNCATE copies");
    tell("CALL nest(200)");
    tell("BEGIN; INSERT INTO copies SELECT * FROM things LIMIT 5; PREPARE TRANSACTION 'kept'");
    tell("COMMIT PREPARED 'kept'");
    tell("BEGIN; SAVEPOINT a; DROP TABLE copies; PREPARE TRANSACTION 'undone'");
    tell("ROLLBACK PREPARED 'undone'");
    tell("BEGIN; SAVEPOINT a; DROP TABLE copies; PREPARE TRANSACTION 'done'");
    tell("COMMIT PREPARED 'done'");
    tell("CREATE TEMP TABLE passing AS SELECT * FROM things");
    tell("DROP TABLE passing");
    tell("CREATE SCHEMA many");
    tell(
        "DO $$ BEGIN FOR n IN 1..20 LOOP \
         EXECUTE format('CREATE TABLE many.t%s (id int PRIMARY KEY, what text)', n); \
         END LOOP; END $$",
    );
    tell("DROP SCHEMA many CASCADE");
    tell("BEGIN; CREATE TABLE regret (id int); INSERT INTO regret VALUES (1); ROLLBACK");
    tell("DROP TABLE things");
    tell("CREATE DATABASE other");
    tell("DROP DATABASE other");
    tell("SELECT pg_logical_emit_message(false, 'test', repeat('walden', 100000))");
    tell("SELECT pg_logical_emit_message(false, 'test', repeat('walden', 500000))");
}

// What walden reads.

fn read(cluster: &Cluster, first: SegmentName, last: SegmentName, size: u32) -> Reading {
    let mut reading = Reading {
        segment_size: size,
        lines: Vec::new(),
        endings: BTreeMap::new(),
        digests: Vec::new(),
    };
    let mut name = first;
    loop {
        let path = cluster.pgdata().join("pg_wal").join(name.to_string());
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        // A length that falls everywhere.
        let pieces = || bytes.chunks(99_991);
        let outcome = read_segment(name, pieces(), |record| {
            let header = record.header;
            let parts = record.parts().expect("its parts add up");
            let manager = header.resource_manager.name().unwrap_or("custom");
            let facts = format!(
                "{}|{}|{manager}|{}|{}|{}",
                header.previous, header.xid, header.total, parts.main_bytes, parts.image_bytes
            );
            let operation = operation(header.resource_manager, header.info);
            let line = Line { lsn: record.lsn, end: record.end, facts, operation };
            reading.lines.push(line);
            if let Some(ending) = walden::postgres::wal::ending(record) {
                reading.endings.insert(record.lsn, ending);
            }
        });
        assert_eq!(outcome.invalid, None, "{name}");
        let mut digester = Digester::new(name);
        pieces().for_each(|piece| digester.write(piece));
        reading.digests.push(digester.finish().expect("a known version"));
        if name == last {
            return reading;
        }
        name = name.next(size);
    }
}

/// As pg_walinspect calls it, of what the digest looks at.
fn operation(manager: ResourceManager, info: u8) -> Option<String> {
    let name = match (manager, info & 0xF0) {
        (ResourceManager::XLOG, 0x00) => "CHECKPOINT_SHUTDOWN",
        (ResourceManager::XLOG, 0x10) => "CHECKPOINT_ONLINE",
        (ResourceManager::XLOG, 0x40) => "SWITCH",
        (ResourceManager::XLOG, 0x70) => "RESTORE_POINT",
        (ResourceManager::STORAGE, 0x10) => "CREATE",
        (ResourceManager::STANDBY, 0x00) => "LOCK",
        (ResourceManager::DATABASE, 0x20) => "DROP",
        (ResourceManager::HEAP, 0x10) => "DELETE",
        (ResourceManager::HEAP, 0x30) => "TRUNCATE",
        (ResourceManager::TRANSACTION, _) => match info & 0x70 {
            0x00 => "COMMIT",
            0x10 => "PREPARE",
            0x20 => "ABORT",
            0x30 => "COMMIT_PREPARED",
            0x40 => "ABORT_PREPARED",
            0x50 => "ASSIGNMENT",
            0x60 => "INVALIDATION",
            _ => "?",
        },
        _ => return None,
    };
    Some(name.to_owned())
}

// What pg_walinspect reads.

/// Descriptions of the records that end transactions.
type Descriptions = BTreeMap<Lsn, (String, String)>;

fn compare_records(cluster: &Cluster, reading: &Reading, start: Lsn, end: Lsn) -> Descriptions {
    let mut session = cluster.session("postgres").unwrap_or_else(|why| panic!("{why}"));
    let mut ours = reading.lines.iter();
    let mut descriptions = Descriptions::new();
    let (mut from, mut portion) = (start, PORTION);
    while from < end {
        let until = Lsn(end.0.min(from.0 + portion));
        let rows = session
            .query(&format!(
                "SELECT start_lsn, end_lsn, concat_ws('|', prev_lsn, xid, resource_manager, \
                 record_length, main_data_length, fpi_length), record_type, \
                 CASE WHEN resource_manager IN ('Transaction', 'XLOG') THEN description END \
                 FROM pg_get_wal_records_info('{from}', '{until}')"
            ))
            .unwrap_or_else(|why| panic!("{why}"));
        let before = from;
        for row in rows {
            let mut columns = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || columns.next().unwrap_or_default();
            let lsn: Lsn = next().parse().expect("an LSN");
            from = next().parse().expect("an LSN");
            let (facts, operation, description) = (next(), next(), next());
            // A record of two segments is whole in neither.
            let size = reading.segment_size;
            if segment_of(lsn, size) == segment_of(Lsn(from.0 - 1), size) {
                let our = ours.next().unwrap_or_else(|| panic!("not read: {lsn} {facts}"));
                let known = our.operation.is_some() || IS_NAMED.contains(&operation.as_str());
                let operation = known.then(|| operation.replace("+INIT", ""));
                assert_eq!(our, &Line { lsn, end: from, facts, operation }, "ours, PostgreSQL's");
            }
            if !description.is_empty() {
                descriptions.insert(lsn, (operation, description));
            }
        }
        portion = if from == before { portion * 2 } else { PORTION };
        assert!(portion < 1 << 30, "pg_walinspect reads nothing from {from} on");
    }
    assert_eq!(ours.next(), None, "PostgreSQL does not know of it");
    descriptions
}

/// Operations that must not pass for others.
const IS_NAMED: [&str; 4] = ["RESTORE_POINT", "CHECKPOINT_ONLINE", "SWITCH", "CHECKPOINT_SHUTDOWN"];

fn compare_endings(reading: &Reading, descriptions: &Descriptions) {
    let mut joints = BTreeMap::new();
    for pair in reading.digests.windows(2) {
        if let Some(ending) = joint(&pair[0].unfinished, &pair[1].continued) {
            joints.insert(ending.at.lsn, ending);
        }
    }
    println!("{} endings, {} of them across segments", reading.endings.len(), joints.len());
    for (lsn, (operation, description)) in descriptions {
        let is_end = operation.starts_with("COMMIT") || operation.starts_with("ABORT");
        compare_drops(reading, *lsn, description);
        let ending = reading.endings.get(lsn).or_else(|| joints.get(lsn));
        let Some(ending) = ending else {
            let spans = !reading.lines.iter().any(|line| line.lsn == *lsn);
            assert!(!is_end || spans, "{lsn} {description} is not seen as an end");
            continue;
        };
        assert!(is_end, "{lsn} {operation} {description}");
        assert_eq!(ending.is_commit, operation.starts_with("COMMIT"), "{lsn} {description}");
        let list = |label: &str, items: Vec<String>| {
            let said = description.split("; ").find_map(|part| part.strip_prefix(label));
            let said: Vec<&str> = said.unwrap_or_default().split_whitespace().collect();
            assert_eq!(items, said, "{lsn} {label} {description}");
        };
        let stats = ending.dropped_stats.iter();
        list(
            "dropped stats:",
            stats.map(|it| format!("{}/{}/{}", it.kind, it.database, it.oid)).collect(),
        );
        list("subxacts:", ending.subtransactions.iter().map(u32::to_string).collect());
        let paths = ending.dropped.iter().map(|it| format!("base/{}/{}", it.database, it.number));
        list("rels:", paths.collect());
        if operation.ends_with("PREPARED") {
            assert!(description.starts_with(&format!("{}: ", ending.at.xid)), "{description}");
        }
    }
}

/// What a transaction dropped is in the digest, or the digest says that it is not whole.
fn compare_drops(reading: &Reading, lsn: Lsn, description: &str) {
    if !description.contains("; rels:") || !reading.endings.get(&lsn).is_some_and(|it| it.is_commit)
    {
        return;
    }
    let size = reading.segment_size;
    let of_segment = |it: &&Digest| {
        it.end.is_some_and(|end| segment_of(Lsn(end.0 - 1), size) == segment_of(lsn, size))
    };
    let digest = reading.digests.iter().find(of_segment).expect("the segment's digest");
    let ending = digest.endings.iter().find(|ending| ending.at.lsn == lsn);
    match ending {
        Some(ending) if !ending.is_cut => assert_eq!(Some(ending), reading.endings.get(&lsn)),
        Some(_) => {}
        None => assert!(digest.is_cut, "{lsn} {description} is not in its digest"),
    }
}

fn compare_digests(cluster: &Cluster, reading: &Reading, descriptions: &Descriptions) {
    let whole = |lsn: &Lsn| reading.lines.binary_search_by_key(lsn, |line| line.lsn).is_ok();
    let count = |what: &str| {
        let ends = descriptions.iter().filter(|(lsn, it)| it.0.starts_with(what) && whole(lsn));
        ends.count() as u64
    };
    let digests = &reading.digests;
    assert_eq!(digests.iter().map(|it| it.commits).sum::<u64>(), count("COMMIT"));
    assert_eq!(digests.iter().map(|it| it.aborts).sum::<u64>(), count("ABORT"));
    assert_eq!(digests.iter().map(|it| it.records).sum::<u64>(), reading.lines.len() as u64);
    let names = digests.iter().flat_map(|it| &it.restore_points).map(|it| it.name.as_str());
    let names: Vec<&str> = names.collect();
    assert_eq!(names.iter().filter(|name| **name == "after pglz").count(), 2, "{names:?}");
    compare_checkpoints(digests, descriptions);

    let mut session = cluster.session("postgres").unwrap_or_else(|why| panic!("{why}"));
    let sizes = digests.iter().map(|digest| serde_json::to_string(digest).expect("JSON").len());
    let mut sizes: Vec<usize> = sizes.collect();
    sizes.sort_unstable();
    let cut = digests.iter().filter(|digest| digest.is_cut).count();
    println!(
        "{} digests of {} bytes in the middle, {:?} the largest; {cut} cut",
        sizes.len(),
        sizes[sizes.len() / 2],
        sizes.last()
    );
    assert!(sizes.iter().all(|size| *size < 64 << 10), "{sizes:?}");
    for digest in digests {
        for commit in digest.first_commit.iter().chain(&digest.last_commit) {
            let rows = session.query(&format!(
                "SET timezone = 'UTC'; SELECT to_char(pg_xact_commit_timestamp('{}'), \
                 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
                commit.xid
            ));
            let rows = rows.unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(rows[0][0], Some(format!("{:.6}", commit.time)), "{commit:?}");
        }
    }
    compare_deletes(digests);
    let databases = digests.iter().flat_map(|it| &it.activities);
    assert!(databases.map(|it| it.dropped_databases.len()).sum::<usize>() >= 4);
}

/// Each time 500 rows were deleted by one transaction; one whose record lies in two segments is not
/// seen.
fn compare_deletes(digests: &[Digest]) {
    let mut rows = BTreeMap::new();
    for activity in digests.iter().flat_map(|digest| &digest.activities) {
        for deleted in activity.deleted.iter().filter(|it| it.file.number >= 16384) {
            *rows.entry((activity.xid, deleted.file)).or_insert(0) += deleted.rows;
        }
    }
    let many: Vec<u64> = rows.into_values().filter(|rows| *rows >= 300).collect();
    assert!(many.len() >= 4 && many.iter().all(|rows| (495..=500).contains(rows)), "{many:?}");
}

fn compare_checkpoints(digests: &[Digest], descriptions: &Descriptions) {
    for ours in digests.iter().filter_map(|digest| digest.checkpoint) {
        let (operation, description) = &descriptions[&ours.lsn];
        assert_eq!(ours.is_shutdown, operation == "CHECKPOINT_SHUTDOWN", "{ours:?}");
        let (epoch, xid) = (ours.next_xid >> 32, ours.next_xid & 0xFFFF_FFFF);
        for said in [
            format!("redo {}; ", ours.redo),
            format!("; xid {epoch}:{xid}; "),
            format!("tli {}; prev tli {}; ", ours.timeline, ours.previous_timeline),
        ] {
            assert!(description.contains(&said), "{said:?} is not in {description}");
        }
    }
}

/// The distribution's pg_waldump, where there is one of this version, counts as many records.
fn compare_with_waldump(cluster: &Cluster, reading: &Reading, start: Lsn, end: Lsn) {
    let Some(program) = pg_waldump(cluster.major()) else { return };
    let dump = Command::new(program)
        .args(["--path"])
        .arg(cluster.pgdata().join("pg_wal"))
        .args(["--start", &start.to_string()])
        .args(["--end", &end.to_string()])
        .output()
        .expect("run pg_waldump");
    let text = String::from_utf8_lossy(&dump.stdout);
    let mut theirs = text.lines().filter_map(|line| {
        let lsn = line.split("lsn: ").nth(1)?.split(',').next()?;
        let manager = line.strip_prefix("rmgr: ")?.split_whitespace().next()?;
        Some((lsn.parse::<Lsn>().expect("an LSN"), manager.to_owned()))
    });
    for line in &reading.lines {
        let manager = line.facts.split('|').nth(2).unwrap_or_default();
        let found = theirs.by_ref().find(|(lsn, _)| *lsn >= line.lsn);
        assert_eq!(found, Some((line.lsn, manager.to_owned())));
    }
}

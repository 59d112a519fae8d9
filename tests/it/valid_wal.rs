//! Whatever PostgreSQL itself is content with is archived: no crash, no switch and no record makes
//! a segment that `push` refuses.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use walden::codec::Header;
use walden::postgres::MajorVersion;
use walden::postgres::wal::Digest;

use crate::harness::cluster::within;
use crate::harness::session::Session;
use crate::harness::site::files_below;
use crate::harness::{self, ANY_MAJOR, Cluster, Reference, Scratch, every_major};

const ROUNDS: &str = "WALDEN_TEST_VALID_ROUNDS";
const FEW: u64 = 3;
const SEGMENT_BYTES: u64 = 1 << 20;

fn rounds() -> u64 {
    harness::amount(ROUNDS, FEW)
}

/// One where there is little time.
fn majors() -> Vec<MajorVersion> {
    if rounds() > FEW { every_major().collect() } else { vec![ANY_MAJOR] }
}

#[test]
fn what_a_crash_leaves_behind_is_archived() {
    for major in majors() {
        let mut random = Rng::with_seed(harness::seed());
        crashes(major, &mut random);
    }
}

#[track_caller]
fn crashes(major: MajorVersion, random: &mut Rng) {
    let (scratch, reference) = (Scratch::new(), Reference::new());
    let repository = scratch.directory("repository");
    let url = format!("file://{}", repository.display());
    let on_or_off = |random: &mut Rng| if random.bool() { "on" } else { "off" };
    let recycle = on_or_off(random);
    println!("PostgreSQL {major}, wal_recycle = {recycle}");
    let mut cluster = Cluster::builder(major)
        .archive_past(&reference, &url)
        .setting("wal_recycle", recycle)
        .setting("wal_init_zero", on_or_off(random))
        .setting("wal_buffers", "'64kB'")
        .setting("wal_level", if random.bool() { "logical" } else { "replica" })
        .setting("max_wal_size", "'16MB'")
        .setting("min_wal_size", "'8MB'")
        .setting("max_prepared_transactions", "10")
        .start();
    cluster.sql("CREATE TABLE t (n int PRIMARY KEY, what text)");
    for _ in 0..rounds() {
        let instant = Duration::from_micros(random.u64(..600_000));
        let is_killed = random.bool();
        under_load(&mut cluster, random, |cluster| {
            thread::sleep(instant);
            match is_killed {
                true => cluster.kill(false),
                false => cluster.crash(),
            }
        });
        cluster.start_again();
    }
    // PostgreSQL sleeps for up to a minute after failures in a row, but a new segment wakes it.
    let is_empty = || cluster.files_to_archive().is_empty();
    let drained = (0..6).any(|_| {
        cluster.write_wal(1);
        within(Duration::from_secs(10), is_empty)
    });
    assert!(drained, "{:?}\n{}", cluster.files_to_archive(), cluster.log());
    expect_no_complaint(&cluster);
    let tally = reference.expect_same(&repository, &cluster.system_identifier());
    println!("all the same: {tally:?}");
    let digests = digests_in(&repository);
    assert!(digests.len() > 3, "only {} segments", digests.len());
    let invalid: Vec<_> = digests.iter().filter_map(|digest| digest.invalid.as_ref()).collect();
    assert!(invalid.is_empty(), "{invalid:?}");
}

/// Records of every length, switches and transactions by three at once, until the blow.
fn under_load(cluster: &mut Cluster, random: &mut Rng, strike: impl FnOnce(&mut Cluster)) {
    let open = || cluster.session("postgres").unwrap_or_else(|why| panic!("{why}"));
    let sessions = [open(), open(), open()];
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (writer, session) in sessions.into_iter().enumerate() {
            let mut random = random.fork();
            let is_over = &is_over;
            scope.spawn(move || write(session, writer, &mut random, is_over));
        }
        strike(cluster);
        is_over.store(true, Ordering::Relaxed);
    });
}

fn write(mut session: Session, writer: usize, random: &mut Rng, is_over: &AtomicBool) {
    let longest = 3 * SEGMENT_BYTES;
    while !is_over.load(Ordering::Relaxed) {
        let statement = match random.u8(..10) {
            0 => {
                let length = random.u64(1..longest);
                format!("SELECT pg_logical_emit_message(false, 'huge', repeat('x', {length}))")
            }
            1..5 => {
                let length = random.u64(1..12_000);
                format!("SELECT pg_logical_emit_message(true, 'test', repeat('y', {length}))")
            }
            5 => "SELECT pg_switch_wal()".to_owned(),
            6 => format!(
                "BEGIN; INSERT INTO t SELECT n FROM generate_series({0}, {0} + 50) n \
                 ON CONFLICT DO NOTHING; PREPARE TRANSACTION 'of-{writer}'; \
                 COMMIT PREPARED 'of-{writer}'",
                random.u32(..1_000_000)
            ),
            7 => "CHECKPOINT".to_owned(),
            _ => "UPDATE t SET what = md5(random()::text) WHERE n % 7 = 0".to_owned(),
        };
        // A crash ends the session; a prepared transaction that it left is in the way of others.
        if session.query(&statement).is_err() && session.query("ROLLBACK").is_err() {
            return;
        }
    }
}

/// The record of a switch may not fit into what is left of its segment: then it takes the next one
/// too, which holds its last bytes and nothing else.
#[test]
fn a_switch_that_takes_two_segments_is_archived() {
    for major in majors() {
        for left in [8, 16] {
            switch_with(major, left);
        }
    }
}

#[track_caller]
fn switch_with(major: MajorVersion, left: u64) {
    let scratch = Scratch::new();
    let repository = scratch.directory("repository");
    let url = format!("file://{}", repository.display());
    let cluster = Cluster::builder(major).archive_to(url, "main").start();
    let mut session = cluster.session("postgres").unwrap_or_else(|why| panic!("{why}"));
    let mut ask = |sql: &str| {
        let rows = session.query(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
        rows.into_iter().flatten().flatten().next().unwrap_or_default()
    };
    let mut write = |length: u64| {
        let message = format!("pg_logical_emit_message(false, 't', repeat('x', {length}))");
        let rest = format!("{SEGMENT_BYTES} - mod({message} - '0/0'::pg_lsn, {SEGMENT_BYTES})");
        ask(&format!("SELECT {rest}")).parse::<u64>().expect("a number of bytes")
    };
    // The server may write something between, such as a list of running transactions.
    let hit = (0..20).any(|_| {
        let mut room = write(1);
        while room > 7_000 {
            room = write(if room > 20_000 { (room - 15_000).min(100_000) } else { 2_000 });
        }
        let after = write(400);
        let around = room - after - 400;
        let exactly = after - left - around;
        write(exactly) == left
    });
    assert!(hit, "never {left} bytes before the end of a segment");
    cluster.sql("SELECT pg_switch_wal()");
    cluster.archive_everything();
    expect_no_complaint(&cluster);
    let digests = digests_in(&repository);
    let is_taken = |digest: &&Digest| digest.records == 0 && digest.continued.is_some();
    assert_eq!(digests.iter().filter(is_taken).count(), 1, "{digests:?}");
    assert!(digests.iter().all(|digest| digest.invalid.is_none()));
}

#[track_caller]
fn expect_no_complaint(cluster: &Cluster) {
    assert_eq!(cluster.value("SELECT failed_count FROM pg_stat_archiver"), "0");
    let log = cluster.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("walden: ")).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

fn digests_in(repository: &Path) -> Vec<Digest> {
    let objects = files_below(repository).into_iter();
    let wal = objects.filter(|object| object.extension().is_some_and(|it| it == "zst"));
    let headers = wal.map(|object| Header::split(&fs::read(object).unwrap()).unwrap().0);
    headers.filter_map(|header| header.digest.map(|digest| *digest)).collect()
}

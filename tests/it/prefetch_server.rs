//! Fetching ahead of real servers, from a slow store.

use std::time::Duration;

use crate::harness::{ANY_MAJOR, Bucket, Cluster, Fault, prefetcher};

/// A server that archived `count` segments with a row each, and a copy of before.
fn archived(bucket: &Bucket, count: usize) -> (Cluster, Cluster) {
    let builder = Cluster::builder(ANY_MAJOR).archive_to(bucket.url(), "main");
    let environment = bucket.environment().into_iter();
    let primary = environment.fold(builder, |all, (name, value)| all.env(name, value)).start();
    primary.sql("CREATE TABLE t (n int)");
    primary.archive_everything();
    let copy = Cluster::copy_of(&primary);
    for n in 1..=count {
        primary.sql(&format!("INSERT INTO t VALUES ({n})"));
        primary.write_wal(1);
    }
    primary.wait_archived();
    (primary, copy)
}

const ROWS: &str = "SELECT count(*) || ' ' || coalesce(sum(n), 0) FROM t";

#[test]
fn a_server_recovers_all_rows_from_a_slow_bucket() {
    let bucket = Bucket::start();
    let (primary, mut copy) = archived(&bucket, 40);
    copy.signal("recovery.signal");
    bucket.proxy.forget_requests();
    bucket.proxy.fault(None, "", Fault::Delay(Duration::from_millis(20)));
    copy.start_again();
    copy.wait_until("NOT pg_is_in_recovery()");
    assert_eq!(copy.value(ROWS), primary.value(ROWS));
    assert_eq!(copy.value(ROWS), "40 820");
    prefetcher::wait_until_gone(copy.pgdata());
    let requests = bucket.proxy.requests();
    let found = bucket.objects();
    for segment in found.iter().filter(|key| key.contains("/wal/") && !key.contains(".backup")) {
        let of_it = requests.iter().filter(|seen| seen.path.contains(segment.as_str()));
        // PostgreSQL itself asks for the last ones again.
        assert!(of_it.count() <= 3, "{segment}: {requests:#?}");
    }
}

#[test]
fn a_standby_catches_up_follows_and_leaves_nothing_when_it_stops() {
    let bucket = Bucket::start();
    let (primary, mut standby) = archived(&bucket, 20);
    bucket.proxy.fault(None, "", Fault::Delay(Duration::from_millis(20)));
    standby.signal("standby.signal");
    standby.start_again();
    standby.wait_until("(SELECT count(*) FROM t) = 20");
    for n in 21..=24 {
        primary.sql(&format!("INSERT INTO t VALUES ({n})"));
        primary.archive_everything();
        standby.wait_until(&format!("(SELECT max(n) FROM t) = {n}"));
    }
    prefetcher::the_one_in(standby.pgdata());
    let pgdata = standby.pgdata().to_owned();
    standby.stop();
    prefetcher::wait_until_gone(&pgdata);
    standby.start_again();
    standby.wait_until("(SELECT count(*) FROM t) = 24");
    standby.promote();
    prefetcher::wait_until_gone(&pgdata);
}

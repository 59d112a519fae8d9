//! Fetching ahead: what it saves, that nothing wrong comes of it, and that nothing stays behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::cluster::within;
use crate::harness::site::{self, SYSTEM_IDENTIFIER, files_below};
use crate::harness::{ANY_MAJOR, Bucket, Cluster, Fault, Site, prefetcher};

const PATIENCE: Duration = Duration::from_secs(60);

fn name(number: u8) -> String {
    format!("0000000100000000000000{number:02X}")
}

/// A directory that archived the segments 1 to `count`, and is in recovery.
fn recovering(count: u8) -> Site {
    let site = Site::new();
    fill(&site, count);
    site.recover();
    site
}

fn fill(site: &Site, count: u8) {
    for number in 1..=count {
        site.segment(&name(number), number);
        site.push(&name(number)).patiently().run().succeeds();
    }
}

fn recovering_from(bucket: &Bucket, count: u8) -> Site {
    let mut environment = bucket.environment();
    environment.retain(|(name, _)| *name != "WALDEN_REPOSITORY_URL");
    let site = Site::on(&bucket.url(), environment);
    fill(&site, count);
    site.recover();
    site
}

#[track_caller]
fn comes_right(site: &Site, number: u8) {
    site.fetch(&name(number)).patiently().run().succeeds().is_silent();
    let expected = site::segment(&name(number), number, SYSTEM_IDENTIFIER);
    assert!(site.fetched() == Some(expected), "segment {number}");
    fs::remove_file(site.pgdata().join("pg_wal/RECOVERYXLOG")).unwrap();
}

/// Until so many are there and no more come.
#[track_caller]
fn wait_for_spool(site: &Site, count: usize) {
    let full = within(PATIENCE, || site.spooled().len() == count && coming(site).is_empty());
    assert!(full, "{:?}", files_below(&site.scratch().join("state")));
}

fn coming(site: &Site) -> Vec<PathBuf> {
    let is_coming = |path: &PathBuf| {
        let path = path.to_string_lossy();
        path.ends_with(".coming") || path.contains(".segment-")
    };
    files_below(&site.scratch().join("state")).into_iter().filter(is_coming).collect()
}

fn spool(site: &Site) -> PathBuf {
    let files = files_below(&site.scratch().join("state"));
    let lock = files.iter().find(|file| file.ends_with("lock")).expect("a spool");
    lock.parent().unwrap().to_owned()
}

fn end_prefetcher(site: &Site) {
    for pid in prefetcher::all_in(&site.pgdata()) {
        prefetcher::signal(pid, Signal::KILL);
    }
    prefetcher::wait_until_gone(&site.pgdata());
}

#[test]
fn after_the_first_segment_the_store_is_asked_once_for_each_and_never_by_fetch_itself() {
    let bucket = Bucket::start();
    let site = recovering_from(&bucket, 12);
    bucket.proxy.forget_requests();
    comes_right(&site, 1);
    wait_for_spool(&site, 11);
    // Now nobody can reach the store.
    bucket.proxy.refuse_connections();
    for number in 2..=12 {
        comes_right(&site, number);
    }
    bucket.proxy.accept_connections();
    for number in 1..=12 {
        let requests = bucket.proxy.requests();
        let of_it = requests.iter().filter(|seen| seen.path.contains(&name(number)));
        assert_eq!(of_it.count(), 1, "segment {number}: {requests:#?}");
    }
    assert!(site.spooled().is_empty(), "what was served is gone");
}

#[test]
fn without_pause_each_segment_is_fetched_once_too() {
    let bucket = Bucket::start();
    let site = recovering_from(&bucket, 20);
    bucket.proxy.forget_requests();
    for number in 1..=20 {
        comes_right(&site, number);
    }
    let requests = bucket.proxy.requests();
    for number in 1..=20 {
        let of_it = requests.iter().filter(|seen| seen.path.contains(&name(number)));
        assert_eq!(of_it.count(), 1, "segment {number}: {requests:#?}");
    }
}

#[test]
fn what_lies_wrong_in_the_spool_is_never_served() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("flipped", |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes[70_000] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("truncated", |file| {
            fs::File::options().write(true).open(file).unwrap().set_len(8192).unwrap()
        }),
        ("empty", |file| fs::write(file, "").unwrap()),
        ("zeros", |file| fs::write(file, vec![0; site::SEGMENT_BYTES]).unwrap()),
        ("another segment", |file| {
            fs::write(file, site::segment(&name(9), 9, SYSTEM_IDENTIFIER)).unwrap();
        }),
        ("another cluster", |file| replace(file, &site::segment(&name(2), 2, 42))),
    ];
    for (what, damage) in damages {
        println!("{what}");
        let site = recovering(3);
        comes_right(&site, 1);
        wait_for_spool(&site, 2);
        end_prefetcher(&site);
        let spooled = site.spooled();
        damage(&spooled[0]);
        comes_right(&site, 2);
        assert!(!spooled[0].exists(), "{what}");
        comes_right(&site, 3);
    }
}

/// With the name that the content would have had.
fn replace(file: &Path, bytes: &[u8]) {
    fs::remove_file(file).unwrap();
    let file = file.with_extension(format!("{:08X}", crc32fast::hash(bytes)));
    fs::write(file, bytes).unwrap();
}

#[test]
fn another_cluster_and_another_repository_have_spools_of_their_own() {
    let site = recovering(4);
    comes_right(&site, 1);
    wait_for_spool(&site, 3);
    end_prefetcher(&site);
    let elsewhere = site.scratch().directory("elsewhere");
    let url = format!("file://{}", elsewhere.display());
    let other = site.walden_of(&url).args(["fetch", &name(2), "pg_wal/RECOVERYXLOG"]);
    other.env("WALDEN_FETCH_RETRY_FOR", "0s").run().exits(200);
    site.become_cluster(42);
    site.fetch(&name(2)).env("WALDEN_FETCH_RETRY_FOR", "0s").run().exits(200);
    assert_eq!(site.spooled().len(), 3);
}

#[test]
fn a_prefetcher_killed_at_any_instant_costs_time_only() {
    let site = recovering(60);
    let mut random = fastrand::Rng::with_seed(60);
    let mut number = 1;
    while number <= 60 {
        comes_right(&site, number);
        number += 1;
        std::thread::sleep(Duration::from_millis(random.u64(..20)));
        if random.bool() {
            for pid in prefetcher::all_in(&site.pgdata()) {
                prefetcher::signal(pid, Signal::KILL);
            }
        }
    }
    end_prefetcher(&site);
}

#[test]
fn it_ends_when_told_to_and_the_next_fetch_starts_another() {
    let site = recovering(5);
    comes_right(&site, 1);
    let first = prefetcher::the_one_in(&site.pgdata());
    prefetcher::signal(first, Signal::TERM);
    prefetcher::wait_until_gone(&site.pgdata());
    comes_right(&site, 2);
    let next = prefetcher::the_one_in(&site.pgdata());
    assert_ne!(first, next);
    comes_right(&site, 3);
}

#[test]
fn of_many_at_once_one_stays() {
    let site = recovering(8);
    let to =
        |number: u8| site.walden().args(["fetch", &name(number), &format!("pg_wal/f{number}")]);
    let running: Vec<_> = (1..=4).map(|number| to(number).patiently().spawn()).collect();
    for call in running {
        call.wait().succeeds();
    }
    let first = prefetcher::the_one_in(&site.pgdata());
    let second = site.walden().args(["prefetch", &name(1)]);
    second.timeout(Duration::from_secs(20)).run().succeeds().is_silent();
    assert_eq!(prefetcher::the_one_in(&site.pgdata()), first);
}

#[test]
fn the_spool_keeps_to_its_bound() {
    let bucket = Bucket::start();
    let site = recovering_from(&bucket, 20);
    let most = 3 * site::SEGMENT_BYTES as u64;
    let fetch = |number| {
        let fetch = site.fetch(&name(number)).patiently();
        fetch.env("WALDEN_FETCH_PREFETCH_BYTES_MAX", "3MiB").run().succeeds();
    };
    for number in 1..=15 {
        fetch(number);
        for _ in 0..10 {
            let files = files_below(&site.scratch().join("state"));
            let sizes = files.iter().filter_map(|file| fs::metadata(file).ok());
            // What tells of the segments is a few bytes.
            let held: u64 = sizes.map(|file| file.len()).filter(|size| *size > 4096).sum();
            assert!(held <= most, "{held} bytes: {files:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    wait_for_spool(&site, 3);
}

#[test]
fn when_recovery_ends_it_ends_too_and_leaves_an_empty_spool() {
    for end in ["recovery.signal", "promote"] {
        let site = recovering(6);
        comes_right(&site, 1);
        wait_for_spool(&site, 5);
        let signal = site.pgdata().join(end);
        if end == "promote" {
            fs::write(signal, "").unwrap();
        } else {
            fs::remove_file(signal).unwrap();
        }
        prefetcher::wait_until_gone(&site.pgdata());
        let left: Vec<_> = fs::read_dir(spool(&site)).unwrap().flatten().collect();
        let names: Vec<_> = left.iter().map(fs::DirEntry::file_name).collect();
        assert_eq!(names, ["lock"], "{end}");
    }
}

#[test]
fn without_the_state_directory_it_ends_and_fetch_works() {
    let site = recovering(6);
    comes_right(&site, 1);
    wait_for_spool(&site, 5);
    fs::remove_dir_all(spool(&site)).unwrap();
    prefetcher::wait_until_gone(&site.pgdata());
    comes_right(&site, 2);
    end_prefetcher(&site);

    let in_the_way = site.scratch().join("file");
    fs::write(&in_the_way, "").unwrap();
    for number in 3..=6 {
        let fetch = site.fetch(&name(number)).env("WALDEN_STATE_DIR", &in_the_way);
        fetch.run().succeeds().is_silent();
        assert_eq!(site.fetched(), Some(site::segment(&name(number), number, SYSTEM_IDENTIFIER)));
    }
    assert!(prefetcher::all_in(&site.pgdata()).is_empty());
}

#[test]
fn there_is_none_outside_recovery_and_none_where_it_is_turned_off() {
    let site = Site::new();
    fill(&site, 3);
    comes_right(&site, 1);
    site.recover();
    for most in ["0", "0B", "1000000B"] {
        let fetch = site.fetch(&name(2)).env("WALDEN_FETCH_PREFETCH_BYTES_MAX", most);
        fetch.run().succeeds();
    }
    site.file("00000002.history", b"1\t0/2000000\tno reason\n");
    site.push("00000002.history").run().succeeds();
    site.fetch("00000002.history").run().succeeds();
    std::thread::sleep(Duration::from_millis(300));
    assert!(prefetcher::all_in(&site.pgdata()).is_empty());
    assert!(
        !files_below(&site.scratch().join("state")).iter().any(|file| file.ends_with("wanted"))
    );
}

#[test]
fn what_it_missed_is_not_absent_to_fetch() {
    for signal in ["recovery.signal", "standby.signal"] {
        let site = Site::new();
        fill(&site, 2);
        fs::write(site.pgdata().join(signal), "").unwrap();
        comes_right(&site, 1);
        wait_for_spool(&site, 1);
        // It has looked for 3 by now, or will.
        std::thread::sleep(Duration::from_millis(300));
        site.segment(&name(3), 3);
        site.push(&name(3)).run().succeeds();
        comes_right(&site, 2);
        comes_right(&site, 3);
        site.fetch(&name(4)).run().exits(1);
        site.segment(&name(4), 4);
        site.segment(&name(5), 5);
        site.push(&name(4)).run().succeeds();
        site.push(&name(5)).run().succeeds();
        comes_right(&site, 4);
        wait_for_spool(&site, 1);
        comes_right(&site, 5);
    }
}

#[test]
fn a_store_that_fails_it_and_heals_serves_it_again() {
    let bucket = Bucket::start();
    let site = recovering_from(&bucket, 10);
    comes_right(&site, 1);
    wait_for_spool(&site, 9);
    end_prefetcher(&site);
    fs::remove_dir_all(spool(&site)).unwrap();

    bucket.proxy.forget_requests();
    bucket.proxy.fault(Some("GET"), &name(4), Fault::status(500));
    comes_right(&site, 2);
    let asked =
        || bucket.proxy.requests().iter().filter(|seen| seen.path.contains(&name(4))).count();
    assert!(within(PATIENCE, || asked() > 3), "it has asked for 4 more than once");
    comes_right(&site, 3);
    site.fetch(&name(4)).env("WALDEN_FETCH_RETRY_FOR", "1s").run().exits(200);
    bucket.proxy.heal();
    comes_right(&site, 4);
    wait_for_spool(&site, 6);
    bucket.proxy.refuse_connections();
    (5..=10).for_each(|number| comes_right(&site, number));
}

#[test]
fn exit_codes_are_those_without_it() {
    let bucket = Bucket::start();
    let site = recovering_from(&bucket, 3);
    comes_right(&site, 1);
    wait_for_spool(&site, 2);
    prefetcher::the_one_in(&site.pgdata());
    let fetch = |number| site.fetch(&name(number)).env("WALDEN_FETCH_RETRY_FOR", "1s");
    fetch(9).run().exits(1);
    bucket.proxy.fault(Some("GET"), &name(9), Fault::error(403, "AccessDenied"));
    fetch(9).run().exits(200).complains_in_one_line();
    site.become_standby();
    fetch(9).run().exits(3).complains_in_one_line();
    bucket.proxy.heal();
    fetch(9).run().exits(1).is_silent();
}

#[test]
fn the_newest_timeline_that_may_hold_a_segment_is_fetched_first() {
    let site = Site::new();
    fill(&site, 6);
    // Timeline 2 began in segment 4, and has 4 and 5.
    let of_two = |number: u8| format!("0000000200000000000000{number:02X}");
    for number in 4..=5 {
        site.segment(&of_two(number), 100 + number);
        site.push(&of_two(number)).run().succeeds();
    }
    site.recover();
    let at = |number: u8| fs::read(site.pgdata().join("pg_wal").join(of_two(number))).unwrap();
    // Segments of 1 MiB: the history names where segment 64 begins.
    site.file("00000002.history", b"1\t0/400100\tno recovery target specified\n");
    comes_right(&site, 1);
    wait_for_spool(&site, 5);
    let spooled = site.spooled();
    let names: Vec<_> =
        spooled.iter().map(|file| file.file_stem().unwrap().to_str().unwrap()).collect();
    let expected = [name(2), name(3), name(6), of_two(4), of_two(5)];
    assert_eq!(names, expected, "the parent's 6, since 2 has none");
    comes_right(&site, 2);
    comes_right(&site, 3);
    site.fetch(&of_two(4)).run().succeeds();
    assert_eq!(site.fetched(), Some(at(4)));
    site.fetch(&of_two(6)).run().exits(1);
    comes_right(&site, 6);
}

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

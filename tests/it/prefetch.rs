//! Fetching ahead: what it saves, that nothing wrong comes of it, and that nothing stays behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::cluster::within;
use crate::harness::site::{self, SYSTEM_IDENTIFIER, files_below};
use crate::harness::{Bucket, Fault, Site, prefetcher, program};

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
            fs::File::options().write(true).open(file).unwrap().set_len(8192).unwrap();
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
    let site = recovering(40);
    let mut random = fastrand::Rng::with_seed(40);
    for number in 1..=40 {
        comes_right(&site, number);
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
    let leads = || rustix::process::getsid(Some(first)) == Ok(first);
    assert!(within(PATIENCE, leads), "signals to PostgreSQL's group do not reach it");
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
    // The prefetcher may put a file in between.
    let spool = spool(&site);
    while spool.exists() {
        let _ = fs::remove_dir_all(&spool);
    }
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

/// In a mount namespace of its own the state directory is another disk, of this size; `fetch 1` and
/// `fetch 2` are run there, the second one without the repository if the spool has it.
#[track_caller]
fn with_the_state_on_a_disk_of(size: &str) -> (Site, String) {
    let site = recovering(3);
    let script = r#"
        mount -t tmpfs -o size=$5,mode=700 tmpfs "$1" || exit 99
        cd "$2" || exit 98
        fetch() {
            WALDEN_STATE_DIR="$1" "$3" --repository "file://$4" --cluster main fetch "$5" "$6"
        }
        fetch "$1" "$2" "$3" "$4" 000000010000000000000001 pg_wal/first || exit 97
        for n in $(seq 100); do
            ls "$1"/*/room-*/000000010000000000000002.???????? 2>/dev/null && break
            sleep 0.02
        done
        ls "$1"/*/room-*/000000010000000000000002.???????? >/dev/null 2>&1 &&
            mount -t tmpfs tmpfs "$4"
        fetch "$1" "$2" "$3" "$4" 000000010000000000000002 pg_wal/RECOVERYXLOG"#;
    let is_root = rustix::process::geteuid().is_root();
    let output = std::process::Command::new("unshare")
        .arg(if is_root { "-m" } else { "-rm" })
        .args(["sh", "-c", script, "sh"])
        .args([site.scratch().join("state"), site.pgdata()])
        .args([program::binary(), &site.repository_directory()])
        .arg(size)
        .env("WALDEN_FETCH_PREFETCH_BYTES_MAX", "1MiB")
        .env("WALDEN_FETCH_RETRY_FOR", "0s")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    assert_eq!(site.fetched(), Some(site::segment(&name(2), 2, SYSTEM_IDENTIFIER)));
    (site, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn from_another_disk_a_segment_is_copied() {
    let (_site, seen) = with_the_state_on_a_disk_of("4m");
    assert!(seen.contains(&name(2)), "it was served from the spool");
}

#[test]
fn a_disk_that_would_be_filled_is_left_alone() {
    let (site, seen) = with_the_state_on_a_disk_of("1500k");
    assert_eq!(seen, "");
    prefetcher::the_one_in(&site.pgdata());
}

#[test]
fn there_is_none_where_nobody_would_want_it() {
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
    let state = files_below(&site.scratch().join("state"));
    assert!(!state.iter().any(|file| file.ends_with("wanted")), "{state:?}");
    // A server that is process 1 would take an orphan for a child of its own.
    fs::write(site.pgdata().join("postmaster.pid"), "1\n").unwrap();
    site.fetch(&name(2)).run().succeeds();
    std::thread::sleep(Duration::from_millis(500));
    assert!(prefetcher::all_in(&site.pgdata()).is_empty());
    // And with the very same fetch it is there where nothing speaks against it.
    fs::remove_file(site.pgdata().join("postmaster.pid")).unwrap();
    site.fetch(&name(2)).run().succeeds();
    prefetcher::the_one_in(&site.pgdata());
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

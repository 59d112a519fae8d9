//! `push` and the files PostgreSQL has not asked for yet: pushed too, and confirmed when it does.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::harness::site::{self, SYSTEM_IDENTIFIER, files_below};
use crate::harness::{ANY_MAJOR, Bucket, Cluster, Fault, Scratch, Site, Walden};

fn name(number: u8) -> String {
    format!("0000000100000001000000{number:02X}")
}

fn site_on(bucket: &Bucket) -> Site {
    let mut environment = bucket.environment();
    environment.retain(|(name, _)| *name != "WALDEN_REPOSITORY_URL");
    Site::on(&bucket.url(), environment)
}

/// With all the time it needs to push everything ahead, on a busy machine too.
fn push(site: &Site, name: &str) -> Walden {
    site.push(name).patiently().env("WALDEN_PUSH_LOOK_AHEAD_DEADLINE", "60s")
}

fn records(site: &Site) -> Vec<PathBuf> {
    let mut files = files_below(&site.scratch().join("state"));
    files.retain(|file| file.file_name().unwrap().to_string_lossy().starts_with("pushed-"));
    files
}

/// Own and three ahead, pushed; what the others hold.
fn three_ahead(site: &Site) -> Vec<(String, Vec<u8>)> {
    let files: Vec<_> =
        (1..5).map(|number| (name(number), site.ready_segment(&name(number), number))).collect();
    push(site, &name(1)).run().succeeds().is_silent();
    site.done(&name(1));
    files
}

#[track_caller]
fn comes_back(site: &Site, name: &str, content: &[u8]) {
    site.fetch(name).patiently().run().succeeds();
    assert!(site.fetched().as_deref() == Some(content), "{name}");
}

#[test]
fn what_was_pushed_ahead_costs_no_request_when_asked_for() {
    let bucket = Bucket::start();
    let site = site_on(&bucket);
    site.segment(&name(0), 0);
    push(&site, &name(0)).run().succeeds();
    bucket.proxy.forget_requests();
    let files = three_ahead(&site);
    let requests = bucket.proxy.requests();
    assert_eq!(requests.len(), 4, "{requests:?}");
    assert!(requests[0].path.contains(&name(1)), "its own first: {requests:?}");
    for (name, content) in &files {
        comes_back(&site, name, content);
    }
    bucket.proxy.forget_requests();
    for (name, _) in &files[1..] {
        push(&site, name).run().succeeds().is_silent();
    }
    assert_eq!(bucket.proxy.requests().len(), 0);
    assert_eq!(records(&site), [] as [PathBuf; 0], "each is confirmed once");
    push(&site, &name(2)).run().succeeds().is_silent();
    assert_ne!(bucket.proxy.requests().len(), 0);
}

#[test]
fn they_go_in_the_order_in_which_postgresql_will_ask() {
    let bucket = Bucket::start();
    let site = site_on(&bucket);
    let history = "00000002.history";
    for number in [4, 2, 3] {
        site.ready_segment(&name(number), number);
    }
    site.file(history, b"1\t0/A1000000\tno recovery target specified\n");
    site.ready(history);
    site.ready("0000000100000000000000A0.garbage");
    push(&site, &name(3)).env("WALDEN_PUSH_LOOK_AHEAD", "1").run().succeeds();
    let requests = bucket.proxy.requests();
    let paths: Vec<_> = requests.iter().map(|seen| &seen.path).collect();
    let order = [&name(3), history, &name(2), &name(4)];
    let first_of = |name: &str| paths.iter().position(|path| path.contains(name)).unwrap();
    assert!(order.map(first_of).is_sorted(), "{paths:?}");
}

#[test]
fn a_file_written_anew_after_it_was_acknowledged_is_refused() {
    let site = Site::new();
    let files = three_ahead(&site);
    let path = |number| site.pgdata().join("pg_wal").join(name(number));
    // Other bytes under the same name, as a server that crashed and recovered may write them.
    site.segment(&name(2), 99);
    // The time of the last change can be set back, that of the inode cannot.
    let modified = fs::metadata(path(3)).unwrap().modified().unwrap();
    site.segment(&name(3), 99);
    fs::File::options().write(true).open(path(3)).unwrap().set_modified(modified).unwrap();
    for number in [2, 3] {
        push(&site, &name(number)).run().exits(11).complains_in_one_line();
    }
    // Touched only.
    fs::File::options().write(true).open(path(4)).unwrap().set_modified(modified).unwrap();
    push(&site, &name(4)).run().succeeds().is_silent();
    for (name, content) in &files {
        comes_back(&site, name, content);
    }
}

#[test]
fn a_record_that_agrees_in_all_but_the_content_confirms_nothing() {
    let site = Site::new();
    three_ahead(&site);
    let path = site.pgdata().join("pg_wal").join(name(2));
    let identity = || {
        let file = fs::metadata(&path).unwrap();
        let time = |seconds, nanos| format!("{seconds}.{nanos:09}");
        let modified = time(file.mtime(), file.mtime_nsec());
        format!("modified {modified}\nchanged {}\n", time(file.ctime(), file.ctime_nsec()))
    };
    let record = records(&site).remove(0);
    let said = fs::read_to_string(&record).unwrap();
    let before = identity();
    assert!(said.contains(&name(2)) && said.contains(&before), "{said}");
    site.segment(&name(2), 99);
    fs::write(&record, said.replace(&before, &identity())).unwrap();
    push(&site, &name(2)).run().exits(11).complains_in_one_line();
}

#[test]
fn a_record_that_is_torn_or_old_confirms_nothing() {
    let bucket = Bucket::start();
    let site = site_on(&bucket);
    three_ahead(&site);
    let records = records(&site);
    let said = fs::read(&records[0]).unwrap();
    fs::write(&records[0], &said[..said.len() - 3]).unwrap();
    fs::write(&records[1], vec![0; said.len()]).unwrap();
    let old = fs::File::options().write(true).open(&records[2]).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(2 * 3600)).unwrap();
    for number in 2..5 {
        bucket.proxy.forget_requests();
        site.push(&name(number)).env("WALDEN_PUSH_LOOK_AHEAD_DEADLINE", "0s").run().succeeds();
        assert_ne!(bucket.proxy.requests().len(), 0, "{}", name(number));
    }
}

#[test]
fn old_records_go_with_the_next_look_ahead() {
    let site = Site::new();
    three_ahead(&site);
    for record in records(&site) {
        let record = fs::File::options().write(true).open(record).unwrap();
        record.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    for number in 2..5 {
        site.done(&name(number));
    }
    site.ready_segment(&name(5), 5);
    push(&site, &name(5)).run().succeeds();
    assert_eq!(records(&site), [] as [PathBuf; 0]);
}

#[test]
fn another_repository_is_another_matter() {
    let site = Site::new();
    let files = three_ahead(&site);
    let other = site.scratch().directory("other");
    let configuration = site.scratch().join("two.toml");
    let urls = [&site.repository_directory(), &other]
        .map(|place| format!("[[repository]]\nurl = \"file://{}\"\n", place.display()));
    fs::write(&configuration, urls.concat()).unwrap();
    let push = |name: &str| {
        let walden = Walden::new().as_server_user().current_dir(site.pgdata()).patiently();
        let walden = walden.env("WALDEN_STATE_DIR", site.scratch().join("state"));
        walden.arg("--config").arg(&configuration).args(["push", &format!("pg_wal/{name}")])
    };
    push(&name(2)).env("WALDEN_PUSH_LOOK_AHEAD_DEADLINE", "60s").run().succeeds();
    let objects = |place| {
        let files = files_below(place).into_iter();
        files.filter(|file| file.extension().is_some_and(|end| end == "zst")).count()
    };
    assert_eq!(objects(&other), 3, "all but the first, which nobody asked for again");
    // Acknowledged in both: no object is needed any more, but both places are.
    for file in files_below(&other).iter().filter(|file| !file.ends_with("cluster.json")) {
        fs::remove_file(file).unwrap();
    }
    push(&name(3)).run().succeeds().is_silent();
    fs::remove_dir_all(&other).unwrap();
    push(&name(4)).run().exits(20);
    comes_back(&site, &name(4), &files[3].1);
}

#[test]
fn a_file_that_reached_one_of_two_repositories_is_not_acknowledged() {
    let (bucket, site) = (Bucket::start(), Site::new());
    let configuration = site.scratch().join("two.toml");
    let urls = [bucket.url(), site.repository_directory().display().to_string()]
        .map(|url| format!("[[repository]]\nurl = \"{url}\"\n"));
    fs::write(&configuration, urls.concat()).unwrap();
    for number in 1..4 {
        site.ready_segment(&name(number), number);
    }
    bucket.proxy.fault(Some("PUT"), &name(2), Fault::error(403, "AccessDenied"));
    let mut walden = Walden::new().as_server_user().current_dir(site.pgdata()).patiently();
    for (name, value) in bucket.environment() {
        if name != "WALDEN_REPOSITORY_URL" {
            walden = walden.env(name, value);
        }
    }
    let walden = walden.env("WALDEN_STATE_DIR", site.scratch().join("state"));
    let walden = walden.env("WALDEN_PUSH_LOOK_AHEAD_DEADLINE", "60s");
    let push = |name: &str| {
        walden.clone().arg("--config").arg(&configuration).args(["push", &format!("pg_wal/{name}")])
    };
    push(&name(1)).run().succeeds().is_silent();
    site.done(&name(1));
    assert_eq!(records(&site).len(), 1);
    push(&name(3)).run().succeeds();
    push(&name(2)).run().exits(21).complains_in_one_line();
}

#[test]
fn a_file_that_fails_delays_only_itself() {
    let site = Site::new();
    let contents: Vec<_> = (1..6).map(|number| site.ready_segment(&name(number), number)).collect();
    let mut poisoned = contents[2].clone();
    poisoned[3 * 8192] ^= 0xFF;
    site.file(&name(3), &poisoned);
    push(&site, &name(1)).run().succeeds().is_silent();
    site.done(&name(1));
    assert_eq!(records(&site).len(), 3);
    push(&site, &name(2)).run().succeeds().is_silent();
    site.done(&name(2));
    site.ready_segment(&name(6), 6);
    push(&site, &name(3)).run().exits(10).complains_in_one_line();
    assert!(site.object(&name(6)).exists(), "pushed while 3 fails");
    for number in 4..7 {
        push(&site, &name(number)).run().succeeds().is_silent();
    }
    site.file(&name(3), &contents[2]);
    push(&site, &name(3)).run().succeeds();
    for number in 1..6 {
        comes_back(&site, &name(number), &contents[usize::from(number) - 1]);
    }
}

/// Nothing else could be pushed either.
#[test]
fn a_store_that_is_away_is_not_tried_again_for_others() {
    let site = Site::new();
    for number in 1..4 {
        site.ready_segment(&name(number), number);
    }
    fs::remove_dir(site.repository_directory()).unwrap();
    push(&site, &name(1)).run().exits(20).complains_in_one_line();
    assert_eq!(records(&site), [] as [PathBuf; 0]);
}

#[test]
fn a_request_ahead_that_hangs_is_left_behind_at_the_deadline() {
    let bucket = Bucket::start();
    let site = site_on(&bucket);
    for number in 1..4 {
        site.ready_segment(&name(number), number);
    }
    bucket.proxy.fault(Some("PUT"), &name(2), Fault::Hang);
    let began = Instant::now();
    let push = |name: &str, deadline: &str| {
        site.push(name).patiently().env("WALDEN_PUSH_LOOK_AHEAD_DEADLINE", deadline)
    };
    push(&name(1), "3s").run().succeeds().is_silent();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    site.done(&name(1));
    bucket.proxy.heal();
    push(&name(2), "60s").run().succeeds();
    push(&name(3), "60s").run().succeeds();
    assert_eq!(bucket.objects().iter().filter(|key| key.ends_with(".zst")).count(), 3);
}

#[test]
fn nothing_ahead_gets_in_the_way_of_the_file_asked_for() {
    let bucket = Bucket::start();
    let site = site_on(&bucket);
    site.segment(&name(0), 0);
    push(&site, &name(0)).run().succeeds();
    for number in 1..4 {
        site.ready_segment(&name(number), number);
    }
    bucket.proxy.forget_requests();
    // A narrow line: one file takes longer than there is time for others.
    bucket.proxy.fault(Some("PUT"), "", Fault::Delay(Duration::from_secs(1)));
    let short = |name: &str| site.push(name).env("WALDEN_PUSH_LOOK_AHEAD_DEADLINE", "900ms");
    short(&name(1)).patiently().run().succeeds().is_silent();
    let requests = bucket.proxy.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    // A store that does not answer has enough to do.
    bucket.proxy.heal();
    bucket.proxy.fault(Some("PUT"), "", Fault::Hang);
    short(&name(2)).env("WALDEN_PUSH_DEADLINE", "2s").run().exits(20).complains_in_one_line();
    let requests = bucket.proxy.requests();
    assert!(!requests.iter().any(|seen| seen.path.contains(&name(3))), "{requests:?}");
}

/// Beyond what the stack of a store allows by itself, too.
#[test]
fn as_many_are_on_their_way_at_once_as_allowed() {
    let bucket = Bucket::start();
    let site = site_on(&bucket);
    site.segment(&name(0), 0);
    push(&site, &name(0)).run().succeeds();
    for number in 1..42 {
        site.ready_segment(&name(number), 1);
    }
    bucket.proxy.fault(Some("PUT"), "", Fault::Delay(Duration::from_secs(2)));
    bucket.proxy.forget_requests();
    push(&site, &name(1)).env("WALDEN_PUSH_LOOK_AHEAD", "20").run().succeeds();
    assert_eq!(bucket.proxy.count("PUT"), 41);
    let most = bucket.proxy.most_at_once();
    assert!((17..=20).contains(&most), "{most}");
}

#[test]
fn look_ahead_can_be_turned_off() {
    let site = Site::new();
    for number in 1..4 {
        site.ready_segment(&name(number), number);
    }
    push(&site, &name(1)).env("WALDEN_PUSH_LOOK_AHEAD", "0").run().succeeds();
    assert!(!site.object(&name(2)).exists());
    push(&site, &name(1)).env("WALDEN_PUSH_LOOK_AHEAD", "1").run().succeeds();
    assert!(site.object(&name(2)).exists() && site.object(&name(3)).exists());
}

#[test]
fn clusters_that_share_a_state_directory_never_confirm_each_others_files() {
    let site = Site::new();
    three_ahead(&site);
    // The same name, the same data directory, another server; a history file does not tell whose
    // it is.
    site.file("00000002.history", b"1\t0/A1000000\tno recovery target specified\n");
    site.ready("00000002.history");
    push(&site, &name(1)).run().succeeds();
    site.become_cluster(42);
    push(&site, "00000002.history").run().succeeds();
    let theirs = site.repository_directory().join("main/42/history/00000002.history.zst");
    assert!(theirs.exists() && site.object("00000002.history").exists());
    site.become_cluster(SYSTEM_IDENTIFIER);
    // Another name for the very same server.
    let walden = Walden::new().as_server_user().current_dir(site.pgdata()).patiently();
    let walden = walden.env("WALDEN_STATE_DIR", site.scratch().join("state"));
    let walden = walden.repository(site.repository_directory());
    let walden = walden.env("WALDEN_CLUSTER", "other");
    walden.args(["push", &format!("pg_wal/{}", name(3))]).run().succeeds();
    let home = site.repository_directory().join(format!("other/{SYSTEM_IDENTIFIER}"));
    assert!(files_below(&home).iter().any(|file| file.ends_with(format!("{}.zst", name(3)))));
}

#[test]
fn the_state_directory_may_be_lost_at_any_time() {
    let site = Site::new();
    let files = three_ahead(&site);
    fs::remove_dir_all(site.scratch().join("state")).unwrap();
    site.scratch().directory("state");
    for (name, content) in &files[1..] {
        push(&site, name).run().succeeds().is_silent();
        comes_back(&site, name, content);
    }
    // Where nothing can be remembered nothing is pushed ahead.
    site.ready_segment(&name(7), 7);
    site.ready_segment(&name(8), 8);
    push(&site, &name(7)).env("WALDEN_STATE_DIR", "/nonexistent/state").run().succeeds();
    assert!(!site.object(&name(8)).exists());
}

#[test]
fn without_archive_status_there_is_nothing_ahead() {
    let site = Site::new();
    site.segment(&name(1), 1);
    site.segment(&name(2), 2);
    push(&site, &name(1)).run().succeeds().is_silent();
    assert!(!site.object(&name(2)).exists());
    // Nor is there in a folder that is not this server's, nor of a file that is gone.
    site.ready(&name(3));
    push(&site, &name(1)).run().succeeds().is_silent();
    site.ready(&name(2));
    let away = site.scratch().directory("away/pg_wal");
    let status = site.scratch().directory("away/pg_wal/archive_status");
    fs::write(away.join(name(1)), site::segment(&name(1), 1, SYSTEM_IDENTIFIER)).unwrap();
    fs::write(away.join(name(4)), site::segment(&name(4), 4, SYSTEM_IDENTIFIER)).unwrap();
    fs::write(status.join(format!("{}.ready", name(4))), "").unwrap();
    site.walden().arg("push").arg(away.join(name(1))).run().succeeds();
    assert!(!site.object(&name(4)).exists());
}

#[test]
fn killed_at_any_instant_it_is_completed_by_the_next_calls() {
    let bucket = Bucket::start();
    let site = site_on(&bucket);
    let contents: Vec<_> =
        (0..40).map(|number| site.ready_segment(&name(number), number)).collect();
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..40 {
        let mut running = push(&site, &name(number)).spawn();
        std::thread::sleep(Duration::from_millis(150).mul_f64(random.f64()));
        running.kill();
        drop(running.wait());
        let few = push(&site, &name(number)).env("WALDEN_PUSH_LOOK_AHEAD_DEADLINE", "50ms");
        few.run().succeeds();
        site.done(&name(number));
    }
    for (number, content) in (0..40).zip(&contents) {
        comes_back(&site, &name(number), content);
    }
}

#[test]
fn three_hundred_waiting_files_drain_with_one_request_each() {
    let bucket = Bucket::start();
    let site = site_on(&bucket);
    let names: Vec<_> = (0..300).map(|number| format!("0000000100000002{number:08X}")).collect();
    site.segment(&name(0xFF), 1);
    push(&site, &name(0xFF)).run().succeeds();
    for name in &names {
        site.ready_segment(name, 3);
    }
    bucket.proxy.forget_requests();
    let mut asked = 0;
    for name in &names {
        let before = bucket.proxy.requests().len();
        site.push(name).patiently().run().succeeds().is_silent();
        site.done(name);
        asked += usize::from(bucket.proxy.requests().len() > before);
    }
    let puts = bucket.proxy.requests();
    let objects = bucket.objects().into_iter().filter(|key| key.ends_with(".zst")).count();
    assert_eq!(objects, 301);
    assert!(puts.iter().all(|seen| seen.method == "PUT"), "{puts:?}");
    assert!((300..310).contains(&puts.len()), "{}", puts.len());
    assert!(asked < 100, "{asked} calls needed the store");
}

#[test]
fn a_server_that_could_not_archive_for_a_while_is_caught_up_with() {
    let scratch = Scratch::new();
    let repository = scratch.directory("repository");
    let cluster = Cluster::builder(ANY_MAJOR)
        .archive_to(format!("file://{}", repository.display()), "main")
        .setting("wal_keep_size", "'1GB'")
        .env("WALDEN_PUSH_DEADLINE", "60s")
        .env("WALDEN_PUSH_LOOK_AHEAD_DEADLINE", "30s")
        .start();
    cluster.archive_everything();
    cluster.sql("ALTER SYSTEM SET archive_command = 'false'");
    cluster.sql("SELECT pg_reload_conf()");
    cluster.wait_until("current_setting('archive_command') = 'false'");
    let segments = cluster.write_wal(30);
    cluster.wait_until("(SELECT failed_count > 0 FROM pg_stat_archiver)");
    assert_eq!(cluster.files_to_archive(), segments);

    cluster.sql("ALTER SYSTEM RESET archive_command");
    cluster.sql("SELECT pg_reload_conf()");
    cluster.wait_archived();
    let objects = files_below(&repository).into_iter();
    let objects = objects.filter(|file| file.extension().is_some_and(|end| end == "zst")).count();
    cluster.wait_until(&format!(
        "(SELECT archived_count = {objects} AND last_archived_wal = '{}' FROM pg_stat_archiver)",
        segments[29]
    ));
    let destination = scratch.directory("there");
    for segment in &segments {
        let fetched = destination.join(segment);
        cluster.walden().arg("fetch").arg(segment).arg(&fetched).run().succeeds();
        let original = fs::read(cluster.pgdata().join("pg_wal").join(segment)).unwrap();
        assert!(fs::read(fetched).unwrap() == original, "{segment}");
    }
    let state = files_below(&cluster.scratch().join("state"));
    let is_record = |file: &PathBuf| file.to_string_lossy().contains("/pushed-");
    assert!(!state.iter().any(is_record), "all were asked for: {state:?}");
}

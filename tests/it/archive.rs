//! `push` and `fetch` on a directory: what comes back, what is refused, and by which exit code.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::cluster::within;
use crate::harness::site::{self, files_below};
use crate::harness::{self, ANY_MAJOR, Cluster, Scratch, Site, Walden};

const SEGMENT: &str = "0000000100000000000000A1";
const NEXT: &str = "0000000100000000000000A2";
const HISTORY: &[u8] = b"1\t0/A1000000\tno recovery target specified\n";

/// Short of patience: what fails here fails for good.
const IMPATIENT: (&str, &str) = ("WALDEN_FETCH_RETRY_FOR", "0s");

#[test]
fn all_four_kinds_of_file_come_back_as_they_went() {
    let site = Site::new();
    let segment = site::segment(SEGMENT, 1, site::SYSTEM_IDENTIFIER);
    let backup =
        format!("START WAL LOCATION: 0/A100028 (file {SEGMENT})\nSTOP WAL LOCATION: 0/B\n");
    for (name, content) in [
        (SEGMENT.to_owned(), &segment[..]),
        (format!("{SEGMENT}.partial"), &segment[..]),
        ("00000002.history".to_owned(), HISTORY),
        (format!("{SEGMENT}.00000028.backup"), backup.as_bytes()),
    ] {
        site.file(&name, content);
        site.push(&name).run().succeeds().is_silent();
        site.fetch(&name).run().succeeds().is_silent();
        assert_eq!(site.fetched().as_deref(), Some(content), "{name}");
        let plain = Command::new("zstd").arg("-dcq").arg(site.object(&name)).output().unwrap();
        assert_eq!(plain.stdout, content, "zstd -d reads {name}");
    }
}

/// As PostgreSQL itself makes and names them; the other tests have segments of 1 MiB.
#[test]
fn segments_of_16_and_64_mib_come_back() {
    for mebibytes in [16, 64] {
        let scratch = Scratch::new();
        let url = format!("file://{}", scratch.directory("repository").display());
        let builder = Cluster::builder(ANY_MAJOR).segment_size_mib(mebibytes);
        let cluster = builder.setting("wal_keep_size", "'1GB'").archive_to(url, "main").start();
        cluster.sql("CREATE TABLE t AS SELECT md5(n::text) FROM generate_series(1, 100000) n");
        let segment = cluster.write_wal(1).remove(0);
        cluster.wait_archived();
        let destination = scratch.directory("there").join(&segment);
        cluster.walden().arg("fetch").arg(&segment).arg(&destination).run().succeeds();
        let fetched = fs::read(&destination).unwrap();
        assert_eq!(fetched.len(), (mebibytes as usize) << 20);
        assert!(fetched == fs::read(cluster.pgdata().join("pg_wal").join(&segment)).unwrap());
    }
}

#[test]
fn pushing_the_same_again_is_a_success_and_other_content_is_not() {
    let site = Site::new();
    let first = site.segment(SEGMENT, 1);
    site.push(SEGMENT).run().succeeds();
    site.push(SEGMENT).run().succeeds().is_silent();
    site.segment(SEGMENT, 2);
    let refused = site.push(SEGMENT).run().exits(11).complains_in_one_line();
    let place = site.pgdata().display().to_string();
    assert_eq!(refused.stderr.matches(&place).count(), 2, "both origins: {refused}");
    site.fetch(SEGMENT).run().succeeds();
    assert_eq!(site.fetched(), Some(first), "the first one is still there");
}

#[test]
fn of_eight_pushers_of_two_contents_one_content_wins() {
    let site = Site::new();
    let repository = format!("file://{}", site.repository_directory().display());
    site.race(&Site::on(&repository, Vec::new()), SEGMENT);
}

#[test]
fn what_is_not_valid_wal_of_this_cluster_is_refused_and_leaves_nothing() {
    let site = Site::new();
    let good = site::segment(SEGMENT, 1, site::SYSTEM_IDENTIFIER);
    let mut flipped = good.clone();
    flipped[8192] ^= 0xFF;
    let elsewhere = site::segment("0000000100000000000000A2", 1, site::SYSTEM_IDENTIFIER);
    for bytes in [&good[..good.len() - 1], &flipped, &elsewhere, b""] {
        site.file(SEGMENT, bytes);
        site.push(SEGMENT).run().exits(10).complains_in_one_line();
    }
    site.push("0000000100000000000000FF").run().exits(10).complains_in_one_line();
    site.file("00000002.history", b"not a history");
    site.push("00000002.history").run().exits(10).complains_in_one_line();
    site.file(SEGMENT, &site::segment(SEGMENT, 1, 42));
    site.push(SEGMENT).run().exits(12).complains_in_one_line();
    site.push("RECOVERYXLOG").run().exits(2).complains_in_one_line();
    assert_eq!(files_below(&site.repository_directory()), [] as [std::path::PathBuf; 0]);
}

#[test]
fn absent_is_said_only_where_the_place_is_proven() {
    let site = Site::new();
    let fetch = site.fetch(SEGMENT).env(IMPATIENT.0, IMPATIENT.1);
    fetch.run().exits(200).complains_in_one_line();

    site.segment("0000000100000000000000A0", 1);
    site.push("0000000100000000000000A0").run().succeeds();
    fetch.run().exits(1);
    site.fetch("00000002.history").run().exits(1).complains_in_one_line();

    // Somebody unmounted the repository: an empty directory is left.
    let away = site.scratch().join("away");
    fs::rename(site.repository_directory(), &away).unwrap();
    fetch.run().exits(200).complains_in_one_line();
    fs::create_dir(site.repository_directory()).unwrap();
    fetch.run().exits(200).complains_in_one_line();
    assert_eq!(site.fetched(), None);
}

#[test]
fn a_fetch_waits_for_a_repository_to_come_back() {
    let site = Site::new();
    let content = site.segment(SEGMENT, 1);
    site.push(SEGMENT).run().succeeds();
    let away = site.scratch().join("away");
    fs::rename(site.repository_directory(), &away).unwrap();
    let running = site.fetch(SEGMENT).env("WALDEN_FETCH_RETRY_FOR", "60s").spawn();
    std::thread::sleep(Duration::from_millis(500));
    fs::rename(&away, site.repository_directory()).unwrap();
    running.wait().succeeds();
    assert_eq!(site.fetched(), Some(content));
}

#[test]
fn a_damaged_object_is_never_served() {
    let site = Site::new();
    site.segment(SEGMENT, 1);
    site.push(SEGMENT).run().succeeds();
    let object = site.object(SEGMENT);
    let good = fs::read(&object).unwrap();
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.clear(),
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        },
        |bytes| bytes[3] ^= 0xFF,
    ];
    for damage in damages {
        let mut bytes = good.clone();
        damage(&mut bytes);
        fs::write(&object, bytes).unwrap();
        site.fetch(SEGMENT).run().exits(200).complains_in_one_line();
        assert_eq!(site.fetched(), None);
    }
    fs::write(&object, &good).unwrap();
    site.fetch(SEGMENT).run().succeeds();
    // A push over a damaged object must not take it for the same.
    fs::write(&object, &good[..good.len() - 3]).unwrap();
    site.push(SEGMENT).run().exits(30).complains_in_one_line();
}

#[test]
fn a_file_of_another_cluster_is_never_served() {
    let site = Site::new();
    site.segment(SEGMENT, 1);
    site.push(SEGMENT).run().succeeds();
    let ours = site.repository_directory().join(format!("main/{}", site::SYSTEM_IDENTIFIER));
    fs::rename(ours, site.repository_directory().join("main/42")).unwrap();
    site.become_cluster(42);
    site.fetch(SEGMENT).env(IMPATIENT.0, IMPATIENT.1).run().exits(200).complains_in_one_line();
    assert_eq!(site.fetched(), None);
}

#[test]
fn beside_standby_signal_a_fetch_that_cannot_decide_lets_postgresql_ask_again() {
    let site = Site::new();
    site.become_standby();
    let fetch = site.fetch(SEGMENT);
    fetch.clone().env(IMPATIENT.0, IMPATIENT.1).run().exits(3).complains_in_one_line();

    // That there is no more yet is the daily answer, and no line in the log.
    site.segment("0000000100000000000000A0", 1);
    site.push("0000000100000000000000A0").run().succeeds();
    fetch.run().exits(1).is_silent();
    fetch.clone().arg("--verbose").run().exits(1).stderr_has("is not archived");
    let claim = site.object(SEGMENT).ancestors().nth(4).unwrap().join("cluster.json");
    fs::remove_file(claim).unwrap();

    // Told to become the primary, it does not wait for segments any more; for history files it
    // does.
    fs::write(site.pgdata().join("promote"), "").unwrap();
    fetch.env("WALDEN_FETCH_RETRY_FOR", "100s").timeout(Duration::from_secs(20)).run().exits(3);
    let mut history = site.fetch("00000002.history").env("WALDEN_FETCH_RETRY_FOR", "100s").spawn();
    std::thread::sleep(Duration::from_secs(2));
    assert!(!history.has_ended());
}

#[test]
fn every_failure_of_fetch_ends_in_200() {
    let site = Site::new();
    let bad_configuration = site.scratch().join("bad.toml");
    fs::write(&bad_configuration, "no_such_key = 1\n").unwrap();
    for (what, call) in [
        ("a name that is none", site.fetch("nonsense")),
        ("too few words", site.walden().arg("fetch").arg(SEGMENT)),
        ("an unknown flag", site.fetch(SEGMENT).arg("--nonsense")),
        ("a broken configuration", site.fetch(SEGMENT).arg("--config").arg(&bad_configuration)),
        ("a missing configuration", site.fetch(SEGMENT).arg("--config").arg("/nonexistent")),
        ("no data directory", site.fetch(SEGMENT).current_dir("/")),
        ("an unwritable destination", {
            site.walden().args(["fetch", SEGMENT, "/nonexistent/RECOVERYXLOG"])
        }),
    ] {
        let output = call.env(IMPATIENT.0, IMPATIENT.1).run();
        assert_eq!(output.code(), Some(200), "{what}: {output}");
        output.complains_in_one_line();
    }
}

/// After an exit of 0 PostgreSQL recycles the segment, or takes the missing file for the end.
#[test]
fn help_is_no_success_to_postgresql() {
    let site = Site::new();
    site.segment(SEGMENT, 1);
    for flag in ["--help", "-h"] {
        site.push(SEGMENT).arg(flag).run().exits(2).complains_in_one_line();
        site.fetch(SEGMENT).arg(flag).run().exits(200).complains_in_one_line();
    }
    let path = format!("pg_wal/{SEGMENT}");
    site.walden().args(["--version", "push", &path]).run().exits(2);
    site.walden().args(["--version", "fetch", SEGMENT, "pg_wal/RECOVERYXLOG"]).run().exits(200);
    for words in [&["push", "--help"][..], &["fetch", "--help"], &["--version"]] {
        site.walden().args(words).run().succeeds();
    }
}

/// The disk is not mounted, and the mount point is a directory like any other.
#[test]
fn a_push_notices_that_its_repository_is_not_mounted_any_more() {
    let site = Site::new();
    site.segment(SEGMENT, 1);
    site.push(SEGMENT).run().succeeds();
    let (repository, away) = (site.repository_directory(), site.scratch().join("away"));
    fs::rename(&repository, &away).unwrap();
    fs::create_dir(&repository).unwrap();
    fs::set_permissions(&repository, fs::Permissions::from_mode(0o777)).unwrap();
    let next = "0000000100000000000000A2";
    site.segment(next, 2);
    site.push(next).run().exits(20).complains_in_one_line();
    assert_eq!(files_below(&repository), [] as [std::path::PathBuf; 0]);
    fs::remove_dir(&repository).unwrap();
    fs::rename(&away, &repository).unwrap();
    site.push(next).run().succeeds();
}

/// Old WAL was moved to another disk, and that one is not mounted.
#[test]
fn an_object_behind_a_link_that_leads_nowhere_is_not_absent() {
    let site = Site::new();
    let content = site.segment(SEGMENT, 1);
    site.push(SEGMENT).run().succeeds();
    let (folder, away) = (site.object(SEGMENT), site.scratch().join("away"));
    let folder = folder.parent().unwrap();
    fs::rename(folder, &away).unwrap();
    std::os::unix::fs::symlink(&away, folder).unwrap();
    site.fetch(SEGMENT).run().succeeds();
    assert_eq!(site.fetched(), Some(content));
    fs::rename(&away, site.scratch().join("unmounted")).unwrap();
    site.fetch(SEGMENT).env(IMPATIENT.0, IMPATIENT.1).run().exits(200).complains_in_one_line();
}

#[test]
fn a_bug_is_one_line_and_never_lets_postgresql_promote() {
    let site = Site::new();
    site.segment(SEGMENT, 1);
    let with_bug = |call: Walden| call.env("WALDEN_TEST_PANIC", "1").run();
    let output = with_bug(site.push(SEGMENT)).exits(70).complains_in_one_line();
    output.stderr_has("walden: bug: as the test asked");
    with_bug(site.fetch(SEGMENT)).exits(200).complains_in_one_line();
    site.become_standby();
    with_bug(site.fetch(SEGMENT)).exits(3).complains_in_one_line();
}

#[test]
fn a_push_killed_at_any_instant_is_completed_by_the_next() {
    Site::new().kill_and_repeat(40, Duration::from_millis(30));
}

#[test]
fn told_to_stop_push_ends_in_75_and_fetch_dies_by_the_signal() {
    let site = Site::new();
    // A named pipe in the place of the file: whoever reads it waits.
    let pipe = site.pgdata().join("pg_wal").join(SEGMENT);
    assert!(Command::new("mkfifo").arg("-m").arg("666").arg(&pipe).status().unwrap().success());
    let mut push = site.push(SEGMENT).spawn();
    std::thread::sleep(Duration::from_millis(300));
    push.terminate();
    push.wait().exits(75);

    let mut fetch = site.fetch(SEGMENT).env("WALDEN_FETCH_RETRY_FOR", "100s").spawn();
    std::thread::sleep(Duration::from_millis(300));
    fetch.terminate();
    let output = fetch.wait();
    assert_eq!(output.signal(), Some(15), "{output}");
}

/// The logging collector hangs, and the pipe to it is full.
#[test]
fn a_push_that_nobody_listens_to_still_ends_when_told() {
    let site = Site::new();
    let pipe = site.pgdata().join("pg_wal").join(SEGMENT);
    assert!(Command::new("mkfifo").arg("-m").arg("666").arg(&pipe).status().unwrap().success());
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    let filler = std::thread::spawn(move || while filler.write_all(&[b'.'; 4096]).is_ok() {});
    let mut push = Command::new(harness::program::binary())
        .args(["--repository", "/nonexistent", "push", &format!("pg_wal/{SEGMENT}")])
        .current_dir(site.pgdata())
        .stderr(writer)
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let process = rustix::process::Pid::from_child(&push);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let ended = within(Duration::from_secs(10), || push.try_wait().unwrap().is_some());
    if !ended {
        push.kill().unwrap();
    }
    assert_eq!(push.wait().unwrap().code(), Some(75));
    drop(reader);
    filler.join().unwrap();
}

#[test]
fn a_stuck_disk_ends_at_the_deadline() {
    let site = Site::new();
    let pipe = site.pgdata().join("pg_wal").join(SEGMENT);
    assert!(Command::new("mkfifo").arg("-m").arg("666").arg(&pipe).status().unwrap().success());
    site.push(SEGMENT)
        .env("WALDEN_PUSH_DEADLINE", "1s")
        .timeout(Duration::from_secs(60))
        .run()
        .exits(20)
        .complains_in_one_line();
}

#[test]
fn a_stuck_repository_does_not_keep_the_file_from_another() {
    let site = Site::new();
    site.segment(SEGMENT, 1);
    let stuck = site.scratch().directory("stuck");
    let home = stuck.join(format!("main/{}", site::SYSTEM_IDENTIFIER));
    let pipe = home.join("cluster.json");
    fs::create_dir_all(&home).unwrap();
    assert!(Command::new("mkfifo").arg("-m").arg("666").arg(&pipe).status().unwrap().success());
    for folder in [&home, home.parent().unwrap(), &stuck] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let configuration = site.scratch().join("two.toml");
    let urls = [&stuck, &site.repository_directory()]
        .map(|directory| format!("[[repository]]\nurl = \"{}\"\n", directory.display()));
    fs::write(&configuration, format!("cluster = \"main\"\n{}", urls.concat())).unwrap();
    Walden::new()
        .as_server_user()
        .current_dir(site.pgdata())
        .env("WALDEN_STATE_DIR", site.scratch().join("state"))
        .env("WALDEN_PUSH_DEADLINE", "1s")
        .args(["push", &format!("pg_wal/{SEGMENT}"), "--config"])
        .arg(&configuration)
        .run()
        .exits(20);
    assert!(site.object(SEGMENT).exists());
}

#[test]
fn a_read_only_repository_is_not_allowed() {
    let site = Site::new();
    site.segment(SEGMENT, 1);
    let repository = site.repository_directory();
    fs::set_permissions(&repository, fs::Permissions::from_mode(0o555)).unwrap();
    site.push(SEGMENT).run().exits(21).complains_in_one_line();
    fs::set_permissions(&repository, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(files_below(&repository), [] as [std::path::PathBuf; 0]);
    site.push(SEGMENT).run().succeeds();
}

#[test]
fn a_vanished_repository_is_said_to_be_gone_and_is_not_made_up() {
    let site = Site::new();
    site.segment(SEGMENT, 1);
    fs::remove_dir(site.repository_directory()).unwrap();
    site.push(SEGMENT).run().exits(20).complains_in_one_line();
    assert!(!site.repository_directory().exists(), "an unmounted disk must not be filled");
}

/// In a mount namespace of its own the repository is a disk of 512 KiB, too small for the segment.
#[test]
fn a_full_disk_is_said_to_be_full_and_leaves_no_half_object() {
    let site = Site::new();
    site.segment(SEGMENT, 1);
    let script = r#"
        mount -t tmpfs -o size=512k,mode=755 tmpfs "$1" || exit 99
        cd "$2" && "$3" --repository "$1" --cluster main push "pg_wal/$4"
        code=$?
        find "$1" -type f
        exit $code"#;
    let is_root = rustix::process::geteuid().is_root();
    let output = Command::new("unshare")
        .arg(if is_root { "-m" } else { "-rm" })
        .args(["sh", "-c", script, "sh"])
        .arg(site.repository_directory())
        .arg(site.pgdata())
        .arg(harness::program::binary())
        .arg(SEGMENT)
        .env("WALDEN_STATE_DIR", site.scratch().join("another-state"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(23), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("(hint: "), "{said}");
    let left = String::from_utf8_lossy(&output.stdout);
    assert_eq!(left.lines().filter(|file| !file.ends_with("/cluster.json")).count(), 0, "{left}");
}

/// Two repositories in the configuration: each gets everything, either one suffices, and absent is
/// only what both have proven absent.
#[test]
fn with_two_repositories_either_one_suffices() {
    let site = Site::new();
    let places = ["one", "two"].map(|name| site.scratch().directory(name));
    let lines = places.each_ref().map(|place| format!("[[repository]]\nurl = {place:?}\n"));
    let configuration = site.scratch().join("two.toml");
    fs::write(&configuration, lines.concat()).unwrap();
    let call = |words: &[&str]| {
        let walden = Walden::new().as_server_user().current_dir(site.pgdata());
        let walden = walden.env("WALDEN_STATE_DIR", site.scratch().join("state"));
        walden.env(IMPATIENT.0, IMPATIENT.1).arg("--config").arg(&configuration).args(words)
    };
    let push = |name: &str| call(&["push", &format!("pg_wal/{name}")]);
    let fetch = |name: &str| call(&["fetch", name, "pg_wal/RECOVERYXLOG"]);
    let objects = |place: &Path| {
        let files = files_below(place).into_iter();
        files.filter(|file| file.extension().is_some_and(|end| end == "zst")).count()
    };

    let content = site.segment(SEGMENT, 1);
    push(SEGMENT).run().succeeds().is_silent();
    assert_eq!(places.each_ref().map(|place| objects(place)), [1, 1]);
    fetch(NEXT).run().exits(1);

    let away = site.scratch().join("away");
    fs::rename(&places[0], &away).unwrap();
    fetch(SEGMENT).run().succeeds();
    assert_eq!(site.fetched(), Some(content));
    fetch(NEXT).run().exits(200).complains_in_one_line();
    // A yes of one is no yes, but the one that is there gets the file.
    site.segment(NEXT, 2);
    push(NEXT).run().exits(20).complains_in_one_line();
    assert_eq!(objects(&places[1]), 2);
    fs::rename(&away, &places[0]).unwrap();
    push(NEXT).run().succeeds();
    assert_eq!(objects(&places[0]), 2);
}

//! SIGKILL for everything at any instant, and a state directory that goes away: it costs time, and
//! nothing else.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use walden::postgres::MajorVersion;

use crate::harness::cluster::within;
use crate::harness::processes;
use crate::harness::reference::place_of;
use crate::harness::site::files_below;
use crate::harness::{
    self, ANY_MAJOR, Bucket, Cluster, Ledger, Load, Reference, Scratch, Site, every_major,
};

const ROUNDS: &str = "WALDEN_TEST_CRASH_ROUNDS";
const FEW: u64 = 6;

/// What happens to a cluster that archives.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Push,
    Server,
    ServerAndPush,
    State,
    ServerAndState,
    /// What is remembered is not lost, but another thing than was written down.
    SpoiltState,
}

const BLOWS: [Blow; 6] = [
    Blow::Push,
    Blow::Server,
    Blow::ServerAndPush,
    Blow::State,
    Blow::ServerAndState,
    Blow::SpoiltState,
];

#[test]
fn nothing_is_lost_on_a_directory_whoever_is_killed() {
    let scratch = Scratch::new();
    let folder = scratch.directory("repository");
    let url = format!("file://{}", folder.display());
    for major in majors() {
        Ordeal::begin(major, &url, &folder, &[]).run();
        empty(&folder);
    }
}

#[test]
fn nothing_is_lost_on_s3_whoever_is_killed() {
    let bucket = Bucket::start();
    for major in majors() {
        Ordeal::begin(major, &bucket.url(), &bucket.folder(), &bucket.environment()).run();
        empty(&bucket.folder());
    }
}

fn rounds() -> u64 {
    harness::amount(ROUNDS, FEW)
}

/// One where there is little time.
fn majors() -> Vec<MajorVersion> {
    if rounds() > FEW { every_major().collect() } else { vec![ANY_MAJOR] }
}

fn empty(folder: &Path) {
    fs::remove_dir_all(folder.join("main")).unwrap();
}

struct Ordeal<'a> {
    cluster: Cluster,
    /// Of the beginning, to recover from.
    base: Cluster,
    reference: Reference,
    repository: &'a Path,
    random: Rng,
}

impl<'a> Ordeal<'a> {
    #[track_caller]
    fn begin(
        major: MajorVersion,
        url: &str,
        repository: &'a Path,
        environment: &[(&str, String)],
    ) -> Ordeal<'a> {
        println!("PostgreSQL {major}");
        let reference = Reference::new();
        let builder = Cluster::builder(major).data_checksums().archive_past(&reference, url);
        let builder = builder.setting("max_wal_size", "8MB").setting("min_wal_size", "2MB");
        let with = |builder: harness::ClusterBuilder, (name, value): &(&str, String)| {
            builder.env(name, value)
        };
        let cluster = environment.iter().fold(builder, with).start();
        let base = Cluster::copy_of(&cluster);
        let random = Rng::with_seed(harness::seed());
        Ordeal { cluster, base, reference, repository, random }
    }

    #[track_caller]
    fn run(mut self) {
        let load = Load::start(&self.cluster, 2, 8);
        // Each kind once before any comes twice.
        let mut blows = Vec::new();
        for _ in 0..rounds() {
            if blows.is_empty() {
                blows = BLOWS.to_vec();
                self.random.shuffle(&mut blows);
            }
            let blow = blows.pop().expect("it was filled");
            load.pause(false);
            let before = self.instant(1000);
            println!("{blow:?} after {before:?}");
            thread::sleep(before);
            self.strike(blow);
            load.pause(true);
            self.drain();
            self.compare();
        }
        let ledger = load.finish();
        ledger.expect_all_in(&self.cluster);
        println!("{} rows, {} of them unsure", ledger.rows(), ledger.unknown());
        self.drain();
        self.compare();
        self.expect_a_quiet_log();
        self.recover();
    }

    fn instant(&mut self, longest_ms: u64) -> Duration {
        Duration::from_micros(self.random.u64(..longest_ms * 1000))
    }

    #[track_caller]
    fn strike(&mut self, blow: Blow) {
        match blow {
            Blow::Push => {
                for _ in 0..3 {
                    let instant = self.instant(60);
                    kill_one(&self.cluster.state_directory(), &mut self.random, instant);
                }
            }
            Blow::Server => self.cluster.kill(false),
            Blow::ServerAndPush | Blow::ServerAndState => self.cluster.kill(true),
            Blow::State | Blow::SpoiltState => {
                for _ in 0..20 {
                    match blow {
                        Blow::State => lose(&self.cluster.state_directory()),
                        _ => spoil(&self.cluster.state_directory(), &mut self.random),
                    }
                    thread::sleep(self.instant(30));
                }
            }
        }
        if let Blow::ServerAndState = blow {
            lose(&self.cluster.state_directory());
        }
        if matches!(blow, Blow::Server | Blow::ServerAndPush | Blow::ServerAndState) {
            self.cluster.start_again();
        }
    }

    /// PostgreSQL sleeps for up to a minute after failures in a row, but a new segment wakes it.
    #[track_caller]
    fn drain(&self) {
        let is_empty = || self.cluster.files_to_archive().is_empty();
        let drained = (0..30).any(|_| {
            self.cluster.write_wal(1);
            within(Duration::from_secs(10), is_empty)
        });
        assert!(drained, "{:?}\n{}", self.cluster.files_to_archive(), self.cluster.log());
    }

    #[track_caller]
    fn compare(&self) {
        assert_eq!(self.reference.rewritten(), [] as [String; 0], "PostgreSQL's own doing");
        let tally = self.reference.expect_same(self.repository, &self.cluster.system_identifier());
        println!("all the same: {tally:?}");
    }

    /// A killed push cannot say anything, and the others have nothing to say but that what they
    /// remember is gone.
    #[track_caller]
    fn expect_a_quiet_log(&self) {
        for call in self.reference.calls() {
            assert!([0, 137].contains(&call.code), "{call:?}\n{}", self.cluster.log());
        }
        let log = self.cluster.log();
        let state = format!("place={}", self.cluster.state_directory().display());
        let is_usual = |line: &str| line.starts_with("walden: warning: ") && line.contains(&state);
        let is_unusual = |line: &&str| line.contains("walden: ") && !is_usual(line);
        let lines: Vec<&str> = log.lines().filter(is_unusual).collect();
        assert!(lines.is_empty(), "{}", lines.join("\n"));
    }

    /// From the copy of the beginning and the archive alone, while everything is killed again.
    #[track_caller]
    fn recover(&mut self) {
        let expected = Ledger::digest_in(&self.cluster);
        let mut copy = Cluster::copy_of(&self.base);
        copy.signal("recovery.signal");
        let state = copy.state_directory();
        let is_over = AtomicBool::new(false);
        let seed = self.random.u64(..);
        thread::scope(|scope| {
            let tormentor = scope.spawn(|| torment(&state, Rng::with_seed(seed), &is_over));
            self.get_through(&mut copy);
            is_over.store(true, Ordering::Relaxed);
            println!("recovered over {} killed fetches", tormentor.join().expect("the tormentor"));
        });
        let is_alone = || processes::of_walden(&state).is_empty();
        assert!(within(Duration::from_secs(60), is_alone), "recovery is over, who fetches ahead?");
        assert_eq!(Ledger::digest_in(&copy), expected, "{}", copy.log());
        println!("recovered: {expected}");
    }

    #[track_caller]
    fn get_through(&mut self, copy: &mut Cluster) {
        let mut kills = 2;
        for _ in 0..50 {
            // A killed fetch stops PostgreSQL, which must not take it for the end of the archive.
            if copy.try_start().is_err() {
                continue;
            }
            loop {
                if copy
                    .try_sql("SELECT 1 WHERE NOT pg_is_in_recovery()")
                    .is_ok_and(|r| !r.is_empty())
                {
                    return;
                }
                thread::sleep(self.instant(300));
                if copy.server().has_ended() {
                    break;
                }
                if kills > 0 {
                    kills -= 1;
                    copy.kill(true);
                    break;
                }
            }
        }
        panic!("recovery does not get to its end\n{}", copy.log());
    }
}

/// Kills what fetches and what fetches ahead, and clears away what they remember; after a while it
/// lets them be. How many were killed.
fn torment(state: &Path, mut random: Rng, is_over: &AtomicBool) -> usize {
    let mut killed = 0;
    for _ in 0..12 {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let instant = Duration::from_micros(random.u64(..100_000));
        killed += usize::from(kill_one(state, &mut random, instant));
        match random.u8(..3) {
            0 => lose(state),
            1 => spoil(state, &mut random),
            _ => {}
        }
        thread::sleep(Duration::from_millis(random.u64(..500)));
    }
    killed
}

/// One call of walden at some instant of its life. Whether there was one.
fn kill_one(state: &Path, random: &mut Rng, instant: Duration) -> bool {
    let is_there = || !processes::of_walden(state).is_empty();
    if !within(Duration::from_secs(2), is_there) {
        return false;
    }
    thread::sleep(instant);
    let found = processes::of_walden(state);
    let chosen = found.get(random.usize(..found.len().max(1)));
    if let Some(process) = chosen {
        println!("killed walden {}", process.words[1..].join(" "));
        process.kill();
    }
    chosen.is_some()
}

/// Somebody clears it away, whatever is written into it just now.
#[track_caller]
fn lose(state: &Path) {
    let is_gone = || match fs::remove_dir_all(state) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    assert!(within(Duration::from_secs(10), is_gone), "{} does not go away", state.display());
}

/// A file in it, whichever, gets another byte in its middle or loses its second half.
fn spoil(state: &Path, random: &mut Rng) {
    let Some(file) = random.choice(files_below(state)) else { return };
    let Ok(mut bytes) = fs::read(&file) else { return };
    let middle = bytes.len() / 2;
    match bytes.get_mut(middle) {
        Some(byte) if random.bool() => *byte ^= 0x20,
        _ => bytes.truncate(middle),
    }
    // In place, as a disk would, and only what is still there.
    let spoilt = fs::File::options().write(true).truncate(true).open(&file);
    let _ = spoilt.and_then(|mut file| file.write_all(&bytes));
}

/// The disk is put back to an earlier moment, as of a virtual machine, and the server writes the
/// same segments once more, with other rows in them.
#[test]
fn a_segment_written_anew_after_it_was_archived_is_refused() {
    let scratch = Scratch::new();
    let folder = scratch.directory("repository");
    let url = format!("file://{}", folder.display());
    let builder = Cluster::builder(ANY_MAJOR).archive_to(url, "main");
    let mut cluster = builder.setting("archive_command", "'false'").start();
    cluster.sql("CREATE TABLE t (what text)");
    cluster.kill(true);
    let earlier = scratch.join("earlier");
    copy(cluster.pgdata(), &earlier);

    let write = |cluster: &mut Cluster, what: &str| {
        cluster.start_again();
        cluster.sql(&format!("INSERT INTO t VALUES ('{what}')"));
        cluster.write_wal(4)
    };
    let first = write(&mut cluster, "first");
    let push = |cluster: &Cluster, name: &str| {
        cluster.walden().arg("push").arg(format!("pg_wal/{name}")).run()
    };
    push(&cluster, &first[0]).succeeds();
    let home = folder.join("main").join(cluster.system_identifier());
    let is_archived = |name: &String| home.join(place_of(name)).exists();
    let ahead = first[1..].iter().filter(|name| is_archived(name)).count();
    assert!(ahead > 0, "it was to look ahead");
    let contents: Vec<PathBuf> = first.iter().map(|name| home.join(place_of(name))).collect();
    for name in &first {
        push(&cluster, name).succeeds();
    }
    let contents: Vec<Vec<u8>> = contents.iter().map(|object| fs::read(object).unwrap()).collect();

    cluster.kill(true);
    fs::remove_dir_all(cluster.pgdata()).unwrap();
    copy(&earlier, cluster.pgdata());
    let second = write(&mut cluster, "second");
    assert_eq!(first, second);
    for (name, content) in second.iter().zip(&contents) {
        push(&cluster, name).exits(11).complains_in_one_line();
        assert!(fs::read(home.join(place_of(name))).unwrap() == *content, "nothing is overwritten");
    }
    assert!(cluster.files_to_archive().contains(&second[3]), "PostgreSQL keeps it");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// The same by hand, as mean as can be: same size, same time, same inode.
#[test]
fn a_segment_rewritten_in_place_after_it_was_pushed_ahead_is_refused() {
    let site = Site::new();
    let status = site.pgdata().join("pg_wal/archive_status");
    fs::create_dir(&status).unwrap();
    let names: Vec<String> = (0..6).map(|n| format!("0000000100000000000000B{n}")).collect();
    let mut contents = Vec::new();
    for (seed, name) in (1..).zip(&names) {
        contents.push(site.segment(name, seed));
        fs::write(status.join(format!("{name}.ready")), "").unwrap();
    }
    site.push(&names[0]).run().succeeds().is_silent();
    let mut ahead = 0;
    for ((seed, name), content) in (11..).zip(&names).zip(&contents).skip(1) {
        let is_ahead = site.object(name).exists();
        let path = site.pgdata().join("pg_wal").join(name);
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let other = site.segment(name, seed);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        if is_ahead {
            ahead += 1;
            site.push(name).run().exits(11).complains_in_one_line();
            site.segment(name, seed - 10);
        }
        site.push(name).run().succeeds();
        site.fetch(name).run().succeeds();
        assert_eq!(site.fetched().as_ref(), Some(if is_ahead { content } else { &other }));
    }
    assert!(ahead > 0, "it was to look ahead");
}

//! A server writes flat out while its store fails, stalls and goes away: afterwards everything is
//! there, and what the log says about it makes sense.
//!
//! `make soak` takes ten minutes for it; the short form is in every run of the tests.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::cluster::within;
use crate::harness::reference::{Call, Tally};
use crate::harness::{
    self, ANY_MAJOR, Bucket, Cluster, Fault, Ledger, Load, Pgbench, Reference, Scratch,
};

const SHORT_SECONDS: u64 = 20;
/// From here on it is the long form, with segments as most clusters have them.
const LONG: Duration = Duration::from_secs(120);

/// WAL that may wait to be archived before the writers pause: without an end to it they would fill
/// any disk, as walden shares two processors with them.
const BACKLOG_MIB: u64 = 1024;

fn faults() -> [Fault; 12] {
    [
        Fault::status(500),
        Fault::status(503),
        Fault::error(503, "SlowDown"),
        Fault::error(500, "InternalError"),
        Fault::LoseRequest,
        Fault::LoseAnswer,
        Fault::Hang,
        Fault::Delay(Duration::from_millis(700)),
        Fault::Truncate,
        Fault::FlipByte,
        Fault::FlipSent,
        Fault::OtherChecksum,
    ]
}

struct Soak {
    cluster: Cluster,
    bucket: Bucket,
    reference: Reference,
    length: Duration,
    outage: Duration,
    backlog_max: usize,
    faulty_share: f64,
}

#[test]
fn an_archive_outlives_a_store_that_fails_stalls_and_goes_away() {
    let length = Duration::from_secs(harness::amount("WALDEN_TEST_SOAK_SECONDS", SHORT_SECONDS));
    let seed = harness::seed();
    let soak = Soak::prepare(length);
    let fetched = soak.endure(seed);
    let drained = soak.drain();
    let tally =
        soak.reference.expect_same(&soak.bucket.folder(), &soak.cluster.system_identifier());
    assert!(tally.segments > 10 && tally.others > 0, "too little to prove anything: {tally:?}");
    let failures = soak.expect_a_log_that_makes_sense();
    soak.expect_few_requests(&tally, &failures);
    soak.tell(&tally, &failures, drained, fetched);
}

impl Soak {
    #[track_caller]
    fn prepare(length: Duration) -> Soak {
        let (bucket, reference) = (Bucket::start(), Reference::new());
        let is_long = length >= LONG;
        let (segment_size_mib, max_wal_size) = if is_long { (16, "64MB") } else { (1, "8MB") };
        // A push that begins in the first half of an outage gives up before its end.
        let outage = (length / 20).max(Duration::from_secs(5));
        let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
        let request_timeout = milliseconds((outage / 6).max(Duration::from_secs(2)));
        let mut builder = Cluster::builder(ANY_MAJOR)
            .segment_size_mib(segment_size_mib)
            .data_checksums()
            .archive_past(&reference, &bucket.url())
            .setting("max_wal_size", max_wal_size)
            .setting("min_wal_size", max_wal_size)
            .env("WALDEN_S3_REQUEST_TIMEOUT", request_timeout)
            .env("WALDEN_PUSH_DEADLINE", milliseconds(outage / 3));
        for (name, value) in bucket.environment() {
            builder = builder.env(name, value);
        }
        let mut cluster = builder.start();
        begin_another_timeline(&mut cluster);
        let backlog_max = BACKLOG_MIB as usize / segment_size_mib as usize;
        let (backlog_max, faulty_share) =
            if is_long { (backlog_max, 0.05) } else { (backlog_max / 16, 0.15) };
        Soak { cluster, bucket, reference, length, outage, backlog_max, faulty_share }
    }

    /// Two times the store is gone. How many files were fetched meanwhile.
    #[track_caller]
    fn endure(&self, seed: u64) -> usize {
        let proxy = &self.bucket.proxy;
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers = scope.spawn(|| self.write_until(&is_over));
            let reader = scope.spawn(|| self.fetch_until(&is_over));
            proxy.fault_share(seed, self.faulty_share, &faults());
            let rest = self.length.saturating_sub(self.outage * 2) / 3;
            for _ in 0..2 {
                thread::sleep(rest);
                proxy.refuse_connections();
                thread::sleep(self.outage);
                proxy.accept_connections();
            }
            thread::sleep(rest);
            is_over.store(true, Ordering::Relaxed);
            writers.join().expect("the writers").expect_all_in(&self.cluster);
            println!("faults by chance: {:?}", proxy.faults_by_chance());
            proxy.heal();
            reader.join().expect("the reader")
        })
    }

    /// Flat out, short of filling the disk.
    #[track_caller]
    fn write_until(&self, is_over: &AtomicBool) -> Ledger {
        let pgbench = Pgbench::start(&self.cluster, 5, 4);
        let load = Load::start(&self.cluster, 2, 8);
        let look_every = Duration::from_millis(100);
        let mut paused = Duration::ZERO;
        while !is_over.load(Ordering::Relaxed) {
            let is_too_much = self.cluster.files_to_archive().len() > self.backlog_max;
            pgbench.iter().for_each(|pgbench| pgbench.pause(is_too_much));
            load.pause(is_too_much);
            paused += if is_too_much { look_every } else { Duration::ZERO };
            thread::sleep(look_every);
        }
        let by = if pgbench.is_some() { "pgbench and " } else { "no pgbench installed, " };
        println!("written by {by}sessions; they paused for {:.1} s", paused.as_secs_f64());
        load.finish()
    }

    /// What is archived can be read all the while, or not be had for the moment; it is never said
    /// to be absent, and never served wrong.
    #[track_caller]
    fn fetch_until(&self, is_over: &AtomicBool) -> usize {
        let scratch = Scratch::new();
        let destination = scratch.join("fetched");
        let system_identifier = self.cluster.system_identifier();
        let mut fetched = 0;
        while !is_over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(500));
            self.reference.settle(&self.bucket.folder(), &system_identifier);
            let mut archived = self.reference.calls();
            archived.retain(|call| call.code == 0);
            let Some(Call { name, .. }) = fastrand::choice(&archived) else { continue };
            let fetch = self.cluster.walden().arg("fetch").arg(name).arg(&destination);
            let output = fetch.env("WALDEN_FETCH_RETRY_FOR", "2s").run();
            match output.code() {
                Some(0) => {
                    let found = fs::read(&destination).unwrap();
                    assert!(self.reference.is_same(name, &found), "{name} is another file");
                    fetched += 1;
                }
                _ => drop(output.exits(200).complains_in_one_line()),
            }
        }
        fetched
    }

    /// Nobody does anything but PostgreSQL. After failures in a row it may sleep for a minute.
    #[track_caller]
    fn drain(&self) -> Duration {
        let began = Instant::now();
        let waiting = self.cluster.files_to_archive().len();
        let patience = Duration::from_secs(120) + self.length;
        let drained = within(patience, || self.cluster.files_to_archive().is_empty());
        assert!(drained, "{waiting} waited, still: {:?}", self.cluster.files_to_archive());
        println!("{waiting} files waited in the end");
        began.elapsed()
    }

    /// PostgreSQL's count, its log, and what walden exited with are one story: each failure is one
    /// line of walden's and PostgreSQL's own. The failures by exit code.
    #[track_caller]
    fn expect_a_log_that_makes_sense(&self) -> BTreeMap<i32, usize> {
        let mut failures = BTreeMap::new();
        for Call { code, .. } in self.reference.calls().iter().filter(|call| call.code != 0) {
            *failures.entry(*code).or_default() += 1;
        }
        let count = failures.values().sum::<usize>();
        assert!(count >= 2, "the store was gone twice: {failures:?}");
        // Unreachable, throttled, damaged on its way.
        let usual = |code: &i32| [20, 22, 30].contains(code);
        assert!(failures.keys().all(usual), "{failures:?}\n{}", self.cluster.log());

        let log = self.cluster.log();
        let by_server = self.cluster.value("SELECT failed_count FROM pg_stat_archiver");
        assert_eq!(by_server, count.to_string(), "{log}");
        let told = |line: &&str| line.contains("archive command failed with exit code");
        assert_eq!(log.lines().filter(told).count(), count, "{log}");
        let is_servers = |line: &str| line.starts_with("20") || line.starts_with('\t');
        let walden: Vec<&str> = log.lines().filter(|line| !is_servers(line)).collect();
        assert_eq!(walden.len(), count, "{}", walden.join("\n"));
        for line in walden {
            let is_whole = line.starts_with("walden: push 0000000")
                && line.contains(&self.bucket.url())
                && line.contains(" (hint: ");
            assert!(is_whole, "what, where, why, what to do: {line}");
        }
        failures
    }

    /// One for each file, one for each fault, and what was on its way when a push gave up.
    #[track_caller]
    fn expect_few_requests(&self, tally: &Tally, failures: &BTreeMap<i32, usize>) {
        let files = tally.segments + tally.others;
        let faults: usize = self.bucket.proxy.faults_by_chance().values().sum();
        let failed: usize = failures.values().sum();
        let puts = self.bucket.proxy.count("PUT");
        println!("{puts} PUTs for {files} files, {} GETs", self.bucket.proxy.count("GET"));
        assert!(puts >= files);
        assert!(puts <= files + faults * 2 + failed * 64 + 16, "{puts} PUTs for {files} files");
    }

    fn tell(
        &self,
        tally: &Tally,
        failures: &BTreeMap<i32, usize>,
        drained: Duration,
        fetched: usize,
    ) {
        println!(
            "{} segments and {} other files, {} MiB, {} MiB in the bucket; all there, all \
             the same\nfailed by exit code: {failures:?}\ndrained in {:.1} s, {fetched} files \
             fetched meanwhile",
            tally.segments,
            tally.others,
            tally.bytes >> 20,
            tally.stored_bytes >> 20,
            drained.as_secs_f64(),
        );
    }
}

/// So that a history file and a partial segment are among what is archived.
#[track_caller]
fn begin_another_timeline(cluster: &mut Cluster) {
    cluster.write_wal(2);
    cluster.stop();
    cluster.configure("restore_command", "'/bin/false'");
    cluster.signal("recovery.signal");
    cluster.start_again();
    cluster.wait_until("NOT pg_is_in_recovery()");
}

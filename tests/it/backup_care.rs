//! What a backup by files does to its host: whoever works there should not notice.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use walden::host::page_cache::drop_pages_of;

use crate::harness::cluster::within;
use crate::harness::{ANY_MAJOR, Cluster, Scratch};

const MIB: u64 = 1 << 20;

/// Without waiting for the disk.
fn is_cached(file: &File, offset: u64) -> bool {
    let mut piece = [0; 512];
    match preadv2(file, &mut [IoSliceMut::new(&mut piece)], offset, ReadWriteFlags::NOWAIT) {
        Ok(length) => length > 0,
        Err(Errno::AGAIN) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A file of the cluster, on the disk and in memory nowhere but at `hot`.
fn cooled(path: &Path, hot: u64) -> File {
    let file = File::options().read(true).write(true).open(path).unwrap();
    file.sync_all().unwrap();
    drop_pages_of(&file);
    fadvise(&file, 0, None, Advice::Random).unwrap();
    file.read_at(&mut [0; 4096], hot).unwrap();
    file
}

#[test]
fn what_is_in_the_page_cache_stays_and_what_is_not_does_not_come() {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let cluster = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    cluster.archive_everything();
    cluster
        .sql("CREATE TABLE t AS SELECT n, repeat('x', 100) AS x FROM generate_series(1, 90000) n");
    cluster.sql("CHECKPOINT");
    let path = cluster.pgdata().join(cluster.value("SELECT pg_relation_filepath('t')"));
    assert!(fs::metadata(&path).unwrap().len() > 10 * MIB);
    let file = cooled(&path, 5 * MIB);

    cluster.walden().args(["backup", "--mode", "local"]).run().succeeds();

    assert!(is_cached(&file, 5 * MIB), "what was hot is hot");
    for cold in [0, 2 * MIB, 4 * MIB, 7 * MIB, 9 * MIB] {
        assert!(!is_cached(&file, cold), "what was not there is not there now: {cold}");
    }
}

#[test]
fn with_nice_all_its_threads_let_others_go_first() {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let cluster = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    cluster.archive_everything();
    let own = nice_of(Path::new("/proc/thread-self/stat")).unwrap();
    let backup = cluster.walden().args(["backup", "--nice", "15", "--max-rate", "1MiB"]);
    let mut running = backup.args(["--mode", "local", "--jobs", "2"]).spawn();
    let tasks = format!("/proc/{}/task", running.process_id());
    let nices = || -> Vec<i64> {
        let tasks = fs::read_dir(&tasks).into_iter().flatten().flatten();
        tasks.filter_map(|task| nice_of(&task.path().join("stat"))).collect()
    };
    // The one that waits for signals, and those that do the work.
    let is_at_work = within(Duration::from_secs(60), || nices().len() > 3);
    let nices = nices();

    running.kill();
    assert!(is_at_work, "{nices:?}");
    let lowered = nices.iter().filter(|nice| **nice >= 15).count();
    assert!(lowered + 1 >= nices.len(), "{nices:?}, and {own} without");
}

/// Field 19, proc(5); the second may hold blanks, and ends with the last parenthesis.
fn nice_of(stat: &Path) -> Option<i64> {
    let stat = fs::read_to_string(stat).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok()
}

//! Segments that are too large to be held: they go out whole in one request and come back in
//! pieces, and the memory for either does not grow with them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::site::{self, SYSTEM_IDENTIFIER};
use crate::harness::{Bucket, Site, Walden};

const SEGMENT: &str = "000000010000000000000003";
const MEBIBYTE: usize = 1 << 20;

/// What waits in memory or is read at a time is 32 MiB; the program itself and its buffers are the
/// rest, in a build for tests.
const MEMORY_BYTES_MAX: u64 = 72 << 20;

#[track_caller]
fn is_light(walden: &Walden) {
    takes_at_most(MEMORY_BYTES_MAX, walden);
}

/// What is there and what would be stored, each a part at a time.
#[track_caller]
fn compares_lightly(walden: &Walden) {
    takes_at_most(MEMORY_BYTES_MAX + (32 << 20), walden);
}

#[track_caller]
fn takes_at_most(bytes_max: u64, walden: &Walden) {
    let (output, peak_bytes) = walden.spawn().wait_and_weigh();
    output.succeeds().is_silent();
    assert!(peak_bytes > 0, "its memory could be asked for");
    assert!(peak_bytes <= bytes_max, "{} MiB", peak_bytes >> 20);
}

#[track_caller]
fn are_equal(one: &Path, other: &Path) {
    let compared = Command::new("cmp").arg(one).arg(other).output().unwrap();
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
}

#[test]
fn on_a_directory_memory_stays_small_both_ways_and_for_a_comparison() {
    let site = Site::new();
    let segment = site.large_segment(SEGMENT, 256 * MEBIBYTE);
    let before = site::files_below(&site.scratch().join("state"));
    is_light(&site.push(SEGMENT).patiently());
    is_light(&site.fetch(SEGMENT).patiently());
    let fetched = site.pgdata().join("pg_wal/RECOVERYXLOG");
    are_equal(&segment, &fetched);
    fs::remove_file(&fetched).unwrap();

    // It is there already: compared, not believed.
    compares_lightly(&site.push(SEGMENT).patiently());
    let temporary = |path: &&std::path::PathBuf| path.extension().is_some_and(|end| end == "tmp");
    let after = site::files_below(&site.scratch().join("state"));
    assert_eq!(after.iter().filter(temporary).count(), 0, "{before:?} {after:?}");

    let plain = site.scratch().join("plain");
    let object = site.object(SEGMENT);
    let unpacked = Command::new("zstd").arg("-dq").arg(&object).arg("-o").arg(&plain).status();
    assert!(unpacked.unwrap().success(), "zstd -d reads it");
    are_equal(&segment, &plain);
}

#[test]
fn on_s3_it_is_one_request_out_and_one_for_each_32_mib_back() {
    let bucket = Bucket::start();
    let mut environment = bucket.environment();
    environment.retain(|(name, _)| *name != "WALDEN_REPOSITORY_URL");
    let site = Site::on(&bucket.url(), environment);
    site.segment("000000010000000000000002", 1);
    site.push("000000010000000000000002").patiently().run().succeeds();

    let segment = site.large_segment(SEGMENT, 64 * MEBIBYTE);
    bucket.proxy.forget_requests();
    is_light(&site.push(SEGMENT).patiently());
    let requests = bucket.proxy.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].method, "PUT");

    bucket.proxy.forget_requests();
    is_light(&site.fetch(SEGMENT).patiently());
    are_equal(&segment, &site.pgdata().join("pg_wal/RECOVERYXLOG"));
    let key = format!("main/{SYSTEM_IDENTIFIER}/wal/00000001/0000000100000000/{SEGMENT}.zst");
    let key = bucket.objects().into_iter().find(|object| object.ends_with(&key)).unwrap();
    let stored = bucket.read(&key).len();
    assert!(stored > 64 * MEBIBYTE, "it does not compress");
    let requests = bucket.proxy.requests();
    assert_eq!(requests.len(), stored.div_ceil(32 * MEBIBYTE), "{requests:?}");
    assert!(requests.iter().all(|request| request.method == "GET"), "{requests:?}");

    compares_lightly(&site.push(SEGMENT).patiently());
    bucket.corrupt(&key);
    site.fetch(SEGMENT).env("WALDEN_FETCH_RETRY_FOR", "1s").run().exits(200);
    site.push(SEGMENT).env("WALDEN_PUSH_DEADLINE", "20s").run().complains_in_one_line();
}

/// What a temporary file does not find room for is not archived, and says so.
#[test]
fn without_a_place_for_a_large_segment_to_wait_it_is_refused() {
    let mount = |args: &[&str], at: &Path| Command::new("mount").args(args).arg(at).status();
    let site = Site::new();
    let state = site.scratch().directory("small");
    // Mounting takes root; without it the unit tests of the frames tell as much.
    let mounted = mount(&["-t", "tmpfs", "-o", "size=1m,mode=1777", "tmpfs"], &state);
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    site.large_segment(SEGMENT, 64 * MEBIBYTE);
    let refused = site.push(SEGMENT).env("WALDEN_STATE_DIR", &state).run();
    let unmounted = Command::new("umount").arg(&state).status().unwrap();
    assert!(unmounted.success());
    refused.exits(23).complains_in_one_line().stderr_has("state_dir");
    assert_eq!(site::files_below(&site.repository_directory()).len(), 0);
}

//! `walden demo`: the story a newcomer sees, and what is left of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::harness::cluster::within;
use crate::harness::{ANY_MAJOR, Scratch, Walden, installation};

/// The demo, in a temporary directory of its own so that what it leaves can be seen.
fn demo(stage: &Scratch) -> Walden {
    let bin = installation(ANY_MAJOR).bin;
    Walden::new().arg("demo").arg("--pg-bin").arg(bin).env("TMPDIR", stage.path())
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn the_demo_tells_the_whole_story_and_leaves_nothing() {
    let stage = Scratch::new();
    demo(&stage)
        .run()
        .succeeds()
        .stdout_has("DROP TABLE orders")
        .stdout_has("--target-time")
        .stdout_has("every one of them as it was")
        .stdout_has("All 1234 rows are back");
    assert!(is_empty(stage.path()), "something is left in {}", stage.path().display());
}

#[test]
fn the_demo_cleans_up_when_told_to_stop() {
    let stage = Scratch::new();
    let mut running = demo(&stage).spawn();
    let log = || {
        let entries = fs::read_dir(stage.path()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().join("live/postmaster.pid")).any(|file| file.exists())
    };
    assert!(within(Duration::from_secs(60), log), "its server never started");
    running.terminate();
    running.wait().exits(75).stderr_has("stopped before its end");
    assert!(is_empty(stage.path()), "something is left in {}", stage.path().display());
}

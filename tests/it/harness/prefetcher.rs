//! The prefetchers that `fetch` left running: found by where they stand, never by name alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::cluster::within;

const PATIENCE: Duration = Duration::from_secs(30);

/// Their process ids: those that stand in `directory` or below.
pub fn all_in(directory: &Path) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pids = numbers.filter_map(Pid::from_raw);
    pids.filter(|pid| is_prefetcher(*pid) && stands_in(*pid, directory)).collect()
}

/// The one that stays, as soon as it is alone.
#[track_caller]
pub fn the_one_in(directory: &Path) -> Pid {
    let mut found = Vec::new();
    let is_alone = within(PATIENCE, || {
        found = all_in(directory);
        found.len() == 1
    });
    assert!(is_alone, "{found:?}");
    found[0]
}

#[track_caller]
pub fn wait_until_gone(directory: &Path) {
    let gone = within(PATIENCE, || all_in(directory).is_empty());
    assert!(gone, "still there: {:?}", all_in(directory));
}

pub fn signal(pid: Pid, signal: Signal) {
    // Gone in this very moment is as good as told to go.
    let _ = kill_process(pid, signal);
}

/// For directories about to go: nobody must write into them any more.
pub fn end_all_in(directory: &Path) {
    let is_over = || {
        let left = all_in(directory);
        left.iter().for_each(|pid| signal(*pid, Signal::KILL));
        left.is_empty()
    };
    within(PATIENCE, is_over);
}

fn is_prefetcher(pid: Pid) -> bool {
    let words = fs::read(path(pid, "cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| word == b"prefetch")
}

fn stands_in(pid: Pid, directory: &Path) -> bool {
    // A directory that was removed under it is shown with " (deleted)" behind it.
    fs::read_link(path(pid, "cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
}

fn path(pid: Pid, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{what}", pid.as_raw_nonzero()))
}

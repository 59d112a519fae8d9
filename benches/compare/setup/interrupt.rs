//! Ctrl-C leaves no server and no directory behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static SERVERS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// From here on.
pub fn watch() {
    let mut signals = Signals::new([SIGINT, SIGTERM]).expect("wait for signals");
    thread::spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        for server in SERVERS.lock().expect("not poisoned").iter() {
            let pid = i32::try_from(*server).ok().and_then(Pid::from_raw);
            pid.map(|pid| kill_process(pid, Signal::QUIT));
        }
        for directory in DIRECTORIES.lock().expect("not poisoned").iter() {
            fs::remove_dir_all(directory).ok();
        }
        signal_hook::low_level::emulate_default_handler(signal).ok();
    });
}

pub fn server_started(process_id: u32) {
    SERVERS.lock().expect("not poisoned").push(process_id);
}

/// Before it may be another's process id.
pub fn server_ends(process_id: u32) {
    SERVERS.lock().expect("not poisoned").retain(|known| *known != process_id);
}

pub fn directory_made(directory: &Path) {
    DIRECTORIES.lock().expect("not poisoned").push(directory.to_owned());
}

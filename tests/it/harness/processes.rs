//! The processes of one cluster, found by who began them and by the state directory only they know;
//! never by name alone.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cluster::within;

/// A process held on to: its id cannot become another's under the test.
#[derive(Debug)]
pub struct Process {
    pub id: i32,
    pub words: Vec<String>,
    handle: OwnedFd,
}

impl Process {
    /// SIGKILL, to all its threads.
    pub fn kill(&self) {
        // It fails only when the process is gone.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    fn hold(id: i32) -> Option<Process> {
        let handle = pidfd_open(Pid::from_raw(id)?, PidfdFlags::empty()).ok()?;
        let words = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let words = words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
        let words = words.map(std::borrow::Cow::into_owned).collect();
        Some(Process { id, words, handle })
    }

    fn is_gone(&self) -> bool {
        // A zombie holds nothing any more, and whoever began it will clear it away.
        state_and_parent(self.id).is_none_or(|(state, _)| state == 'Z' || state == 'X')
    }
}

/// Calls of walden under way that remember things in `state`, detached ones too.
pub fn of_walden(state: &Path) -> Vec<Process> {
    let mark = format!("WALDEN_STATE_DIR={}", state.display());
    let has_mark = |id: &i32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let is_walden = |process: &Process| {
        let program = Path::new(&process.words[0]).file_name();
        program == super::program::binary().file_name()
    };
    let held = all().into_iter().filter_map(|id| Process::hold(id).filter(|_| has_mark(&id)));
    held.filter(is_walden).collect()
}

/// A process and all that it and its children began.
pub fn tree(root: u32) -> Vec<Process> {
    let root = i32::try_from(root).expect("a process id");
    let parents: Vec<(i32, i32)> =
        all().into_iter().filter_map(|id| Some((id, state_and_parent(id)?.1))).collect();
    let mut ids = vec![root];
    let mut next = 0;
    while let Some(parent) = ids.get(next).copied() {
        ids.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        next += 1;
    }
    ids.into_iter().filter_map(Process::hold).collect()
}

/// Whoever works below this directory, or was called with a path in it.
pub fn that_name(directory: &Path) -> Vec<Process> {
    let name = directory.display().to_string();
    let works_there = |id: i32| {
        let place = fs::read_link(format!("/proc/{id}/cwd")).unwrap_or_default();
        place.starts_with(directory)
    };
    let held = all().into_iter().filter_map(Process::hold);
    let theirs = held.filter(|process| {
        process.words.iter().any(|word| word.contains(&name)) || works_there(process.id)
    });
    theirs.filter(|process| !process.is_gone()).collect()
}

/// Waits until none of them runs any more.
#[track_caller]
pub fn wait_gone(processes: &[Process]) {
    let gone = || processes.iter().all(Process::is_gone);
    assert!(within(Duration::from_secs(30), gone), "killed, and still there: {processes:?}");
}

fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// `pid (name) state parent …`, proc(5); the name may have anything in it.
fn state_and_parent(id: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

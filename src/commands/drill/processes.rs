//! The processes of one scratch server: found by their process ids and by proof that they work in
//! its data directory, never by a name alone.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::host::clock::Deadline;

/// How long a server may take to end by itself, with its children and its shared memory.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
const POSTGRES: &str = "postgres";
const OURS: &str = "walden";

/// Ends them all: the server as by a crash, so that it takes its shared memory along, then whatever
/// is left.
pub fn end_all_in(pgdata: &Path) {
    for process in all_in(pgdata) {
        // To the server it means "at once"; to others it would mean a core file.
        let how = if is_postgres(process) { Signal::QUIT } else { Signal::TERM };
        signal(&[process], how);
    }
    if wait_until_gone(pgdata) {
        return;
    }
    let until = Deadline::after(PATIENCE);
    loop {
        let left = all_in(pgdata);
        if left.is_empty() || until.has_passed() {
            return;
        }
        signal(&left, Signal::KILL);
        thread::sleep(POLL);
    }
}

/// Those that were started for this data directory or work in it, the server itself first.
pub fn all_in(pgdata: &Path) -> Vec<Pid> {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbers = names.filter_map(|name| name.parse::<i32>().ok());
    let theirs = numbers.filter(|number| u32::try_from(*number) != Ok(own));
    let found: BTreeSet<i32> = theirs.filter(|number| is_in(*number, pgdata)).collect();
    found.into_iter().filter_map(Pid::from_raw).collect()
}

fn wait_until_gone(pgdata: &Path) -> bool {
    let until = Deadline::after(PATIENCE);
    while !until.has_passed() {
        if all_in(pgdata).is_empty() {
            return true;
        }
        thread::sleep(POLL);
    }
    false
}

fn signal(processes: &[Pid], signal: Signal) {
    for process in processes {
        // One that has ended in the meantime needs none.
        let _ = kill_process(*process, signal);
    }
}

fn is_in(number: i32, pgdata: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{number}"));
    let is_dead = fs::read_link(process.join("exe")).is_err();
    !is_dead && (works_in(&process, pgdata) || is_server_of(&process, pgdata))
}

/// Its working directory, removed or not, is the data directory, and it is a program of the
/// server's.
fn works_in(process: &Path, pgdata: &Path) -> bool {
    let Ok(directory) = fs::read_link(process.join("cwd")) else { return false };
    let removed = format!("{} (deleted)", pgdata.display());
    let is_there = directory == pgdata || directory.as_os_str().as_bytes() == removed.as_bytes();
    is_there && is_program(process)
}

/// It was started with `-D` and this directory, and may not have gone there yet.
fn is_server_of(process: &Path, pgdata: &Path) -> bool {
    let Ok(line) = fs::read(process.join("cmdline")) else { return false };
    let mut words = line.split(|byte| *byte == 0).skip(1);
    let is_named =
        words.next() == Some(b"-D") && words.next() == Some(pgdata.as_os_str().as_bytes());
    is_named && is_program(process)
}

/// PostgreSQL's processes, and those of ours it calls. A shell or an editor that somebody opened in
/// the directory is left alone.
fn is_program(process: &Path) -> bool {
    let own = std::env::current_exe().ok();
    let own = own.as_deref().and_then(Path::file_name).map(OsStr::to_os_string);
    program(process).is_some_and(|name| {
        name == POSTGRES || name == OURS || own.is_some_and(|own| *own == *name)
    })
}

fn is_postgres(process: Pid) -> bool {
    let process = PathBuf::from(format!("/proc/{}", process.as_raw_nonzero()));
    program(&process).is_some_and(|name| name == POSTGRES)
}

/// The name of its executable, replaced or not since it was started.
fn program(process: &Path) -> Option<String> {
    let program = fs::read_link(process.join("exe")).ok()?;
    let name = program.file_name()?.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::{all_in, end_all_in};

    #[test]
    fn only_the_servers_own_programs_in_its_directory_are_ended() {
        let scratch = tempfile::tempdir().unwrap();
        let pgdata = scratch.path().canonicalize().unwrap().join("data");
        std::fs::create_dir(&pgdata).unwrap();
        let sleep = "/bin/sleep";
        let postgres = pgdata.join("postgres");
        std::fs::copy(sleep, &postgres).unwrap();
        let in_data = |program: &std::path::Path| {
            Command::new(program).arg("60").current_dir(&pgdata).process_group(0).spawn().unwrap()
        };
        let mut server = in_data(&postgres);
        let mut visitor = in_data(std::path::Path::new(sleep));
        let found: Vec<u32> =
            all_in(&pgdata).iter().map(|pid| pid.as_raw_nonzero().get() as u32).collect();
        assert_eq!(found, [server.id()]);
        // Its end is seen only once somebody waits for it.
        let waiter = std::thread::spawn(move || server.wait().unwrap());
        end_all_in(&pgdata);
        assert!(!waiter.join().unwrap().success());
        assert!(visitor.try_wait().unwrap().is_none(), "a visitor is left alone");
        visitor.kill().unwrap();
        visitor.wait().unwrap();
    }
}

//! What an out-of-memory killer and an eager administrator do to a cluster.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Cluster, within};
use crate::harness::processes::{self, Process};

impl Cluster {
    /// SIGKILL to every process of the server, and to what it called if `with_commands`; commands
    /// that are left run to their end beside the next server.
    #[track_caller]
    pub fn kill(&mut self, with_commands: bool) {
        let root = self.server().process_id();
        // Stopped first, so that it begins no new ones between our look and our blow.
        let pid = i32::try_from(root).ok().and_then(Pid::from_raw).expect("a process id");
        let _ = kill_process(pid, Signal::STOP);
        let is_server = |process: &&Process| {
            process.id == pid.as_raw_nonzero().get()
                || process.words.first().is_some_and(|word| word.starts_with("postgres"))
        };
        let tree = processes::tree(root);
        let (servers, commands): (Vec<_>, Vec<_>) =
            tree.into_iter().partition(|process| is_server(&process));
        servers.iter().for_each(Process::kill);
        if with_commands {
            commands.iter().for_each(Process::kill);
            processes::wait_gone(&commands);
        }
        processes::wait_gone(&servers[1..]);
        assert!(self.ends_by_itself(), "it was killed");
        self.server = None;
    }

    /// A call of walden for this cluster, as soon as there is one.
    pub fn walden_at_work(&self, patience: Duration) -> Option<Process> {
        let mut found = Vec::new();
        within(patience, || {
            found = processes::of_walden(&self.state_directory());
            !found.is_empty()
        });
        let chosen = fastrand::usize(..found.len().max(1));
        found.into_iter().nth(chosen)
    }

    pub fn state_directory(&self) -> PathBuf {
        self.scratch.join("state")
    }

    /// Somebody cleared it away, whatever writes into it just now.
    pub fn lose_state(&self) {
        for _ in 0..100 {
            match fs::remove_dir_all(self.state_directory()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
                _ => return,
            }
        }
        panic!("{} does not go away", self.state_directory().display());
    }
}

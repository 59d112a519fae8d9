//! What an out-of-memory killer and an eager administrator do to a cluster.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

use super::Cluster;
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
        // By its title, or by the program it has been for an instant only.
        let is_postgres =
            |word: &String| word.starts_with("postgres") || word.ends_with("/postgres");
        let is_server = |process: &Process| process.words.first().is_some_and(is_postgres);
        let tree = processes::tree(root);
        let (servers, commands): (Vec<_>, Vec<_>) = tree.into_iter().partition(is_server);
        servers.iter().for_each(Process::kill);
        if with_commands {
            commands.iter().for_each(Process::kill);
            processes::wait_gone(&commands);
        }
        processes::wait_gone(&servers[1..]);
        assert!(self.ends_by_itself(), "it was killed");
        self.server = None;
    }

    pub fn state_directory(&self) -> PathBuf {
        self.scratch.join("state")
    }
}

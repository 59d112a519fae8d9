//! Whether there is still somebody to fetch for.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::commands::archive::spool::Spool;

/// What must stay as it was when the prefetcher began.
#[derive(Debug)]
pub struct Vitals {
    data_directory: PathBuf,
    /// `None` where there was none: somebody fetches by hand.
    server: Option<Pid>,
    spool: Option<(u64, u64)>,
}

impl Vitals {
    pub fn take(data_directory: &Path, spool: &Spool) -> Self {
        Vitals {
            data_directory: data_directory.to_owned(),
            server: server(data_directory),
            spool: spool.identity(),
        }
    }

    /// Why there is no use in going on, if there is none.
    pub fn end(&self, spool: &Spool) -> Option<&'static str> {
        let has = |name| self.data_directory.join(name).exists();
        if !is_recovering(&self.data_directory) {
            Some("recovery has ended")
        } else if has("promote") {
            Some("the standby is being promoted")
        } else if self.server.is_some_and(|first| !self.lives(first)) {
            Some("the server has ended")
        } else if self.spool.is_none() || spool.identity() != self.spool {
            Some("the spool is gone")
        } else {
            None
        }
    }

    fn lives(&self, first: Pid) -> bool {
        // EPERM comes from a process that is there.
        server(&self.data_directory) == Some(first) && test_kill_process(first) != Err(Errno::SRCH)
    }
}

/// Asked for by either of the files that PostgreSQL removes when recovery ends.
pub fn is_recovering(data_directory: &Path) -> bool {
    ["recovery.signal", "standby.signal"].iter().any(|name| data_directory.join(name).exists())
}

/// The process in the first line of `postmaster.pid`.
pub fn server(data_directory: &Path) -> Option<Pid> {
    let file = fs::read_to_string(data_directory.join("postmaster.pid")).ok()?;
    Pid::from_raw(file.lines().next()?.trim().parse().ok()?)
}

//! This machine: files, clock, processes, signals.

pub mod atomic_file;
pub mod backoff;
pub mod bandwidth;
pub mod clock;
pub mod data_directory;
pub mod file_systems;
pub mod folders;
pub mod lock;
pub mod page_cache;
pub mod priority;
pub mod privileges;
pub mod read_ahead;
pub mod spill;
pub mod state;
pub mod termination;
pub mod watchdog;

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::thread;

/// How many threads can run at once; asked of the system once.
pub fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, NonZeroUsize::get))
}

/// The name of this host, as `uname -n` gives it.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

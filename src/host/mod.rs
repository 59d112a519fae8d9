//! This machine: files, clock, processes, signals.

pub mod atomic_file;
pub mod backoff;
pub mod clock;
pub mod data_directory;
pub mod lock;
pub mod privileges;
pub mod state;
pub mod termination;
pub mod watchdog;

/// The name of this host, as `uname -n` gives it.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

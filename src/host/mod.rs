//! This machine: files, clock, processes, signals.

pub mod clock;
pub mod termination;
pub mod watchdog;
pub mod data_directory;

/// The name of this host, as `uname -n` gives it.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
pub mod atomic_file;

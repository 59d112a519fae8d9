//! Being told to stop.

use std::io::Write as _;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// From now on SIGTERM, SIGINT and SIGHUP end the process at once with `code` and one line.
///
/// For `push`: PostgreSQL takes death by a signal for a fault of the archiver itself, restarts it
/// and counts nothing (`pgarch_archiveXlog`, pgarch.c). Nothing needs undoing: an object is there
/// whole or not at all.
pub fn exit_when_told(code: u8, line: &'static str) {
    let mut signals = match signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP]) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "cannot wait for signals");
            return;
        }
    };
    let wait = move || {
        if signals.forever().next().is_some() {
            leave(code, line);
        }
    };
    let started =
        std::thread::Builder::new().name("signals".into()).stack_size(64 << 10).spawn(wait);
    if let Err(error) = started {
        tracing::warn!(%error, "cannot wait for signals");
    }
}

/// Ends the process from any thread, without waiting for the others.
pub(super) fn leave(code: u8, line: &str) -> ! {
    // Nobody may be reading; the exit code is what counts.
    let _ = writeln!(std::io::stderr(), "{line}");
    #[allow(clippy::disallowed_methods, reason = "the one place that ends the process from aside")]
    std::process::exit(i32::from(code))
}

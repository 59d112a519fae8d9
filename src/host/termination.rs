//! Being told to stop.

use std::io::Write as _;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

const PATIENCE_WITH_READER: Duration = Duration::from_secs(1);

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
            leave(code, line.to_owned());
        }
    };
    let started =
        std::thread::Builder::new().name("signals".into()).stack_size(64 << 10).spawn(wait);
    if let Err(error) = started {
        tracing::warn!(%error, "cannot wait for signals");
    }
}

/// Ends the process from any thread, without waiting for the others.
pub(super) fn leave(code: u8, line: String) -> ! {
    let (written, is_written) = std::sync::mpsc::channel::<()>();
    let say = move || {
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
        drop(written);
    };
    // Nobody may be reading, or the pipe be full because its reader is stuck; the exit code is what
    // counts.
    if std::thread::Builder::new().stack_size(64 << 10).spawn(say).is_ok() {
        let _ = is_written.recv_timeout(PATIENCE_WITH_READER);
    }
    #[allow(clippy::disallowed_methods, reason = "the one place that ends the process from aside")]
    std::process::exit(i32::from(code))
}

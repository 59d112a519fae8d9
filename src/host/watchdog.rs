//! A hard deadline for the whole process: PostgreSQL waits for its commands for ever.

use std::time::Duration;

use crate::host::termination::leave;

/// Ends the process with `code` and one line after `limit`, whatever it is stuck in.
///
/// Everything that waits has its own, shorter deadline; this one is for what cannot be given one,
/// such as a read from a dead network file system. A thread that could not be started leaves the
/// process without it.
pub fn start(limit: Duration, code: u8, line: impl FnOnce() -> String + Send + 'static) {
    let watch = move || {
        std::thread::sleep(limit);
        leave(code, line());
    };
    let started =
        std::thread::Builder::new().name("watchdog".into()).stack_size(64 << 10).spawn(watch);
    if let Err(error) = started {
        tracing::warn!(%error, "no watchdog");
    }
}

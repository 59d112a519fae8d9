//! The first failure of many threads: it is kept, and everybody else is stopped.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind};

pub struct Halt<'h> {
    first: Mutex<Option<Error>>,
    is_on: AtomicBool,
    /// Wakes who waits for something other than a channel: the server, say.
    wake: Box<dyn Fn() + Send + Sync + 'h>,
}

impl<'h> Halt<'h> {
    pub fn new(wake: impl Fn() + Send + Sync + 'h) -> Self {
        Halt { first: Mutex::new(None), is_on: AtomicBool::new(false), wake: Box::new(wake) }
    }

    /// The first error counts; those after it are its consequences.
    pub fn fail(&self, error: Error) {
        if let Ok(mut first) = self.first.lock() {
            first.get_or_insert(error);
        }
        if !self.is_on.swap(true, Ordering::SeqCst) {
            (self.wake)();
        }
    }

    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::SeqCst)
    }

    /// What began it all.
    pub fn error(&self) -> Option<Error> {
        self.first.lock().ok()?.take()
    }
}

/// What a thread ends with that found others gone; never the first error.
pub fn others_stopped() -> Error {
    Error::new(ErrorKind::Bug, "a thread of the backup ended early")
        .hint("Report it with the output of --verbose.")
}

impl fmt::Debug for Halt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Halt").field("is_on", &self.is_on()).finish_non_exhaustive()
    }
}

//! The time, and how much of it is left.

use std::time::{Duration, Instant};

/// The wall clock, for what people read; the one place that asks it.
pub fn now() -> jiff::Timestamp {
    #[allow(clippy::disallowed_methods, reason = "the one place")]
    jiff::Timestamp::now()
}

/// The moment by which something must have ended.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(time: Duration) -> Self {
        Deadline(Instant::now() + time)
    }

    /// Zero once it has passed.
    pub fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub fn has_passed(&self) -> bool {
        self.remaining().is_zero()
    }
}

//! How far something long is, for whoever shows it; written by the work, read by another thread.

pub mod estimator;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use estimator::{Estimate, Estimator};

#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    phase: Mutex<String>,
    /// When `total` became known.
    began: Mutex<Option<Instant>>,
}

impl Progress {
    /// Bytes that are done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// All there will be, as far as is known now and never less than `done`; 0 until it is known.
    pub fn total(&self) -> u64 {
        match self.total.load(Ordering::Relaxed) {
            0 => 0,
            total => total.max(self.done()),
        }
    }

    /// What is being done, as a person would say it.
    pub fn phase(&self) -> String {
        self.phase.lock().map(|phase| phase.clone()).unwrap_or_default()
    }

    pub fn enter(&self, phase: impl Into<String>) {
        let phase = phase.into();
        tracing::info!("{phase}");
        if let Ok(mut current) = self.phase.lock() {
            *current = phase;
        }
    }

    /// From here on it is known how much there is to do.
    pub fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        if let Ok(mut began) = self.began.lock() {
            began.get_or_insert_with(Instant::now);
        }
    }

    /// How long ago `expect` was first called.
    pub fn under_way_for(&self) -> Option<Duration> {
        self.began.lock().ok()?.map(|began| began.elapsed())
    }

    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

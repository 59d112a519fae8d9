//! How hard to try: as many at once as seem to be there, and not at all while nothing is.

use std::time::{Duration, Instant};

use crate::commands::archive::prefetch::plan::Plan;
use crate::commands::archive::spool::Wanted;
use crate::host::backoff;
use crate::host::clock::Deadline;

/// How hard to try.
#[derive(Debug)]
pub struct Pace {
    /// How many at once.
    width: usize,
    widest: usize,
    missed: Option<Miss>,
    failures: u32,
    failing_since: Option<Instant>,
    pause: Option<Deadline>,
}

/// The store did not have it when asked.
#[derive(Debug, Clone, Copy)]
struct Miss {
    number: u64,
    wanted: Wanted,
    at: Instant,
}

/// So often, at most, is the store asked for what it did not have.
const MISS_LASTS: Duration = Duration::from_millis(200);
/// After so long without one answer the prefetcher is no help.
const FAILING_MAX: Duration = Duration::from_secs(60);

impl Pace {
    pub fn new(widest: usize) -> Self {
        let (missed, failing_since, pause) = (None, None, None);
        Pace { width: 1, widest, missed, failures: 0, failing_since, pause }
    }

    pub fn found(&mut self) {
        self.width = (self.width * 2).min(self.widest);
        self.answered();
    }

    /// Nothing is looked for beyond it until PostgreSQL has moved on.
    pub fn missed(&mut self, number: u64, wanted: Wanted) {
        self.width = 1;
        self.answered();
        if self.missed.is_none_or(|miss| number <= miss.number) {
            self.missed = Some(Miss { number, wanted, at: Instant::now() });
        }
    }

    /// No answer proves nothing: the same again, after a while.
    pub fn failed(&mut self, asked: Option<Duration>) {
        self.width = 1;
        self.failures += 1;
        self.failing_since.get_or_insert_with(Instant::now);
        self.pause = Some(Deadline::after(backoff::wait(self.failures, asked).min(FAILING_MAX)));
    }

    pub fn is_hopeless(&self) -> bool {
        self.failing_since.is_some_and(|since| since.elapsed() > FAILING_MAX)
    }

    /// The first number not to be looked for now: what was missed, unless that has changed since.
    ///
    /// What PostgreSQL itself asks for and is not there yet says that the next one is not there
    /// either; once it was served, there may be more.
    pub fn end(&mut self, plan: &Plan) -> u64 {
        let Some(miss) = self.missed else { return u64::MAX };
        let has_moved = miss.wanted != plan.wanted && miss.at.elapsed() >= MISS_LASTS;
        let is_asked = plan.wanted_number() == miss.number && !plan.wanted.is_served;
        if !has_moved || is_asked {
            return miss.number;
        }
        self.missed = None;
        u64::MAX
    }

    pub fn allows(&self, in_flight: usize) -> bool {
        in_flight < self.width && self.pause.is_none_or(|pause| pause.has_passed())
    }

    fn answered(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.pause = None;
    }
}

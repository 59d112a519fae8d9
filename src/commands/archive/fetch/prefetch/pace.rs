//! How hard to try: as many at once as seem to be there, and not at all while nothing is.

use std::time::{Duration, Instant};

use crate::commands::archive::fetch::prefetch::plan::Plan;
use crate::commands::archive::fetch::spool::Wanted;
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{MISS_LASTS, Pace};
    use crate::commands::archive::fetch::prefetch::plan::samples::{plan, wanted};

    #[test]
    fn it_begins_with_one_widens_while_they_are_there_and_begins_again() {
        let mut pace = Pace::new(6);
        let widths = (0..5).map(|_| {
            let width = (0..).find(|in_flight| !pace.allows(*in_flight)).unwrap();
            pace.found();
            width
        });
        assert_eq!(widths.collect::<Vec<_>>(), [1, 2, 4, 6, 6]);
        pace.missed(9, wanted(1, 3, true));
        assert!(pace.allows(0) && !pace.allows(1));
    }

    #[test]
    fn what_was_missed_is_asked_for_again_only_when_postgresql_has_moved_on() {
        let mut pace = Pace::new(8);
        let end = |pace: &mut Pace, wanted| pace.end(&plan(wanted, &[]));
        pace.missed(9, wanted(1, 3, true));
        pace.missed(8, wanted(1, 3, true));
        pace.missed(11, wanted(1, 3, true));
        assert_eq!(end(&mut pace, wanted(1, 4, false)), 8, "not at once");
        thread::sleep(MISS_LASTS);
        assert_eq!(end(&mut pace, wanted(1, 3, true)), 8, "it has not moved");
        assert_eq!(end(&mut pace, wanted(1, 8, false)), 8, "it waits for that itself");
        assert_eq!(end(&mut pace, wanted(1, 8, true)), u64::MAX, "there may be more");
    }

    #[test]
    fn after_a_failure_there_is_a_pause_until_something_is_found() {
        let mut pace = Pace::new(8);
        pace.found();
        let long = std::time::Duration::from_secs(30);
        pace.failed(Some(long));
        assert!(!pace.allows(0) && !pace.is_hopeless());
        pace.found();
        assert!(pace.allows(1));
    }
}

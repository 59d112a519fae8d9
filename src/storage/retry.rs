//! Asks again after a fault that may pass, within a budget, at random intervals that grow.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::host::backoff;
use crate::host::clock::Deadline;
use crate::storage::{Body, Key, Listing, ObjectInfo, Storage, Verb};

/// Bytes damaged on their way come whole the second time; those damaged in the store never do.
const CORRUPT_ATTEMPTS_MAX: u32 = 3;

/// A put repeated after its answer was lost may meet its own first success as `AlreadyExists`. That
/// is told apart one layer up, where the content is compared: here it would cost a read, and above
/// it is needed anyway.
pub struct Retry {
    inner: Arc<dyn Storage>,
    budget: Duration,
    deadline: Option<Deadline>,
    clock: Box<dyn Clock>,
}

/// What passes between two attempts; tests have a clock of their own.
pub trait Clock: Send + Sync {
    fn now(&self) -> Instant;
    fn sleep(&self, time: Duration);
}

#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

impl Retry {
    /// No attempt begins when `budget` has passed since the call, or `deadline` has passed at all.
    pub fn new(inner: Arc<dyn Storage>, budget: Duration, deadline: Option<Deadline>) -> Self {
        Retry { inner, budget, deadline, clock: Box::new(SystemClock) }
    }

    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    fn attempt<T>(
        &self,
        verb: Verb,
        key: &dyn fmt::Display,
        ask: impl Fn() -> Result<T>,
    ) -> Result<T> {
        let began = self.clock.now();
        let mut attempts = 0;
        loop {
            let error = match ask() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            attempts += 1;
            let wait = backoff::wait(attempts, error.retry_after());
            let spent = self.clock.now().saturating_duration_since(began);
            if !is_worth_another(&error, attempts) || wait >= self.time_left(spent) {
                return Err(told_how_often(error, attempts, spent));
            }
            let verb = verb.name();
            let wait_ms = wait.as_millis() as u64;
            tracing::debug!(verb, %key, attempts, wait_ms, %error, "again");
            self.clock.sleep(wait);
        }
    }

    fn time_left(&self, spent: Duration) -> Duration {
        let budget = self.budget.saturating_sub(spent);
        self.deadline.map_or(budget, |deadline| budget.min(deadline.remaining()))
    }
}

fn is_worth_another(error: &Error, attempts: u32) -> bool {
    error.kind().is_transient()
        && (error.kind() != ErrorKind::Corrupt || attempts < CORRUPT_ATTEMPTS_MAX)
}

fn told_how_often(error: Error, attempts: u32, spent: Duration) -> Error {
    if attempts == 1 {
        return error;
    }
    error.context(format!("gave up after {attempts} attempts in {:.1} s", spent.as_secs_f64()))
}

#[deny(clippy::missing_trait_methods)]
impl Storage for Retry {
    fn put_new(&self, key: &Key, body: &Body) -> Result<()> {
        self.attempt(Verb::PutNew, key, || self.inner.put_new(key, body))
    }

    fn get(&self, key: &Key) -> Result<Bytes> {
        self.attempt(Verb::Get, key, || self.inner.get(key))
    }

    fn get_start(&self, key: &Key, max: u64) -> Result<(Bytes, u64)> {
        self.attempt(Verb::Get, key, || self.inner.get_start(key, max))
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.attempt(Verb::GetRange, key, || self.inner.get_range(key, range.clone()))
    }

    fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.attempt(Verb::Head, key, || self.inner.head(key))
    }

    fn list(&self, folder: Option<&Key>) -> Result<Listing> {
        let shown = folder.map_or("", Key::as_str);
        self.attempt(Verb::List, &shown, || self.inner.list(folder))
    }

    fn list_all(&self, folder: &Key, after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        self.attempt(Verb::List, folder, || self.inner.list_all(folder, after))
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.attempt(Verb::Delete, key, || self.inner.delete(key))
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use super::{Clock, Retry};
    use crate::error::{Error, ErrorKind};
    use crate::host::clock::Deadline;
    use crate::storage::faulty::{Fault, Faulty};
    use crate::storage::memory::Memory;
    use crate::storage::{Body, Key, Storage, Verb, contract};

    /// Sleeps in no time, and remembers for how long it should have.
    #[derive(Clone)]
    struct FakeClock(Arc<Mutex<Vec<Duration>>>, Instant);

    impl FakeClock {
        fn new() -> Self {
            FakeClock(Arc::default(), Instant::now())
        }

        fn sleeps(&self) -> Vec<Duration> {
            self.0.lock().unwrap().clone()
        }
    }

    impl Clock for FakeClock {
        fn now(&self) -> Instant {
            self.1 + self.sleeps().iter().sum::<Duration>()
        }

        fn sleep(&self, time: Duration) {
            self.0.lock().unwrap().push(time);
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    fn store(faults: &[(Verb, u64, Fault)]) -> (Arc<Faulty>, Key) {
        let memory = Memory::new();
        let key = Key::new("a").unwrap();
        memory.put_new(&key, &Body::new("content")).unwrap();
        let faulty = Faulty::new(Arc::new(memory));
        for (verb, nth, fault) in faults {
            faulty.fail(*verb, *nth, fault.clone());
        }
        (Arc::new(faulty), key)
    }

    #[test]
    fn a_fault_that_passes_is_not_seen() {
        let faults = [1, 2, 3].map(|nth| (Verb::Get, nth, Fault::Before(ErrorKind::Unreachable)));
        let (faulty, key) = store(&faults);
        let clock = FakeClock::new();
        let retry = Retry::new(faulty, MINUTE, None).with_clock(clock.clone());
        assert_eq!(retry.get(&key).unwrap(), "content");
        let sleeps = clock.sleeps();
        assert_eq!(sleeps.len(), 3);
        for (sleep, longest) in sleeps.iter().zip([100, 200, 400]) {
            assert!(*sleep <= Duration::from_millis(longest), "{sleeps:?}");
        }
    }

    #[test]
    fn what_will_not_pass_is_said_at_once() {
        for kind in
            [ErrorKind::NotFound, ErrorKind::NotAllowed, ErrorKind::WrongPlace, ErrorKind::Full]
        {
            let (faulty, key) = store(&[(Verb::Get, 1, Fault::Before(kind))]);
            let clock = FakeClock::new();
            let retry = Retry::new(faulty.clone(), MINUTE, None).with_clock(clock.clone());
            assert_eq!(retry.get(&key).unwrap_err().kind(), kind);
            assert_eq!((faulty.calls(Verb::Get), clock.sleeps().len()), (1, 0));
        }
    }

    #[test]
    fn giving_up_says_how_often_and_how_long_and_keeps_the_budget() {
        let (faulty, key) = store(&[]);
        faulty.fail_always(Verb::Get, Fault::Before(ErrorKind::Unreachable));
        let clock = FakeClock::new();
        let retry = Retry::new(faulty.clone(), MINUTE, None).with_clock(clock.clone());
        let error = retry.get(&key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let attempts = faulty.calls(Verb::Get);
        assert!(attempts > 6, "{attempts}");
        assert!(error.to_string().starts_with(&format!("gave up after {attempts} attempts in ")));
        assert!(clock.sleeps().iter().sum::<Duration>() < MINUTE);
        assert!(clock.sleeps().iter().all(|sleep| *sleep <= Duration::from_secs(10)));
    }

    #[test]
    fn the_store_is_taken_at_its_word() {
        let asked = Duration::from_secs(7);
        let throttled =
            move || Error::new(ErrorKind::Throttled, "slow down").with_retry_after(asked);
        let (faulty, key) = store(&[(Verb::Get, 1, Fault::before(throttled))]);
        let clock = FakeClock::new();
        let retry = Retry::new(faulty, MINUTE, None).with_clock(clock.clone());
        retry.get(&key).unwrap();
        assert!(
            clock.sleeps()[0] >= asked && clock.sleeps()[0] <= asked + Duration::from_millis(100)
        );

        let asked = Duration::from_secs(61);
        let throttled = move || Error::new(ErrorKind::Throttled, "slow").with_retry_after(asked);
        let (faulty, key) = store(&[(Verb::Get, 1, Fault::before(throttled))]);
        let retry = Retry::new(faulty.clone(), MINUTE, None).with_clock(FakeClock::new());
        assert_eq!(retry.get(&key).unwrap_err().kind(), ErrorKind::Throttled);
        assert_eq!(faulty.calls(Verb::Get), 1, "not again before the store wants it");
    }

    #[test]
    fn a_deadline_ends_it_before_the_budget() {
        let (faulty, key) = store(&[]);
        faulty.fail_always(Verb::Head, Fault::Before(ErrorKind::Unreachable));
        let began = Instant::now();
        let deadline = Deadline::after(Duration::from_millis(150));
        let retry = Retry::new(faulty, MINUTE, Some(deadline));
        assert_eq!(retry.head(&key).unwrap_err().kind(), ErrorKind::Unreachable);
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn damage_in_the_store_is_reported_soon() {
        let (faulty, key) = store(&[]);
        faulty.fail_always(Verb::Get, Fault::Before(ErrorKind::Corrupt));
        let retry = Retry::new(faulty.clone(), MINUTE, None).with_clock(FakeClock::new());
        assert_eq!(retry.get(&key).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(faulty.calls(Verb::Get), 3);
    }

    #[test]
    fn a_lost_answer_shows_the_object_that_is_there() {
        let (faulty, _) = store(&[(Verb::PutNew, 1, Fault::After(ErrorKind::Unreachable))]);
        let retry = Retry::new(faulty, MINUTE, None).with_clock(FakeClock::new());
        let key = Key::new("new").unwrap();
        let error = retry.put_new(&key, &Body::new("mine")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(retry.get(&key).unwrap(), "mine");
    }

    #[test]
    fn the_contract_holds_through_it() {
        contract::run_all(&|| Box::new(Retry::new(Arc::new(Memory::new()), MINUTE, None)));
    }
}

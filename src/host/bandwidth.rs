//! No more than so many bytes a second, by all threads together.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What may be moved at once after a pause; short, so that nobody beside us notices.
const BURST: Duration = Duration::from_millis(100);
/// Who asks for much is served in slices, in turn with the others.
const SLICE_BYTES_MIN: u64 = 64 << 10;
/// How soon a wait hears that it is over.
const NAP_MAX: Duration = Duration::from_millis(100);

/// A rate that threads share. Each is served in the order in which it asked.
pub struct Bandwidth {
    limit: Option<Limit>,
}

struct Limit {
    /// Bytes a second.
    rate: NonZeroU64,
    schedule: Mutex<Schedule>,
    clock: Box<dyn Clock>,
}

impl Bandwidth {
    /// `None`: no limit.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Bandwidth::by(Box::new(RealClock(Instant::now())), bytes_per_second)
    }

    /// Waits until `bytes` may be moved. `false` where `is_over` said so first.
    pub fn take(&self, bytes: u64, is_over: &dyn Fn() -> bool) -> bool {
        let Some(limit) = &self.limit else { return !is_over() };
        let slice = SLICE_BYTES_MIN.max(per(limit.rate, BURST));
        let mut rest = bytes;
        while rest > 0 {
            let now = rest.min(slice);
            if !limit.wait(now, is_over) {
                return false;
            }
            rest -= now;
        }
        !is_over()
    }

    fn by(clock: Box<dyn Clock>, bytes_per_second: Option<u64>) -> Self {
        let limit = |rate| Limit { rate, schedule: Mutex::default(), clock };
        Bandwidth { limit: bytes_per_second.and_then(NonZeroU64::new).map(limit) }
    }
}

impl Limit {
    fn wait(&self, bytes: u64, is_over: &dyn Fn() -> bool) -> bool {
        let until = {
            let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
            schedule.reserve(self.clock.now(), time_of(self.rate, bytes))
        };
        loop {
            if is_over() {
                return false;
            }
            match until.saturating_sub(self.clock.now()) {
                Duration::ZERO => return true,
                left => self.clock.sleep(left.min(NAP_MAX)),
            }
        }
    }
}

/// When the rate is used up until, counted from the clock's beginning.
#[derive(Debug, Default)]
struct Schedule {
    taken_until: Duration,
}

impl Schedule {
    /// When who asks now for something that takes `time` may go on.
    fn reserve(&mut self, now: Duration, time: Duration) -> Duration {
        self.taken_until = self.taken_until.max(now.saturating_sub(BURST)) + time;
        self.taken_until
    }
}

trait Clock: Send + Sync {
    fn now(&self) -> Duration;
    fn sleep(&self, time: Duration);
}

struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }
}

fn time_of(rate: NonZeroU64, bytes: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate.get() as f64)
}

fn per(rate: NonZeroU64, time: Duration) -> u64 {
    (rate.get() as f64 * time.as_secs_f64()) as u64
}

impl std::fmt::Debug for Bandwidth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = self.limit.as_ref().map(|limit| limit.rate);
        f.debug_struct("Bandwidth").field("rate", &rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::Duration;

    use super::{BURST, Bandwidth, Clock, Schedule};

    const MIB: u64 = 1 << 20;

    /// Goes on only by what is slept, by whichever thread.
    #[derive(Clone, Default)]
    struct Slept(Arc<Mutex<Duration>>);

    impl Clock for Slept {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    fn limited(rate: u64) -> (Slept, Bandwidth) {
        let clock = Slept::default();
        (clock.clone(), Bandwidth::by(Box::new(clock), Some(rate)))
    }

    #[test]
    fn what_is_moved_takes_the_time_of_its_rate_but_for_one_burst() {
        let (clock, bandwidth) = limited(10 * MIB);
        for _ in 0..200 {
            assert!(bandwidth.take(MIB, &|| false));
        }
        let expected = Duration::from_secs(20);
        let took = clock.now();
        assert!(took <= expected && took + BURST >= expected, "{took:?}");
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_burst() {
        let (clock, bandwidth) = limited(10 * MIB);
        clock.sleep(Duration::from_secs(3600));
        assert!(bandwidth.take(MIB, &|| false), "a burst");
        assert_eq!(clock.now(), Duration::from_secs(3600));
        assert!(bandwidth.take(10 * MIB, &|| false));
        assert!(clock.now() > Duration::from_millis(3_600_800), "{:?}", clock.now());
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let bandwidth = Bandwidth::new(None);
        assert!(bandwidth.take(u64::MAX, &|| false));
        assert!(!bandwidth.take(1, &|| true));
    }

    #[test]
    fn a_wait_that_is_over_ends_early_and_takes_no_more() {
        let (clock, bandwidth) = limited(MIB);
        let clock_seen = clock.clone();
        let is_over = move || clock_seen.now() >= Duration::from_secs(2);
        assert!(!bandwidth.take(1000 * MIB, &is_over));
        assert!(clock.now() < Duration::from_secs(3), "{:?}", clock.now());
        // The rest of those 1000 MiB was not used up.
        assert!(bandwidth.take(MIB, &|| false));
        assert!(clock.now() < Duration::from_secs(5), "{:?}", clock.now());
    }

    #[test]
    fn who_asked_first_goes_on_first_whoever_asked_for_more() {
        let mut schedule = Schedule::default();
        let now = Duration::from_secs(10);
        let first = schedule.reserve(now, Duration::from_secs(1));
        let second = schedule.reserve(now, Duration::from_millis(1));
        let third = schedule.reserve(now, Duration::from_secs(5));
        assert!(first < second && second < third);
        assert_eq!(third, now - BURST + Duration::from_millis(6001));
    }

    #[test]
    fn threads_share_one_rate() {
        let (clock, bandwidth) = limited(100 * MIB);
        let moved = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        assert!(bandwidth.take(MIB, &|| false));
                        moved.fetch_add(MIB, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(moved.load(Ordering::Relaxed), 400 * MIB);
        // Each sleeper of this clock moves it, so that it is never slower than this.
        assert!(clock.now() + BURST >= Duration::from_secs(4), "{:?}", clock.now());
    }
}

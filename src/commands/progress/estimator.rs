//! How fast it goes and how long it will still take, from how far it was when.
//!
//! The rate is a mean in which what is recent weighs more. What counts as recent grows with the
//! time that has passed: the first seconds, slow or not, are soon forgotten, and after an hour a
//! stall of some seconds changes little. Nothing counts before the first byte.

use std::time::Duration;

/// Below this, a rate would be noise.
const SECONDS_KNOWN_MIN: f64 = 1.0;
/// The least time by which what was weighs e times less.
const MEMORY_SECONDS_MIN: f64 = 3.0;
/// The same as a share of the time since the first byte.
const MEMORY_SHARE: f64 = 0.7;

#[derive(Debug, Clone, Default)]
pub struct Estimator {
    /// When the first byte was seen.
    first: Option<Duration>,
    last: Option<(Duration, u64)>,
    /// Bytes and seconds, each as heavy as it is recent.
    bytes: f64,
    seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// In bytes a second.
    pub rate: f64,
    /// `None` while nothing moves.
    pub left: Option<Duration>,
}

impl Estimator {
    /// At `at`, by any clock that does not go back, `done` bytes were done.
    pub fn note(&mut self, at: Duration, done: u64) {
        let Some((before, done_before)) = self.last else {
            // What came with the first look took nobody knows how long.
            if done > 0 {
                (self.first, self.last) = (Some(at), Some((at, done)));
            }
            return;
        };
        let seconds = at.saturating_sub(before).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let since_first = at.saturating_sub(self.first.unwrap_or(at)).as_secs_f64();
        let memory = (since_first * MEMORY_SHARE).max(MEMORY_SECONDS_MIN);
        let weight = (-seconds / memory).exp();
        self.bytes = self.bytes * weight + done.saturating_sub(done_before) as f64;
        self.seconds = self.seconds * weight + seconds;
        self.last = Some((at, done));
    }

    /// `None` as long as too little is known.
    pub fn estimate(&self, total: u64) -> Option<Estimate> {
        let (first, (at, done)) = self.first.zip(self.last)?;
        if at.saturating_sub(first).as_secs_f64() < SECONDS_KNOWN_MIN {
            return None;
        }
        let rate = self.bytes / self.seconds;
        let left = total.saturating_sub(done) as f64 / rate;
        // A year and more is no estimate.
        let left = Duration::try_from_secs_f64(left).ok();
        Some(Estimate { rate, left: left.filter(|left| left.as_secs() < 365 * 24 * 3600) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Estimator;

    const MIB: f64 = (1 << 20) as f64;

    /// Runs through seconds of these rates, looked at five times a second. For each look after the
    /// first tenth: how far the time left was off, as a share of what was really left.
    fn faults(rates: &[f64]) -> Vec<(f64, f64)> {
        let total: f64 = rates.iter().sum();
        let seconds = rates.len() as f64;
        let mut estimator = Estimator::default();
        let (mut done, mut faults) = (0.0, Vec::new());
        for (second, rate) in rates.iter().enumerate() {
            for fifth in 0..5 {
                let at = second as f64 + f64::from(fifth) / 5.0;
                estimator.note(Duration::from_secs_f64(100.0 + at), done as u64);
                if let (true, Some(estimate)) =
                    (done >= total / 10.0 && done < total * 0.95, estimator.estimate(total as u64))
                {
                    let (left, truth) = (estimate.left.unwrap().as_secs_f64(), seconds - at);
                    faults.push((done / total, (left - truth).abs() / truth));
                }
                done += rate / 5.0;
            }
        }
        assert!(faults.len() > 20);
        faults
    }

    #[track_caller]
    fn assert_within(limit: f64, faults: &[(f64, f64)]) {
        let worst = faults.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        assert!(worst.1 <= limit, "{:.0} % off at {:.0} %", worst.1 * 100.0, worst.0 * 100.0);
    }

    #[test]
    fn a_steady_rate_is_told_from_the_first_tenth_on() {
        assert_within(0.01, &faults(&[200.0 * MIB; 100]));
        assert_within(0.01, &faults(&[200.0 * MIB; 5000]));
    }

    #[test]
    fn a_rate_that_jumps_about_is_told_by_its_mean() {
        let mut random = fastrand::Rng::with_seed(7);
        for seconds in [300, 1000, 3600] {
            let rates = (0..seconds).map(|_| MIB * (50.0 + 100.0 * random.f64()));
            let rates: Vec<f64> = rates.collect();
            assert_within(0.2, &faults(&rates));
        }
    }

    #[test]
    fn a_slow_start_and_a_wait_before_it_are_forgotten() {
        let wait = std::iter::repeat_n(0.0, 300);
        let slow = std::iter::repeat_n(10.0 * MIB, 5);
        let rates = wait.chain(slow).chain(std::iter::repeat_n(100.0 * MIB, 200));
        let rates: Vec<f64> = rates.collect();
        assert_within(0.2, &faults(&rates));
    }

    #[test]
    fn a_rate_that_falls_slowly_is_followed() {
        let rates = (0..600).map(|second| MIB * (100.0 - f64::from(second) / 20.0));
        let rates: Vec<f64> = rates.collect();
        assert_within(0.2, &faults(&rates));
    }

    #[test]
    fn a_stall_lengthens_the_time_left_and_is_forgotten_later() {
        let mut rates = vec![100.0 * MIB; 600];
        rates[100..120].fill(0.0);
        let faults = faults(&rates);
        // While it lasts, nobody can know how long it will.
        assert_within(0.6, &faults);
        let late: Vec<_> = faults.into_iter().filter(|(share, _)| *share > 0.5).collect();
        assert_within(0.05, &late);
    }

    #[test]
    fn nothing_is_said_too_early_or_where_nothing_moves() {
        let mut estimator = Estimator::default();
        for second in 0..60 {
            estimator.note(Duration::from_secs(second), 0);
        }
        assert_eq!(estimator.estimate(1000), None);
        estimator.note(Duration::from_secs(60), 100);
        assert_eq!(estimator.estimate(1000), None);
        // What was done at the first look is no measure of a rate.
        estimator.note(Duration::from_secs(62), 100);
        let estimate = estimator.estimate(1000).unwrap();
        assert_eq!((estimate.rate, estimate.left), (0.0, None));
        estimator.note(Duration::from_secs(64), 2000);
        let left = estimator.estimate(1000).unwrap().left;
        assert_eq!(left, Some(Duration::ZERO), "a total that was too low is no time below zero");
    }
}

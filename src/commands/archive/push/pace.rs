//! How many files may be sent at once, so that all arrive in the time that is left.

use std::time::Duration;

/// What the last file took, and so what the next ones will. Over a narrow line many files at once
/// take as long as one after the other, and would only keep each other from arriving at all; where
/// it is the distance that takes the time, they do not feel each other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    per_file: Option<Duration>,
    slowest: Option<Duration>,
}

impl Pace {
    /// One file `took` so long while so many, itself included, were on their way.
    pub fn learn(&mut self, took: Duration, at_once: usize) {
        let at_once = u32::try_from(at_once.max(1)).unwrap_or(u32::MAX);
        self.per_file = Some((took / at_once).max(Duration::from_micros(1)));
        self.slowest = self.slowest.max(Some(took));
    }

    /// Whether a file that is begun now will arrive, with so much left of the whole time. Half of
    /// it is enough in any case, where files are slow or nothing is known.
    pub fn leaves_time(&self, left: Duration, whole: Duration) -> bool {
        left >= self.slowest.map_or(whole / 2, |took| (3 * took).min(whole / 2))
    }

    /// One to begin with, as long as nothing is known; none where not even one would arrive.
    pub fn fitting(&self, left: Duration) -> usize {
        let fitting = |each: Duration| usize::try_from(left.as_nanos() / each.as_nanos());
        self.per_file.map_or(1, |each| fitting(each).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::commands::archive::push::pace::Pace;

    const LEFT: Duration = Duration::from_secs(2);

    fn after(took_ms: u64, at_once: usize) -> usize {
        let mut pace = Pace::default();
        pace.learn(Duration::from_millis(took_ms), at_once);
        pace.fitting(LEFT)
    }

    #[test]
    fn files_are_begun_as_long_as_they_will_arrive() {
        let begun = |took_ms: u64, left_ms: u64| {
            let mut pace = Pace::default();
            pace.learn(Duration::from_millis(took_ms), 1);
            pace.leaves_time(Duration::from_millis(left_ms), LEFT)
        };
        assert!(begun(50, 150) && !begun(50, 149));
        assert!(begun(1500, 1000) && !begun(1500, 999), "never beyond half of it");
        assert!(!Pace::default().leaves_time(Duration::from_millis(999), LEFT));
    }

    #[test]
    fn as_many_are_sent_as_will_arrive() {
        assert_eq!(Pace::default().fitting(LEFT), 1);
        assert_eq!(after(50, 1), 40, "a distant store");
        assert_eq!(after(50, 16), 640, "which does not feel sixteen at once");
        assert_eq!(after(1000, 1), 2, "a narrow line");
        assert_eq!(after(4000, 4), 2, "which does");
        assert_eq!(after(2001, 1), 0, "too narrow");
        assert!(after(0, 0) > 1000);
    }
}

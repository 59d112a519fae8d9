//! How long to wait before asking again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// After so many failures in a row, 1 or more: up to 100 ms, doubled each time, up to 10 s.
///
/// Full jitter: many hosts that lost a store together do not come back together. What the store
/// itself `asked` for is a lower bound, and jitter comes on top.
pub fn wait(failures: u32, asked: Option<Duration>) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let longest = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    asked.unwrap_or_default().saturating_add(longest.mul_f64(fastrand::f64()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::host::backoff::{LONGEST, wait};

    #[test]
    fn waits_grow_to_a_bound_and_never_undercut_the_store() {
        for (failures, longest_ms) in
            [(1, 100), (2, 200), (4, 800), (8, 10_000), (u32::MAX, 10_000)]
        {
            let longest = (0..1000).map(|_| wait(failures, None)).max().unwrap();
            assert!(longest <= Duration::from_millis(longest_ms), "{failures}: {longest:?}");
            assert!(
                longest >= Duration::from_millis(longest_ms * 8 / 10),
                "{failures}: {longest:?}"
            );
        }
        let asked = Duration::from_secs(30);
        let waits = (0..100).map(|_| wait(3, Some(asked)));
        assert!(waits.into_iter().all(|wait| wait >= asked && wait <= asked + LONGEST));
        assert_eq!(wait(1, Some(Duration::MAX)), Duration::MAX);
    }
}

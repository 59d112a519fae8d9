//! How much a restore fetches and replays, and about how long that takes.

use std::time::Duration;

/// Stored bytes of a backup that are fetched, unpacked and written in a second, network included.
/// A directory and a store nearby are quicker, docs/performance.md.
const FETCHED_PER_SECOND: u64 = 100 << 20;
/// Raw WAL that PostgreSQL replays in a second: 200 segments of pgbench took it 30 s.
const REPLAYED_PER_SECOND: u64 = 100 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Estimate {
    /// Bytes of the backup as stored.
    pub backup_bytes: u64,
    pub wal_segments: u64,
    /// Raw.
    pub wal_bytes: u64,
    pub restore_seconds: u64,
    pub replay_seconds: u64,
}

impl Estimate {
    pub fn new(backup_bytes: u64, wal_segments: u64, segment_size: u32) -> Estimate {
        let wal_bytes = wal_segments.saturating_mul(u64::from(segment_size));
        Estimate {
            backup_bytes,
            wal_segments,
            wal_bytes,
            restore_seconds: backup_bytes.div_ceil(FETCHED_PER_SECOND),
            replay_seconds: wal_bytes.div_ceil(REPLAYED_PER_SECOND),
        }
    }

    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.restore_seconds.saturating_add(self.replay_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::Estimate;

    #[test]
    fn time_grows_with_what_is_fetched_and_replayed() {
        let small = Estimate::new(1, 1, 1 << 20);
        assert_eq!((small.wal_bytes, small.duration().as_secs()), (1 << 20, 2));
        let large = Estimate::new(10 << 30, 6_400, 16 << 20);
        assert_eq!(large.wal_bytes, 100 << 30);
        assert_eq!((large.restore_seconds, large.replay_seconds), (103, 1_024));
    }
}

//! The pictures: timelines, exposure, recovery times, WAL, backups, storage; each with few marks.

mod lanes;
mod measures;
mod amounts;

use jiff::civil::Date;

pub use amounts::{backups, storage, wal};
pub use lanes::lanes;
pub use measures::{exposure, recovery_times};

/// Days that share a mark, where there are more of them than marks fit.
struct Bucket<'a, T> {
    from: Date,
    /// Exclusive.
    to: Date,
    days: &'a [T],
}

fn buckets<T>(days: &[T], max: usize, date: impl Fn(&T) -> Date) -> Vec<Bucket<'_, T>> {
    let each = days.len().div_ceil(max.max(1)).max(1);
    let bucket = |days| -> Option<Bucket<'_, T>> {
        let days: &[T] = days;
        let (first, last) = (days.first()?, days.last()?);
        let to = date(last).tomorrow().unwrap_or(date(last));
        Some(Bucket { from: date(first), to, days })
    };
    days.chunks(each).filter_map(bucket).collect()
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use jiff::civil::date;

    use super::buckets;

    #[test]
    fn no_day_is_lost_in_buckets_and_there_are_not_too_many() {
        let days: Vec<_> = (0..1000).map(|n| date(2026, 1, 1) + n.days()).collect();
        let buckets = buckets(&days, 130, |day| *day);
        assert!(buckets.len() <= 130);
        assert_eq!(buckets.iter().map(|bucket| bucket.days.len()).sum::<usize>(), 1000);
        assert!(buckets.windows(2).all(|pair| pair[0].to == pair[1].from));
    }
}

//! The WAL day by day: how much came, and for how long its commits were nowhere but on the server.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::catalog::{Inventory, TimelineTree};
use crate::commands::report::millis;
use crate::postgres::SegmentName;

#[derive(Debug, Clone, Serialize)]
pub struct Wal {
    /// All that is stored, whenever it was.
    pub segments: u64,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    pub commits: u64,
    /// Of which nothing is known but that they are there.
    pub without_digest: u64,
    /// Every day (UTC) of the time told of, the first that has anything and the last included.
    pub days: Vec<WalDay>,
}

#[derive(Debug, Clone, Serialize)]
pub struct WalDay {
    pub day: Date,
    /// Stored on that day.
    pub segments: u64,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    pub commits: u64,
    /// The oldest commit that was nowhere but on its server was so old, at most, on that day.
    pub exposure_max_ms: Option<u64>,
    /// Of the segments stored on that day, the one in the middle.
    pub exposure_median_ms: Option<u64>,
}

#[derive(Default)]
struct Gathered {
    segments: u64,
    stored_bytes: u64,
    commits: u64,
    exposure_max: Option<u64>,
    exposures: Vec<u64>,
}

impl Wal {
    pub fn of(inventory: &Inventory, tree: &TimelineTree, days: &Days) -> Wal {
        let size = u64::from(inventory.segment_size);
        let copied = forks(inventory, tree);
        let mut by_day: BTreeMap<Date, Gathered> = BTreeMap::new();
        let (mut stored_bytes, mut commits, mut without_digest) = (0, 0, 0);
        for (name, segment) in &inventory.segments {
            stored_bytes += segment.size;
            commits += segment.wal.map_or(0, |wal| u64::from(wal.commits));
            without_digest += u64::from(segment.wal.is_none());
            let Some(day) = days.of(segment.stored) else { continue };
            let gathered = by_day.entry(day).or_default();
            gathered.segments += 1;
            gathered.stored_bytes += segment.size;
            gathered.commits += segment.wal.map_or(0, |wal| u64::from(wal.commits));
            let first = segment.wal.and_then(|wal| wal.first_commit);
            let Some(first) = first.filter(|_| !copied.contains(name)) else { continue };
            gathered.exposures.push(millis(first.time, segment.stored));
            expose(&mut by_day, days, first.time, segment.stored);
        }
        let of_day = |day: Date| by_day.remove(&day).unwrap_or_default().told(day, size);
        Wal {
            segments: inventory.segments.len() as u64,
            stored_bytes,
            raw_bytes: inventory.segments.len() as u64 * size,
            commits,
            without_digest,
            days: days.all().map(of_day).collect(),
        }
    }

    /// The worst of the days from `since` on.
    pub fn exposure_since(&self, since: Date) -> Option<u64> {
        self.days.iter().filter(|day| day.day >= since).filter_map(|day| day.exposure_max_ms).max()
    }
}

/// On every day of `committed` to `stored` the commit was in danger, each day a longer time.
fn expose(
    by_day: &mut BTreeMap<Date, Gathered>,
    days: &Days,
    committed: Timestamp,
    stored: Timestamp,
) {
    let mut day = date(committed.max(days.from).min(stored));
    let last = date(stored);
    while day <= last {
        let Ok(next) = day.tomorrow() else { return };
        let until = midnight(next).min(stored);
        let gathered = by_day.entry(day).or_default();
        gathered.exposure_max = gathered.exposure_max.max(Some(millis(committed, until)));
        day = next;
    }
}

impl Gathered {
    fn told(mut self, day: Date, segment_size: u64) -> WalDay {
        self.exposures.sort_unstable();
        WalDay {
            day,
            segments: self.segments,
            stored_bytes: self.stored_bytes,
            raw_bytes: self.segments * segment_size,
            commits: self.commits,
            exposure_max_ms: self.exposure_max,
            exposure_median_ms: self.exposures.get(self.exposures.len() / 2).copied(),
        }
    }
}

/// A fork begins with a copy of its parent's WAL: those commits were elsewhere already.
fn forks(inventory: &Inventory, tree: &TimelineTree) -> BTreeSet<SegmentName> {
    let size = inventory.segment_size;
    let fork = |timeline| Some((timeline, tree.parent(timeline)?.1));
    let forks = tree.branches().filter(|_| size > 0).filter_map(fork);
    forks.map(|(timeline, lsn)| SegmentName::containing(timeline, lsn, size)).collect()
}

/// The days told of, by the clocks of UTC.
#[derive(Debug, Clone, Copy)]
pub struct Days {
    from: Timestamp,
    first: Date,
    last: Date,
}

impl Days {
    pub fn new(from: Timestamp, until: Timestamp) -> Days {
        Days { from, first: date(from), last: date(until) }
    }

    /// `None`: before the first. What came meanwhile is of the last.
    pub fn of(&self, time: Timestamp) -> Option<Date> {
        Some(date(time).min(self.last)).filter(|day| *day >= self.first)
    }

    pub fn first(&self) -> Date {
        self.first
    }

    pub fn all(&self) -> impl Iterator<Item = Date> + use<> {
        let last = self.last;
        let next = move |day: &Date| day.tomorrow().ok().filter(|next| *next <= last);
        std::iter::successors(Some(self.first), next)
    }
}

pub fn date(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

pub fn midnight(day: Date) -> Timestamp {
    day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

/// The beginning of what is told: nothing is drawn before there was anything.
pub fn begin(since: Timestamp, now: Timestamp, first: Option<Timestamp>) -> Timestamp {
    let day_ago = now.checked_sub(SignedDuration::from_hours(24)).unwrap_or(now);
    first.map_or(since, |first| since.max(first)).min(day_ago.max(since)).min(now)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use jiff::civil::date;

    use super::{Days, begin, expose};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_commit_that_waits_for_days_is_in_danger_on_each_of_them_and_ever_more() {
        let days = Days::new(at("2026-11-20T06:00:00Z"), at("2026-11-23T12:00:00Z"));
        let mut by_day = BTreeMap::new();
        let (committed, stored) = (at("2026-11-20T22:00:00Z"), at("2026-11-22T01:00:00Z"));
        expose(&mut by_day, &days, committed, stored);
        let hours: Vec<_> = by_day
            .iter()
            .map(|(day, it)| (day.day(), it.exposure_max.unwrap() / 3_600_000))
            .collect();
        assert_eq!(hours, [(20, 2), (21, 26), (22, 27)]);
        // Of what was committed before the first day, the first day tells too.
        let mut by_day = BTreeMap::new();
        expose(&mut by_day, &days, at("2026-11-18T00:00:00Z"), at("2026-11-20T07:00:00Z"));
        assert_eq!(by_day.keys().copied().collect::<Vec<_>>(), [date(2026, 11, 20)]);
    }

    #[test]
    fn days_are_whole_and_none_is_left_out() {
        let days = Days::new(at("2026-02-27T23:59:59Z"), at("2026-03-02T00:00:00Z"));
        let all: Vec<String> = days.all().map(|day| day.to_string()).collect();
        assert_eq!(all, ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]);
        assert_eq!(days.of(at("2026-02-26T23:00:00Z")), None);
        assert_eq!(days.of(at("2026-03-05T00:00:00Z")), Some(date(2026, 3, 2)), "came meanwhile");
    }

    #[test]
    fn nothing_is_told_of_before_there_was_anything_but_a_day_at_least() {
        let (since, now) = (at("2026-08-24T00:00:00Z"), at("2026-11-22T00:00:00Z"));
        assert_eq!(begin(since, now, Some(at("2026-01-01T00:00:00Z"))), since);
        let first = at("2026-11-01T00:00:00Z");
        assert_eq!(begin(since, now, Some(first)), first);
        let young = Some(at("2026-11-21T23:00:00Z"));
        assert_eq!(begin(since, now, young), at("2026-11-21T00:00:00Z"));
    }
}

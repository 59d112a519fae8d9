//! The backups, and what they come to.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::commands::list::{Listed, Type};
use crate::commands::report::millis;

#[derive(Debug, Clone, Serialize)]
pub struct Backups {
    pub count: u64,
    pub full: u64,
    pub incremental: u64,
    pub usable: u64,
    /// Raw bytes of all; bytes as stored, packs only.
    pub size: u64,
    pub stored: u64,
    /// How many a restore of the newest usable one needs.
    pub newest_chain: u64,
    /// Of those that can be used.
    pub oldest: Option<Timestamp>,
    pub newest: Option<Timestamp>,
    pub newest_age_ms: Option<u64>,
    /// In the time told of: how many ended, and the longest time without one, up to now.
    pub recent: u64,
    pub longest_pause_ms: Option<u64>,
    /// As in `walden list --json`, oldest first.
    pub list: Vec<Listed>,
}

impl Backups {
    pub fn of(list: Vec<Listed>, since: Timestamp, now: Timestamp) -> Backups {
        let usable: Vec<&Listed> = list.iter().filter(|backup| backup.usable).collect();
        let ended: Vec<Timestamp> = usable.iter().filter_map(|backup| backup.ended).collect();
        let newest = ended.iter().max().copied();
        let of_type = |kind| list.iter().filter(|it| it.kind == Some(kind)).count() as u64;
        let newest_one = usable.iter().max_by_key(|backup| backup.ended);
        Backups {
            count: list.len() as u64,
            full: of_type(Type::Full),
            incremental: of_type(Type::Incremental),
            usable: usable.len() as u64,
            size: list.iter().filter_map(|backup| backup.size).sum(),
            stored: list.iter().filter_map(|backup| backup.stored).sum(),
            newest_chain: newest_one.map_or(0, |backup| backup.chain.len() as u64),
            oldest: ended.iter().min().copied(),
            newest,
            newest_age_ms: newest.map(|newest| millis(newest, now)),
            recent: ended.iter().filter(|ended| **ended >= since).count() as u64,
            longest_pause_ms: longest_pause(&ended, since, now),
            list,
        }
    }
}

/// Between moments that follow each other, the last before `since` included; `None` where there
/// are none.
pub fn longest_pause(times: &[Timestamp], since: Timestamp, now: Timestamp) -> Option<u64> {
    let mut times = times.to_vec();
    times.sort_unstable();
    let before = times.partition_point(|time| *time < since).saturating_sub(1);
    let mut told = times.split_off(before);
    if told.is_empty() {
        return None;
    }
    told.push(now);
    let pauses = told.windows(2).map(|pair| pair[1].duration_since(pair[0]));
    let longest = pauses.max().unwrap_or(SignedDuration::ZERO);
    Some(u64::try_from(longest.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::longest_pause;

    #[test]
    fn the_longest_pause_counts_from_the_last_before_and_up_to_now() {
        let at = |hour: i64| jiff::Timestamp::from_second(hour * 3600).unwrap();
        let hours = |times: &[i64], since, now| {
            let times: Vec<_> = times.iter().map(|hour| at(*hour)).collect();
            longest_pause(&times, at(since), at(now)).map(|ms| ms / 3_600_000)
        };
        assert_eq!(hours(&[], 0, 10), None);
        assert_eq!(hours(&[1, 3, 4], 0, 5), Some(2), "between two");
        assert_eq!(hours(&[1, 3, 4], 0, 24), Some(20), "up to now");
        assert_eq!(hours(&[1, 30, 31], 29, 32), Some(29), "from the one before");
        assert_eq!(hours(&[31, 30], 29, 32), Some(1), "in any order");
    }
}

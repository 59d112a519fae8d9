//! What is kept, and since when: as long as walden removes nothing, all of it.

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{BackupSummary, Inventory};
use crate::commands::list::Listed;
use crate::commands::report::millis;
use crate::postgres::TimelineId;

#[derive(Debug, Clone, Serialize)]
pub struct Retention {
    /// False: this walden has no command that removes backups or WAL.
    pub expires: bool,
    /// The oldest moment that can be reached on any timeline, and how.
    pub oldest_restorable: Option<Timestamp>,
    pub oldest_backup: Option<String>,
    pub oldest_timeline: Option<TimelineId>,
    pub reaches_back_ms: Option<u64>,
    /// Backups that are kept whatever becomes too old.
    pub held: Vec<String>,
    /// By age in days: how many backups, and their bytes.
    pub ages: Vec<Age>,
    /// WAL from before the first backup: no recovery needs it.
    pub unneeded_segments: u64,
    pub unneeded_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Age {
    /// Up to so many days; `None`: older.
    pub days: Option<i64>,
    pub full: u64,
    pub incremental: u64,
    pub stored: u64,
}

const STEPS: [Option<i64>; 6] = [Some(7), Some(31), Some(92), Some(365), Some(2557), None];
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// One end of a window: since when, by which backup, on which timeline.
pub type Oldest = (Timestamp, String, TimelineId);

impl Retention {
    pub fn of(
        oldest: Option<Oldest>,
        list: &[Listed],
        summaries: &[BackupSummary],
        inventory: &Inventory,
        now: Timestamp,
    ) -> Retention {
        let first = summaries.iter().map(|backup| backup.start_lsn).min();
        let size = inventory.segment_size;
        // Along every path LSNs rise: what ends before all backups begin leads to none of them.
        let unneeded = inventory.segments.iter().filter(|(name, _)| {
            let end = name.start(size.max(1)).0.saturating_add(u64::from(size));
            first.is_some_and(|first| end <= first.0)
        });
        let (unneeded_segments, unneeded_bytes) =
            unneeded.fold((0, 0), |(n, bytes), (_, segment)| (n + 1, bytes + segment.size));
        let held = list.iter().filter(|backup| backup.held);
        Retention {
            expires: false,
            reaches_back_ms: oldest.as_ref().map(|(time, ..)| millis(*time, now)),
            oldest_restorable: oldest.as_ref().map(|(time, ..)| *time),
            oldest_backup: oldest.as_ref().map(|(_, id, _)| id.clone()),
            oldest_timeline: oldest.as_ref().map(|(.., timeline)| *timeline),
            held: held.map(|backup| backup.id.to_string()).collect(),
            ages: ages(list, now),
            unneeded_segments,
            unneeded_bytes,
        }
    }
}

fn ages(list: &[Listed], now: Timestamp) -> Vec<Age> {
    let age = |days| Age { days, full: 0, incremental: 0, stored: 0 };
    let mut ages: Vec<Age> = STEPS.into_iter().map(age).collect();
    for backup in list {
        let Some(ended) = backup.ended else { continue };
        let days = i64::try_from(millis(ended, now) / DAY_MS).unwrap_or(i64::MAX);
        let fits = |age: &&mut Age| age.days.is_none_or(|limit| days < limit);
        if let Some(age) = ages.iter_mut().find(fits) {
            let counted =
                if backup.parent.is_none() { &mut age.full } else { &mut age.incremental };
            *counted += 1;
            age.stored += backup.stored.unwrap_or_default();
        }
    }
    ages.retain(|age| age.full + age.incremental > 0);
    ages
}

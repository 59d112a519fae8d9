//! History files: each readable and its own, none contradicting another or the WAL, none missing.

use std::collections::{BTreeMap, BTreeSet};

use crate::commands::verify::problem::{Cost, Notebook};
use crate::error::Result;
use crate::postgres::history_file::{Ancestor, HistoryFile};
use crate::postgres::wal::digest::EndOfRecovery;
use crate::postgres::{Lsn, SegmentName, TimelineId, WalFileName};
use crate::repository::{Home, Kept, Object};

/// From the switch to the record that says so there are a page header and a few small records at
/// most.
const SWITCH_BYTES_MAX: u64 = 16 << 10;

/// What the history files say, and what the WAL says.
#[derive(Debug, Default)]
pub struct Histories {
    read: BTreeMap<TimelineId, HistoryFile>,
    /// Listed, but not to be used.
    broken: BTreeSet<TimelineId>,
}

pub fn read(home: &Home, objects: &[Object], book: &mut Notebook) -> Histories {
    let mut histories = Histories::default();
    for object in objects {
        let Kept::Wal(name @ WalFileName::History(timeline)) = &object.kept else { continue };
        match read_one(home, name, *timeline) {
            Ok(history) => {
                histories.read.insert(*timeline, history);
            }
            Err(error) => {
                histories.broken.insert(*timeline);
                book.failed(home.wal_key(name), &error, Cost::History(*timeline));
            }
        }
    }
    histories
}

fn read_one(home: &Home, name: &WalFileName, timeline: TimelineId) -> Result<HistoryFile> {
    let mut text = Vec::new();
    home.get_wal(name, |piece| {
        text.extend_from_slice(piece);
        Ok(())
    })?;
    HistoryFile::parse(timeline, &String::from_utf8_lossy(&text))
}

impl Histories {
    /// As they are.
    pub fn all(&self) -> impl Iterator<Item = &HistoryFile> {
        self.read.values()
    }

    /// Holds them against each other and against the WAL. Returns them as they should be, as far as
    /// that can be told, and notes what is wrong.
    pub fn judge(
        self,
        home: &Home,
        needed: &BTreeSet<TimelineId>,
        switches: &[(SegmentName, EndOfRecovery)],
        book: &mut Notebook,
    ) -> Vec<HistoryFile> {
        let Histories { mut read, mut broken } = self;
        let key = |timeline| home.wal_key(&WalFileName::History(timeline));
        let mut wanted: BTreeMap<TimelineId, String> = BTreeMap::new();
        for history in read.values() {
            let by = format!("{}.history descends from it", history.timeline.to_hex());
            wanted.extend(history.ancestors.iter().map(|it| (it.timeline, by.clone())));
        }
        for timeline in needed {
            wanted.insert(*timeline, format!("there is WAL or a backup of timeline {timeline}"));
        }
        for (timeline, what) in contradictions(&read, switches) {
            book.damage(key(timeline), what, Cost::History(timeline));
            read.remove(&timeline);
            broken.insert(timeline);
        }
        for (timeline, why) in wanted.into_iter().filter(|(timeline, _)| timeline.get() > 1) {
            if !read.contains_key(&timeline) && !broken.contains(&timeline) {
                let what = format!("it is missing, and {why}");
                book.damage(key(timeline), what, Cost::History(timeline));
                broken.insert(timeline);
            }
        }
        // Parents first.
        for timeline in broken {
            if let Some(history) = made_up(timeline, &read, switches) {
                read.insert(timeline, history);
            }
        }
        read.into_values().collect()
    }
}

/// Those that cannot be right. Where two histories differ, the one that the WAL does not bear out
/// is wrong; where that cannot be told, the younger one.
fn contradictions(
    read: &BTreeMap<TimelineId, HistoryFile>,
    switches: &[(SegmentName, EndOfRecovery)],
) -> BTreeMap<TimelineId, String> {
    let mut wrong = BTreeMap::new();
    for history in read.values() {
        let Some(parent) = history.ancestors.last() else { continue };
        let own = switches.iter().find(|(_, switch)| switch.timeline == history.timeline.get());
        if let Some((segment, switch)) = own
            && !bears_out(parent, switch)
        {
            wrong.insert(
                history.timeline,
                format!(
                    "it says that timeline {} left timeline {} at {}, and the WAL in {segment} \
                     says: timeline {} at {}",
                    history.timeline,
                    parent.timeline,
                    parent.end,
                    switch.previous_timeline,
                    switch.lsn
                ),
            );
        }
    }
    for history in read.values() {
        for (at, ancestor) in history.ancestors.iter().enumerate() {
            let Some(known) = read.get(&ancestor.timeline) else { continue };
            if wrong.contains_key(&ancestor.timeline)
                || same_way(&known.ancestors, &history.ancestors[..at])
            {
                continue;
            }
            wrong.entry(history.timeline).or_insert_with(|| {
                format!(
                    "it tells another way to timeline {} than {}.history does",
                    ancestor.timeline,
                    ancestor.timeline.to_hex()
                )
            });
        }
    }
    wrong
}

fn bears_out(parent: &Ancestor, switch: &EndOfRecovery) -> bool {
    let is_near = parent.end <= switch.lsn && switch.lsn.0 - parent.end.0 <= SWITCH_BYTES_MAX;
    parent.timeline.get() == switch.previous_timeline && is_near
}

fn same_way(one: &[Ancestor], other: &[Ancestor]) -> bool {
    let way = |all: &[Ancestor]| -> Vec<(TimelineId, Lsn)> {
        all.iter().map(|it| (it.timeline, it.end)).collect()
    };
    way(one) == way(other)
}

/// What the file of a timeline must say, by the file of one that descends from it, or by the WAL.
fn made_up(
    timeline: TimelineId,
    read: &BTreeMap<TimelineId, HistoryFile>,
    switches: &[(SegmentName, EndOfRecovery)],
) -> Option<HistoryFile> {
    let by_child = read.values().find_map(|history| {
        let at = history.ancestors.iter().position(|it| it.timeline == timeline)?;
        Some(history.ancestors[..at].to_vec())
    });
    let by_wal = || {
        let (_, switch) = switches.iter().find(|(_, it)| it.timeline == timeline.get())?;
        let parent = TimelineId::new(switch.previous_timeline).ok()?;
        let mut ancestors = match parent.get() {
            1 => Vec::new(),
            _ => read.get(&parent)?.ancestors.clone(),
        };
        ancestors.push(Ancestor { timeline: parent, end: switch.lsn, reason: String::new() });
        Some(ancestors)
    };
    let ancestors = by_child.or_else(by_wal).filter(|ancestors| !ancestors.is_empty())?;
    Some(HistoryFile { timeline, ancestors })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{bears_out, contradictions, made_up};
    use crate::postgres::history_file::HistoryFile;
    use crate::postgres::wal::digest::EndOfRecovery;
    use crate::postgres::{Lsn, SegmentName, TimelineId};

    fn timeline(id: u32) -> TimelineId {
        TimelineId::new(id).unwrap()
    }

    fn histories(texts: &[(u32, &str)]) -> BTreeMap<TimelineId, HistoryFile> {
        let parse = |(id, text): &(u32, &str)| {
            (timeline(*id), HistoryFile::parse(timeline(*id), text).unwrap())
        };
        texts.iter().map(parse).collect()
    }

    fn switch(to: u32, from: u32, lsn: u64) -> (SegmentName, EndOfRecovery) {
        let time = "2026-11-21T10:00:00Z".parse().unwrap();
        let end = EndOfRecovery { lsn: Lsn(lsn), time, timeline: to, previous_timeline: from };
        (SegmentName { timeline: timeline(to), log: 0, segment: 3 }, end)
    }

    #[test]
    fn sound_histories_agree_with_each_other_and_with_the_wal() {
        let read = histories(&[
            (2, "1\t0/3000100\tno recovery target specified\n"),
            (3, "1\t0/3000100\tx\n2\t0/5000028\ty\n"),
            (4, "1\t0/2000000\tx\n"),
        ]);
        let switches = [switch(2, 1, 0x0300_0128), switch(3, 2, 0x0500_0028)];
        assert!(contradictions(&read, &switches).is_empty());
    }

    #[test]
    fn a_stale_history_is_told_by_the_wal_and_by_its_descendants() {
        let read =
            histories(&[(2, "1\t0/2000100\tx\n"), (3, "1\t0/3000100\tx\n2\t0/5000028\ty\n")]);
        let switches = [switch(2, 1, 0x0300_0128), switch(3, 2, 0x0500_0028)];
        let wrong = contradictions(&read, &switches);
        assert_eq!(wrong.keys().map(|it| it.get()).collect::<Vec<_>>(), [2]);
        assert!(wrong[&timeline(2)].contains("at 0/2000100"), "{wrong:?}");
        // Without the WAL nobody knows which of the two is right; that they differ is known.
        assert_eq!(contradictions(&read, &[]).len(), 1);
        let (_, other_parent) = switch(2, 3, 0x0300_0128);
        let parent = &read[&timeline(3)].ancestors[0];
        assert!(!bears_out(parent, &other_parent));
    }

    #[test]
    fn what_a_lost_history_said_is_known_from_elsewhere() {
        let read = histories(&[(3, "1\t0/3000100\tx\n2\t0/5000028\ty\n")]);
        let made = made_up(timeline(2), &read, &[]).unwrap();
        assert_eq!((made.ancestors.len(), made.ancestors[0].end), (1, Lsn(0x0300_0100)));
        let by_wal = made_up(timeline(4), &read, &[switch(4, 3, 0x0700_0000)]).unwrap();
        let ends: Vec<Lsn> = by_wal.ancestors.iter().map(|it| it.end).collect();
        assert_eq!(ends, [Lsn(0x0300_0100), Lsn(0x0500_0028), Lsn(0x0700_0000)]);
        assert_eq!(made_up(timeline(9), &read, &[]), None);
    }
}

//! Which part of the content is read this time: what was read longest ago, or never and is stored
//! longest. So all of it has its turn.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::postgres::{SegmentName, WalFileName};
use crate::repository::verification::Verification;
use crate::repository::{BackupId, Kept, Object};

/// What is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub packs: BTreeMap<BackupId, BTreeSet<u32>>,
    pub segments: BTreeSet<SegmentName>,
    /// As stored.
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Pack(BackupId, u32),
    Segment(SegmentName),
}

/// `share`: of the stored bytes, 1.0 for all. `history`: earlier verifications, oldest first.
pub fn select<'a>(
    objects: impl IntoIterator<Item = &'a Object>,
    history: &[(Timestamp, Verification)],
    share: f64,
) -> Selection {
    let mut units: BTreeMap<Unit, (Timestamp, u64)> = BTreeMap::new();
    for object in objects {
        let unit = match &object.kept {
            Kept::Pack(id, number) => Unit::Pack(id.clone(), *number),
            Kept::Wal(WalFileName::Segment(name)) => Unit::Segment(*name),
            _ => continue,
        };
        units.insert(unit, (object.stored, object.size));
    }
    let total: u64 = units.values().map(|(_, size)| size).sum();
    let wanted = if share < 1.0 { (total as f64 * share).ceil() as u64 } else { u64::MAX };
    if share < 1.0 {
        date(&mut units, history);
    }
    let mut turns: Vec<(Timestamp, Unit, u64)> =
        units.into_iter().map(|(unit, (last, size))| (last, unit, size)).collect();
    turns.sort();
    let mut selection = Selection::default();
    for (_, unit, size) in turns {
        if selection.bytes >= wanted {
            break;
        }
        selection.bytes += size;
        match unit {
            Unit::Pack(id, number) => {
                selection.packs.entry(id).or_default().insert(number);
            }
            Unit::Segment(name) => {
                selection.segments.insert(name);
            }
        }
    }
    selection
}

/// When each was read last, unless it was stored after that.
fn date(units: &mut BTreeMap<Unit, (Timestamp, u64)>, history: &[(Timestamp, Verification)]) {
    let mut undated: BTreeSet<Unit> = units.keys().cloned().collect();
    let mut dated: Vec<(Unit, Timestamp)> = Vec::new();
    for (ended, verification) in history.iter().rev() {
        for range in ranges(verification) {
            let found: Vec<Unit> = undated.range(range).cloned().collect();
            for unit in found {
                undated.remove(&unit);
                dated.push((unit, *ended));
            }
        }
    }
    for (unit, ended) in dated {
        if let Some((last, _)) = units.get_mut(&unit) {
            *last = ended.max(*last);
        }
    }
}

fn ranges(verification: &Verification) -> Vec<std::ops::RangeInclusive<Unit>> {
    let packs = verification.backups.iter().flat_map(|backup| {
        let pack = |number: u32| Unit::Pack(backup.id.clone(), number);
        backup.packs.iter().map(move |(first, last)| pack(*first)..=pack(*last))
    });
    let read = verification.wal.iter().filter(|run| run.deep);
    let segments = read.map(|run| Unit::Segment(run.first)..=Unit::Segment(run.last));
    packs.chain(segments).filter(|range| range.start() <= range.end()).collect()
}

/// The packs of a backup that were read since it was last proven whole, in samples.
pub fn read_since_whole(id: &BackupId, history: &[(Timestamp, Verification)]) -> BTreeSet<u32> {
    let mut read = BTreeSet::new();
    let of_it = history.iter().flat_map(|(_, verification)| &verification.backups);
    for backup in of_it.filter(|backup| backup.id == *id) {
        if backup.whole || !backup.sound {
            read.clear();
        }
        if backup.sound && !backup.whole {
            read.extend(backup.packs.iter().flat_map(|(first, last)| *first..=*last));
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;

    use super::{Selection, read_since_whole, select};
    use crate::postgres::{SegmentName, WalFileName};
    use crate::repository::verification::{Verification, VerifiedBackup, VerifiedWal};
    use crate::repository::{BackupId, Kept, Object};

    const ID: &str = "20261121T101530Z-7F3A";

    fn id() -> BackupId {
        ID.parse().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn segment(number: u32) -> SegmentName {
        SegmentName::parse(&format!("0000000100000000{number:08X}")).unwrap()
    }

    /// Ten packs, then ten segments, of 10 bytes each.
    fn objects() -> Vec<Object> {
        let pack = |n: u32| (Kept::Pack(id(), n), i64::from(n));
        let wal = |n: u32| (Kept::Wal(WalFileName::Segment(segment(n))), 100 + i64::from(n));
        let all = (0..10).map(pack).chain((0..10).map(wal));
        all.map(|(kept, stored)| Object { kept, size: 10, stored: at(stored) }).collect()
    }

    fn entry(selection: &Selection, whole: bool) -> Verification {
        let packs = selection.packs.get(&id()).into_iter().flatten();
        let backup = VerifiedBackup {
            id: id(),
            packs: packs.map(|number| (*number, *number)).collect(),
            whole,
            sound: true,
        };
        let run = |name: &SegmentName| VerifiedWal { first: *name, last: *name, deep: true };
        Verification {
            deep: true,
            sample: 0.2,
            backups: vec![backup],
            wal: selection.segments.iter().map(run).collect(),
            ..Verification::default()
        }
    }

    #[test]
    fn samples_rotate_until_all_had_their_turn() {
        let objects = objects();
        let mut history = Vec::new();
        let (mut packs, mut segments) = (BTreeSet::new(), BTreeSet::new());
        for run in 0..5 {
            let selection = select(&objects, &history, 0.2);
            assert_eq!(selection.bytes, 40);
            packs.extend(selection.packs.get(&id()).cloned().unwrap_or_default());
            segments.extend(selection.segments.iter().copied());
            history.push((at(1000 + run), entry(&selection, false)));
        }
        assert_eq!((packs.len(), segments.len()), (10, 10), "no unit came twice");
        let again = select(&objects, &history, 0.2);
        assert_eq!(again, select(&objects, &[], 0.2), "it begins anew");
        assert_eq!(select(&objects, &history, 1.0).bytes, 200);
        assert_eq!(select(&objects, &history, 0.001).bytes, 10, "one at least");
    }

    #[test]
    fn what_was_stored_anew_has_not_been_read() {
        let mut objects = objects();
        let all = select(&objects, &[], 1.0);
        let history = [(at(1000), entry(&all, true))];
        objects[3].stored = at(2000);
        objects.iter_mut().filter(|it| it.kept != Kept::Pack(id(), 3)).for_each(|it| it.size = 1);
        let first = select(&objects, &history, 0.01);
        assert!(!first.packs.get(&id()).is_some_and(|packs| packs.contains(&3)));
        let history = [(at(3000), entry(&all, true))];
        assert!(select(&objects, &history, 0.01).packs.contains_key(&id()));
    }

    #[test]
    fn packs_of_samples_add_up_until_the_backup_is_whole() {
        let some = |packs: &[u32]| Selection {
            packs: [(id(), packs.iter().copied().collect())].into(),
            ..Selection::default()
        };
        let mut history = vec![
            (at(1), entry(&some(&[0, 1]), false)),
            (at(2), entry(&some(&[2]), true)),
            (at(3), entry(&some(&[4]), false)),
            (at(4), entry(&some(&[7]), false)),
        ];
        assert_eq!(read_since_whole(&id(), &history), [4, 7].into());
        history.push((at(5), entry(&some(&[]), false)));
        history[4].1.backups[0].sound = false;
        assert_eq!(read_since_whole(&id(), &history), BTreeSet::new());
    }
}

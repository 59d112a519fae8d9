//! What damage costs, on repositories written by hand.

use std::collections::BTreeMap;

use crate::catalog::inventory::samples::{SIZE, at, inventory, name, plain, with_commits};
use crate::catalog::inventory::{Inventory, Segment, SegmentWal};
use crate::catalog::loss::{Harm, Loss, Reach, Stretch, World};
use crate::catalog::timeline_tree::samples::{timeline, tree};
use crate::catalog::wal_run::Cause;
use crate::catalog::{BackupSummary, TimelineTree};
use crate::postgres::{Lsn, MajorVersion, SegmentName};

fn lsn(number: u64, offset: u64) -> Lsn {
    Lsn(number * u64::from(SIZE) + offset)
}

/// Within one segment, ended half a minute into it.
fn backup(id: &str, timeline_id: u32, number: u64) -> BackupSummary {
    let ended = at(&format!("10:{number:02}:30"));
    BackupSummary {
        id: id.to_owned(),
        timeline: timeline(timeline_id),
        start_lsn: lsn(number, 0x28),
        end_lsn: lsn(number, 0x80),
        began: ended,
        ended,
        wal_segment_size: SIZE,
        major: MajorVersion(17),
        parent: None,
        stored: 3000,
    }
}

/// Segments of timeline 1, each with a commit at the 45th second of its minute.
fn hour(numbers: impl IntoIterator<Item = u64>) -> Vec<(SegmentName, Segment)> {
    let one = |n: u64| (name(1, n), with_commits(n, &[&format!("10:{n:02}:45")]));
    numbers.into_iter().map(one).collect()
}

fn world(backups: Vec<BackupSummary>, inventory: Inventory) -> World {
    World { backups, tree: TimelineTree::default(), inventory }
}

fn damaged(mut segment: Segment) -> Segment {
    segment.is_damaged = true;
    segment
}

fn stretch(timelines: &[u32], from: &str, to: &str) -> Stretch {
    let timelines = timelines.iter().map(|id| timeline(*id)).collect();
    Stretch { timelines, from: at(from), to: at(to) }
}

fn of_segment(world: &mut World, number: u64, is: Option<Segment>) -> Loss {
    let whole = Reach::of(world);
    let harm = Harm { segments: [(name(1, number), is)].into(), ..Harm::default() };
    let before = world.inventory.segments.clone();
    let loss = world.loss(&whole, &harm);
    assert_eq!(world.inventory.segments, before, "nothing is left of the question");
    loss
}

#[test]
fn a_segment_between_two_backups_costs_the_time_from_the_commit_before_it_to_the_next_backup() {
    let mut world = world(vec![backup("a", 1, 4), backup("b", 1, 9)], inventory(hour(3..=12)));
    for is in [None, Some(damaged(plain("20:00:00")))] {
        let loss = of_segment(&mut world, 6, is);
        assert_eq!(loss.stretches, [stretch(&[1], "10:05:45", "10:09:30")]);
        assert_eq!((loss.backups.len(), loss.is_all), (0, false));
    }
    let last = of_segment(&mut world, 12, None);
    assert_eq!(last.stretches, [stretch(&[1], "10:11:45", "10:12:45")]);
    assert!(of_segment(&mut world, 3, None).is_none(), "no backup needs it");
}

#[test]
fn a_segment_that_a_backup_needs_costs_the_backup_too() {
    let mut world = world(vec![backup("a", 1, 4), backup("b", 1, 9)], inventory(hour(3..=12)));
    let loss = of_segment(&mut world, 9, None);
    assert_eq!(loss.backups, ["b"]);
    assert_eq!(loss.stretches, [stretch(&[1], "10:08:45", "10:12:45")]);
    let loss = of_segment(&mut world, 4, None);
    assert_eq!(loss.backups, ["a"]);
    assert_eq!(loss.stretches, [stretch(&[1], "10:04:30", "10:09:30")]);

    let mut alone = self::world(vec![backup("a", 1, 4)], inventory(hour(3..=12)));
    let loss = of_segment(&mut alone, 4, None);
    assert!(loss.is_all);
    assert_eq!(loss.stretches, [stretch(&[1], "10:04:30", "10:12:45")]);
}

#[test]
fn a_backup_costs_what_no_older_one_reaches_and_those_that_rest_on_it() {
    let mut child = backup("child", 1, 10);
    child.parent = Some("b".to_owned());
    let backups = vec![backup("a", 1, 4), backup("b", 1, 9), child];
    let mut world = world(backups, inventory(hour(3..=12)));
    let whole = Reach::of(&world);
    let mut of = |id: &str| {
        let harm = Harm { backups: [id.to_owned()].into(), ..Harm::default() };
        world.loss(&whole, &harm)
    };
    let second = of("b");
    assert_eq!((second.stretches.len(), second.backups), (0, vec!["b".into(), "child".into()]));
    let first = of("a");
    assert_eq!(first.stretches, [stretch(&[1], "10:04:30", "10:09:30")]);
    assert_eq!(first.backups, ["a"]);
}

#[test]
fn what_the_parent_timeline_loses_its_branches_lose_as_well() {
    let mut segments = hour(3..=8);
    segments.extend((7..=9).map(|n| (name(2, n), with_commits(n, &[&format!("11:{n:02}:00")]))));
    let tree = tree(&[(2, "1 0/7000500")]);
    let backups = vec![backup("a", 1, 4)];
    let mut world = World { backups, tree, inventory: inventory(segments) };
    let loss = of_segment(&mut world, 5, None);
    let expected = [stretch(&[1], "10:04:45", "10:08:45"), stretch(&[2], "10:04:45", "11:09:00")];
    assert_eq!(loss.stretches, expected);
    // What comes after the switch is its own.
    let loss = of_segment(&mut world, 8, None);
    assert_eq!(loss.stretches, [stretch(&[1], "10:07:45", "10:08:45")]);

    let whole = Reach::of(&world);
    let harm = Harm { histories: [timeline(2)].into(), ..Harm::default() };
    let loss = world.loss(&whole, &harm);
    assert_eq!(loss.stretches, [stretch(&[2], "10:04:30", "11:09:00")]);
}

#[test]
fn mending_fills_what_backups_need_and_says_how_it_really_is() {
    let mut segments: BTreeMap<SegmentName, Segment> = hour(1..=12).into_iter().collect();
    segments.remove(&name(1, 2));
    segments.remove(&name(1, 6));
    segments.remove(&name(1, 7));
    let broken = damaged(segments[&name(1, 9)]);
    segments.insert(name(1, 9), broken);
    let mut invalid = segments[&name(1, 11)];
    invalid.wal = invalid.wal.map(|wal| SegmentWal { invalid: Some(lsn(11, 0x300)), ..wal });
    segments.insert(name(1, 11), invalid);
    let mut world = world(vec![backup("a", 1, 4)], inventory(segments));

    let (breaks, really) = world.mend();

    let told: Vec<_> = breaks
        .iter()
        .map(|found| (found.cause, found.segments[0], found.count, found.is_harmful))
        .collect();
    let expected = [
        (Cause::Missing, name(1, 2), 1, false),
        (Cause::Missing, name(1, 6), 2, true),
        (Cause::Damaged, name(1, 9), 1, true),
        (Cause::Invalid, name(1, 11), 1, true),
    ];
    assert_eq!(told, expected);
    let really_is: Vec<_> = really.iter().map(|(name, is)| (*name, *is)).collect();
    let expected = [
        (name(1, 6), None),
        (name(1, 7), None),
        (name(1, 9), Some(broken)),
        (name(1, 11), Some(invalid)),
    ];
    assert_eq!(really_is, expected);
    let whole = Reach::of(&world);
    let harm = Harm { segments: really, ..Harm::default() };
    let loss = world.loss(&whole, &harm);
    assert_eq!(loss.stretches, [stretch(&[1], "10:05:45", "10:12:45")]);
    assert!(world.mend().1.is_empty(), "nothing is left to mend");
}

#[test]
fn a_backup_whose_wal_never_came_is_seen_whole_before_it_is_seen_lost() {
    let mut late = backup("late", 1, 8);
    late.end_lsn = lsn(10, 0x80);
    let mut world = world(vec![backup("a", 1, 4), late], inventory(hour(3..=8)));
    let (breaks, really) = world.mend();
    assert_eq!((breaks.len(), breaks[0].cause), (1, Cause::NeededByBackup));
    let whole = Reach::of(&world);
    let loss = world.loss(&whole, &Harm { segments: really, ..Harm::default() });
    assert_eq!(loss.backups, ["late"]);
}

#[test]
fn a_segment_from_nowhere_is_no_gap_of_thousands() {
    let mut segments = hour(3..=8);
    segments.push((name(1, 1_000_000), damaged(plain("20:00:00"))));
    let mut world = world(vec![backup("a", 1, 4)], inventory(segments));
    let (breaks, really) = world.mend();
    let missing = breaks.iter().find(|found| found.cause == Cause::Missing).unwrap();
    assert!(!missing.is_harmful && missing.count > 900_000);
    assert!(!really.contains_key(&name(1, 9)));
}

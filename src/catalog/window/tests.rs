//! Windows of inventories written by hand.

use crate::catalog::inventory::samples::{SIZE, at, inventory, name, plain, with_commits};
use crate::catalog::inventory::{Inventory, Segment};
use crate::catalog::timeline_tree::samples::{timeline, tree};
use crate::catalog::wal_run::Cause;
use crate::catalog::window::{Lack, TimelineWindow, windows};
use crate::catalog::{BackupSummary, TimelineTree};
use crate::postgres::{Lsn, MajorVersion};

fn lsn(number: u64, offset: u64) -> Lsn {
    Lsn(number * u64::from(SIZE) + offset)
}

/// From the middle of a segment to a quarter further.
fn backup(id: &str, timeline_id: u32, number: u64, ended: &str) -> BackupSummary {
    BackupSummary {
        id: id.to_owned(),
        timeline: timeline(timeline_id),
        start_lsn: lsn(number, 0x28),
        end_lsn: lsn(number, 0x80),
        began: at(ended),
        ended: at(ended),
        wal_segment_size: SIZE,
        major: MajorVersion(17),
        parent: None,
        stored: 3000,
    }
}

/// Segments `3..=to` of timeline 1, each with a commit at its minute.
fn hour(to: u64) -> Vec<(crate::postgres::SegmentName, Segment)> {
    (3..=to).map(|n| (name(1, n), with_commits(n, &[&format!("10:{n:02}:00.000001")]))).collect()
}

fn only(backups: &[BackupSummary], inventory: &Inventory) -> TimelineWindow {
    let mut all = windows(backups, &TimelineTree::default(), inventory);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn it_reaches_from_the_end_of_the_oldest_backup_to_the_last_commit() {
    let backups = [backup("old", 1, 4, "10:03:30"), backup("new", 1, 6, "10:05:30")];
    let window = only(&backups, &inventory(hour(9)));
    let newest = window.newest().unwrap();
    assert_eq!((newest.earliest, newest.earliest_lsn), (at("10:03:30"), lsn(4, 0x80)));
    assert_eq!((newest.earliest_backup.as_str(), newest.backups), ("old", 2));
    assert_eq!((newest.latest, newest.latest_lsn), (at("10:09:00.000001"), lsn(9, 0x100)));
    assert_eq!((newest.latest_xid, newest.is_exact), (Some(900), true));
    assert!(window.gaps.is_empty() && window.unusable.is_empty());
}

#[test]
fn without_a_backup_nothing_can_be_recovered() {
    let window = only(&[], &inventory(hour(9)));
    assert_eq!((window.newest(), window.segments), (None, 7));
}

#[test]
fn it_ends_at_a_gap_and_a_later_backup_begins_another() {
    let mut segments = hour(12);
    segments.retain(|(segment, _)| ![name(1, 7), name(1, 8)].contains(segment));
    let first = backup("first", 1, 4, "10:03:30");
    let window = only(std::slice::from_ref(&first), &inventory(segments.clone()));
    assert_eq!(window.newest().unwrap().latest, at("10:06:00.000001"));
    assert_eq!((window.gaps.len(), window.gaps[0].segments), (1, 2));
    assert!(window.is_harmful(&window.gaps[0]));
    let second = backup("second", 1, 10, "10:09:30");
    let window = only(&[first, second], &inventory(segments));
    let [old, new] = &window.windows[..] else { panic!("{window:?}") };
    assert_eq!((old.earliest, old.latest), (at("10:03:30"), at("10:06:00.000001")));
    assert_eq!((new.earliest, new.latest), (at("10:09:30"), at("10:12:00.000001")));
    assert_eq!(window.newest(), Some(new));
    let second = backup("second", 1, 10, "10:09:30");
    let mut segments = hour(12);
    segments.remove(3);
    let window = only(&[second], &inventory(segments));
    assert!(!window.is_harmful(&window.gaps[0]), "every backup begins after it");
}

#[test]
fn a_backup_that_lacks_its_own_wal_is_named_with_what_is_missing() {
    let mut late = backup("late", 1, 8, "10:09:00");
    late.end_lsn = lsn(10, 0x80);
    let window = only(&[late], &inventory(hour(8)));
    assert!(window.windows.is_empty());
    assert_eq!(window.unusable, [("late".to_owned(), Lack::Segment(name(1, 9)))]);
    let gap = &window.gaps[0];
    assert_eq!((gap.cause, gap.from, gap.to), (Cause::NeededByBackup, lsn(9, 0), lsn(11, 0)));
    assert_eq!((gap.segments, gap.after), (2, Some(at("10:08:00.000001"))));

    let mut segments = hour(9);
    segments.remove(3);
    let window = only(&[backup("torn", 1, 6, "10:05:30")], &inventory(segments));
    assert_eq!(window.unusable, [("torn".to_owned(), Lack::Segment(name(1, 6)))]);
    let causes: Vec<_> = window.gaps.iter().map(|gap| gap.cause).collect();
    assert_eq!(causes, [Cause::Missing], "told once");

    let window = only(&[backup("bare", 1, 6, "10:05:30")], &Inventory::default());
    assert_eq!(window.unusable, [("bare".to_owned(), Lack::Segment(name(1, 6)))]);
}

#[test]
fn a_backup_after_the_last_commit_is_the_latest_moment_itself() {
    let segments = vec![
        (name(1, 3), with_commits(3, &["09:00:00"])),
        (name(1, 4), with_commits(4, &[])),
        (name(1, 5), with_commits(5, &[])),
    ];
    let window = only(&[backup("idle", 1, 4, "10:03:30")], &inventory(segments));
    let newest = window.newest().unwrap();
    assert_eq!((newest.earliest, newest.latest), (at("10:03:30"), at("10:03:30")));
    assert_eq!((newest.latest_lsn, newest.latest_xid), (lsn(4, 0x80), None));
}

#[test]
fn a_branch_is_reached_through_its_parents_and_a_sibling_is_not() {
    // 2 and 4 branched off 1; 3 off 2. The backup is of 1, before all of that.
    let fork = |parent: &str, number: u64| format!("{parent}{}", lsn(number, 0x50));
    let tree = tree(&[
        (2, &fork("1 ", 6)),
        (3, &format!("{}\n{}", fork("1 ", 6), fork("2 ", 8))),
        (4, &fork("1 ", 5)),
    ]);
    let mut segments = hour(9);
    for (branch, numbers, time) in
        [(2, 6..9, "11:00:00"), (3, 8..10, "12:00:00"), (4, 5..6, "13:00:00")]
    {
        segments.extend(numbers.map(|n| (name(branch, n), with_commits(n, &[time]))));
    }
    let backups = [backup("base", 1, 4, "10:03:30"), backup("later", 2, 7, "11:30:00")];
    let all = windows(&backups, &tree, &inventory(segments));
    let told: Vec<_> = all
        .iter()
        .map(|it| {
            let newest = it.newest().unwrap();
            (it.timeline.get(), newest.earliest_backup.as_str(), newest.backups, newest.latest)
        })
        .collect();
    let expected = [
        (1, "base", 1, at("10:09:00.000001")),
        (2, "base", 2, at("11:00:00")),
        (3, "base", 2, at("12:00:00")),
        (4, "base", 1, at("13:00:00")),
    ];
    assert_eq!(told, expected);
    let parents: Vec<_> = all.iter().map(|it| it.parent).collect();
    assert_eq!(parents[0], None);
    assert_eq!(parents[2], Some((timeline(2), lsn(8, 0x50))));
}

#[test]
fn a_backup_of_a_parent_after_the_fork_does_not_lead_to_the_branch() {
    let tree = tree(&[(2, &format!("1 {}", lsn(6, 0x50)))]);
    let mut segments = hour(9);
    segments.push((name(2, 6), with_commits(6, &["11:00:00"])));
    let all = windows(&[backup("after", 1, 7, "10:06:30")], &tree, &inventory(segments));
    assert!(all[0].newest().is_some());
    assert_eq!(all[1].newest(), None);
}

#[test]
fn a_branch_without_wal_or_without_its_history_cannot_be_recovered() {
    let tree = tree(&[(2, &format!("1 {}", lsn(9, 0x50)))]);
    let mut segments = hour(9);
    segments.push((name(7, 5), with_commits(5, &[])));
    let all = windows(&[backup("base", 1, 4, "10:03:30")], &tree, &inventory(segments));
    let told: Vec<_> = all
        .iter()
        .map(|it| (it.timeline.get(), it.newest().is_some(), it.segments, it.lacks_history))
        .collect();
    assert_eq!(told, [(1, true, 7, false), (2, false, 0, false), (7, false, 1, true)]);
}

#[test]
fn a_gap_before_the_fork_cuts_the_branch_off_until_it_has_a_backup_of_its_own() {
    let tree = tree(&[(2, &format!("1 {}", lsn(8, 0x50)))]);
    let mut segments = hour(7);
    segments.remove(3);
    segments.extend((8..12).map(|n| (name(2, n), with_commits(n, &["11:00:00"]))));
    let base = backup("base", 1, 4, "10:03:30");
    let all = windows(std::slice::from_ref(&base), &tree, &inventory(segments.clone()));
    assert_eq!(all[0].newest().unwrap().latest, at("10:05:00.000001"));
    assert_eq!((all[1].newest(), all[1].gaps[0].first), (None, name(1, 6)));
    let own = backup("own", 2, 9, "10:59:00");
    let all = windows(&[base, own], &tree, &inventory(segments));
    assert_eq!(all[1].newest().unwrap().earliest_backup, "own");
}

#[test]
fn what_has_no_digest_is_recoverable_at_least_to_what_is_known() {
    let mut segments = hour(5);
    segments.push((name(1, 6), plain("10:30:00")));
    let window = only(&[backup("base", 1, 4, "10:03:30")], &inventory(segments));
    let newest = window.newest().unwrap();
    assert_eq!((newest.latest, newest.is_exact), (at("10:05:00.000001"), false));
    assert_eq!((newest.run.end, newest.run.stored), (lsn(7, 0), at("20:00:00")));

    let old = (3..6).map(|n| (name(1, n), plain("10:30:00")));
    let window = only(&[backup("base", 1, 4, "10:03:30")], &inventory(old));
    let newest = window.newest().unwrap();
    assert_eq!((newest.latest, newest.is_exact), (at("10:03:30"), false));
}

#[test]
fn a_backup_without_its_parent_reaches_nothing_and_is_named() {
    let parent = |id: &str| Some(id.to_owned());
    let backups = [
        BackupSummary { parent: parent("gone"), ..backup("torn", 1, 4, "10:03:30") },
        backup("full", 1, 5, "10:04:30"),
        BackupSummary { parent: parent("full"), ..backup("sound", 1, 6, "10:05:30") },
    ];
    let window = only(&backups, &inventory(hour(9)));
    let newest = window.newest().unwrap();
    assert_eq!((newest.earliest_backup.as_str(), newest.backups), ("full", 2));
    let [(id, Lack::Chain(broken))] = window.unusable.as_slice() else { panic!("{window:?}") };
    assert_eq!((id.as_str(), broken.parent.as_str()), ("torn", "gone"));
}

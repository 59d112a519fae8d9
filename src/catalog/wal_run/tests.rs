//! Runs and gaps of inventories written by hand.

use crate::catalog::inventory::samples::{SIZE, at, inventory, name, plain, with_commits};
use crate::catalog::timeline_tree::samples::{timeline, tree};
use crate::catalog::wal_run::{Cause, Runs};
use crate::catalog::{Inventory, TimelineTree};
use crate::postgres::Lsn;

fn lsn(number: u64, offset: u64) -> Lsn {
    Lsn(number * u64::from(SIZE) + offset)
}

fn runs(inventory: &Inventory, tree: &TimelineTree, to: u32) -> Runs {
    Runs::on(&tree.path(timeline(to)).unwrap(), inventory)
}

#[test]
fn unbroken_wal_is_one_run_across_log_files() {
    let segments = (250..260).map(|n| (name(1, n), with_commits(n, &["10:00:00"])));
    let Runs { runs, gaps } = runs(&inventory(segments), &tree(&[]), 1);
    assert!(gaps.is_empty(), "{gaps:?}");
    assert_eq!(runs.len(), 1);
    let run = &runs[0];
    assert_eq!((run.begin, run.cover, run.segments), (lsn(250, 0), lsn(260, 0), 10));
    assert_eq!((run.first, run.last, run.commits), (name(1, 250), name(1, 259), 10));
    assert!(run.is_known_to_its_end);
}

#[test]
fn missing_segments_are_one_gap_with_the_times_around_it() {
    let segments = [
        (name(1, 3), with_commits(3, &["10:00:00", "10:00:01"])),
        (name(1, 4), with_commits(4, &[])),
        (name(1, 7), with_commits(7, &[])),
        (name(1, 8), with_commits(8, &["10:05:00"])),
    ];
    let Runs { runs, gaps } = runs(&inventory(segments), &tree(&[]), 1);
    assert_eq!(runs.len(), 2);
    assert_eq!(gaps.len(), 1);
    let gap = &gaps[0];
    assert_eq!((gap.cause, gap.first, gap.segments), (Cause::Missing, name(1, 5), 2));
    assert_eq!((gap.from, gap.to), (lsn(5, 0), lsn(7, 0)));
    assert_eq!((gap.after, gap.before), (Some(at("10:00:01")), Some(at("10:05:00"))));
}

#[test]
fn a_run_ends_where_a_record_is_not_valid_and_what_follows_is_unread() {
    let mut broken = with_commits(4, &["10:00:02"]);
    broken.wal.as_mut().unwrap().invalid = Some(lsn(4, 0x5000));
    let segments = [
        (name(1, 3), with_commits(3, &["10:00:00"])),
        (name(1, 4), broken),
        (name(1, 5), with_commits(5, &["10:00:09"])),
    ];
    let Runs { runs, gaps } = runs(&inventory(segments), &tree(&[]), 1);
    let [before, after] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!((before.cover, before.end), (lsn(4, 0x5000), lsn(4, 0x5000)));
    assert_eq!(before.last_commit.unwrap().time, at("10:00:02"));
    assert_eq!((after.begin, after.commits), (lsn(4, 0x5001), 1), "not counted twice");
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((gap.cause, gap.first, gap.segments), (Cause::Invalid, name(1, 4), 1));
    assert_eq!((gap.after, gap.before), (Some(at("10:00:02")), Some(at("10:00:09"))));
}

#[test]
fn zeros_at_the_end_of_a_timeline_are_no_gap_but_in_its_middle_they_are() {
    let mut last = with_commits(4, &["10:00:02"]);
    let wal = last.wal.as_mut().unwrap();
    (wal.invalid, wal.only_zeros_follow) = (Some(lsn(4, 0x5000)), true);
    let mut segments = vec![(name(1, 3), with_commits(3, &[])), (name(1, 4), last)];
    let found = runs(&inventory(segments.clone()), &tree(&[]), 1);
    assert!(found.gaps.is_empty(), "{found:?}");
    assert_eq!(found.runs[0].cover, lsn(4, 0x5000));
    segments.push((name(1, 5), with_commits(5, &[])));
    let found = runs(&inventory(segments), &tree(&[]), 1);
    assert_eq!((found.runs.len(), found.gaps[0].cause), (2, Cause::Invalid));
}

#[test]
fn a_damaged_object_is_a_gap_of_its_own() {
    let damaged = crate::catalog::inventory::Segment { is_damaged: true, ..plain("10:00:00") };
    let segments = [
        (name(1, 3), with_commits(3, &[])),
        (name(1, 4), damaged),
        (name(1, 6), with_commits(6, &[])),
    ];
    let Runs { runs, gaps } = runs(&inventory(segments), &tree(&[]), 1);
    let causes: Vec<_> = gaps.iter().map(|gap| (gap.cause, gap.first)).collect();
    assert_eq!(causes, [(Cause::Damaged, name(1, 4)), (Cause::Missing, name(1, 5))]);
    assert_eq!(runs.len(), 2);
}

#[test]
fn the_segment_of_a_fork_is_the_branchs_and_its_parents_is_not_read_for_it() {
    // 2 branched off 1 in the middle of segment 5; 1 went on.
    let tree = tree(&[(2, &format!("1 {}", lsn(5, 0x100)))]);
    let parent = (3..8).map(|n| (name(1, n), with_commits(n, &["11:00:00"])));
    let branch = (5..7).map(|n| (name(2, n), with_commits(n, &["12:00:00"])));
    let both = inventory(parent.clone().chain(branch));
    let found = runs(&both, &tree, 2);
    assert_eq!((found.runs.len(), found.runs[0].segments), (1, 4));
    assert_eq!(found.runs[0].last_commit.unwrap().time, at("12:00:00"));
    assert_eq!(runs(&both, &tree, 1).runs[0].segments, 5);
    let without = inventory(parent.chain([(name(2, 6), with_commits(6, &[]))]));
    let found = runs(&without, &tree, 2);
    assert_eq!((found.runs.len(), found.gaps[0].first), (2, name(2, 5)));
}

#[test]
fn a_fork_on_the_edge_of_a_segment_takes_the_parents_up_to_there() {
    let tree = tree(&[(2, &format!("1 {}", lsn(5, 0)))]);
    let segments = [
        (name(1, 4), with_commits(4, &["10:00:00"])),
        (name(1, 5), with_commits(5, &["11:00:00"])),
        (name(2, 5), with_commits(5, &["12:00:00"])),
    ];
    let found = runs(&inventory(segments), &tree, 2);
    assert_eq!((found.runs.len(), found.runs[0].segments, found.gaps.len()), (1, 2, 0));
}

#[test]
fn without_a_digest_the_end_is_told_by_names_and_nothing_is_known_until_the_next_commit() {
    let mut segments =
        vec![(name(1, 3), with_commits(3, &["10:00:00"])), (name(1, 4), plain("10:30:00"))];
    let run = runs(&inventory(segments.clone()), &tree(&[]), 1).runs[0];
    assert_eq!((run.end, run.is_known_to_its_end), (lsn(5, 0), false));
    assert_eq!(run.last_commit.unwrap().time, at("10:00:00"));
    segments.push((name(1, 5), with_commits(5, &[])));
    assert!(!runs(&inventory(segments.clone()), &tree(&[]), 1).runs[0].is_known_to_its_end);
    segments.push((name(1, 6), with_commits(6, &["10:40:00"])));
    assert!(runs(&inventory(segments), &tree(&[]), 1).runs[0].is_known_to_its_end);
}

#[test]
fn of_nothing_there_are_no_runs() {
    assert_eq!(runs(&Inventory::default(), &tree(&[]), 1), Runs::default());
    assert_eq!(runs(&inventory([]), &tree(&[]), 1), Runs::default());
}

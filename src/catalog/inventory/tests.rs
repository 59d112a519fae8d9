//! Digests made of real bytes, distilled and put together.

use crate::catalog::inventory::{Inventory, Segment, SegmentWal, WalPart};
use crate::catalog::timeline_tree::samples::tree;
use crate::postgres::wal::samples::{PAGE, Pen, SEGMENT, commit, end, insert, restore_point};
use crate::postgres::wal::{Digest, Digester};
use crate::postgres::{Lsn, SegmentName, TimelineId};

const SIZE: u32 = SEGMENT as u32;

/// Three segments; the second commit, of transaction 8, begins in the first and ends in the second.
fn across(last: &crate::postgres::wal::samples::Draft) -> (Vec<(SegmentName, Digest)>, Lsn) {
    let mut pen = Pen::new(17);
    pen.record(&commit(7, 1_000_000));
    pen.fill_with(&insert(9));
    let edge = 6 * SEGMENT;
    // So that 24 bytes are left: less than the record has.
    while edge - pen.lsn().0 > 24 {
        let room = edge - pen.lsn().0;
        let mut filler = insert(9);
        if room < 300 {
            filler.body = vec![255, (room - 24 - 24 - 2) as u8];
            filler.body.resize((room - 24 - 24) as usize, 1);
        }
        pen.record(&filler);
    }
    let begins = pen.record(last);
    assert!(begins.0 < edge && pen.lsn().0 > edge, "{begins}");
    pen.record(&restore_point("before", 2_500_000));
    pen.fill();
    pen.record(&insert(9));
    pen.fill();
    let digest = |(name, bytes): (SegmentName, Vec<u8>)| {
        let mut digester = Digester::new(name);
        digester.write(&bytes);
        (name, digester.finish().unwrap())
    };
    (pen.segments().into_iter().map(digest).collect(), begins)
}

fn part<'a>(digests: impl IntoIterator<Item = &'a (SegmentName, Digest)>) -> WalPart {
    let segments =
        digests.into_iter().map(|(name, digest)| (*name, Segment::default(), Some(digest)));
    WalPart::distil(segments, SIZE)
}

fn wal(inventory: &Inventory, name: SegmentName) -> SegmentWal {
    inventory.segments[&name].wal.unwrap()
}

#[test]
fn a_commit_across_two_segments_counts_where_it_ends_however_they_were_learned() {
    let (digests, begins) = across(&commit(8, 2_000_000));
    let alone = |(name, digest): &(SegmentName, Digest)| part([&(*name, digest.clone())]);
    let whole = Inventory::new([part(&digests)], &tree(&[]), SIZE);
    let apart = Inventory::new(digests.iter().map(alone), &tree(&[]), SIZE);
    assert_eq!(whole.segments, apart.segments);
    let (first, second) = (wal(&whole, digests[0].0), wal(&whole, digests[1].0));
    assert_eq!((first.commits, first.last_commit.unwrap().xid), (1, 7));
    let commit = second.last_commit.unwrap();
    assert_eq!((second.commits, commit.xid, commit.lsn), (1, 8, begins));
    assert_eq!(commit.time.as_microsecond(), 946_684_800_000_000 + 2_000_000);
    assert_eq!((second.first_commit, second.latest_time), (Some(commit), Some(commit.time)));
    assert!(!second.opens_unknown);
    let points: Vec<_> =
        whole.restore_points.iter().map(|(name, point)| (*name, point.name.as_str())).collect();
    assert_eq!(points, [(digests[1].0, "before")]);
}

#[test]
fn a_record_of_another_kind_or_an_abort_across_two_segments_is_no_commit() {
    for (record, latest) in [(insert(8), None), (end(8, 0x20, 2_000_000, &[], &[]), Some(()))] {
        let (digests, _) = across(&record);
        let inventory = Inventory::new([part(&digests)], &tree(&[]), SIZE);
        let second = wal(&inventory, digests[1].0);
        assert_eq!((second.commits, second.opens_unknown), (0, false));
        assert_eq!(second.latest_time.map(|_| ()), latest);
    }
}

#[test]
fn what_cannot_be_joined_is_said_to_be_unknown() {
    let (mut digests, _) = across(&commit(8, 2_000_000));
    digests[1].1.continued = None;
    let inventory = Inventory::new([part(&digests)], &tree(&[]), SIZE);
    let second = wal(&inventory, digests[1].0);
    assert_eq!((second.commits, second.opens_unknown), (0, true));

    let (digests, _) = across(&commit(8, 2_000_000));
    let without = [(digests[0].0, None), (digests[1].0, Some(&digests[1].1))];
    let without = without.map(|(name, digest)| (name, Segment::default(), digest));
    let inventory = Inventory::new([WalPart::distil(without, SIZE)], &tree(&[]), SIZE);
    assert!(wal(&inventory, digests[1].0).opens_unknown, "nothing is known of the one before");
}

#[test]
fn a_record_that_began_in_a_segment_that_is_not_there_is_not_replayed_and_counts_nothing() {
    let (digests, _) = across(&commit(8, 2_000_000));
    let inventory = Inventory::new([part(&digests[1..])], &tree(&[]), SIZE);
    let second = wal(&inventory, digests[1].0);
    assert_eq!((second.commits, second.opens_unknown), (0, false));
}

#[test]
fn a_branch_goes_on_with_what_its_parent_began() {
    let (digests, begins) = across(&commit(8, 2_000_000));
    let branch = TimelineId::new(2).unwrap();
    let forked = SegmentName { timeline: branch, ..digests[1].0 };
    // The branch's first segment begins with a copy of what the parent had written there.
    let fork = format!("1 {}", Lsn(6 * SEGMENT + PAGE));
    let parts = [part([&digests[0]]), part([&(forked, digests[1].1.clone())])];
    let inventory = Inventory::new(parts, &tree(&[(2, &fork)]), SIZE);
    let commit = wal(&inventory, forked).last_commit.unwrap();
    assert_eq!((commit.xid, commit.lsn), (8, begins));
}

//! Of the digester, on WAL written by hand.

use super::Digester;
use crate::postgres::SegmentName;
use crate::postgres::wal::digest::{Digest, joint};
use crate::postgres::wal::samples::{self, Draft, Pen, SEGMENT, commit, delete, insert};

const COMMIT: u8 = 0x00;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;

fn digest_of((name, bytes): &(SegmentName, Vec<u8>)) -> Digest {
    let mut digester = Digester::new(*name);
    bytes.chunks(77_777).for_each(|piece| digester.write(piece));
    let digest = digester.finish().unwrap();
    let json = serde_json::to_string(&digest).unwrap();
    assert!(json.len() < 64 << 10, "{} bytes", json.len());
    assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    digest
}

fn digest(pen: &mut Pen) -> Digest {
    pen.switch();
    let digest = digest_of(&pen.segments()[0]);
    assert_eq!(digest.invalid, None);
    digest
}

/// Transactions of others, so that none of those that follow is among the first.
fn crowd(pen: &mut Pen) {
    for xid in 500..600 {
        pen.record(&insert(xid));
        pen.record(&commit(xid, i64::from(xid)));
    }
}

#[test]
fn what_is_common_leaves_no_trace_but_counts_and_times() {
    let mut pen = Pen::new(17);
    crowd(&mut pen);
    for xid in 600..700 {
        pen.record(&insert(xid));
        pen.record(&delete(xid, 20_000, 0));
        let ends = if xid % 2 == 0 { COMMIT } else { ABORT };
        pen.record(&samples::end(xid, ends, 1_000_000 - i64::from(xid), &[], &[]));
    }
    let digest = digest(&mut pen);
    assert_eq!((digest.records, digest.commits, digest.aborts), (501, 150, 50));
    assert_eq!(digest.first_commit.unwrap().xid, 500);
    assert_eq!(digest.last_commit.unwrap().xid, 698);
    assert_eq!(digest.latest_time.unwrap().to_string(), "2000-01-01T00:00:00.9994Z");
    assert!(digest.activities.is_empty());
    // The first may have begun before.
    assert_eq!(digest.endings.iter().map(|it| it.at.xid).collect::<Vec<_>>(), [500, 501, 502, 503]);
}

#[test]
fn what_one_may_look_for_is_told_with_its_end() {
    let mut pen = Pen::new(18);
    crowd(&mut pen);
    pen.record(&samples::lock(700, 16_500));
    pen.record(&samples::create(700, 16_501));
    pen.record(&delete(701, 1259, 0));
    for _ in 0..100 {
        pen.record(&delete(702, 20_000, 0));
        // Insertions taken back, and rows that moved to another partition.
        pen.record(&delete(703, 20_001, 0x08));
        pen.record(&delete(703, 20_002, 0x10));
    }
    pen.record(&delete(700, 20_003, 0));
    let ended = pen.record(&samples::end(700, COMMIT, 5, &[701], &[16_500]));
    pen.record(&commit(702, 6));
    pen.record(&commit(703, 7));
    pen.record(&samples::restore_point("before the change", 8));
    let digest = digest(&mut pen);
    let told: Vec<u32> = digest.activities.iter().map(|it| it.xid).collect();
    assert_eq!(told, [700, 701, 702]);
    let [first, second, third] = &digest.activities[..] else { panic!("three") };
    assert_eq!((first.locks.len(), first.created.len()), (1, 1));
    assert!(first.deleted.is_empty(), "one row is not many");
    assert_eq!((second.top, second.deleted[0].file.number), (Some(700), 1259));
    assert_eq!(third.deleted[0].rows, 100);
    let ending = digest.endings.iter().find(|it| it.at.lsn == ended).unwrap();
    assert_eq!((ending.subtransactions.clone(), ending.dropped[0].number), (vec![701], 16_500));
    assert!(digest.endings.iter().any(|it| it.at.xid == 702));
    assert!(!digest.endings.iter().any(|it| it.at.xid == 703));
    assert_eq!(digest.restore_points[0].name, "before the change");
    assert!(!digest.is_cut);
}

#[test]
fn what_was_rolled_back_is_not_told() {
    let mut pen = Pen::new(15);
    crowd(&mut pen);
    pen.record(&samples::create(700, 16_501));
    pen.record(&samples::create(701, 16_502));
    pen.record(&samples::end(701, ABORT, 5, &[], &[16_502]));
    pen.record(&samples::end(700, COMMIT, 5, &[], &[]));
    pen.record(&samples::create(702, 16_503));
    pen.record(&samples::end(702, ABORT, 5, &[], &[16_503]));
    let digest = digest(&mut pen);
    assert_eq!(digest.activities.iter().map(|it| it.xid).collect::<Vec<_>>(), [700]);
    assert!(!digest.endings.iter().any(|it| [701, 702].contains(&it.at.xid)));
}

#[test]
fn digests_of_segments_add_up_to_the_row() {
    let mut pen = Pen::new(16);
    crowd(&mut pen);
    // Others come and go, far above it.
    for row in 0..20_000 {
        pen.record(&delete(700, 20_000, 0));
        pen.record(&insert(800 + row / 5));
        if row % 5 == 4 {
            pen.record(&commit(800 + row / 5, 1));
        }
    }
    pen.record(&commit(700, 9));
    pen.switch();
    let digests: Vec<Digest> = pen.segments().iter().map(digest_of).collect();
    assert!(digests.len() > 2);
    let mut rows = 0;
    for digest in &digests {
        assert_eq!(digest.invalid, None);
        let activities = digest.activities.iter().filter(|it| it.xid == 700);
        rows += activities.flat_map(|it| &it.deleted).map(|it| it.rows).sum::<u64>();
    }
    // A record of two segments is whole in neither, and is not counted.
    assert!((20_000 - digests.len() as u64..=20_000).contains(&rows), "{rows}");
    let last = digests.last().unwrap();
    assert!(last.endings.iter().any(|it| it.at.xid == 700 && it.is_commit));
}

#[test]
fn the_end_of_what_began_before_is_told() {
    let mut pen = Pen::new(17);
    crowd(&mut pen);
    // It was at work before: its id is far below the others'.
    pen.record(&insert(100));
    pen.record(&commit(100, 1));
    pen.record(&commit(101, 2));
    pen.record(&samples::end(0, COMMIT_PREPARED, 3, &[], &[]));
    let digest = digest(&mut pen);
    let xids: Vec<u32> = digest.endings.iter().map(|it| it.at.xid).collect();
    assert!(xids.contains(&100) && xids.contains(&101), "{xids:?}");
}

#[test]
fn a_commit_of_two_segments_is_put_together() {
    // The commit is of 166 bytes.
    for missing in (8..166).step_by(8) {
        let mut pen = Pen::new(18);
        while pen.lsn().0 + 9000 < 6 * SEGMENT {
            pen.record(&insert(9));
        }
        let room = 6 * SEGMENT - pen.lsn().0 - missing;
        // Beside its headers there is one of a page.
        let body = samples::main_data(&vec![1; room as usize - 24 - 5 - 24]);
        pen.record(&Draft { xid: 9, resource_manager: 21, info: 0, body });
        let files = [1, 2, 3, 4, 5, 6, 7, 8];
        let lsn = pen.record(&samples::end(77, COMMIT, 123, &[78, 79, 80, 81], &files));
        assert_eq!(lsn.0 + missing, 6 * SEGMENT);
        pen.switch();
        let digests: Vec<Digest> = pen.segments().iter().map(digest_of).collect();
        let ending = joint(&digests[0].unfinished, &digests[1].continued).unwrap();
        assert_eq!((ending.at.lsn, ending.at.xid, ending.dropped.len()), (lsn, 77, 8));
        let mut other = digests[1].continued.clone().unwrap();
        let flipped = if other.bytes.starts_with('0') { "1" } else { "0" };
        other.bytes.replace_range(..1, flipped);
        assert_eq!(joint(&digests[0].unfinished, &Some(other)), None);
    }
}

#[test]
fn a_digest_is_bounded_and_says_when_it_is_not_whole() {
    let mut pen = Pen::new(17);
    let many: Vec<u32> = (20_000..20_300).collect();
    let mut xid = 1000;
    while pen.lsn().0 < 6 * SEGMENT - 40_000 {
        xid += 1;
        pen.record(&samples::lock(xid, 16_500));
        pen.record(&samples::restore_point(&"\u{1}".repeat(63), 8));
        (0..80).for_each(|file| _ = pen.record(&samples::create(xid, file)));
        pen.record(&samples::end(xid, COMMIT, 5, &many, &many));
    }
    let digest = digest(&mut pen);
    assert!(digest.is_cut);
    assert!(digest.activities.iter().all(|it| it.is_cut));
    assert!(digest.endings.iter().all(|it| it.is_cut));
    assert!(!digest.activities.is_empty() && !digest.endings.is_empty());
}

#[test]
fn of_an_unknown_version_there_is_no_digest() {
    let mut pen = Pen::new(17);
    pen.switch();
    let (name, mut bytes) = pen.segments().remove(0);
    bytes[0] = 0x20;
    let mut digester = Digester::new(name);
    digester.write(&bytes);
    assert_eq!(digester.finish(), None);
}

//! Of the reader, on WAL written by hand.

use super::{Outcome, Reader, read_segment};
use crate::postgres::wal::samples::{Draft, PAGE, Pen, SEGMENT, commit, insert, main_data};
use crate::postgres::{Lsn, SegmentName};

type Seen = Vec<(Lsn, Lsn, u32, u8)>;

fn read(name: SegmentName, bytes: &[u8], piece: usize) -> (Seen, Outcome) {
    let mut seen = Vec::new();
    let outcome = read_segment(name, bytes.chunks(piece), |record| {
        let header = record.header;
        seen.push((record.lsn, record.end, header.total, header.resource_manager.0));
    });
    (seen, outcome)
}

fn long(bytes: usize) -> Draft {
    let content: Vec<u8> = (0..bytes).map(|at| ((at * 7) >> 3) as u8).collect();
    Draft { xid: 9, resource_manager: 21, info: 0, body: main_data(&content) }
}

#[test]
fn every_record_is_read_in_pieces_of_any_length() {
    for version in 15..=18 {
        let mut pen = Pen::new(version);
        let mut expected = Vec::new();
        for length in [1, 8, 50, 9000, 3, 700_000, 8192, 24, 8168].into_iter().cycle().take(45) {
            if pen.lsn().0 > 6 * SEGMENT - 800_000 && length > 10_000 {
                continue;
            }
            expected.push(pen.record(&long(length)));
            expected.push(pen.record(&commit(7, 1)));
        }
        expected.push(pen.switch());
        let segments = pen.segments();
        let (name, bytes) = &segments[0];
        for piece in [1, 7, 24, 40, 8191, 8192, 100_000, 1 << 20] {
            let (seen, outcome) = read(*name, bytes, piece);
            let lsns: Vec<Lsn> = seen.iter().map(|record| record.0).collect();
            assert_eq!(lsns, expected, "in pieces of {piece}");
            assert_eq!(outcome.invalid, None);
            assert_eq!(outcome.end, Some(Lsn(6 * SEGMENT)));
            assert_eq!(outcome.first_record, Some(expected[0]));
        }
    }
}

#[test]
fn a_record_of_three_segments_goes_through_all_of_them() {
    let mut pen = Pen::new(17);
    let before = pen.record(&commit(7, 1));
    let huge = pen.record(&long(2 << 20));
    let after = pen.record(&commit(8, 2));
    pen.switch();
    let segments = pen.segments();
    let [first, middle, last] = &segments[..] else { panic!("three segments") };
    let (seen, outcome) = read(first.0, &first.1, 9999);
    assert_eq!((seen.len(), seen[0].0), (1, before));
    assert_eq!(outcome.unfinished.map(|it| (it.lsn, it.total)), Some((huge, (2 << 20) + 29)));
    assert_eq!(outcome.invalid, None);
    let (seen, outcome) = read(middle.0, &middle.1, 9999);
    assert_eq!((seen.len(), outcome.invalid, outcome.end), (0, None, None));
    assert_eq!(outcome.continued.map(|it| it.bytes), Some(None));
    let (seen, outcome) = read(last.0, &last.1, 9999);
    assert_eq!(seen[0].0, after);
    assert_eq!(outcome.invalid, None);
}

#[test]
fn a_record_lost_in_a_crash_is_passed_over() {
    let mut pen = Pen::new(16);
    let whole = pen.record(&commit(7, 1));
    pen.record(&long(30_000));
    pen.crash(2, whole);
    let lost = pen.record(&Draft { xid: 0, resource_manager: 0, info: 0xD0, body: vec![] });
    pen.switch();
    let (name, bytes) = pen.segments().remove(0);
    for piece in [11, 8192, 1 << 20] {
        let (seen, outcome) = read(name, &bytes, piece);
        assert_eq!(seen.iter().map(|it| it.0).take(2).collect::<Vec<_>>(), [whole, lost]);
        assert_eq!(outcome.invalid, None);
    }
}

#[test]
fn a_switch_that_begins_in_the_segment_before_takes_all_of_its_own() {
    for left in [8, 16] {
        let mut pen = Pen::new(15);
        pen.record(&insert(8));
        pen.fill_with(&insert(8));
        let room = 6 * SEGMENT - pen.lsn().0 - left;
        let last =
            pen.record(&Draft { body: main_data(&vec![1; room as usize - 26 - 3]), ..long(0) });
        let switch = pen.switch();
        assert_eq!(switch, Lsn(6 * SEGMENT - left));
        pen.record(&insert(9));
        let segments = pen.segments();
        let [first, second, third] = &segments[..] else { panic!("three segments") };
        // What the recycled file held, where a crash interrupted the switch.
        let mut interrupted = second.1.clone();
        interrupted[PAGE as usize..].fill(0x55);
        for piece in [1, 7, 48, 56, 8192, 1 << 20] {
            let (seen, outcome) = read(first.0, &first.1, piece);
            assert_eq!((seen.last().map(|it| it.0), outcome.invalid), (Some(last), None));
            for bytes in [&second.1, &interrupted] {
                let (seen, outcome) = read(second.0, bytes, piece);
                assert_eq!((seen.len(), outcome.invalid), (0, None), "in pieces of {piece}");
                assert_eq!(outcome.end, Some(Lsn(7 * SEGMENT)));
            }
        }
        assert_eq!(read(third.0, &third.1, 999).0.len(), 1);
        // The end of any other record is not taken for one.
        let mut other = second.1.clone();
        other[56 - left as usize] = 0x30;
        assert!(read(second.0, &other, 999).1.invalid.is_some());
    }
}

#[test]
fn a_flipped_byte_in_any_whole_record_is_found() {
    let mut random = fastrand::Rng::with_seed(4);
    let mut pen = Pen::new(18);
    while pen.lsn().0 < 6 * SEGMENT - 20_000 {
        match random.u32(..10) {
            0 => pen.record(&long(random.usize(1..20_000))),
            1..5 => pen.record(&commit(random.u32(3..), 5)),
            _ => pen.record(&insert(random.u32(3..))),
        };
    }
    // Records to the very end, the last of them unfinished.
    while pen.lsn().0 < 6 * SEGMENT {
        pen.record(&insert(8));
    }
    let (name, good) = pen.segments().remove(0);
    let mut places = Vec::new();
    let outcome = read_segment(name, [&good[..]], |record| {
        let start = (record.lsn.0 - 5 * SEGMENT) as usize;
        // Up to the end of its first page, so as not to hit a page header.
        let end = (start + record.header.total as usize).min(start.next_multiple_of(PAGE as usize));
        places.push(start..end);
    });
    assert_eq!(outcome.invalid, None);
    assert!(outcome.unfinished.is_some());
    let last = places.len() - 100..places.len();
    for round in 0..1500 {
        let record = if round % 2 == 0 { 0..places.len() } else { last.clone() };
        let record = random.usize(record);
        let place = random.usize(places[record].clone());
        let mut bytes = good.clone();
        bytes[place] ^= random.u8(1..);
        assert!(read(name, &bytes, 1 << 18).1.invalid.is_some(), "byte {place}");
    }
}

#[test]
fn zeros_where_a_record_should_be_are_told_from_damage() {
    let mut pen = Pen::new(15);
    pen.record(&commit(7, 1));
    pen.fill();
    let (name, mut bytes) = pen.segments().remove(0);
    for piece in [5, 4096, 1 << 20] {
        let invalid = read(name, &bytes, piece).1.invalid.unwrap();
        assert!(invalid.only_zeros_follow, "in pieces of {piece}");
    }
    bytes[500_000] = 1;
    assert!(!read(name, &bytes, 4096).1.invalid.unwrap().only_zeros_follow);
    let mut reader = Reader::of_partial(name);
    reader.write(&bytes, &mut |_| {});
    let outcome = reader.finish();
    assert_eq!((outcome.records, outcome.invalid), (1, None));
}

#[test]
fn what_is_cut_off_or_of_another_place_is_not_valid() {
    let mut pen = Pen::new(17);
    pen.record(&long(100_000));
    pen.switch();
    let (name, bytes) = pen.segments().remove(0);
    for length in [0, 1, 39, 40, 8192, 100_000] {
        assert!(read(name, &bytes[..length], 777).1.invalid.is_some(), "{length} bytes");
    }
    assert!(read(name.next(SEGMENT as u32), &bytes, 777).1.invalid.is_some());
}

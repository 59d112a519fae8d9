//! Index objects on a store in memory: lost, damaged, forbidden, and never of an open log file.

use std::sync::Arc;

use crate::codec::{Content, Header, Kind, Origin};
use crate::error::ErrorKind;
use crate::postgres::wal::Digest;
use crate::postgres::{SegmentName, SystemIdentifier, TimelineId, WalFileName};
use crate::repository::{ClusterName, Home, LogIndex, Repository};
use crate::storage::faulty::{Fault, Faulty};
use crate::storage::memory::Memory;
use crate::storage::{Body, Storage, Verb};

const CLUSTER: SystemIdentifier = SystemIdentifier(7_710_620_488_620_347_611);
/// Four of them are a log file.
const SEGMENT_BYTES: u64 = 1 << 30;
const WHOLE_LOG: std::ops::Range<u32> = 0..4;

struct Place {
    store: Arc<Memory>,
    faulty: Arc<Faulty>,
    home: Home,
}

impl Place {
    fn with_log(log: u32, segments: impl IntoIterator<Item = u32>) -> Place {
        let store = Arc::new(Memory::new());
        let faulty = Arc::new(Faulty::new(store.clone()));
        let repository = Repository::new(faulty.clone(), ClusterName::new("main").unwrap());
        let place = Place { store, faulty, home: repository.home(CLUSTER) };
        segments.into_iter().for_each(|segment| place.put(log, segment, CLUSTER));
        place
    }

    fn put(&self, log: u32, segment: u32, cluster: SystemIdentifier) {
        let name = name(log, segment);
        let origin = Origin {
            host: "db1".into(),
            source: "/data".into(),
            system_identifier: cluster,
            time: "2026-11-21T10:15:30Z".parse().unwrap(),
            version: "0.1.0".into(),
        };
        let content = Content { size: SEGMENT_BYTES, crc32: 7 };
        let mut header = Header::new(Kind::Segment, name.to_string(), content, origin);
        header.digest = Some(Box::new(digest(segment)));
        let key = self.home.wal_key(&WalFileName::Segment(name));
        self.store.put_new(&key, &Body::new(header.to_frame())).unwrap();
    }

    fn log(&self, log: u32) -> LogIndex {
        self.home.log(timeline(), log).unwrap()
    }

    fn has_index(&self, log: u32) -> bool {
        self.store.get(&self.home.index_key(timeline(), log)).is_ok()
    }

    /// How many objects were read for this.
    fn reads(&self, of: impl FnOnce()) -> u64 {
        let before = self.faulty.calls(Verb::Get);
        of();
        self.faulty.calls(Verb::Get) - before
    }
}

fn timeline() -> TimelineId {
    TimelineId::new(1).unwrap()
}

fn name(log: u32, segment: u32) -> SegmentName {
    SegmentName { timeline: timeline(), log, segment }
}

fn digest(segment: u32) -> Digest {
    Digest { version: 1, records: 100 + u64::from(segment), ..Digest::default() }
}

#[track_caller]
fn tells_all(index: &LogIndex, segments: &[u32]) {
    let told: Vec<u32> = index.segments.keys().map(|name| name.segment).collect();
    assert_eq!(told, segments);
    for (name, entry) in &index.segments {
        assert_eq!(entry.digest, Some(digest(name.segment)), "{name}");
    }
}

#[test]
fn a_closed_log_is_indexed_by_who_first_asks_and_read_by_one_request_from_then_on() {
    let place = Place::with_log(3, WHOLE_LOG);
    let mut first = LogIndex::default();
    assert_eq!(place.reads(|| first = place.log(3)), 5, "no index, four headers");
    tells_all(&first, &[0, 1, 2, 3]);
    assert!(first.is_closed && place.has_index(3));
    assert_eq!(place.reads(|| assert_eq!(place.log(3), first)), 1);
}

#[test]
fn a_log_that_may_still_receive_segments_is_never_indexed() {
    for (segments, why) in
        [(&[0, 1, 2][..], "its end is not there"), (&[0, 1, 3], "a gap may be filled")]
    {
        let place = Place::with_log(3, segments.iter().copied());
        tells_all(&place.log(3), segments);
        assert!(!place.has_index(3), "{why}");
    }
    let place = Place::with_log(3, 2..4);
    place.put(2, 3, CLUSTER);
    tells_all(&place.log(3), &[2, 3]);
    assert!(!place.has_index(3), "an earlier log is there: its beginning is a gap");
}

#[test]
fn the_first_log_of_a_timeline_begins_where_it_begins() {
    let place = Place::with_log(3, 2..4);
    tells_all(&place.log(3), &[2, 3]);
    assert!(place.has_index(3));
    let newborn = Place::with_log(0, 1..4);
    newborn.log(0);
    assert!(newborn.has_index(0), "there is no segment 0 of log 0");
}

#[test]
fn a_lost_index_is_written_anew() {
    let place = Place::with_log(3, WHOLE_LOG);
    place.log(3);
    place.store.delete(&place.home.index_key(timeline(), 3)).unwrap();
    tells_all(&place.log(3), &[0, 1, 2, 3]);
    assert!(place.has_index(3));
}

#[test]
fn a_damaged_index_is_passed_over_and_told_of() {
    for damage in [&b"nonsense"[..], b"", b"\x57\x2A\x4D\x18\x02\x00\x00\x00{}"] {
        let place = Place::with_log(3, WHOLE_LOG);
        let key = place.home.index_key(timeline(), 3);
        place.store.put_new(&key, &Body::new(damage)).unwrap();
        let index = place.log(3);
        tells_all(&index, &[0, 1, 2, 3]);
        assert_eq!(index.notes.len(), 1, "{:?}", index.notes);
        assert!(index.notes[0].contains(key.as_str()), "{:?}", index.notes);
        assert_eq!(place.store.get(&key).unwrap(), damage, "never overwritten");
    }
}

#[test]
fn who_may_not_write_gets_the_same_answer_in_silence() {
    let place = Place::with_log(3, WHOLE_LOG);
    place.faulty.fail_always(Verb::PutNew, Fault::Before(ErrorKind::NotAllowed));
    let index = place.log(3);
    tells_all(&index, &[0, 1, 2, 3]);
    assert!(index.notes.is_empty() && !place.has_index(3));
}

#[test]
fn an_index_says_nothing_of_what_the_store_no_longer_lists_or_lists_in_another_size() {
    let place = Place::with_log(3, WHOLE_LOG);
    place.log(3);
    let key = |segment| place.home.wal_key(&WalFileName::Segment(name(3, segment)));
    place.store.delete(&key(1)).unwrap();
    place.store.delete(&key(2)).unwrap();
    let mut header = Header::read(&mut &place.store.get(&key(3)).unwrap()[..]).unwrap();
    header.name = name(3, 2).to_string();
    header.digest = Some(Box::new(Digest { records: 9, ..digest(2) }));
    place.store.put_new(&key(2), &Body::new(header.to_frame())).unwrap();
    let index = place.log(3);
    let records = |segment| {
        let entry = index.segments.get(&name(3, segment))?;
        entry.digest.as_ref().map(|digest| digest.records)
    };
    assert_eq!([0, 1, 2, 3].map(records), [Some(100), None, Some(9), Some(103)]);
}

#[test]
fn a_segment_that_is_damaged_or_of_another_cluster_is_told_and_keeps_the_index_from_being_written()
{
    let place = Place::with_log(3, 0..3);
    place.put(3, 3, SystemIdentifier(8));
    let index = place.log(3);
    assert!(index.segments[&name(3, 3)].is_damaged && !index.segments[&name(3, 2)].is_damaged);
    assert!(index.notes.len() == 1 && index.notes[0].contains("cluster 8"), "{:?}", index.notes);
    assert!(!place.has_index(3));
}

#[test]
fn a_header_of_any_length_is_read() {
    let place = Place::with_log(3, []);
    let mut header = Header::new(
        Kind::Segment,
        name(3, 0).to_string(),
        Content { size: SEGMENT_BYTES, crc32: 7 },
        crate::codec::header::samples::header(Content::default()).origin,
    );
    header.origin.system_identifier = CLUSTER;
    header.origin.source = "/a/very/long/way".repeat(5_000);
    header.digest = Some(Box::new(digest(0)));
    let key = place.home.wal_key(&WalFileName::Segment(name(3, 0)));
    place.store.put_new(&key, &Body::new(header.to_frame())).unwrap();
    tells_all(&place.log(3), &[0]);
}

#[test]
fn a_store_that_does_not_answer_is_no_empty_log() {
    let place = Place::with_log(3, WHOLE_LOG);
    place.faulty.fail(Verb::Get, 3, Fault::Before(ErrorKind::Unreachable));
    assert_eq!(place.home.log(timeline(), 3).unwrap_err().kind(), ErrorKind::Unreachable);
    assert!(!place.has_index(3));
}

#[test]
fn what_the_store_itself_calls_damaged_is_no_reason_to_know_nothing() {
    let place = Place::with_log(3, WHOLE_LOG);
    // The first question is for the index.
    for nth in [1, 3] {
        place.faulty.fail(Verb::Get, nth, Fault::Before(ErrorKind::Corrupt));
    }
    let index = place.log(3);
    assert_eq!(index.segments.values().filter(|entry| entry.is_damaged).count(), 1);
    assert_eq!(index.notes.len(), 2, "{:?}", index.notes);
    assert!(!place.has_index(3));
}

//! What a survey asks of a store, and what it remembers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::header::samples::header;
use crate::codec::{Content, Header};
use crate::commands::survey::memory::Memory;
use crate::commands::survey::{Survey, expect_as_summarized, summary, survey};
use crate::error::ErrorKind;
use crate::host::state::StateDirectory;
use crate::postgres::wal::Digest;
use crate::postgres::wal::digest::TransactionEnd;
use crate::postgres::{Lsn, SegmentName, SystemIdentifier, TimelineId, WalFileName};
use crate::repository::manifest::samples;
use crate::repository::{ClusterName, Home, Repository};
use crate::storage::faulty::Faulty;
use crate::storage::memory::Memory as MemoryStore;
use crate::storage::{Body, Storage, Verb};

/// Four of them are a log file.
const SIZE: u64 = 1 << 30;

struct Place {
    store: Arc<MemoryStore>,
    faulty: Arc<Faulty>,
    home: Home,
    state: tempfile::TempDir,
}

/// Questions asked: lists, and objects read.
#[derive(Debug, PartialEq, Eq)]
struct Asked(u64, u64);

impl Place {
    /// With `logs` closed log files on timeline 1, and the first segment of the next.
    fn with(logs: u32) -> Place {
        let store = Arc::new(MemoryStore::new());
        let faulty = Arc::new(Faulty::new(store.clone()));
        let repository = Repository::new(faulty.clone(), ClusterName::new("main").unwrap());
        let home = repository.home(header(Content::default()).origin.system_identifier);
        let place = Place { store, faulty, home, state: tempfile::tempdir().unwrap() };
        for log in 1..=logs {
            (0..4).for_each(|segment| place.put(log, segment));
        }
        place.put(logs + 1, 0);
        place
    }

    fn put(&self, log: u32, segment: u32) {
        let name = name(log, segment);
        let head = header(Content { size: SIZE, crc32: 7 });
        let start = name.start(SIZE as u32);
        let commit = TransactionEnd {
            lsn: Lsn(start.0 + 0x28),
            xid: log * 4 + segment,
            time: "2026-11-21T10:00:00Z".parse().unwrap(),
        };
        let digest = Digest {
            segment_size: SIZE as u32,
            commits: 1,
            end: Some(Lsn(start.0 + SIZE)),
            first_commit: Some(commit),
            last_commit: Some(commit),
            ..Digest::default()
        };
        let digest = Some(Box::new(digest));
        let head = Header { name: name.to_string(), digest, ..head };
        self.store.put_new(&self.key(log, segment), &Body::new(head.to_frame())).unwrap();
    }

    fn key(&self, log: u32, segment: u32) -> crate::storage::Key {
        self.home.wal_key(&WalFileName::Segment(name(log, segment)))
    }

    fn memory(&self) -> Memory {
        let state = StateDirectory::of_reader(Some(self.state.path()), "test");
        Memory { state: Some(state), lists_anew: false }
    }

    #[track_caller]
    fn survey(&self, memory: &Memory) -> (Survey, Asked) {
        let calls = || (self.faulty.calls(Verb::List), self.faulty.calls(Verb::Get));
        let before = calls();
        let survey = survey(&self.home, memory).unwrap();
        assert!(survey.notes.is_empty(), "{:?}", survey.notes);
        let after = calls();
        (survey, Asked(after.0 - before.0, after.1 - before.1))
    }

    /// Finds `segments`, each with the commit that belongs to it.
    #[track_caller]
    fn finds(&self, memory: &Memory, segments: usize) -> Asked {
        let (survey, asked) = self.survey(memory);
        assert_eq!(survey.inventory.segments.len(), segments);
        for (name, segment) in &survey.inventory.segments {
            let xid = segment.wal.unwrap().last_commit.unwrap().xid;
            assert_eq!(xid, name.log * 4 + name.segment, "{name}");
        }
        asked
    }

    fn state_files(&self) -> Vec<std::path::PathBuf> {
        let folder = self.memory().state.unwrap().folder().unwrap().to_owned();
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn name(log: u32, segment: u32) -> SegmentName {
    SegmentName { timeline: TimelineId::new(1).unwrap(), log, segment }
}

/// Backups, history files, timelines.
const LISTS: u64 = 3;

#[test]
fn the_second_survey_asks_next_to_nothing() {
    let place = Place::with(20);
    // A list for all of the timeline; for each log the index that is not there, and its headers.
    assert_eq!(place.finds(&place.memory(), 81), Asked(LISTS + 1, 21 + 81));
    assert_eq!(place.finds(&place.memory(), 81), Asked(LISTS + 1, 0));
    // On another host there is the index, but for the log that is not closed.
    assert_eq!(place.finds(&Memory::none(), 81), Asked(LISTS + 1, 20 + 1 + 1));
}

#[test]
fn what_arrived_since_is_found_by_its_header_alone() {
    let place = Place::with(3);
    place.finds(&place.memory(), 13);
    place.put(4, 1);
    assert_eq!(place.finds(&place.memory(), 14), Asked(LISTS + 1, 2), "no index yet, one header");
    place.put(4, 2);
    place.put(4, 3);
    let is_indexed = || place.store.get(&place.home.index_key(name(4, 0).timeline, 4)).is_ok();
    assert!(!is_indexed());
    // It is closed now: the index is for all of it.
    assert_eq!(place.finds(&place.memory(), 16), Asked(LISTS + 1, 1 + 4));
    assert!(is_indexed());
    assert_eq!(place.finds(&place.memory(), 16), Asked(LISTS + 1, 0));
}

#[test]
fn an_old_listing_is_believed_for_an_hour_where_nobody_asks_for_a_new_one() {
    let place = Place::with(20);
    place.finds(&place.memory(), 81);
    place.store.delete(&place.key(2, 1)).unwrap();
    place.store.delete(&place.key(18, 1)).unwrap();
    assert_eq!(place.survey(&place.memory()).0.inventory.segments.len(), 80, "of the newest logs");
    let (anew, _) = place.survey(&place.memory().listing_anew());
    assert_eq!(anew.inventory.segments.len(), 79);
    assert!(!anew.inventory.segments.contains_key(&name(2, 1)));
    for file in place.state_files() {
        if file.ends_with("listing") {
            let file = std::fs::File::options().write(true).open(file).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
    }
    assert_eq!(place.survey(&place.memory()).0.inventory.segments.len(), 79, "an hour later");
}

#[test]
fn a_segment_that_was_exchanged_is_read_anew() {
    let place = Place::with(3);
    place.finds(&place.memory(), 13);
    place.store.delete(&place.key(2, 1)).unwrap();
    let other = header(Content { size: SIZE, crc32: 7 });
    let other = Header { name: name(2, 1).to_string(), ..other };
    place.store.put_new(&place.key(2, 1), &Body::new(other.to_frame())).unwrap();
    let (survey, _) = place.survey(&place.memory());
    assert_eq!(survey.inventory.segments[&name(2, 1)].wal, None, "it has no digest");
    assert!(survey.inventory.segments[&name(2, 2)].wal.is_some());
}

#[test]
fn a_memory_that_is_lost_damaged_or_cannot_be_kept_costs_requests_only() {
    let place = Place::with(3);
    let first = place.finds(&place.memory(), 13);
    for file in place.state_files() {
        let length = std::fs::metadata(&file).unwrap().len();
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_len(length / 2).unwrap();
    }
    let second = place.finds(&place.memory(), 13);
    assert!(second.1 > 0 && second.1 < first.1, "{second:?}: the index is there");
    assert_eq!(place.finds(&place.memory(), 13), Asked(LISTS + 1, 0));
    let nowhere = StateDirectory::open(Some(Path::new("/proc/none")), None, "test");
    let nowhere = Memory { state: Some(nowhere), lists_anew: false };
    place.finds(&nowhere, 13);
    assert_eq!(place.finds(&nowhere, 13), second);
}

#[test]
fn a_history_file_that_cannot_be_read_is_told_and_nothing_else_fails() {
    let place = Place::with(1);
    let history = WalFileName::History(TimelineId::new(2).unwrap());
    place.store.put_new(&place.home.wal_key(&history), &Body::new("damaged")).unwrap();
    let survey = survey(&place.home, &Memory::none()).unwrap();
    assert_eq!((survey.notes.len(), survey.inventory.segments.len()), (1, 5));
    assert!(survey.notes[0].contains("00000002.history"), "{:?}", survey.notes);
    assert_eq!(survey.tree.branches().count(), 0);
}

#[test]
fn nothing_is_kept_for_ever() {
    let place = Place::with(20);
    place.finds(&place.memory(), 81);
    let stale = place.memory().state.unwrap().folder().unwrap().join("wal-000000090000000A");
    std::fs::write(&stale, "of long ago").unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    std::fs::File::options().write(true).open(&stale).unwrap().set_modified(long_ago).unwrap();
    for file in place.state_files() {
        if file.ends_with("listing") {
            std::fs::remove_file(file).unwrap();
        }
    }
    place.finds(&place.memory(), 81);
    assert!(!stale.exists());
}

#[test]
fn a_header_that_was_changed_is_noticed_before_its_backup_is_placed() {
    let manifest = samples::manifest(SystemIdentifier(7), 1);
    let chosen = summary(manifest.facts());
    expect_as_summarized(&chosen, &manifest).unwrap();
    let mut damaged = chosen;
    damaged.start_lsn = Lsn(damaged.start_lsn.0 ^ 1);
    let error = expect_as_summarized(&damaged, &manifest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

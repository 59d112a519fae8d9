//! The choices a restore makes, as a table: what is there, what is asked, what comes of it.

use jiff::Timestamp;

use super::{ArchivedWal, BackupSummary, Choice, WalRun, Wanted, check_wal, choose};
use crate::catalog::timeline_tree::samples::{timeline, tree};
use crate::catalog::{Target, TargetTimeline};
use crate::error::{ErrorKind, Result};
use crate::postgres::{Lsn, SegmentName};

const MIB: u64 = 1 << 20;

fn at(hour_and_minute: &str) -> Timestamp {
    format!("2026-11-21T{hour_and_minute}:00Z").parse().unwrap()
}

fn time(hour_and_minute: &str) -> Target {
    Target::Time(at(hour_and_minute))
}

/// A backup that began at the start of a 1 MiB segment and ended in its middle.
fn backup(id: &str, on: u32, segment: u64, ended: &str) -> BackupSummary {
    BackupSummary {
        id: id.to_owned(),
        timeline: timeline(on),
        start_lsn: Lsn(segment * MIB + 0x28),
        end_lsn: Lsn(segment * MIB + 0x8_0000),
        ended: at(ended),
        wal_segment_size: MIB as u32,
    }
}

/// Timeline 1 forked twice: 2 at 0/500000 (given up), 3 at 0/300000, where life goes on.
fn plan(target: Target, on: TargetTimeline, id: Option<&str>) -> Result<Choice> {
    let backups = [
        backup("A", 1, 1, "01:00"),
        backup("B", 1, 2, "02:00"),
        backup("C", 1, 4, "04:00"),
        backup("D", 2, 6, "06:00"),
        backup("E", 3, 7, "07:00"),
    ];
    let tree = tree(&[(2, "1 0/500000"), (3, "1 0/300000")]);
    let wanted = Wanted { target, exclusive: false, timeline: on, backup: id.map(str::to_owned) };
    choose(&backups, &tree, &wanted, at("12:00"))
}

#[test]
fn the_choice_follows_ancestry_and_not_names_or_times() {
    let (latest, current) = (TargetTimeline::Latest, TargetTimeline::Current);
    let number = |id| TargetTimeline::Number(timeline(id));
    for (target, on, id, expected, reason) in [
        (Target::Latest, latest, None, "E on 1 until 0/300000, 3", "newest on the newest branch"),
        (time("08:00"), latest, None, "E on 1 until 0/300000, 3", "ended before the target"),
        (time("07:00"), latest, None, "E on 1 until 0/300000, 3", "its end itself is reachable"),
        (time("06:30"), latest, None, "B on 1 until 0/300000, 3", "C and D are on lost branches"),
        (time("01:30"), latest, None, "A on 1 until 0/300000, 3", "B ended too late"),
        (time("06:30"), number(2), None, "D on 1 until 0/500000, 2", "asked for by number"),
        (time("05:30"), number(2), None, "C on 1 until 0/500000, 2", "before the fork of 2"),
        (time("08:00"), number(1), None, "C on 1", "timeline 1 to its own end"),
        (time("06:30"), current, None, "D on 1 until 0/500000, 2", "the newest before, its branch"),
        (time("05:30"), current, None, "C on 1", "the newest before, its branch"),
        (Target::Latest, latest, Some("C"), "C on 1 until 0/500000, 2", "what C can follow"),
        (Target::Latest, latest, Some("A"), "A on 1 until 0/300000, 3", "what A can follow"),
        (Target::Immediate, latest, Some("D"), "D on 1 until 0/500000, 2", "asked for by id"),
        (Target::Lsn(Lsn(7 * MIB)), latest, None, "B on 1 until 0/300000, 3", "E ends behind it"),
        (Target::Lsn(Lsn(8 * MIB)), latest, None, "E on 1 until 0/300000, 3", "E ends before it"),
        (Target::Xid(745), latest, None, "E on 1 until 0/300000, 3", "newest, with a note"),
    ] {
        let choice = plan(target.clone(), on, id).unwrap_or_else(|e| panic!("{reason}: {e}"));
        let found = format!("{} on {}", choice.backup.id, choice.path);
        assert_eq!(found, expected, "{target}: {reason}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let (latest, number) = (TargetTimeline::Latest, |id| TargetTimeline::Number(timeline(id)));
    for (target, on, id, reason) in [
        (time("00:30"), latest, None, "lies before the earliest possible target"),
        (time("03:30"), latest, Some("C"), "lies before the end of this backup"),
        (time("13:00"), latest, None, "lies in the future"),
        (Target::Lsn(Lsn(0x28)), latest, None, "lies before the earliest possible target"),
        (Target::Latest, number(4), None, "00000004.history is not in the repository"),
        (Target::Latest, number(3), Some("C"), "no backup lies on the way to timeline 3"),
        (Target::Latest, latest, Some("Z"), "backup Z is not in the repository"),
    ] {
        let error = plan(target, on, id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.hint_text().is_some(), "{error}");
    }
    let earliest = plan(time("00:30"), latest, None).unwrap_err();
    assert!(earliest.one_line().contains("--target-time '2026-11-21T01:00:00Z'"), "{earliest:?}");
}

#[test]
fn notes_say_what_is_not_followed_and_where_a_search_begins() {
    let notes = plan(Target::Name("before".into()), TargetTimeline::Latest, None).unwrap().notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("from 2026-11-21T07:00:00Z on"), "{notes:?}");
    assert!(notes[1].contains("on timeline 1 or 2 after the fork"), "{notes:?}");
    assert!(plan(Target::Latest, TargetTimeline::Current, None).unwrap().notes.is_empty());
}

#[test]
fn exclusive_goes_with_a_point_only() {
    let tree = tree(&[]);
    let wanted =
        |target| Wanted { target, exclusive: true, timeline: TargetTimeline::Latest, backup: None };
    let backups = [backup("A", 1, 1, "01:00")];
    let error = choose(&backups, &tree, &wanted(Target::Latest), at("12:00")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(choose(&backups, &tree, &wanted(Target::Lsn(Lsn(9 * MIB))), at("12:00")).is_ok());
}

#[test]
fn a_backup_on_a_timeline_without_history_is_refused_not_misread() {
    let wanted = Wanted {
        target: Target::Latest,
        exclusive: false,
        timeline: TargetTimeline::Latest,
        backup: None,
    };
    let error =
        choose(&[backup("A", 5, 1, "01:00")], &tree(&[]), &wanted, at("12:00")).unwrap_err();
    assert!(error.one_line().contains("walden push pg_wal/00000005.history"), "{error:?}");
}

/// Segments of 1 MiB, each stored at its own number of minutes past ten.
fn archived(names: &[(u32, std::ops::RangeInclusive<u32>)]) -> ArchivedWal {
    let mut archived = ArchivedWal::new();
    for (on, segments) in names {
        for segment in segments.clone() {
            let name = SegmentName { timeline: timeline(*on), log: 0, segment };
            archived.insert(name, at(&format!("10:{segment:02}")));
        }
    }
    archived
}

fn wal(target: Target, names: &[(u32, std::ops::RangeInclusive<u32>)]) -> Result<WalRun> {
    let tree = tree(&[(2, "1 0/580000")]);
    let choice = Choice {
        backup: backup("A", 1, 2, "02:00"),
        path: tree.path(timeline(2)).unwrap(),
        notes: Vec::new(),
    };
    check_wal(&choice, &target, &archived(names))
}

#[test]
fn the_run_of_wal_crosses_a_fork_by_the_newer_timelines_copy() {
    // Timeline 1 went on to segment 9 after the fork: that WAL is not ours.
    let run = wal(Target::Latest, &[(1, 1..=9), (2, 5..=7)]).unwrap();
    assert_eq!(run.first.to_string(), "000000010000000000000002");
    assert_eq!(run.last.to_string(), "000000020000000000000007");
    assert_eq!((run.end, run.stored), (Lsn(8 * MIB), at("10:07")));

    // The new timeline has archived nothing yet: what the parent has of its last segment counts.
    let run = wal(Target::Latest, &[(1, 1..=9)]).unwrap();
    assert_eq!(run.last.to_string(), "000000010000000000000005");
}

#[test]
fn wal_that_is_not_there_refuses_the_targets_behind_it() {
    let whole: &[_] = &[(1, 2..=5), (2, 5..=7)];
    for target in [Target::Lsn(Lsn(8 * MIB - 1)), time("10:07"), Target::Immediate] {
        assert!(wal(target.clone(), whole).is_ok(), "{target}");
    }
    for target in [Target::Lsn(Lsn(8 * MIB)), time("10:08")] {
        let error = wal(target, whole).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("behind the last possible target"), "{error}");
    }
}

#[test]
fn a_gap_is_named_and_only_what_lies_behind_it_is_refused() {
    let gap: &[_] = &[(1, 2..=3), (2, 5..=7)];
    for target in [Target::Lsn(Lsn(4 * MIB - 1)), time("10:03"), Target::Xid(9), Target::Immediate]
    {
        let run = wal(target.clone(), gap).unwrap();
        assert_eq!(run.gap.unwrap().to_string(), "000000010000000000000004", "{target}");
    }
    for target in [Target::Lsn(Lsn(4 * MIB)), time("10:05"), Target::Latest] {
        let error = wal(target, gap).unwrap_err();
        assert!(error.to_string().contains("000000010000000000000004 is missing"), "{error}");
    }
    let error = wal(Target::Immediate, &[(1, 3..=5), (2, 5..=7)]).unwrap_err();
    assert!(error.to_string().contains("000000010000000000000002 is missing, and backup A needs"));
}

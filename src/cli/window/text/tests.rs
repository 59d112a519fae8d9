//! What people read, whole.

use crate::catalog::inventory::samples::{SIZE, at, inventory, name, plain, with_commits};
use crate::catalog::timeline_tree::samples::{timeline, tree};
use crate::catalog::window::windows;
use crate::catalog::{BackupSummary, Inventory, TimelineTree};
use crate::cli::window::text::of;
use crate::commands::window::{Report, State, Unarchived};
use crate::postgres::{Lsn, MajorVersion};

fn backup(timeline_id: u32, number: u64) -> BackupSummary {
    let start = number * u64::from(SIZE);
    BackupSummary {
        id: format!("20261121T10{number:02}00Z-7F3A"),
        timeline: timeline(timeline_id),
        start_lsn: Lsn(start + 0x28),
        end_lsn: Lsn(start + 0x100),
        began: at(&format!("10:{number:02}:30.5")),
        ended: at(&format!("10:{number:02}:30.5")),
        wal_segment_size: SIZE,
        major: MajorVersion(17),
        parent: None,
        stored: 3000,
    }
}

fn told(
    backups: &[BackupSummary],
    tree: &TimelineTree,
    inventory: &Inventory,
    unarchived: Option<Unarchived>,
) -> String {
    let timelines = windows(backups, tree, inventory);
    let mut report = Report::new(&timelines, SIZE, unarchived, Vec::new());
    report.cluster = "main".to_owned();
    report.repository = "file:///mnt/backup/main/7710620488620347611".to_owned();
    report.backups = backups.len();
    of(&report, at("12:00:00"))
}

#[test]
fn one_timeline_with_a_gap() {
    let mut segments: Vec<_> =
        (3..9).map(|n| (name(1, n), with_commits(n, &[&format!("10:{n:02}:59.123")]))).collect();
    segments.remove(2);
    segments.push((name(1, 9), plain("20:00:00")));
    let text = told(&[backup(1, 3), backup(1, 7)], &tree(&[]), &inventory(segments), None);
    let expected = "\
main, in file:///mnt/backup/main/7710620488620347611

timeline 1
  earliest    2026-11-21T10:07:30.500000Z  0/7000100     end of backup 20261121T100700Z-7F3A
  latest      2026-11-21T10:08:59.123000Z  0/8000100     commit of transaction 800
              at least: later WAL has no digest; its commits may be as late as \
2026-11-21T20:00:00Z
  WAL         000000010000000000000006 to 000000010000000000000009, ends at 0/A000000; \
4 segments, 3.9 KiB stored
  also        2026-11-21T10:03:30.500000Z to 2026-11-21T10:04:59.123000Z, from backup \
20261121T100300Z-7F3A
  gap         1 segment missing (16.0 MiB): from 000000010000000000000005 on; last commit before \
it 2026-11-21T10:04:59.123000Z, first after it 2026-11-21T10:06:59.123000Z
";
    assert_eq!(text, expected);
}

#[test]
fn forks_are_a_tree_and_a_gap_is_told_once() {
    let fork = |number: u64| format!("{}", Lsn(number * u64::from(SIZE) + 0x50));
    let tree = tree(&[
        (2, &format!("1 {}", fork(6))),
        (3, &format!("1 {}\n2 {}", fork(6), fork(8))),
        (4, &format!("1 {}", fork(5))),
    ]);
    let mut segments: Vec<_> =
        [3, 5, 6].map(|n| (name(1, n), with_commits(n, &["11:00:00"]))).into();
    segments.extend((6..9).map(|n| (name(2, n), with_commits(n, &["12:00:00"]))));
    segments.push((name(3, 8), with_commits(8, &["13:00:00"])));
    let text = told(&[backup(1, 5)], &tree, &inventory(segments), None);
    let tree: Vec<&str> = text.lines().skip(2).take(4).collect();
    let expected = [
        "timeline 1                                    until 2026-11-21T11:00:00.000000Z",
        "├─ timeline 2, from 1 at 0/6000050            until 2026-11-21T12:00:00.000000Z",
        "│  └─ timeline 3, from 2 at 0/8000050         until 2026-11-21T13:00:00.000000Z",
        "└─ timeline 4, from 1 at 0/5000050            cannot be recovered",
    ];
    assert_eq!(tree, expected, "{text}");
    assert_eq!(text.matches("  gap ").count(), 1, "{text}");
    assert!(text.contains("earliest    none: none of its WAL is archived yet\n"), "{text}");
}

#[test]
fn without_a_backup_it_says_so_at_once() {
    let wal = inventory([(name(1, 3), with_commits(3, &["10:00:00"]))]);
    let text = told(&[], &tree(&[]), &wal, None);
    assert!(text.contains("\nnothing can be recovered: there is no backup (take one"), "{text}");
    let text = told(&[backup(1, 9)], &tree(&[]), &wal, None);
    assert!(text.contains("\nnothing can be recovered: no backup can be used\n"), "{text}");
    assert!(
        text.contains("unusable    backup 20261121T100900Z-7F3A lacks 0000000100000"),
        "{text}"
    );
}

#[test]
fn the_host_is_caught_up_or_writing_or_behind() {
    let wal = inventory([(name(1, 3), with_commits(3, &["10:00:00"]))]);
    let server = |state, segments, commits, current_lsn| {
        let unarchived = Unarchived {
            state,
            files: segments,
            segments,
            bytes: segments * u64::from(SIZE),
            oldest: Some(at("11:57:00")),
            commits,
            last_commit: Some(at("10:02:11")),
            current_lsn,
        };
        let text = told(&[backup(1, 3)], &tree(&[]), &wal, Some(unarchived));
        text.lines().last().unwrap().to_owned()
    };
    let time = "2026-11-21T10:02:11.000000Z";
    assert_eq!(
        server(State::CaughtUp, 0, Some(0), None),
        format!("server        caught up, no commits since {time}")
    );
    assert_eq!(
        server(State::Behind, 14, None, Some(Lsn(0x300_0028))),
        format!(
            "server        behind: 14 segments, 224.0 MiB, oldest 3 min; last commit {time} \
             (it writes at 0/3000028)"
        )
    );
    assert_eq!(
        server(State::Writing, 0, Some(1), None),
        format!(
            "server        1 commit is in the segment that is being written, the last of {time}"
        )
    );
}

//! The choices a restore makes, as tables: what is there, what is asked, what comes of it.

use super::samples::{What, World, at, lsn, time, wanted};
use super::{GivenUp, Wanted};
use crate::catalog::{Target, TargetTimeline};
use crate::error::ErrorKind;

fn exclusive(target: Target) -> Wanted {
    Wanted { exclusive: true, ..wanted(target) }
}

fn on(target: Target, timeline: TargetTimeline) -> Wanted {
    Wanted { timeline, ..wanted(target) }
}

fn number(timeline: u32) -> TargetTimeline {
    TargetTimeline::Number(crate::catalog::timeline_tree::samples::timeline(timeline))
}

fn from(id: &str, target: Target) -> Wanted {
    Wanted { backup: Some(id.to_owned()), ..wanted(target) }
}

fn expect(world: &World, cases: &[(Wanted, &str)]) {
    for (asked, expected) in cases {
        let outcome = world.outcome(asked);
        // On one line the last full stop of a hint is left away.
        let expected = expected.trim_end_matches('.');
        assert!(outcome.contains(expected), "{asked:?}\nexpected {expected}\nfound    {outcome}");
    }
}

/// One timeline, segments 1 to 6, two backups, a commit every now and then, the last at 06:30.
fn plain() -> World {
    World::default()
        .commit(1, 9, 700, "00:30")
        .backup("A", 1, (11, 12), "01:00")
        .commit(1, 15, 701, "01:30")
        .commit(1, 25, 702, "02:30")
        .point(1, 27, "before release", "02:45")
        .abort(1, 28, 703, "02:50")
        .backup("B", 1, (31, 33), "03:00")
        .record(1, 35, What::Commit(705, at("03:30"), vec![706, 707]))
        .commit(1, 45, 704, "04:30")
        .record(1, 55, What::Other)
        .commit(1, 65, 708, "06:30")
        .record(1, 68, What::Other)
        .archived(1, 0..=6)
}

#[test]
fn a_time_ends_before_the_first_later_commit_or_abort() {
    let before = |target| World::outcome(&plain(), &wanted(target));
    for (target, expected) in [
        (time("01:10"), "A on 1: before commit 0/180000"),
        (time("01:30"), "A on 1: before commit 0/280000"),
        // An abort counts as well as a commit, and more than the time of the backup's end.
        (time("02:35"), "A on 1: before abort 0/2CCCC8"),
        (time("02:50"), "B on 1: before commit 0/380000"),
        (time("03:00"), "B on 1: before commit 0/380000"),
        (time("06:29"), "B on 1: before commit 0/680000"),
    ] {
        assert_eq!(before(target.clone()), expected, "{target}");
    }
    let sharp = |target| World::outcome(&plain(), &exclusive(target));
    assert_eq!(sharp(time("01:30")), "A on 1: before commit 0/180000");
    assert_eq!(sharp(time("06:30")), "B on 1: before commit 0/680000");
    assert_eq!(sharp(time("02:50")), "A on 1: before abort 0/2CCCC8");
}

#[test]
fn the_last_commit_itself_is_a_target_and_becomes_an_lsn() {
    let decision = plain().decide(&wanted(time("06:30"))).unwrap();
    assert_eq!((decision.stop.target, decision.stop.exclusive), (Target::Lsn(lsn(65)), false));
    assert_eq!(decision.last_commit.unwrap().xid, 708);
    assert_eq!(decision.given_up.unwrap().commits, 0);
    assert!(decision.notes[0].contains("told the LSN"), "{:?}", decision.notes);

    // Where an abort follows, PostgreSQL stops there by itself.
    let aborted = plain().abort(1, 67, 709, "06:40");
    let decision = aborted.decide(&wanted(time("06:30"))).unwrap();
    assert_eq!(decision.stop.target, time("06:30"));
    assert_eq!(aborted.outcome(&wanted(time("06:35"))), "B on 1: before abort 0/6B3330");
    assert_eq!(aborted.outcome(&wanted(time("06:40"))), "B on 1: after abort 0/6B3330");
}

#[test]
fn a_time_after_the_last_commit_is_refused_with_the_line_to_use() {
    expect(
        &plain(),
        &[
            (
                wanted(time("06:31")),
                "time 2026-11-21T06:31:00Z lies after the last commit that is archived, \
                 2026-11-21T06:30:00Z (LSN 0/680000, transaction 708) (hint: Use --target-time \
                 '2026-11-21T06:30:00Z' or --target-latest.",
            ),
            (exclusive(time("06:31")), "lies after the last commit"),
            (wanted(time("23:01")), "lies in the future: it is 2026-11-21T23:00:00Z"),
        ],
    );
    let error = plain().decide(&wanted(time("06:31"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn a_time_before_every_backup_is_refused_with_the_earliest() {
    expect(
        &plain(),
        &[
            (
                wanted(time("00:29")),
                "time 2026-11-21T00:29:00Z lies before the earliest possible target, the end of \
                 the oldest backup (hint: Backup A ended at 2026-11-21T01:00:00Z",
            ),
            // The backup holds no later commit, whatever its clock said at its end.
            (wanted(time("00:30")), "A on 1: before commit 0/180000"),
            (from("B", time("02:40")), "lies before the end of this backup"),
            (wanted(Target::Lsn(lsn(11))), "LSN 0/119998 lies before the earliest"),
        ],
    );
}

#[test]
fn nothing_after_a_backup_is_the_backup_itself() {
    let idle = World::default()
        .commit(1, 9, 700, "00:30")
        .backup("A", 1, (11, 12), "01:00")
        .archived(1, 0..=1);
    for target in ["00:30", "00:45", "01:00"] {
        let decision = idle.decide(&wanted(time(target))).unwrap();
        assert_eq!(decision.stop.target, Target::Immediate, "{target}");
        assert_eq!(decision.last_commit.unwrap().xid, 700, "{target}");
    }
    expect(&idle, &[(wanted(time("01:01")), "lies after the last commit that is archived")]);
    let empty = World::default().backup("A", 1, (11, 12), "01:00").archived(1, 1..=1);
    expect(
        &empty,
        &[
            (wanted(time("01:00")), "A on 1: before backupend"),
            (wanted(time("00:59")), "lies before the earliest possible target"),
            (wanted(time("01:01")), "lies after all archived WAL, which has no commit"),
        ],
    );
}

#[test]
fn clocks_that_were_put_back_do_not_move_the_stop() {
    // 05:00 comes before 04:00 in the WAL: PostgreSQL stops at the first that is later.
    let world = World::default()
        .commit(1, 9, 700, "00:30")
        .backup("A", 1, (11, 12), "01:00")
        .commit(1, 21, 701, "05:00")
        .commit(1, 25, 702, "04:00")
        .backup("B", 1, (31, 32), "04:10")
        .commit(1, 35, 703, "05:30")
        .archived(1, 0..=4);
    expect(
        &world,
        &[
            (wanted(time("04:30")), "A on 1: before commit 0/219998"),
            (wanted(time("05:10")), "B on 1: before commit 0/380000"),
        ],
    );
}

#[test]
fn an_lsn_is_a_record_and_lies_before_the_end() {
    expect(
        &plain(),
        &[
            (wanted(Target::Lsn(lsn(45))), "B on 1: after commit 0/480000"),
            (exclusive(Target::Lsn(lsn(45))), "B on 1: before commit 0/480000"),
            (wanted(Target::Lsn(lsn(46))), "B on 1: after other 0/580000"),
            (wanted(Target::Lsn(lsn(68))), "B on 1: after other 0/6CCCC8"),
            (
                wanted(Target::Lsn(lsn(69))),
                "LSN 0/6E6660 lies behind the last possible target: the archived WAL ends at \
                 0/700000, its last record begins at 0/6CCCC8 (hint: Use --target-lsn 0/6CCCC8 or",
            ),
            (wanted(Target::Lsn(lsn(71))), "lies behind the last possible target"),
            (wanted(Target::Lsn(lsn(32))), "A on 1: after commit 0/380000"),
        ],
    );
    let notes = plain().decide(&wanted(Target::Lsn(lsn(46)))).unwrap().notes;
    assert!(notes[0].contains("no record begins at 0/499998"), "{notes:?}");
}

#[test]
fn a_transaction_is_looked_up() {
    expect(
        &plain(),
        &[
            (wanted(Target::Xid(702)), "A on 1: after commit 0/280000"),
            (exclusive(Target::Xid(702)), "A on 1: before commit 0/280000"),
            (wanted(Target::Xid(704)), "B on 1: after commit 0/480000"),
            (wanted(Target::Xid((1 << 32) + 704)), "B on 1: after commit 0/480000"),
            (
                wanted(Target::Xid(703)),
                "transaction 703 was rolled back, at 2026-11-21T02:50:00Z, LSN 0/2CCCC8 (hint: \
                 There is nothing of it to recover to. PostgreSQL would stop there all the same: \
                 --target-lsn 0/2CCCC8.",
            ),
            (
                wanted(Target::Xid(707)),
                "transaction 707 is a subtransaction of 705, which committed at \
                 2026-11-21T03:30:00Z, LSN 0/380000 (000000010000000000000003) (hint: It has no \
                 end of its own to stop at: use --target-xid 705.",
            ),
            (
                wanted(Target::Xid(710)),
                "transaction 710 did not end in the archived WAL from 000000010000000000000001 to \
                 000000010000000000000006",
            ),
            (wanted(Target::Xid(700)), "did not end in the archived WAL"),
            (from("B", Target::Xid(702)), "did not end in the archived WAL"),
        ],
    );
}

#[test]
fn a_restore_point_is_looked_up_and_several_of_one_name_are_listed() {
    let world = plain().point(1, 47, "nightly", "04:45").point(1, 57, "nightly", "05:45");
    expect(
        &world,
        &[
            (wanted(Target::Name("before release".into())), "A on 1: after restorepoint 0/2B3330"),
            (
                wanted(Target::Name("Before_releases".into())),
                "restore point \"Before_releases\" is not in the archived WAL (hint: The nearest \
                 names on this branch: \"before release\" (2026-11-21T02:45:00Z, LSN 0/2B3330)",
            ),
            (
                wanted(Target::Name("nightly".into())),
                "2 restore points have the name \"nightly\" (hint: Say which is meant. \
                 2026-11-21T04:45:00Z: --target-lsn 0/4B3330; 2026-11-21T05:45:00Z: --target-lsn \
                 0/5B3330.",
            ),
        ],
    );
    // A backup between the two, or in the middle of the first: the server meets one only.
    let world = world.backup("C", 1, (51, 52), "05:00");
    let nightly = || Target::Name("nightly".into());
    expect(
        &world,
        &[
            (wanted(nightly()), "2 restore points"),
            (from("C", nightly()), "C on 1: after restorepoint 0/5B3330"),
        ],
    );
    let none = World::default().backup("A", 1, (11, 12), "01:00").archived(1, 1..=1);
    expect(&none, &[(wanted(nightly()), "No restore point is in the archived WAL")]);
}

#[test]
fn a_gap_is_named_and_only_what_lies_behind_it_is_refused() {
    let gap = plain().without(1, 5);
    expect(
        &gap,
        &[
            (wanted(time("04:00")), "B on 1: before commit 0/480000"),
            // The last commit before the gap, and nothing behind it.
            (wanted(time("04:30")), "B on 1: after commit 0/480000"),
            (
                wanted(time("04:31")),
                "the target cannot be reached: 000000010000000000000005 is missing; the last \
                 commit before it is 2026-11-21T04:30:00Z (LSN 0/480000, transaction 704) (hint: \
                 Archive 000000010000000000000005 if a server still has it in pg_wal, or recover \
                 to before the gap: --target-time '2026-11-21T04:30:00Z'.",
            ),
            (wanted(Target::Lsn(lsn(65))), "000000010000000000000005 is missing"),
            (wanted(Target::Latest), "000000010000000000000005 is missing"),
            (wanted(Target::Xid(708)), "000000010000000000000005 is missing"),
            (wanted(Target::Immediate), "B on 1: before backupend"),
        ],
    );
    let lost = plain().without(1, 3);
    expect(
        &lost,
        &[
            (wanted(Target::Immediate), "000000010000000000000003 is missing, and backup B needs"),
            (wanted(Target::Latest), "000000010000000000000003 is missing, and backup B needs"),
            (wanted(time("02:30")), "A on 1: before abort"),
        ],
    );
    let damaged = plain().invalid(1, 54);
    expect(
        &damaged,
        &[
            (
                wanted(time("06:00")),
                "the target cannot be reached: the record at 0/566660 in \
                 000000010000000000000005 is not valid; the last commit before it is",
            ),
            (wanted(time("04:30")), "B on 1: after commit 0/480000"),
        ],
    );
}

/// Timeline 1 forked twice: 2 at 5.0 (given up), 3 at 3.5, where life goes on.
fn forked() -> World {
    plain()
        .fork(2, "1 50")
        .fork(3, "1 36")
        .commit(2, 53, 720, "08:00")
        .commit(2, 63, 721, "08:30")
        .commit(3, 39, 730, "09:00")
        .backup("E", 3, (41, 42), "09:10")
        .commit(3, 49, 731, "09:30")
        .archived(2, 5..=6)
        .archived(3, 3..=4)
}

#[test]
fn a_target_on_one_branch_only_or_before_every_fork_is_not_ambiguous() {
    expect(
        &forked(),
        &[
            (wanted(time("02:40")), "A on 1 until 0/399998, 3: before abort 0/2CCCC8"),
            (wanted(Target::Lsn(lsn(35))), "B on 1 until 0/399998, 3: after commit 0/380000"),
            (wanted(time("03:00")), "B on 1 until 0/399998, 3: before commit 0/380000"),
            // After the last commits of the other branches; E holds nothing later.
            (wanted(time("09:05")), "E on 1 until 0/399998, 3: before commit 0/4E6660"),
            (wanted(time("09:30")), "E on 1 until 0/399998, 3: after commit 0/4E6660"),
            (wanted(Target::Latest), "E on 1 until 0/399998, 3: end"),
            (wanted(Target::Xid(731)), "E on 1 until 0/399998, 3: after commit"),
            (on(time("08:10"), number(2)), "B on 1 until 0/500000, 2: before commit 0/64CCC8"),
            (on(time("06:00"), number(1)), "B on 1: before commit 0/680000"),
            (on(time("04:45"), TargetTimeline::Current), "B on 1: before commit 0/680000"),
            (on(time("09:20"), TargetTimeline::Current), "E on 1 until 0/399998, 3: before"),
        ],
    );
    let notes = forked().decide(&wanted(Target::Latest)).unwrap().notes;
    assert!(notes[0].contains("on timeline 1 or 2 after the fork"), "{notes:?}");
}

#[test]
fn a_target_on_several_branches_is_refused_with_them() {
    expect(
        &forked(),
        &[
            (
                // On 3 nothing was committed then; on 1 and 2 there are 704 and more.
                wanted(time("05:00")),
                "time 2026-11-21T05:00:00Z lies on 2 branches of this cluster's history, with \
                 different content (hint: Say which is meant. --target-timeline 1: its last \
                 commit is then 2026-11-21T04:30:00Z (LSN 0/480000, transaction 704); \
                 --target-timeline 3: its last commit is then 2026-11-21T03:30:00Z",
            ),
            (
                wanted(time("08:10")),
                "--target-timeline 2: its last commit is then 2026-11-21T08:00",
            ),
            (wanted(Target::Lsn(lsn(39))), "LSN 0/3E6660 lies on 2 branches"),
            (
                wanted(Target::Lsn(lsn(53))),
                "(hint: If another branch is \
                 meant, say so. --target-timeline 1: its last commit is then \
                 2026-11-21T04:30:00Z (LSN 0/480000, transaction 704); --target-timeline 2",
            ),
            (
                wanted(Target::Xid(721)),
                "721 cannot be reached on timeline 3, the newest: transaction 721 did not",
            ),
        ],
    );
    let error = forked().decide(&wanted(time("05:00"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn a_branch_that_archived_nothing_yet_ends_where_it_begins() {
    // PostgreSQL would go on with what timeline 1 wrote after the fork.
    let young = plain().fork(2, "1 46");
    let decision = young.decide(&wanted(Target::Latest)).unwrap();
    assert_eq!((decision.stop.target, decision.stop.exclusive), (Target::Lsn(lsn(46)), true));
    assert_eq!(decision.last_commit.unwrap().xid, 704);
    assert_eq!(decision.given_up.unwrap().commits, 0);
    assert!(decision.notes[0].contains("timeline 2 has archived no WAL yet"));

    let older = young.archived(2, 5..=6).commit(2, 55, 800, "08:00");
    expect(&older, &[(wanted(Target::Latest), "000000020000000000000004 is missing")]);
}

#[test]
fn commits_after_the_target_are_counted() {
    let given_up = |asked| plain().decide(&asked).unwrap().given_up.unwrap();
    let GivenUp { commits, at_least, last } = given_up(wanted(time("02:35")));
    assert_eq!((commits, at_least, last.unwrap().time), (3, false, at("06:30")));
    assert_eq!(given_up(wanted(Target::Lsn(lsn(45)))).commits, 1);
    assert_eq!(given_up(exclusive(Target::Lsn(lsn(45)))).commits, 2);
    assert_eq!(given_up(wanted(Target::Immediate)).commits, 3);
    assert_eq!(given_up(wanted(Target::Latest)).commits, 0);
    let segments = |asked| plain().decide(&asked).unwrap().segments.len();
    assert_eq!(segments(wanted(time("02:35"))), 2, "segments 1 and 2 from backup A on");
    assert_eq!(segments(wanted(Target::Latest)), 4, "3 to 6 from backup B on");
}

#[test]
fn a_record_across_two_segments_counts_where_it_begins() {
    // Its last byte lies in segment 2.
    let mut world = World::default()
        .backup("A", 1, (11, 12), "01:00")
        .commit(1, 15, 700, "01:30")
        .commit(1, 25, 702, "03:00")
        .archived(1, 1..=2);
    world = world.record_at(1, 2 * super::samples::MIB - 8, What::Commit(701, at("02:00"), vec![]));
    expect(
        &world,
        &[
            (wanted(time("01:40")), "A on 1: before commit 0/1FFFF8"),
            (wanted(Target::Xid(701)), "A on 1: after commit 0/1FFFF8"),
        ],
    );
}

#[test]
fn wal_without_digests_is_judged_by_names_and_stored_times_and_says_so() {
    let old = plain().without_digests(1, 0..=6);
    let note = |asked| old.decide(&asked).unwrap().notes.join(" ");
    for asked in [time("01:00"), time("06:59"), Target::Lsn(lsn(69))] {
        assert!(note(wanted(asked.clone())).contains("cannot be told to the commit"), "{asked}");
    }
    assert!(note(wanted(Target::Xid(9))).contains("is looked for from 2026-11-21T03:00:00Z on"));
    expect(
        &old,
        &[
            (wanted(time("02:59")), "A on 1: end"),
            (wanted(time("00:59")), "lies before the earliest possible target"),
            (wanted(time("22:08")), "lies behind the last possible target"),
            (wanted(Target::Lsn(lsn(70))), "lies behind the last possible target"),
        ],
    );
    let decision = old.decide(&wanted(time("06:00"))).unwrap();
    assert_eq!((decision.given_up, decision.last_commit), (None, None));

    // What was stored before the target cannot hold it: digests from then on are enough.
    let upgraded = plain().without_digests(1, 0..=2).stored_at(1, 0..=2, "02:55");
    expect(&upgraded, &[(wanted(time("03:40")), "B on 1: before commit 0/480000")]);
}

#[test]
fn what_does_not_exist_is_refused_with_what_does() {
    expect(
        &forked(),
        &[
            (on(Target::Latest, number(4)), "00000004.history is not in the repository"),
            (
                Wanted { backup: Some("E".into()), ..on(Target::Latest, number(1)) },
                "no backup lies on the way to timeline 1",
            ),
            (from("Z", Target::Latest), "backup Z is not in the repository"),
        ],
    );
    expect(&World::default(), &[(wanted(Target::Latest), "there is no backup")]);
    let orphan = World::default().backup("A", 5, (11, 12), "01:00");
    expect(&orphan, &[(wanted(Target::Latest), "walden push pg_wal/00000005.history")]);
    let error = plain().decide(&exclusive(Target::Latest)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn an_incremental_backup_is_used_with_its_chain_and_passed_over_without_it() {
    let with = |parent: &str| plain().backup("C", 1, (51, 53), "05:00").incremental_to(parent);
    let decided = with("B").decide(&wanted(time("05:30"))).unwrap();
    let chain: Vec<&str> = decided.chain.iter().map(|link| link.id.as_str()).collect();
    assert_eq!(chain, ["B", "C"]);
    let decided = with("gone").decide(&wanted(time("05:30"))).unwrap();
    assert_eq!(decided.backup.id, "B");
    assert_eq!(
        decided.notes,
        ["backup C, which is newer, is passed over: backup gone, the parent of C, is missing or \
          cannot be read."]
    );
    // Of a target that the newer one could not reach anyway nothing is said.
    assert!(with("gone").decide(&wanted(time("03:30"))).unwrap().notes.is_empty());
    expect(
        &with("gone"),
        &[
            (wanted(Target::Latest), "backup C cannot be used: backup gone, the parent of C"),
            (from("C", time("05:30")), "backup C cannot be used: backup gone, the parent of C"),
        ],
    );
}

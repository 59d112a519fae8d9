//! The window as people read it: the timelines as a tree, then each of them, then the host.

use bytesize::ByteSize;
use jiff::Timestamp;

use crate::catalog::wal_run::Cause;
use crate::commands::window::{GapReport, Report, State, TimelineReport, Unarchived, WindowReport};
use crate::postgres::TimelineId;

pub fn of(report: &Report, now: Timestamp) -> String {
    let mut text = format!("{}, in {}\n", report.cluster, report.repository);
    if report.backups == 0 {
        text += "nothing can be recovered: there is no backup (take one with walden backup)\n";
    } else if !report.is_recoverable() {
        text += "nothing can be recovered: no backup can be used\n";
    }
    if report.timelines.len() > 1 {
        text += "\n";
        tree(report, None, "", &mut text);
    }
    for timeline in &report.timelines {
        text += "\n";
        one(timeline, report, &mut text);
    }
    if let Some(unarchived) = &report.unarchived {
        text += &format!("\nserver        {}\n", state(unarchived, now));
    }
    for note in &report.notes {
        text += &format!("note          {note}\n");
    }
    text
}

/// A branch whose parent has nothing here stands at the root.
fn tree(report: &Report, parent: Option<TimelineId>, indent: &str, text: &mut String) {
    let is_here = |timeline| report.timelines.iter().any(|it| it.timeline == timeline);
    let shown_parent = |it: &TimelineReport| it.parent.filter(|parent| is_here(*parent));
    let children: Vec<_> =
        report.timelines.iter().filter(|it| shown_parent(it) == parent).collect();
    for (place, child) in children.iter().enumerate() {
        let is_last = place + 1 == children.len();
        let (branch, below) = match (parent, is_last) {
            (None, _) => ("", ""),
            (_, true) => ("└─ ", "   "),
            (_, false) => ("├─ ", "│  "),
        };
        let fork = child.parent.zip(child.switch_lsn);
        let fork = fork.map(|(parent, lsn)| format!(", from {parent} at {lsn}"));
        let until = child.latest.map_or("cannot be recovered".to_owned(), |latest| {
            format!("until {}{}", at_least(child.latest_is_exact), moment(latest))
        });
        let name =
            format!("{indent}{branch}timeline {}{}", child.timeline, fork.unwrap_or_default());
        *text += &format!("{name:<44}  {until}\n");
        tree(report, Some(child.timeline), &format!("{indent}{below}"), text);
    }
}

fn one(timeline: &TimelineReport, report: &Report, text: &mut String) {
    *text += &format!("timeline {}\n", timeline.timeline);
    let mut line = |name: &str, value: String| *text += &format!("  {name:<12}{value}\n");
    match timeline.windows.split_last() {
        Some((newest, older)) => {
            window(newest, &mut line);
            for older in older.iter().rev() {
                line("also", span(older));
            }
        }
        None => {
            let why = timeline.obstacle.as_deref().unwrap_or_default();
            line("earliest", format!("none: {}", why.trim_end_matches('.')));
        }
    }
    // What a branch inherits is told where it is missing, if that is shown.
    let is_told = |gap: &&GapReport| {
        gap.timeline == timeline.timeline
            || !report.timelines.iter().any(|it| it.timeline == gap.timeline)
    };
    for gap in timeline.gaps.iter().filter(is_told) {
        line("gap", gap_text(gap));
    }
    for backup in &timeline.unusable_backups {
        let id = &backup.id;
        line(
            "unusable",
            match &backup.first_missing {
                Some(first) => format!("backup {id} lacks {first}"),
                None => format!("backup {id}: {}", backup.reason),
            },
        );
    }
}

fn window(window: &WindowReport, line: &mut impl FnMut(&str, String)) {
    let of_backup = format!("end of backup {}", window.earliest_backup);
    if let (Some(earliest), Some(latest)) = (window.earliest, window.latest) {
        let (earliest_lsn, latest_lsn) =
            (window.earliest_lsn.to_string(), window.latest_lsn.to_string());
        line("earliest", format!("{}  {earliest_lsn:<12}  {of_backup}", moment(earliest)));
        let what = match window.latest_xid {
            Some(xid) => format!("commit of transaction {xid}"),
            None => format!("{of_backup}: no commit came after it"),
        };
        line("latest", format!("{}  {latest_lsn:<12}  {what}", moment(latest)));
    }
    if !window.latest_is_exact {
        line(
            "",
            format!(
                "at least: later WAL has no digest; its commits may be as late as {}",
                window.stored
            ),
        );
    }
    line(
        "WAL",
        format!(
            "{} to {}, ends at {}; {}, {} stored",
            window.first_segment,
            window.last_segment,
            window.end_lsn,
            segments(window.segments),
            mebibytes(window.stored_bytes)
        ),
    );
}

fn span(window: &WindowReport) -> String {
    let time = |time: Option<Timestamp>| time.map(moment).unwrap_or_default();
    let at_least = at_least(Some(window.latest_is_exact));
    format!(
        "{} to {at_least}{}, from backup {}",
        time(window.earliest),
        time(window.latest),
        window.earliest_backup
    )
}

fn gap_text(gap: &GapReport) -> String {
    let (first, number) = (&gap.first_missing, segments(gap.segments));
    let what = match gap.cause {
        Cause::Missing => format!("{number} missing ({}): from {first} on", mebibytes(gap.bytes)),
        Cause::NeededByBackup => {
            format!(
                "{number} missing that a backup needs ({}): from {first} on",
                mebibytes(gap.bytes)
            )
        }
        Cause::Invalid => format!("{first} is not valid from {} on", gap.from_lsn),
        Cause::Damaged => format!("{first} cannot be read"),
    };
    let around = match (gap.after, gap.before) {
        (Some(after), Some(before)) => {
            format!("; last commit before it {}, first after it {}", moment(after), moment(before))
        }
        (Some(after), None) => format!("; last commit before it {}", moment(after)),
        (None, Some(before)) => format!("; first commit after it {}", moment(before)),
        (None, None) => String::new(),
    };
    let harmless = if gap.is_harmful { "" } else { "; no backup needs it" };
    what + &around + harmless
}

fn state(unarchived: &Unarchived, now: Timestamp) -> String {
    let since = |time: Option<Timestamp>| time.map_or("unknown".to_owned(), moment);
    let lsn =
        unarchived.current_lsn.map(|lsn| format!(" (it writes at {lsn})")).unwrap_or_default();
    match unarchived.state {
        State::CaughtUp => {
            format!("caught up, no commits since {}{lsn}", since(unarchived.last_commit))
        }
        State::Writing => {
            let number = unarchived.commits.map(|commits| match commits {
                1 => "1 commit is".to_owned(),
                commits => format!("{commits} commits are"),
            });
            format!(
                "{} in the segment that is being written, the last of {}{lsn}",
                number.unwrap_or_else(|| "commits are".to_owned()),
                since(unarchived.last_commit)
            )
        }
        State::Behind => {
            let age = unarchived.oldest.map(|oldest| format!(", oldest {}", age(oldest, now)));
            format!(
                "behind: {}, {}{}; last commit {}{lsn}",
                segments(unarchived.segments),
                mebibytes(unarchived.bytes),
                age.unwrap_or_default(),
                since(unarchived.last_commit)
            )
        }
        State::Unknown => {
            format!("nothing waits; whether every commit is archived is unknown{lsn}")
        }
    }
}

fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// As RFC 3339 in UTC, which `--target-time` takes as it stands.
fn moment(time: Timestamp) -> String {
    format!("{time:.6}")
}

fn at_least(is_exact: Option<bool>) -> &'static str {
    if is_exact == Some(false) { "at least " } else { "" }
}

fn segments(number: u64) -> String {
    match number {
        1 => "1 segment".to_owned(),
        number => format!("{number} segments"),
    }
}

fn mebibytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests;

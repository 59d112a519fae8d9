//! What was found, for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::catalog::moment::reading;
use crate::commands::find::{Action, Event, Report, Request};

pub fn report(report: &Report, request: &Request, local: &TimeZone) -> String {
    let mut text = String::new();
    for event in &report.events {
        text += &told(event, local);
        text.push('\n');
    }
    text += &summary(report, request);
    for note in &report.notes {
        text += &format!("note: {note}\n");
    }
    text
}

fn told(event: &Event, local: &TimeZone) -> String {
    let mut text = format!("{}  {}\n", in_utc(event.time), headline(event));
    let mut line = |name: &str, value: String| text += &format!("  {name:<9}{value}\n");
    if local.to_offset(event.time).seconds() != 0 {
        line("local", reading(event.time, local));
    }
    if let (Some(xid), Some(lsn)) = (event.xid, event.commit_lsn) {
        line("by", format!("transaction {xid}, ended at {lsn} on timeline {}", event.timeline));
    }
    line("restore", event.restore.clone());
    if let Some(commits) = event.restore_gives_up.filter(|commits| *commits > 0) {
        line("", format!("gives up {}", commits_of_others(commits)));
    }
    if let Some(inspect) = &event.inspect {
        line("look", inspect.clone());
        let what = "pauses before the table was locked, so that it can be read";
        line(
            "",
            match event.inspect_gives_up {
                Some(0) => format!("{what}; gives up nothing of others"),
                Some(commits) => format!("{what}; gives up {}", commits_of_others(commits)),
                None => format!("{what}; what it gives up of others was not counted"),
            },
        );
    }
    if let Some(extract) = &event.extract {
        line("extract", extract.clone());
    }
    if let Some(note) = &event.note {
        line("note", note.clone());
    }
    text
}

/// `dropped table shop.public.orders`
fn headline(event: &Event) -> String {
    let kind = event.kind.map_or(String::new(), |kind| format!("{kind} "));
    let relation = event.relation.clone().unwrap_or_else(|| nameless(event));
    match event.action {
        Action::Drop => format!("dropped {kind}{relation}"),
        Action::Truncate => format!("truncated {kind}{relation}"),
        Action::Delete => {
            format!("deleted {} rows of {kind}{relation}", event.rows.unwrap_or_default())
        }
        Action::DropDatabase => {
            let oid = event.oid.map_or(String::new(), |oid| format!("of oid {oid}"));
            format!("dropped database {}", event.database.clone().unwrap_or(oid))
        }
        Action::RestorePoint => {
            format!("restore point {:?}", event.name.clone().unwrap_or_default())
        }
        Action::Commit => "committed".to_owned(),
        Action::Abort => "rolled back".to_owned(),
    }
}

/// `oid 16390 in database shop, file 1663/16384/16390`
fn nameless(event: &Event) -> String {
    let mut parts = Vec::new();
    parts.extend(event.oid.map(|oid| format!("oid {oid}")));
    parts.extend(event.database.as_ref().map(|database| format!("database {database}")));
    parts.extend(event.file.as_ref().map(|file| format!("file {file}")));
    parts.join(", ")
}

fn commits_of_others(commits: u64) -> String {
    match commits {
        1 => "1 commit of another".to_owned(),
        _ => format!("{commits} commits of others"),
    }
}

fn summary(report: &Report, request: &Request) -> String {
    let found = match report.events.len() {
        0 => "nothing found".to_owned(),
        1 => "1 event".to_owned(),
        count => format!("{count} events"),
    };
    let searched = &report.searched;
    let from = request.since.or(searched.first_commit);
    let to = request.until.or(searched.last_commit);
    let between = match (from, to) {
        (Some(from), Some(to)) => format!(" between {} and {}", in_utc(from), in_utc(to)),
        _ => String::new(),
    };
    let read = match searched.segments_read {
        0 => String::new(),
        1 => ", one of which was read".to_owned(),
        count => format!(", read {count} times"),
    };
    let (segments, timeline) = (searched.segments, report.timeline);
    format!("{found}{between}, in {segments} segments of timeline {timeline}{read}\n")
}

fn in_utc(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S%.f+00").to_string()
}

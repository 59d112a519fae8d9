//! What a verification found, as text for people.

use std::fmt::Write as _;

use bytesize::ByteSize;
use jiff::Timestamp;

use crate::cli::table::{Align, table};
use crate::commands::verify::{Finding, Report, Severity};

/// The findings, then what was looked at; the last line sums up.
pub fn of(report: &Report, is_quiet: bool) -> String {
    let mut text = String::new();
    if !is_quiet {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "cluster {} in {}", report.cluster, report.repository);
        text += &tables(report);
    }
    if let Some(unarchived) = report.unarchived.as_ref().filter(|it| it.files > 0 && !is_quiet) {
        let (files, segments) = (unarchived.files, unarchived.segments);
        let _ = writeln!(
            text,
            "\n{files} WAL files wait to be archived on this host, {segments} of them segments"
        );
    }
    for finding in &report.findings {
        if finding.severity == Severity::Damage || !is_quiet {
            text += &block(finding);
        }
    }
    let damages = report.findings.iter().filter(|it| it.severity == Severity::Damage).count();
    if let Some(consequence) = report.consequence.as_ref().filter(|_| damages > 1) {
        let _ = writeln!(text, "\nALL TOGETHER {consequence}");
    }
    for it in &report.unchecked {
        let _ = write!(text, "\nNOT CHECKED  {}\n  why          {}\n", it.object, it.why);
    }
    if !is_quiet {
        let _ = writeln!(text, "\n{}", report.summary);
    }
    text
}

fn block(finding: &Finding) -> String {
    let word = match finding.severity {
        Severity::Damage => "DAMAGE",
        Severity::Note => "note",
    };
    let Finding { object, what, consequence, advice, .. } = finding;
    format!(
        "\n{word:<13}{object}\n  what         {what}\n  consequence  {consequence}\n  advice       \
         {advice}\n"
    )
}

const BACKUPS: [(&str, Align); 5] = [
    ("BACKUP", Align::Left),
    ("PACKS", Align::Right),
    ("READ", Align::Right),
    ("STORED", Align::Right),
    ("SOUND", Align::Left),
];

const TIMELINES: [(&str, Align); 6] = [
    ("TIMELINE", Align::Right),
    ("SEGMENTS", Align::Right),
    ("READ", Align::Right),
    ("FIRST", Align::Left),
    ("ARCHIVED UNTIL", Align::Left),
    ("LAST COMMIT", Align::Left),
];

fn tables(report: &Report) -> String {
    let mut text = String::new();
    if !report.backups.is_empty() {
        let rows = report.backups.iter().map(|backup| {
            vec![
                backup.id.to_string(),
                backup.packs.to_string(),
                backup.packs_read.to_string(),
                iec(backup.stored_bytes),
                if backup.sound { "yes" } else { "no" }.to_owned(),
            ]
        });
        let _ = write!(text, "\n{}", table(&BACKUPS, &rows.collect::<Vec<_>>()));
    }
    if !report.timelines.is_empty() {
        let rows = report.timelines.iter().map(|timeline| {
            vec![
                timeline.timeline.to_string(),
                timeline.segments.to_string(),
                timeline.segments_read.to_string(),
                timeline.first_segment.to_string(),
                timeline.last_segment.to_string(),
                timeline.last_commit.map_or_else(|| "?".to_owned(), time),
            ]
        });
        let _ = write!(text, "\n{}", table(&TIMELINES, &rows.collect::<Vec<_>>()));
    }
    text
}

fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S+00").to_string()
}

fn iec(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

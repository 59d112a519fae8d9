//! What is kept, by what it was made, and what could not be read.

use maud::{Markup, html};

use crate::cli::report::figures::{bytes, count, time, time_span, words};
use crate::cli::report::sections::table;
use crate::commands::report::Report;
use crate::commands::report::retention::Age;
use crate::commands::report::trail::Version;

pub fn retention(report: &Report) -> Markup {
    let retention = &report.retention;
    let row = |(n, age): (usize, &Age)| {
        let at = |key: &str| format!("/retention/ages/{n}/{key}");
        vec![
            html! { (within(age.days)) },
            count(&at("full"), age.full),
            count(&at("incremental"), age.incremental),
            bytes(&at("stored"), age.stored),
        ]
    };
    let rows = retention.ages.iter().enumerate().map(row).collect();
    html! {
        p.lead {
            "This walden removes nothing: what was stored stays until somebody, or a rule of the \
             store, removes it. "
            @if retention.oldest_restorable.is_some() {
                "The oldest moment that can be restored is "
                strong { (time("/retention/oldest_restorable", retention.oldest_restorable)) }
                ", " (time_span("/retention/reaches_back_ms", retention.reaches_back_ms)) " back"
                @if let Some(id) = &retention.oldest_backup {
                    ", by backup " code { (words("/retention/oldest_backup", id)) }
                }
                @if let Some(timeline) = retention.oldest_timeline { " on timeline " (timeline) }
                "."
            } @else { "Nothing can be restored." }
        }
        p {
            @match retention.held.len() {
                0 => "No backup is held.",
                _ => {
                    "Held, whatever becomes too old: "
                    @for (n, id) in retention.held.iter().enumerate() {
                        @if n > 0 { ", " }
                        code { (words(&format!("/retention/held/{n}"), id)) }
                    }
                    "."
                }
            }
            @if retention.unneeded_segments > 0 {
                " " (count("/retention/unneeded_segments", retention.unneeded_segments))
                " segments (" (bytes("/retention/unneeded_bytes", retention.unneeded_bytes))
                ") are from before the first backup: no recovery needs them."
            }
        }
        (table(&["Backups by age", "Full", "Incremental", "Stored"], 1, rows))
    }
}

fn within(days: Option<i64>) -> String {
    match days {
        Some(7) => "up to a week".to_owned(),
        Some(31) => "up to a month".to_owned(),
        Some(92) => "up to three months".to_owned(),
        Some(365) => "up to a year".to_owned(),
        Some(2557) => "up to seven years".to_owned(),
        Some(days) => format!("up to {days} days"),
        None => "older".to_owned(),
    }
}

pub fn versions(report: &Report) -> Markup {
    let row = |(n, version): (usize, &Version)| {
        let at = |key: &str| format!("/versions/{n}/{key}");
        vec![
            words(&at("program"), version.program),
            words(&at("version"), &version.version),
            time(&at("first"), Some(version.first)),
            time(&at("last"), Some(version.last)),
            count(&at("backups"), version.backups),
        ]
    };
    let rows = report.versions.iter().enumerate().map(row).collect();
    html! {
        p.lead {
            "PostgreSQL by the backups, walden by the audit trail and the drills. This page is by \
             walden "
            (words("/version", &report.version)) "."
        }
        (table(&["Program", "Version", "First seen", "Last seen", "Backups"], 4, rows))
    }
}

pub fn notes(report: &Report) -> Markup {
    html! {
        p.lead { "What could not be read, and is therefore not in the figures above." }
        ul {
            @for (n, note) in report.notes.iter().enumerate() {
                li { (words(&format!("/notes/{n}"), note)) }
            }
        }
    }
}

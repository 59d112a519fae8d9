//! The sections of the page, in the order of what one asks.

mod window;
mod objectives;
mod backups;
mod amounts;
mod drills;
mod verification;
mod keeping;
mod auditor;

use maud::{Markup, html};

use crate::commands::report::Report;
use crate::error::Result;

pub struct Section {
    pub id: &'static str,
    pub title: &'static str,
    pub content: Markup,
}

pub fn all(report: &Report) -> Result<Vec<Section>> {
    let mut sections = vec![
        Section { id: "window", title: "Window", content: window::section(report)? },
        Section { id: "objectives", title: "Objectives", content: objectives::section(report)? },
        Section { id: "drills", title: "Drills", content: drills::section(report) },
        Section {
            id: "verification",
            title: "Verification",
            content: verification::section(report),
        },
        Section { id: "backups", title: "Backups", content: backups::section(report)? },
        Section { id: "wal", title: "WAL", content: amounts::wal(report)? },
        Section { id: "storage", title: "Storage", content: amounts::storage(report)? },
        Section { id: "retention", title: "Retention", content: keeping::retention(report) },
        Section { id: "auditor", title: "For auditors", content: auditor::statements(report) },
        Section { id: "audit", title: "Audit trail", content: auditor::trail(report) },
        Section { id: "versions", title: "Versions", content: keeping::versions(report) },
    ];
    if !report.notes.is_empty() {
        sections.push(Section { id: "notes", title: "Notes", content: keeping::notes(report) });
    }
    Ok(sections)
}

/// What colours mean, beside a picture.
fn legend(entries: &[(&str, &str)]) -> Markup {
    html! {
        ul.legend aria-hidden="true" {
            @for (class, meaning) in entries {
                li { span class={ "swatch " (class) } {} (meaning) }
            }
        }
    }
}

/// A table that scrolls by itself where it is too wide; the last columns given are numbers.
fn table(heads: &[&str], numbers_from: usize, rows: Vec<Vec<Markup>>) -> Markup {
    let class = |at: usize| (at >= numbers_from).then_some("number");
    html! {
        div.scroll tabindex="0" {
            table {
                thead {
                    tr {
                        @for (at, head) in heads.iter().enumerate() {
                            th scope="col" class=[class(at)] { (head) }
                        }
                    }
                }
                tbody {
                    @for row in rows {
                        tr {
                            @for (at, cell) in row.into_iter().enumerate() {
                                td class=[class(at)] { (cell) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn details(summary: &str, content: Markup) -> Markup {
    html! { details { summary { (summary) } (content) } }
}

fn nothing(says: &str) -> Markup {
    html! { p.nothing { (says) } }
}

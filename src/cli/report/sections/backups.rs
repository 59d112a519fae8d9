//! The backups, chain by chain.

use maud::{Markup, html};

use crate::cli::report::figures::{
    bytes, count, figure, moment, of_state, optional_bytes, optional_words, time, time_span, words,
};
use crate::cli::report::pictures;
use crate::cli::report::sections::{details, legend, nothing, table};
use crate::commands::list::{Listed, Type};
use crate::commands::report::{Report, State};
use crate::error::Result;

/// The newest, beyond which the table is folded away.
const OPEN_ROWS: usize = 10;

pub fn section(report: &Report) -> Result<Markup> {
    let backups = &report.backups;
    if backups.list.is_empty() {
        return Ok(nothing("There is no backup: take one with walden backup."));
    }
    let rows = backups.list.iter().enumerate().rev().map(|(n, backup)| row(n, backup));
    let mut newest: Vec<_> = rows.collect();
    let older = newest.split_off(newest.len().min(OPEN_ROWS));
    let heads = [
        "Ended",
        "Type",
        "Id",
        "Usable",
        "Content proven",
        "PostgreSQL",
        "Chain",
        "Size",
        "Stored",
    ];
    Ok(html! {
        p.lead {
            (count("/backups/full", backups.full)) " full and "
            (count("/backups/incremental", backups.incremental)) " incremental ones hold "
            (bytes("/backups/size", backups.size)) " in " (bytes("/backups/stored", backups.stored))
            ". A restore of the newest puts "
            (count("/backups/newest_chain", backups.newest_chain))
            " together. The longest time without a backup was "
            (time_span("/backups/longest_pause_ms", backups.longest_pause_ms)) "."
        }
        @if let Some(picture) = pictures::backups(report)? {
            (legend(&[("orange", "full"), ("sky", "incremental")]))
            (picture)
        }
        (table(&heads, 6, newest))
        @if !older.is_empty() {
            (details(&format!("{} older backups", older.len()), table(&heads, 6, older)))
        }
    })
}

fn row(number: usize, backup: &Listed) -> Vec<Markup> {
    let at = |key: &str| format!("/backups/list/{number}/{key}");
    let kind = match backup.kind {
        Some(Type::Full) => "full",
        Some(Type::Incremental) => "incremental",
        None => "–",
    };
    let state = if backup.usable { State::Good } else { State::Bad };
    let version = backup.server_version_num;
    let version = version.map(|it| format!("{}.{}", it / 10_000, it % 10_000));
    vec![
        time(&at("ended"), backup.ended),
        figure(&at("type"), &backup.kind, kind),
        html! {
            code { (words(&at("id"), backup.id.as_str())) }
            @if backup.held { " " span.badge.plain { "held" } }
        },
        html! {
            (figure(&at("usable"), &backup.usable, of_state(state).mark))
            @if let Some(reason) = &backup.reason {
                " " (optional_words(&at("reason"), Some(reason)))
            }
        },
        html! {
            @match backup.verified {
                Some(proven) => (figure(&at("verified"), &backup.verified, &moment(proven))),
                None => "never",
            }
        },
        figure(
            &at("server_version_num"),
            &backup.server_version_num,
            version.as_deref().unwrap_or("–"),
        ),
        html! { (backup.chain.len()) },
        optional_bytes(&at("size"), backup.size),
        optional_bytes(&at("stored"), backup.stored),
    ]
}

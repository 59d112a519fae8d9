//! WAL by day, storage by kind.

use maud::{Markup, html};

use crate::cli::report::figures::{bytes, count, figure};
use crate::cli::report::pictures;
use crate::cli::report::sections::{details, legend, nothing, table};
use crate::commands::report::Report;
use crate::commands::report::days::WalDay;
use crate::commands::report::usage::{Kind, KindUsage, StorageDay};
use crate::error::Result;

pub fn wal(report: &Report) -> Result<Markup> {
    let wal = &report.wal;
    let row = |(n, day): (usize, &WalDay)| {
        let at = |key: &str| format!("/wal/days/{n}/{key}");
        vec![
            figure(&at("day"), &day.day, &day.day.to_string()),
            count(&at("segments"), day.segments),
            bytes(&at("raw_bytes"), day.raw_bytes),
            bytes(&at("stored_bytes"), day.stored_bytes),
            count(&at("commits"), day.commits),
        ]
    };
    let rows = wal.days.iter().enumerate().rev().map(row).collect();
    let heads = ["Day", "Segments", "Raw", "Stored", "Commits"];
    Ok(html! {
        p.lead {
            (count("/wal/segments", wal.segments)) " segments hold "
            (bytes("/wal/raw_bytes", wal.raw_bytes)) " of WAL in "
            (bytes("/wal/stored_bytes", wal.stored_bytes)) ", with "
            (count("/wal/commits", wal.commits)) " commits that are known of."
            @if wal.without_digest > 0 {
                " Of " (count("/wal/without_digest", wal.without_digest))
                " segments it is not known what is in them."
            }
        }
        @match pictures::wal(report)? {
            Some(picture) => {
                (legend(&[("faint", "as written"), ("blue", "as stored")]))
                (picture)
                (details("Day by day", table(&heads, 1, rows)))
            }
            None => { (nothing("No WAL was archived in this period.")) }
        }
    })
}

pub fn storage(report: &Report) -> Result<Markup> {
    let storage = &report.storage;
    let row = |(n, usage): (usize, &KindUsage)| {
        let at = |key: &str| format!("/storage/kinds/{n}/{key}");
        let part = 100.0 * usage.bytes as f64 / storage.bytes.max(1) as f64;
        vec![
            figure(&at("kind"), &usage.kind, name(usage.kind)),
            html! { div.meter { div class=(class(usage.kind)) style=(width(part)) {} } },
            count(&at("objects"), usage.objects),
            bytes(&at("bytes"), usage.bytes),
            html! { (format!("{part:.1} %")) },
        ]
    };
    let rows = storage.kinds.iter().enumerate().map(row).collect();
    let day = |(n, day): (usize, &StorageDay)| {
        let at = |key: &str| format!("/storage/days/{n}/{key}");
        vec![
            figure(&at("day"), &day.day, &day.day.to_string()),
            bytes(&at("full_backups"), day.full_backups),
            bytes(&at("incremental_backups"), day.incremental_backups),
            bytes(&at("wal"), day.wal),
            bytes(&at("other"), day.other),
            bytes(&at("bytes"), day.bytes),
        ]
    };
    let days = storage.days.iter().enumerate().rev().map(day).collect();
    let heads = ["Day", "Full backups", "Incremental", "WAL", "Other", "All"];
    Ok(html! {
        (table(&["Kind", "Share", "Objects", "Bytes", "Part"], 2, rows))
        h3 { "How it grew" }
        p.lead {
            "What is stored today, by the day it was stored; what was removed since is not in it."
        }
        @if let Some(picture) = pictures::storage(report)? {
            (legend(&[
                ("blue", "WAL"), ("orange", "full backups"), ("sky", "incremental backups"),
                ("purple", "other"),
            ]))
            (picture)
            (details("Day by day", table(&heads, 1, days)))
        }
    })
}

fn width(part: f64) -> String {
    format!("width:{part:.2}%")
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::FullBackups => "Full backups",
        Kind::IncrementalBackups => "Incremental backups",
        Kind::OtherBackups => "Unfinished or unreadable backups",
        Kind::Wal => "WAL segments",
        Kind::WalBeside => "Timeline histories, labels, partial segments",
        Kind::Indexes => "Indexes (a cache)",
        Kind::Evidence => "Audit trail, drills",
        Kind::Marks => "Marks",
        Kind::Unknown => "Not walden's",
    }
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::FullBackups => "orange",
        Kind::IncrementalBackups => "sky",
        Kind::Wal => "blue",
        _ => "purple",
    }
}

//! What was proven when, and how much of everything.

use maud::{Markup, html};

use crate::cli::report::figures::{bytes, count, figure, of_outcome, size, time, words};
use crate::cli::report::sections::{details, legend, nothing, table};
use crate::commands::report::Report;
use crate::commands::report::coverage::{Coverage, Run, Share};

const OPEN_ROWS: usize = 10;
const COLORS: [&str; 5] = ["green", "sky", "blue", "orange", "faint"];
const MEANINGS: [&str; 5] =
    ["read within 7 days", "within 31 days", "within 92 days", "longer ago", "never read"];

pub fn section(report: &Report) -> Markup {
    let verification = &report.verification;
    let legend_of: Vec<(&str, &str)> = COLORS.into_iter().zip(MEANINGS).collect();
    html! {
        p.lead {
            "How much of what is stored today was read to the last byte, and when. A backup counts \
             once all of it has been found sound, a segment once every record has been read."
        }
        (legend(&legend_of))
        (coverage("/verification/backups", "Backups", &verification.backups))
        (coverage("/verification/wal", "WAL segments", &verification.wal))
        @if verification.runs.is_empty() {
            (nothing("Nothing was verified in this period: run walden verify --deep."))
        } @else { (runs(&verification.runs)) }
    }
}

fn coverage(at: &str, name: &str, coverage: &Coverage) -> Markup {
    let part = |share: &Share| 100.0 * share.bytes as f64 / coverage.bytes.max(1) as f64;
    let row = |(n, share): (usize, &Share)| {
        let at = |key: &str| format!("{at}/shares/{n}/{key}");
        vec![
            html! { (MEANINGS.get(n).copied().unwrap_or_default()) },
            count(&at("count"), share.count),
            bytes(&at("bytes"), share.bytes),
            html! { (format!("{:.1} %", part(share))) },
        ]
    };
    let (read, all) = (size(coverage.read_bytes), size(coverage.bytes));
    let label = format!("{name}: {read} of {all} read");
    let rows = coverage.shares.iter().enumerate().map(row).collect();
    html! {
        div.coverage {
            p {
                strong { (name) } " "
                (count(&format!("{at}/read_count"), coverage.read_count)) " of "
                (count(&format!("{at}/count"), coverage.count)) " read, "
                (bytes(&format!("{at}/read_bytes"), coverage.read_bytes)) " of "
                (bytes(&format!("{at}/bytes"), coverage.bytes))
                @if coverage.overdue_count > 0 {
                    "; " (count(&format!("{at}/overdue_count"), coverage.overdue_count))
                    " older than a week were not read for a month"
                }
            }
            div.phases role="img" aria-label=(label) {
                @for (share, color) in coverage.shares.iter().zip(COLORS) {
                    @if share.bytes > 0 {
                        div class=(color) style=(format!("flex-grow:{:.0}", part(share) * 100.0)) {}
                    }
                }
            }
            (details("In figures", table(&["Read", "Number", "Bytes", "Part"], 1, rows)))
        }
    }
}

fn runs(runs: &[Run]) -> Markup {
    let mut rows: Vec<_> = runs.iter().enumerate().rev().map(row).collect();
    let older = rows.split_off(rows.len().min(OPEN_ROWS));
    let heads = ["Ended", "Outcome", "How", "By", "Backups", "Segments", "Read", "Found"];
    html! {
        h3 { "Verifications" }
        (table(&heads, 4, rows))
        @if !older.is_empty() {
            (details(&format!("{} earlier ones", older.len()), table(&heads, 4, older)))
        }
        @for (n, run) in runs.iter().enumerate().rev().filter(|(_, run)| run.found > 0) {
            (details(
                &format!("Found on {}", crate::cli::report::figures::day(run.ended)),
                html! { ul { @for (f, finding) in run.findings.iter().enumerate() {
                    li { (words(&format!("/verification/runs/{n}/findings/{f}"), finding)) }
                } } },
            ))
        }
    }
}

fn row((n, run): (usize, &Run)) -> Vec<Markup> {
    let at = |key: &str| format!("/verification/runs/{n}/{key}");
    let how = match (run.deep, run.sample >= 1.0) {
        (true, true) => "every byte".to_owned(),
        (true, false) => format!("every byte of {:.0} %", run.sample * 100.0),
        (false, _) => "names, sizes, headers".to_owned(),
    };
    vec![
        time(&at("ended"), Some(run.ended)),
        of_outcome(run.outcome).markup(),
        html! { (how) },
        html! { (run.os_user) "@" (run.host) },
        count(&at("backups"), run.backups),
        count(&at("segments"), run.segments),
        bytes(&at("read_bytes"), run.read_bytes),
        figure(&at("found"), &run.found, &run.found.to_string()),
    ]
}

//! RPO and RTO: what was measured, against what was promised.

use maud::{Markup, html};

use crate::cli::report::figures::{count, figure, of_verdict, time, time_span};
use crate::cli::report::pictures;
use crate::cli::report::sections::{details, legend, nothing, table};
use crate::commands::report::Report;
use crate::commands::report::days::WalDay;
use crate::commands::report::recovery::Measured;
use crate::error::Result;

pub fn section(report: &Report) -> Result<Markup> {
    Ok(html! { (point(report)?) (times(report)?) })
}

fn point(report: &Report) -> Result<Markup> {
    let point = &report.recovery.point;
    let row = |(n, day): (usize, &WalDay)| {
        let at = format!("/wal/days/{n}");
        vec![
            figure(&format!("{at}/day"), &day.day, &day.day.to_string()),
            time_span(&format!("{at}/exposure_max_ms"), day.exposure_max_ms),
            time_span(&format!("{at}/exposure_median_ms"), day.exposure_median_ms),
        ]
    };
    let rows = report.wal.days.iter().enumerate().rev().map(row).collect();
    Ok(html! {
        h3 { "Recovery point: what a loss of the server would have cost" }
        p.lead {
            "A commit is in danger from the moment it is made until the store has its segment. \
             The worst of the last seven days was "
            strong { (time_span("/recovery/point/lately_ms", point.lately_ms)) }
            ", of all days told of " strong { (time_span("/recovery/point/max_ms", point.max_ms)) }
            ", usually it is "
            strong { (time_span("/recovery/point/median_ms", point.median_ms)) } ". "
            @if point.objective_ms.is_some() {
                "The objective of " (time_span("/recovery/point/objective_ms", point.objective_ms))
                " was missed on " (figure("/recovery/point/days_missed", &point.days_missed,
                    &point.days_missed.unwrap_or(0).to_string())) " days."
            } @else { "No objective is configured (" code { "objectives.rpo" } ")." }
        }
        @match pictures::exposure(report)? {
            Some(picture) => {
                (legend(&[
                    ("sky", "worst of the day"), ("navy line", "usual"), ("dashes", "objective"),
                ]))
                (picture)
                (details("Day by day", table(&["Day", "Worst", "Usual"], 1, rows)))
            }
            None => { (nothing("No segment in this period tells of a commit.")) }
        }
    })
}

fn times(report: &Report) -> Result<Markup> {
    let time_of = &report.recovery.time;
    let row = |(n, drill): (usize, &Measured)| {
        let at = format!("/recovery/time/drills/{n}");
        vec![
            time(&format!("{at}/ended"), Some(drill.ended)),
            figure(&format!("{at}/verdict"), &drill.verdict, of_verdict(drill.verdict).word),
            time_span(&format!("{at}/rto_ms"), drill.rto_ms),
            time_span(&format!("{at}/rpo_ms"), drill.rpo_ms),
        ]
    };
    let heads = ["Ended", "Verdict", "Recovery time", "Recovery point"];
    let rows = time_of.drills.iter().enumerate().rev().map(row).collect();
    Ok(html! {
        h3 { "Recovery time: how long it takes" }
        @match pictures::recovery_times(report)? {
            Some(picture) => {
                p.lead {
                    "Measured by drills: the last took "
                    strong { (time_span("/recovery/time/last_ms", time_of.last_ms)) }
                    ", the longest " strong { (time_span("/recovery/time/max_ms", time_of.max_ms)) }
                    ", usually it is "
                    strong { (time_span("/recovery/time/median_ms", time_of.median_ms)) } ". "
                    @if let Some(missed) = time_of.drills_missed {
                        (count("/recovery/time/drills_missed", missed))
                        " took longer than the objective of "
                        (time_span("/recovery/time/objective_ms", time_of.objective_ms)) "."
                    } @else { "No objective is configured (" code { "objectives.rto" } ")." }
                }
                (legend(&[
                    ("green dot", "passed"), ("orange triangle", "incomplete"),
                    ("red cross", "failed"), ("dashes", "objective"),
                ]))
                (picture)
                (details("Drill by drill", table(&heads, 2, rows)))
            }
            None => { (nothing("No drill in this period has measured it: run walden drill.")) }
        }
    })
}

//! From when until when, on which timeline; what is missing.

use maud::{Markup, html};

use crate::cli::report::figures::{bytes, commit_time, count, figure, words};
use crate::cli::report::pictures;
use crate::cli::report::sections::{details, legend, table};
use crate::commands::report::Report;
use crate::commands::window::{GapReport, TimelineReport};
use crate::error::Result;

pub fn section(report: &Report) -> Result<Markup> {
    let timelines = &report.window.timelines;
    let at = |number: usize| format!("/window/timelines/{number}");
    let rows = timelines.iter().enumerate().map(|(n, it)| row(&at(n), it)).collect();
    let heads = ["Timeline", "Branched off", "Earliest", "Latest", "Segments", "Gaps on the way"];
    Ok(html! {
        p.lead {
            "Every moment within a window can be restored, to the microsecond. A fork begins a new \
             timeline: a promoted standby, or a recovery that went on."
        }
        (legend(&[
            ("blue", "can be recovered"), ("faint", "archived, out of reach"), ("red", "gap"),
            ("orange triangle", "full backup"), ("sky dot", "incremental backup"),
        ]))
        (pictures::lanes(report)?)
        (table(&heads, 4, rows))
        @for (n, timeline) in timelines.iter().enumerate() {
            @if timeline.gaps.iter().any(|gap| gap.timeline == timeline.timeline) {
                (details(
                    &format!("Gaps on timeline {}", timeline.timeline),
                    gaps(&at(n), timeline),
                ))
            }
            @if let Some(obstacle) = &timeline.obstacle {
                p.remark {
                    "Timeline " (timeline.timeline) ": "
                    (words(&format!("{}/obstacle", at(n)), obstacle))
                }
            }
        }
        @if let Some(unarchived) = &report.window.unarchived {
            p.remark {
                "On the server: "
                (figure("/window/unarchived/state", &unarchived.state, state(unarchived.state)))
                ", " (count("/window/unarchived/files", unarchived.files)) " WAL files wait."
            }
        }
    })
}

fn row(at: &str, timeline: &TimelineReport) -> Vec<Markup> {
    let windows = &timeline.windows;
    vec![
        count(&format!("{at}/timeline"), timeline.timeline.get().into()),
        match (timeline.parent, timeline.switch_lsn) {
            (Some(parent), Some(lsn)) => html! { (parent) " at " (lsn) },
            _ => html! { "–" },
        },
        commit_time(&format!("{at}/earliest"), timeline.earliest),
        html! {
            (commit_time(&format!("{at}/latest"), timeline.latest))
            @if timeline.latest_is_exact == Some(false) { " at least" }
            @if windows.len() > 1 {
                span.aside { (windows.len() - 1) " older window" @if windows.len() > 2 { "s" } }
            }
        },
        count(&format!("{at}/segments"), timeline.segments),
        html! { (timeline.gaps.len()) },
    ]
}

/// Those of its ancestors are told of there.
fn gaps(at: &str, timeline: &TimelineReport) -> Markup {
    let row = |(n, gap): (usize, &GapReport)| {
        let at = format!("{at}/gaps/{n}");
        vec![
            words(&format!("{at}/first_missing"), &gap.first_missing),
            figure(&format!("{at}/cause"), &gap.cause, cause(gap)),
            commit_time(&format!("{at}/after"), gap.after),
            commit_time(&format!("{at}/before"), gap.before),
            html! { @if gap.is_harmful { "cannot be reached" } @else { "no backup needs it" } },
            count(&format!("{at}/segments"), gap.segments),
            bytes(&format!("{at}/bytes"), gap.bytes),
        ]
    };
    let heads = ["First segment", "Cause", "After", "Before", "Costs", "Segments", "WAL"];
    let gaps = timeline.gaps.iter().enumerate();
    let own = gaps.filter(|(_, gap)| gap.timeline == timeline.timeline);
    table(&heads, 5, own.map(row).collect())
}

fn cause(gap: &GapReport) -> &'static str {
    use crate::catalog::wal_run::Cause;
    match gap.cause {
        Cause::Missing => "missing",
        Cause::Invalid => "not valid",
        Cause::Damaged => "damaged",
        Cause::NeededByBackup => "needed by a backup",
    }
}

fn state(state: crate::commands::window::State) -> &'static str {
    use crate::commands::window::State;
    match state {
        State::CaughtUp => "every commit is archived",
        State::Writing => "what is not archived is in the segment that is being written",
        State::Behind => "archiving is behind",
        State::Unknown => "how far behind archiving is cannot be told",
    }
}

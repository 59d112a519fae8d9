//! The page: one file, no scripts, nothing from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::cli::report::figures::{self, day, moment, of_state, time, time_span, words};
use crate::cli::report::sections;
use crate::commands::report::{Answer, Reason, Report};
use crate::error::Result;

const STYLE: &str = include_str!("page.css");
/// Whatever a summary or a name may hold, nothing is run and nothing is fetched.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
                      base-uri 'none'; form-action 'none'";

pub fn page(report: &Report) -> Result<String> {
    let sections = sections::all(report)?;
    let title = format!("{}: recovery report of {}", report.cluster, day(report.generated));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                meta name="generator" content={ "walden " (report.version) };
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(report))
                main {
                    (verdict(report))
                    (tiles(report))
                    nav aria-label="Sections" {
                        ul {
                            @for section in &sections {
                                li { a href={ "#" (section.id) } { (section.title) } }
                            }
                        }
                    }
                    @for section in &sections {
                        section id=(section.id) aria-labelledby={ (section.id) "-heading" } {
                            h2 id={ (section.id) "-heading" } { (section.title) }
                            (section.content)
                        }
                    }
                }
                (footer(report))
            }
        }
    };
    Ok(page.into_string())
}

fn header(report: &Report) -> Markup {
    html! {
        header {
            p.eyebrow { "Recovery report" }
            h1 { (words("/cluster", &report.cluster)) }
            p.place { (words("/repository", &report.repository)) }
            p.place {
                "Made " (time("/generated", Some(report.generated)))
                ", telling of the time since " (time("/since", Some(report.since)))
            }
        }
    }
}

fn verdict(report: &Report) -> Markup {
    let verdict = &report.verdict;
    let (class, mark) = match verdict.answer {
        Answer::Recoverable => ("good", "✓"),
        Answer::Unproven => ("attention", "!"),
        Answer::AtRisk | Answer::NotRecoverable => ("bad", "✕"),
    };
    html! {
        div class={ "verdict " (class) } role="region" aria-label="Verdict" {
            p.answer {
                span.seal aria-hidden="true" { (mark) }
                (words("/verdict/headline", verdict.headline))
            }
            @if report.window.latest.is_some() {
                p.span {
                    "Any moment can be restored from "
                    strong { (time("/window/earliest", report.window.earliest)) }
                    " to " strong { (time("/window/latest", report.window.latest)) }
                }
            }
            ul.reasons {
                @for (at, reason) in verdict.reasons.iter().enumerate() {
                    (reason_line(&format!("/verdict/reasons/{at}"), reason))
                }
            }
        }
    }
}

fn reason_line(at: &str, reason: &Reason) -> Markup {
    let badge = of_state(reason.state);
    html! {
        li class=(badge.class) {
            span.mark title=(badge.word) { (badge.mark) }
            span.kind { (name(reason.kind)) }
            span.says { (words(&format!("{at}/says"), &reason.says)) }
            span.measure {
                @if let Some(moment) = reason.at {
                    span title=(self::moment(moment)) {
                        (time_span(&format!("{at}/ms"), reason.ms)) " ago"
                    }
                } @else if reason.ms.is_some() {
                    (time_span(&format!("{at}/ms"), reason.ms))
                    " of " (time_span(&format!("{at}/limit_ms"), reason.limit_ms))
                }
            }
        }
    }
}

fn name(kind: &str) -> &'static str {
    match kind {
        "window" => "Window",
        "gaps" => "Gaps",
        "archive" => "Archiving",
        "backup" => "Last backup",
        "drill" => "Last drill",
        "verify" => "Last verification",
        "rto" => "Recovery time",
        _ => "Recovery point",
    }
}

fn tiles(report: &Report) -> Markup {
    let (point, drills) = (&report.recovery.point, &report.recovery.time);
    let tile = |name: &str, figure: Markup, note: Markup| {
        html! { div.tile { p.name { (name) } p.figure { (figure) } p.note { (note) } } }
    };
    let objective = |at: &str, objective: Option<u64>| {
        html! {
            @if objective.is_some() { "objective " (time_span(at, objective)) }
            @else { "no objective set" }
        }
    };
    let lost = time_span("/recovery/point/lately_ms", point.lately_ms);
    let took = time_span("/recovery/time/last_ms", drills.last_ms);
    html! {
        div.tiles {
            (tile("Reaches back",
                time_span("/retention/reaches_back_ms", report.retention.reaches_back_ms),
                html! { "oldest moment that can be restored" }))
            (tile("Worst loss, last 7 days", lost,
                objective("/recovery/point/objective_ms", point.objective_ms)))
            (tile("Last recovery took", took,
                objective("/recovery/time/objective_ms", drills.objective_ms)))
            (tile("Usable backups",
                figures::count("/backups/usable", report.backups.usable),
                html! { "of " (figures::count("/backups/count", report.backups.count)) }))
            (tile("Stored", figures::bytes("/storage/bytes", report.storage.bytes),
                html! { (figures::count("/storage/objects", report.storage.objects)) " objects" }))
        }
    }
}

fn footer(report: &Report) -> Markup {
    html! {
        footer {
            p {
                "Made by walden " (words("/version", &report.version))
                " from what the repository holds. "
                code { "walden report --json" } " has every figure of this page. "
                "Times are in UTC, sizes in powers of 1024."
            }
            p {
                "System identifier "
                (words("/system_identifier", &report.system_identifier.to_string()))
            }
        }
    }
}

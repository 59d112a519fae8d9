//! Rehearsed recoveries, each with its evidence.

use maud::{Markup, html};

use crate::cli::report::figures::{
    bytes, figure, moment, of_verdict, optional_words, time, time_span, words,
};
use crate::cli::report::sections::{nothing, table};
use crate::commands::report::Report;
use crate::repository::drill_record::{Check, DrillRecord, Plan, TableRows};

pub fn section(report: &Report) -> Markup {
    if report.drills.is_empty() {
        return nothing(
            "No recovery was rehearsed in this period. walden drill restores into a scratch \
             directory, starts PostgreSQL and asks it; its records appear here.",
        );
    }
    html! {
        p.lead { "Each is a real recovery by a real PostgreSQL. Open one for its evidence." }
        @for (n, drill) in report.drills.iter().enumerate().rev() {
            (one(&format!("/drills/{n}"), drill))
        }
    }
}

fn one(at: &str, drill: &DrillRecord) -> Markup {
    let badge = of_verdict(drill.verdict);
    html! {
        details.drill {
            summary {
                (badge.markup())
                span.when { (time(&format!("{at}/ended"), Some(drill.ended))) }
                span.what { (words(&format!("{at}/target/mode"), &drill.target.mode)) }
                span.took { (time_span(&format!("{at}/timings/rto_ms"), drill.timings.rto_ms)) }
            }
            @for (n, reason) in drill.reasons.iter().enumerate() {
                p.remark { (words(&format!("{at}/reasons/{n}"), reason)) }
            }
            dl { (facts(at, drill)) }
            (timings(at, drill))
            (checks(at, &drill.checks))
            (tables(at, &drill.tables))
            @for (n, note) in drill.notes.iter().enumerate() {
                p.remark { (words(&format!("{at}/notes/{n}"), note)) }
            }
        }
    }
}

fn facts(at: &str, drill: &DrillRecord) -> Markup {
    let options = drill.target.options.join(" ");
    let postgresql = &drill.postgresql;
    let version = |key: &str, version| optional_words(&format!("{at}/postgresql/{key}"), version);
    html! {
        dt { "Drill" } dd { code { (words(&format!("{at}/id"), drill.id.as_str())) } }
        dt { "Target" } dd { code { (options) } }
        @if let Some(commit) = &drill.target.last_commit {
            dt { "Last commit due" } dd { (moment(commit.time)) " at " (commit.lsn) }
        }
        @if let Some(reached) = &drill.reached {
            dt { "Reached" }
            dd {
                (time(&format!("{at}/reached/last_commit"), reached.last_commit))
                @if let Some(lsn) = reached.lsn { " at " (lsn) }
                @if let Some(timeline) = reached.timeline { ", timeline " (timeline) }
            }
        }
        @if let Some(plan) = &drill.plan { (planned(at, plan)) }
        dt { "PostgreSQL" }
        dd {
            "backed up from " (version("source", postgresql.source.as_deref()))
            ", recovered by " (version("used", postgresql.used.as_deref()))
        }
        dt { "By" }
        dd {
            (words(&format!("{at}/os_user"), &drill.os_user)) " on "
            (words(&format!("{at}/host"), &drill.host))
            ", walden " (words(&format!("{at}/version"), &drill.version))
        }
    }
}

fn planned(at: &str, plan: &Plan) -> Markup {
    html! {
        dt { "From" }
        dd {
            "backup " code { (words(&format!("{at}/plan/backup"), plan.backup.as_str())) }
            " (" (plan.chain.len()) " in its chain, "
            (bytes(&format!("{at}/plan/size"), plan.size)) "), then "
            (figure(&format!("{at}/plan/segments"), &plan.segments, &plan.segments.to_string()))
            " segments, " (words(&format!("{at}/plan/first_wal"), &plan.first_wal)) " to "
            (words(&format!("{at}/plan/last_wal"), &plan.last_wal))
        }
    }
}

fn timings(at: &str, drill: &DrillRecord) -> Markup {
    let timings = &drill.timings;
    let phases = [
        ("choose", "choose_ms", timings.choose_ms),
        ("fetch", "fetch_ms", timings.fetch_ms),
        ("consistent", "consistent_ms", timings.consistent_ms),
        ("replay", "replay_ms", timings.replay_ms),
        ("ready", "ready_ms", timings.ready_ms),
    ];
    let whole: u64 = phases.iter().filter_map(|(.., ms)| *ms).sum();
    let colors = ["faint", "orange", "sky", "blue", "green"];
    html! {
        div.phases aria-hidden="true" {
            @for ((_, _, ms), color) in phases.iter().zip(colors) {
                @if let Some(ms) = ms {
                    div class=(color) style=(format!("flex-grow:{}", 1000 * ms / whole.max(1))) {}
                }
            }
        }
        ul.legend {
            @for ((name, key, ms), color) in phases.iter().zip(colors) {
                li {
                    span class={ "swatch " (color) } aria-hidden="true" {}
                    (name) " " (time_span(&format!("{at}/timings/{key}"), *ms))
                }
            }
        }
    }
}

fn checks(at: &str, checks: &[Check]) -> Markup {
    let row = |(n, check): (usize, &Check)| {
        let at = |key: &str| format!("{at}/checks/{n}/{key}");
        vec![
            html! { (of_verdict(check.verdict).markup()) },
            words(&at("kind"), &check.kind),
            html! { span.statement { (words(&at("what"), &check.what)) } },
            words(&at("answer"), &check.answer),
            time_span(&at("duration_ms"), Some(check.duration_ms)),
        ]
    };
    let heads = ["", "Check", "Asked", "Answer", "Took"];
    let rows: Vec<_> = checks.iter().enumerate().map(row).collect();
    html! { @if !rows.is_empty() { (table(&heads, 4, rows)) } }
}

fn tables(at: &str, tables: &[TableRows]) -> Markup {
    let row = |(n, table): (usize, &TableRows)| {
        let at = |key: &str| format!("{at}/tables/{n}/{key}");
        let before = table.before.map_or_else(|| "–".to_owned(), |before| before.to_string());
        vec![
            words(&at("database"), &table.database),
            words(&at("relation"), &table.relation),
            figure(&at("rows"), &table.rows, &table.rows.to_string()),
            figure(&at("before"), &table.before, &before),
        ]
    };
    let heads = ["Database", "Table", "Rows", "In the drill before"];
    let rows: Vec<_> = tables.iter().enumerate().map(row).collect();
    html! { @if !rows.is_empty() { (table(&heads, 2, rows)) } }
}

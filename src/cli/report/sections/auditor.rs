//! What auditors ask, and the trail of who did what.

use maud::{Markup, html};

use crate::cli::report::figures::{of_outcome, of_shown, time, words};
use crate::cli::report::sections::{details, nothing, table};
use crate::commands::report::trail::Deed;
use crate::commands::report::{Report, Statement};

const OPEN_ROWS: usize = 15;

pub fn statements(report: &Report) -> Markup {
    html! {
        p.lead {
            "What is asked for by SOC 2, HIPAA and SOX, and what this repository has to show. This \
             is evidence; whether a control is met is for the auditor to say."
        }
        div.statements {
            @for (n, statement) in report.statements.iter().enumerate() {
                (one(&format!("/statements/{n}"), statement))
            }
        }
    }
}

fn one(at: &str, statement: &Statement) -> Markup {
    html! {
        article.claim {
            h3 { (words(&format!("{at}/topic"), statement.topic)) }
            (of_shown(statement.shown).markup())
            p { (words(&format!("{at}/says"), &statement.says)) }
            p.evidence { (words(&format!("{at}/evidence"), &statement.evidence)) }
            p.asked { (words(&format!("{at}/asked_by"), statement.asked_by)) }
        }
    }
}

pub fn trail(report: &Report) -> Markup {
    if report.audit.is_empty() {
        return nothing("Nothing was written down in this period.");
    }
    let mut rows: Vec<_> = report.audit.iter().enumerate().rev().map(row).collect();
    let older = rows.split_off(rows.len().min(OPEN_ROWS));
    let heads = ["When", "What", "Outcome", "Who", "From", "Summary", "Took"];
    html! {
        (table(&heads, 6, rows))
        @if !older.is_empty() {
            (details(&format!("{} earlier entries", older.len()), table(&heads, 6, older)))
        }
    }
}

fn row((n, deed): (usize, &Deed)) -> Vec<Markup> {
    let at = |key: &str| format!("/audit/{n}/{key}");
    let took = u64::try_from(deed.ended.duration_since(deed.began).as_millis()).unwrap_or(0);
    vec![
        time(&at("began"), Some(deed.began)),
        words(&at("verb"), deed.verb.as_str()),
        of_outcome(deed.outcome).markup(),
        words(&at("os_user"), &deed.os_user),
        words(&at("host"), &deed.host),
        words(&at("summary"), &deed.summary),
        html! { (crate::commands::report::statements::span(took)) },
    ]
}

//! What a drill has found, for people and as JSON.

use bytesize::ByteSize;

use crate::cli::table::{Align, table};
use crate::commands::drill::sweep::Swept;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::drill_record::{Check, DrillRecord, TableRows, Timings, Verdict};

pub fn json(record: &DrillRecord) -> Result<String> {
    serde_json::to_string_pretty(record)
        .map_err(|error| Error::new(ErrorKind::Bug, "write the record").source(error))
}

/// Stages with their times, checks with their answers, the verdict last.
pub fn record(record: &DrillRecord) -> String {
    let mut text = format!("drill {} of {}, in {}\n", record.id, record.cluster, record.repository);
    let mut line = |name: &str, value: String| text += &format!("  {name:<12}{value}\n");
    line("target", target(record));
    if let Some(commit) = &record.target.last_commit {
        let (xid, time, lsn) = (commit.xid, commit.time, commit.lsn);
        line("last commit", format!("{time}, transaction {xid}, LSN {lsn}"));
    }
    if let Some(plan) = &record.plan {
        let chain = match plan.chain.len() {
            0 | 1 => String::new(),
            links => format!(", put together from {links} backups"),
        };
        line("backup", format!("{}, {}{chain}", plan.backup, size(plan.size)));
        let segments = plan.segments;
        line("WAL", format!("{} to {}, {segments} segments", plan.first_wal, plan.last_wal));
        line("timeline", plan.timeline_path.clone());
    }
    if let Some(used) = &record.postgresql.used {
        let bin = record.postgresql.bin.as_deref().map(|bin| bin.display().to_string());
        line("PostgreSQL", format!("{used} in {}", bin.unwrap_or_default()));
    }
    for (name, ms) in stages(&record.timings) {
        if let Some(ms) = ms {
            line(name, seconds(ms));
        }
    }
    if let Some(ms) = record.objectives.rpo_measured_ms {
        line("RPO", format!("{}: so long the last commit was on its server only", seconds(ms)));
    }
    for note in &record.notes {
        line("note", note.clone());
    }
    if !record.checks.is_empty() {
        text += "\n";
        text += &checks(&record.checks);
    }
    if !record.tables.is_empty() {
        text += "\n";
        text += &tables(&record.tables);
    }
    text + &end(record)
}

fn target(record: &DrillRecord) -> String {
    let options = record.target.options.join(" ");
    match (&*record.target.mode, record.target.seed) {
        ("", _) => "none was found".to_owned(),
        ("random", Some(seed)) => format!("drawn by lot (--seed {seed}): {options}"),
        _ => options,
    }
}

fn stages(timings: &Timings) -> [(&'static str, Option<u64>); 7] {
    [
        ("choose", timings.choose_ms),
        ("fetch", timings.fetch_ms),
        ("consistent", timings.consistent_ms),
        ("replay", timings.replay_ms),
        ("ready", timings.ready_ms),
        ("RTO", timings.rto_ms),
        ("checks", timings.checks_ms),
    ]
}

fn checks(checks: &[Check]) -> String {
    let heads = [
        ("CHECK", Align::Left),
        ("WHAT", Align::Left),
        ("VERDICT", Align::Left),
        ("ANSWER", Align::Left),
    ];
    let row = |check: &Check| {
        let (kind, what, answer) = (&check.kind, &check.what, &check.answer);
        vec![kind.clone(), in_one_line(what), word(check.verdict).to_owned(), in_one_line(answer)]
    };
    table(&heads, &checks.iter().map(row).collect::<Vec<_>>())
}

fn tables(tables: &[TableRows]) -> String {
    let heads = [
        ("DATABASE", Align::Left),
        ("TABLE", Align::Left),
        ("ROWS", Align::Right),
        ("BEFORE", Align::Right),
    ];
    let row = |rows: &TableRows| {
        let before = rows.before.map_or("-".to_owned(), |before| before.to_string());
        vec![rows.database.clone(), rows.relation.clone(), rows.rows.to_string(), before]
    };
    table(&heads, &tables.iter().map(row).collect::<Vec<_>>())
}

fn end(record: &DrillRecord) -> String {
    let mut text = String::from("\n");
    if let Some(kept) = &record.kept {
        text += &format!("kept in {}; to look at it:\n", kept.directory.display());
        text += &format!("  {}\nand to remove it:\n  {}\n\n", kept.connect, kept.stop);
    }
    for reason in &record.reasons {
        text += &format!("{reason}\n");
    }
    text + &format!("{}\n", word(record.verdict))
}

pub fn swept(swept: &Swept) -> String {
    let mut text = String::new();
    for directory in &swept.removed {
        text += &format!("removed {}\n", directory.display());
    }
    for failed in &swept.failed {
        text += &format!("{failed}\n");
    }
    if text.is_empty() { "nothing was left behind\n".to_owned() } else { text }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Incomplete => "not completed",
    }
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

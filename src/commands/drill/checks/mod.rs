//! The questions a drill asks of the recovered server; one that fails does not stop the others.

pub mod statements;
pub mod expectation;
pub mod questions;
mod sql;
mod rows;
mod checksums;
mod amcheck;
mod schema;
mod sharing;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::catalog::events::Pattern;
use crate::commands::drill::Recovered;
use crate::error::Error;
use crate::postgres::connection::sqlstate;
use crate::repository::drill_record::{Check, DrillRecord, TableRows, Verdict};

use questions::Question;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of the files named by --sql, read by `questions::read` before the restore begins.
    pub questions: Vec<Question>,
    /// Where a question names no database: `postgres`, if this does not either.
    pub database: Option<String>,
    /// How long one question may take; zero: as long as the drill may.
    pub question_timeout: Duration,
    /// `None`: rows are not counted.
    pub rows: Option<CountRows>,
    /// Every page of every relation, against its checksum.
    pub checksums: Checksums,
    /// Every index and every table, by PostgreSQL's own extension.
    pub amcheck: bool,
    /// `None`: the schema is not looked at.
    pub schema: Option<DumpSchema>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Checksums {
    #[default]
    No,
    /// Where the cluster has them; of one without it is not said that they are right.
    WhereThereAre,
    /// A cluster without them leaves the question open.
    Yes,
}

#[derive(Debug, Clone, Default)]
pub struct CountRows {
    /// Of which tables; none: of all.
    pub of: Vec<Pattern>,
    /// In percent of the rows that the drill before has counted: a table that has lost more, or is
    /// gone, is a failure. `None`: it is told.
    pub loss_max: Option<u8>,
}

#[derive(Debug, Clone, Default)]
pub struct DumpSchema {
    /// Where the dumps are kept, a file for each database.
    pub directory: Option<PathBuf>,
    /// Where pg_dump may be; else beside the server, and where packages put it.
    pub bin: Option<PathBuf>,
}

#[derive(Debug, Default)]
pub struct Answers {
    pub checks: Vec<Check>,
    pub tables: Vec<TableRows>,
}

/// What became of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    verdict: Verdict,
    words: String,
}

/// Asks everything, each as if it were alone; `previous` is the drill before.
pub fn ask(server: &Recovered, wanted: &Wanted, previous: Option<&DrillRecord>) -> Answers {
    let mut answers = Answers::default();
    if checksums::is_asked(server, wanted.checksums) {
        answers.checks.push(timed("checksums", "every page", || checksums::check(server)));
    }
    if wanted.amcheck {
        answers.checks.extend(amcheck::check(server));
    }
    if let Some(count) = &wanted.rows {
        let what = "rows of the tables";
        let check = timed("rows", what, || {
            let (answer, tables) = rows::count(server, count, previous);
            answers.tables = tables;
            answer
        });
        answers.checks.push(check);
    }
    if let Some(dump) = &wanted.schema {
        answers.checks.extend(schema::check(server, dump, previous));
    }
    answers.checks.extend(
        wanted.questions.iter().map(|question| {
            timed("sql", &sql::what(question), || sql::ask(server, wanted, question))
        }),
    );
    answers
}

fn timed(kind: &str, what: &str, ask: impl FnOnce() -> Answer) -> Check {
    let began = Instant::now();
    let Answer { verdict, words } = ask();
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Check { kind: kind.to_owned(), what: what.to_owned(), verdict, answer: words, duration_ms }
}

impl Answer {
    fn passed(words: impl Into<String>) -> Answer {
        Answer { verdict: Verdict::Passed, words: words.into() }
    }

    fn failed(words: impl Into<String>) -> Answer {
        Answer { verdict: Verdict::Failed, words: words.into() }
    }

    fn incomplete(words: impl Into<String>) -> Answer {
        Answer { verdict: Verdict::Incomplete, words: words.into() }
    }

    /// What could not be done, or, where the error speaks of damage, what is wrong.
    fn of_error(error: &Error) -> Answer {
        match speaks_of_damage(error) {
            true => Answer::failed(error.to_string()),
            false => Answer::incomplete(error.to_string()),
        }
    }
}

/// Whether what the server says is a sign of damaged or missing data: data and index corruption,
/// internal errors (which "invalid page" and the like are), input and output errors, missing files.
fn speaks_of_damage(error: &Error) -> bool {
    matches!(sqlstate(error), Some("XX000" | "XX001" | "XX002" | "58030" | "58P01"))
}

/// The first of them, and how many more there are.
fn listed(findings: &[String], most: usize) -> String {
    let first = findings.iter().take(most).map(String::as_str).collect::<Vec<_>>().join("; ");
    match findings.len().saturating_sub(most) {
        0 => first,
        more => format!("{first}; and {more} more"),
    }
}

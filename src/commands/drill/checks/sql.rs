//! The user's own questions: each in a session and a transaction of its own, which is rolled back.

use std::time::Duration;

use crate::commands::drill::Recovered;
use crate::commands::drill::checks::questions::Question;
use crate::commands::drill::checks::sharing::LOCK_TIMEOUT;
use crate::commands::drill::checks::{Answer, Wanted};
use crate::error::{Error, Result};
use crate::postgres::connection::{Connection, sqlstate};

const DATABASE: &str = "postgres";
const SHOWN_MAX: usize = 160;
/// Beyond its time-out the server has this long to say so.
const GRACE: Duration = Duration::from_secs(30);

/// Its name, or the statement itself on one line, and where it stands.
pub fn what(question: &Question) -> String {
    let statement = || question.sql.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = question.name.clone().unwrap_or_else(statement);
    let file = question.file.file_name().unwrap_or(question.file.as_os_str());
    format!("{} ({}:{})", shortened(&said), file.to_string_lossy(), question.line)
}

pub fn ask(server: &Recovered, wanted: &Wanted, question: &Question) -> Answer {
    let database = question.database.as_deref().or(wanted.database.as_deref());
    let mut connection = match server.connect(database.unwrap_or(DATABASE)) {
        Ok(connection) => connection,
        // No database of this name: that is an answer.
        Err(error) if sqlstate(&error) == Some("3D000") => return Answer::failed(reason(&error)),
        Err(error) => return Answer::incomplete(reason(&error)),
    };
    let patience = match wanted.question_timeout {
        Duration::ZERO => server.deadline().remaining(),
        timeout => timeout.min(server.deadline().remaining()),
    };
    if let Err(error) = begin(&mut connection, patience) {
        return Answer::incomplete(reason(&error));
    }
    let mut found = Found::default();
    match connection.each_row(&question.sql, &mut |row| found.note(question, row)) {
        Ok(()) => found.answer(question),
        Err(error) => Answer::failed(reason(&error)),
    }
}

/// The end of the session rolls it back.
fn begin(connection: &mut Connection, patience: Duration) -> Result<()> {
    connection.set_read_timeout(Some(patience + GRACE))?;
    let patience_ms = patience.as_millis().clamp(1, i32::MAX as u128);
    let begin = format!(
        "BEGIN; SET LOCAL statement_timeout = {patience_ms}; \
         SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"
    );
    connection.query(&begin).map(|_| ())
}

/// What the rows say, of which there may be many.
#[derive(Debug, Default)]
struct Found {
    rows: u64,
    first: Option<String>,
    /// The first row that is not as expected.
    wrong: Option<String>,
}

impl Found {
    fn note(&mut self, question: &Question, row: Vec<Option<String>>) {
        self.rows += 1;
        let value = row.into_iter().next().flatten();
        if self.wrong.is_none()
            && let Err(found) = question.expectation.judge(value.as_deref())
        {
            let at = if self.rows == 1 { String::new() } else { format!("row {}: ", self.rows) };
            let found = shortened(&found);
            self.wrong = Some(format!("{at}{found}; expected {}", question.expectation));
        }
        if self.rows == 1 {
            self.first = value;
        }
    }

    fn answer(self, question: &Question) -> Answer {
        match (self.wrong, self.first, self.rows) {
            (Some(wrong), ..) => Answer::failed(wrong),
            (None, _, 0) => Answer::failed(format!("no rows; expected {}", question.expectation)),
            (None, first, 1) => Answer::passed(shortened(&first.unwrap_or_default())),
            (None, first, rows) => {
                let first = shortened(&first.unwrap_or_default());
                Answer::passed(format!("{rows} rows, the first of them {first}"))
            }
        }
    }
}

fn reason(error: &Error) -> String {
    match sqlstate(error) {
        Some("57014") => format!("it took too long: {error}"),
        _ => error.to_string(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{} …", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, shortened, what};
    use crate::commands::drill::checks::questions::Question;
    use crate::repository::drill_record::Verdict;

    fn question(expectation: &str) -> Question {
        Question {
            file: "/etc/walden/checks.sql".into(),
            line: 3,
            sql: "SELECT count(*)\n  FROM t".to_owned(),
            name: None,
            database: None,
            expectation: expectation.parse().unwrap(),
        }
    }

    #[test]
    fn every_row_must_be_as_expected_and_there_must_be_one() {
        let judge = |values: &[Option<&str>]| {
            let question = question("> 5");
            let mut found = Found::default();
            for value in values {
                found.note(&question, vec![value.map(str::to_owned), None]);
            }
            let answer = found.answer(&question);
            (answer.verdict, answer.words)
        };
        let failed = |words: &str| (Verdict::Failed, words.to_owned());
        let passed = |words: &str| (Verdict::Passed, words.to_owned());
        assert_eq!(judge(&[]), failed("no rows; expected > 5"));
        assert_eq!(judge(&[Some("6")]), passed("6"));
        assert_eq!(judge(&[Some("7"), Some("6")]), passed("2 rows, the first of them 7"));
        assert_eq!(judge(&[Some("7"), Some("5")]), failed("row 2: 5; expected > 5"));
        assert_eq!(judge(&[None]), failed("NULL; expected > 5"));
    }

    #[test]
    fn a_question_is_told_on_one_line_with_its_place() {
        assert_eq!(what(&question("= 1")), "SELECT count(*) FROM t (checks.sql:3)");
        assert_eq!(shortened(&"ä".repeat(200)).chars().count(), 162);
    }
}

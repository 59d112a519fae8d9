//! `--sql FILE`: what is asked, of which database, and what is expected; psql runs it as well.

use std::fs;
use std::path::{Path, PathBuf};

use crate::commands::drill::checks::expectation::Expectation;
use crate::commands::drill::checks::statements::{self, Remark, Statement};
use crate::error::{Context, Error, ErrorKind, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub file: PathBuf,
    pub line: usize,
    pub sql: String,
    /// From `-- name: …`.
    pub name: Option<String>,
    /// From `-- database: …`, which holds for all that follows.
    pub database: Option<String>,
    pub expectation: Expectation,
}

/// What each statement's own transaction would be ended or doubled by.
const TRANSACTION: [&str; 10] = [
    "abort",
    "begin",
    "commit",
    "end",
    "prepare transaction",
    "release",
    "rollback",
    "savepoint",
    "start transaction",
    "set transaction",
];

/// Read before anything is restored: a file that makes no sense is a matter of usage.
pub fn read(path: &Path) -> Result<Vec<Question>> {
    let text = fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorKind::Usage, format!("read {}", path.display()))
            .hint("Name a file of SQL statements in UTF-8.")
            .source(error)
    })?;
    let questions = parse(path, &text).context(|| path.display())?;
    match questions.is_empty() {
        true => Err(Error::new(ErrorKind::Usage, format!("{} asks nothing", path.display()))
            .hint("Write SQL statements that return true, each ended by a semicolon.")),
        false => Ok(questions),
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<Question>> {
    let script = statements::split(text)?;
    let mut database = None;
    let questions = script.statements.into_iter().map(|statement| {
        let question = question(path, statement, database.take())?;
        database.clone_from(&question.database);
        Ok(question)
    });
    let questions = questions.collect::<Result<Vec<_>>>()?;
    for remark in &script.left_over {
        if let Some(Directive::Expect(_)) = Directive::of(remark)? {
            return Err(wrong(
                remark.line,
                "no statement follows to which this expectation belongs",
            )
            .hint("Write it before the statement, or on the line where it ends."));
        }
    }
    Ok(questions)
}

fn question(path: &Path, statement: Statement, database: Option<String>) -> Result<Question> {
    let begin = first_words(&statement.text);
    if TRANSACTION.iter().any(|word| begin == *word || begin.split(' ').next() == Some(word)) {
        return Err(wrong(
            statement.line,
            &format!("{:?} has no place here", begin.to_uppercase()),
        )
        .hint("Each statement has a transaction of its own, which is rolled back."));
    }
    let (mut name, mut database, mut expected) = (None, database, None);
    for remark in &statement.remarks {
        match Directive::of(remark)? {
            None => {}
            Some(Directive::Name(text)) => name = Some(text),
            Some(Directive::Database(text)) => database = Some(text),
            Some(Directive::Expect(_)) if expected.is_some() => {
                return Err(wrong(remark.line, "a second expectation of one statement")
                    .hint("Each statement has one: say the rest in SQL."));
            }
            Some(Directive::Expect(expectation)) => expected = Some(expectation),
        }
    }
    Ok(Question {
        file: path.to_owned(),
        line: statement.line,
        sql: statement.text,
        name,
        database,
        expectation: expected.unwrap_or(Expectation::NotFalse),
    })
}

/// The first two words in small letters.
fn first_words(sql: &str) -> String {
    let mut words = sql.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let two: Vec<&str> = words.by_ref().take(2).collect();
    let two = two.join(" ").to_lowercase();
    match TRANSACTION.contains(&two.as_str()) {
        true => two,
        false => two.split(' ').next().unwrap_or_default().to_owned(),
    }
}

enum Directive {
    Name(String),
    Database(String),
    Expect(Expectation),
}

impl Directive {
    fn of(remark: &Remark) -> Result<Option<Directive>> {
        let after = |word: &str| {
            let (begin, rest) = remark.text.split_at_checked(word.len())?;
            begin.eq_ignore_ascii_case(word).then(|| rest.trim().to_owned())
        };
        if let Some(name) = after("name:") {
            return Ok(Some(Directive::Name(name)));
        }
        if let Some(database) = after("database:") {
            return Ok(Some(Directive::Database(database)));
        }
        let word = remark.text.split(|c: char| !c.is_ascii_alphanumeric()).next();
        if !word.is_some_and(|word| word.eq_ignore_ascii_case("expect")) {
            return Ok(None);
        }
        let expectation = remark.text["expect".len()..].trim_start_matches(':').parse();
        expectation.map(|expectation| Some(Directive::Expect(expectation))).map_err(
            |why: String| {
                wrong(remark.line, &why).hint(
                    "For example: -- expect >= 1000. A comment that only begins so needs another \
                     word first.",
                )
            },
        )
    }
}

fn wrong(line: usize, what: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("line {line}: {what}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Question, parse};

    fn questions(text: &str) -> crate::error::Result<Vec<Question>> {
        parse(Path::new("checks.sql"), text)
    }

    #[test]
    fn comments_say_what_is_expected_and_where_to_ask() {
        let found = questions(
            "SELECT true;\n\
             -- database: shop\n\
             -- name: orders are there\n\
             SELECT count(*) FROM orders; -- expect >= 1000\n\
             SELECT max(id) FROM orders; -- expected to grow\n\
             -- DATABASE: other\n\
             SELECT version() -- EXPECT: <> ''\n;",
        )
        .unwrap();
        let of = |at: usize| {
            let Question { line, name, database, expectation, .. } = &found[at];
            (*line, name.as_deref(), database.as_deref(), expectation.to_string())
        };
        assert_eq!(of(0), (1, None, None, "neither false nor NULL".to_owned()));
        assert_eq!(of(1), (4, Some("orders are there"), Some("shop"), ">= 1000".to_owned()));
        assert_eq!(of(2), (5, None, Some("shop"), "neither false nor NULL".to_owned()));
        assert_eq!(of(3), (7, None, Some("other"), "<> ''".to_owned()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (text, line) in [
            ("SELECT 1; -- expect many", 1),
            ("\nSELECT 1; -- expect = 1\nSELECT 2;\n-- expect = 2\n", 4),
            ("-- expect = 1\nSELECT 1; -- expect = 2", 2),
            ("SELECT 1;\nCOMMIT;", 2),
            ("begin;", 1),
            ("Start Transaction read only;", 1),
            ("PREPARE TRANSACTION 'x';", 1),
        ] {
            let error = questions(text).unwrap_err();
            assert!(error.to_string().starts_with(&format!("line {line}: ")), "{error}");
            assert!(error.hint_text().is_some(), "{error}");
        }
        assert!(questions("PREPARE p AS SELECT 1; SET work_mem = 1; SELECT begin FROM t").is_ok());
    }
}

//! The statements of an SQL file, as psql would take them apart, and the comments beside them.

use crate::error::{Error, ErrorKind, Result};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statement {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// Without the semicolon.
    pub text: String,
    /// Before it, in it, and on the line where it ends.
    pub remarks: Vec<Remark>,
}

/// A comment of two dashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    pub line: usize,
    /// Without the dashes.
    pub text: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub statements: Vec<Statement>,
    /// After the last statement.
    pub left_over: Vec<Remark>,
}

/// Errors name the line.
pub fn split(text: &str) -> Result<Script> {
    // Editors of one system put a mark before the first letter; PostgreSQL knows none.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut splitter = Splitter { text, at: 0, line: 1, parentheses: 0, ..Splitter::default() };
    splitter.run()?;
    Ok(Script { statements: splitter.done, left_over: splitter.remarks })
}

#[derive(Default)]
struct Splitter<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    parentheses: usize,
    /// Where the statement under way begins: its byte and its line.
    begun: Option<(usize, usize)>,
    /// Of the statement under way, or of the next one.
    remarks: Vec<Remark>,
    /// On which line the last statement ended.
    ended_on: usize,
    done: Vec<Statement>,
}

impl<'t> Splitter<'t> {
    fn run(&mut self) -> Result<()> {
        while let Some(next) = self.rest().chars().next() {
            let rest = self.rest();
            match next {
                _ if next.is_whitespace() => self.pass(next.len_utf8()),
                '-' if rest.starts_with("--") => self.remark(),
                '/' if rest.starts_with("/*") => self.block_comment()?,
                ';' if self.parentheses == 0 => self.end(),
                _ => self.token(next)?,
            }
        }
        self.at = self.text.len();
        self.end();
        Ok(())
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Counts the lines on its way.
    fn pass(&mut self, bytes: usize) {
        let passed = &self.text[self.at..self.at + bytes];
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count();
        self.at += bytes;
    }

    fn token(&mut self, first: char) -> Result<()> {
        self.begun.get_or_insert((self.at, self.line));
        let rest = self.rest();
        match first {
            '\\' => {
                return Err(self.wrong("a command of psql", "Write SQL only: psql has no part."));
            }
            '\0' => return Err(self.wrong("a zero byte", "Is it an SQL file?")),
            '\'' => self.quoted('\'', false)?,
            '"' => self.quoted('"', false)?,
            '$' => match dollar_tag(rest) {
                Some(tag) => self.dollar_quoted(tag)?,
                None => self.pass(1),
            },
            '(' | '[' => {
                self.parentheses += 1;
                self.pass(1);
            }
            ')' | ']' => {
                self.parentheses = self.parentheses.saturating_sub(1);
                self.pass(1);
            }
            _ if is_name(first) => {
                let length = rest.find(|c| !is_name(c) && c != '$').unwrap_or(rest.len());
                let word = &rest[..length];
                self.pass(length);
                if word.eq_ignore_ascii_case("e") && self.rest().starts_with('\'') {
                    self.quoted('\'', true)?;
                }
            }
            _ => self.pass(first.len_utf8()),
        }
        Ok(())
    }

    /// A quote within is written twice, or, where they count, after a backslash.
    fn quoted(&mut self, quote: char, backslashes: bool) -> Result<()> {
        let rest = self.rest();
        let mut inside = rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = inside.next() {
            if c == '\\' && backslashes {
                inside.next();
            } else if c == quote {
                match inside.peek() {
                    Some((_, next)) if *next == quote => {
                        inside.next();
                    }
                    _ => {
                        self.pass(at + 1);
                        return Ok(());
                    }
                }
            }
        }
        Err(self.endless(&format!("the quote {quote}")))
    }

    fn dollar_quoted(&mut self, tag: &str) -> Result<()> {
        match self.rest()[tag.len()..].find(tag) {
            Some(at) => {
                self.pass(2 * tag.len() + at);
                Ok(())
            }
            None => Err(self.endless(&format!("the quote {tag}"))),
        }
    }

    /// They nest.
    fn block_comment(&mut self) -> Result<()> {
        let bytes = self.rest().as_bytes();
        let (mut depth, mut at) = (0, 0);
        while at < bytes.len() {
            match &bytes[at..] {
                [b'/', b'*', ..] => {
                    depth += 1;
                    at += 2;
                }
                [b'*', b'/', ..] => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        self.pass(at);
                        return Ok(());
                    }
                }
                _ => at += 1,
            }
        }
        Err(self.endless("the comment /*"))
    }

    fn remark(&mut self) {
        let rest = self.rest();
        let length = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let text = rest[2..length].trim().to_owned();
        let remark = Remark { line: self.line, text };
        match self.done.last_mut() {
            Some(last) if self.begun.is_none() && self.ended_on == self.line => {
                last.remarks.push(remark);
            }
            _ => self.remarks.push(remark),
        }
        self.pass(length);
    }

    fn end(&mut self) {
        if let Some((begin, line)) = self.begun.take() {
            let text = self.text[begin..self.at].trim_end().to_owned();
            let remarks = std::mem::take(&mut self.remarks);
            self.done.push(Statement { line, text, remarks });
            self.ended_on = self.line;
        }
        self.parentheses = 0;
        if !self.rest().is_empty() {
            self.pass(1);
        }
    }

    fn endless(&self, what: &str) -> Error {
        self.wrong(&format!("{what} that never ends"), "Look for where it should have ended.")
    }

    fn wrong(&self, what: &str, hint: &'static str) -> Error {
        Error::new(ErrorKind::Usage, format!("line {}: {what}", self.line)).hint(hint)
    }
}

/// What a name may hold but the dollar sign: as in the server's scan.l, all beyond ASCII too.
fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

/// `$$` or `$tag$` at the beginning.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 1;
    let tag = &text[1..end];
    let begins_as_name = !tag.starts_with(|c: char| c.is_ascii_digit());
    (begins_as_name && tag.chars().all(is_name)).then_some(&text[..=end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

    use super::split;

    fn texts(script: &str) -> Vec<String> {
        let script = split(script).unwrap();
        script.statements.into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        for whole in [
            "SELECT 'a;b'",
            "SELECT 'it''s; so'",
            r"SELECT 'back\' = E'\';\\'",
            r"SELECT e'a\'; b'",
            "SELECT \"odd;\"\"name;\"",
            "SELECT $$a;b$$",
            "SELECT $x$ $$; $y$ ; $x$",
            "SELECT $ä$;$ä$",
            "SELECT 1 /* a; /* b; */ c; */ + 1",
            "SELECT 1 -- a;\n + 1",
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
            "SELECT a$1$b FROM t",
            "SELECT $1",
            "SELECT type'x'",
        ] {
            assert_eq!(texts(&format!("{whole};SELECT 2")), [whole, "SELECT 2"]);
            assert_eq!(texts(whole), [whole]);
        }
        assert_eq!(texts(";; ;\n-- nothing\n"), Vec::<String>::new());
        assert_eq!(texts("\u{feff}SELECT 1 ; "), ["SELECT 1"]);
    }

    /// After `a$b` the dollar sign is part of the name, and `$$` no quote.
    #[test]
    fn a_dollar_sign_in_a_name_opens_no_quote() {
        assert_eq!(texts("SELECT a$$; SELECT b$$"), ["SELECT a$$", "SELECT b$$"]);
    }

    #[test]
    fn remarks_belong_to_the_statement_they_stand_before_in_or_behind() {
        let script = "-- one\n\n-- two\nSELECT 1 -- three\n; -- four\n-- five\nSELECT 2;--six\n--7";
        let script = split(script).unwrap();
        let of = |at: usize| -> Vec<(usize, &str)> {
            let remarks = script.statements[at].remarks.iter();
            remarks.map(|remark| (remark.line, remark.text.as_str())).collect()
        };
        assert_eq!(of(0), [(1, "one"), (3, "two"), (4, "three"), (5, "four")]);
        assert_eq!(of(1), [(6, "five"), (7, "six")]);
        assert_eq!(script.statements[0].line, 4);
        assert_eq!(script.left_over[0].text, "7");
        let two = split("SELECT 1; SELECT 2; -- of the second").unwrap().statements;
        assert!(two[0].remarks.is_empty() && two[1].remarks.len() == 1);
    }

    #[test]
    fn what_never_ends_and_what_is_for_psql_is_named_with_its_line() {
        for (script, line, what) in [
            ("SELECT 1;\n\\d t", 2, "psql"),
            ("SELECT 1 \\g", 1, "psql"),
            ("SELECT 1;\nSELECT 'a\nb", 2, "the quote '"),
            ("SELECT $x$ a $y$", 1, "$x$"),
            ("\n\n/* /* */", 3, "the comment"),
            ("SELECT \"", 1, "the quote \""),
            ("SELECT \0", 1, "zero byte"),
        ] {
            let error = split(script).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
            assert!(error.contains(what), "{error}");
        }
        assert!(split("SELECT '\\d', \"\\\", $$\\$$ -- \\\n/* \\ */").is_ok());
    }

    fn piece() -> impl Strategy<Value = String> {
        let odd = prop::collection::vec(
            prop_oneof![
                Just(";"),
                Just("--"),
                Just("/*"),
                Just("$"),
                Just("\\"),
                Just("\n"),
                Just("a")
            ],
            0..6,
        )
        .prop_map(|parts| parts.concat());
        prop_oneof![
            Just("SELECT 1".to_owned()),
            odd.clone().prop_map(|text| format!("SELECT '{text}'")),
            odd.clone().prop_map(|text| format!("SELECT \"a{text}\"")),
            odd.clone().prop_map(|text| format!("SELECT $q${text}$q$")),
            odd.prop_map(|text| format!("SELECT 1 /*{}*/", text.replace(['/', '*'], ""))),
        ]
    }

    proptest! {
        /// What was put together comes apart again.
        #[test]
        fn statements_come_apart_as_they_were_put_together(
            pieces in prop::collection::vec(piece(), 0..8),
            remark in any::<bool>(),
        ) {
            let between = if remark { ";\n-- ; ' \" $$ /*\n" } else { " ; " };
            let found = texts(&pieces.join(between));
            assert_eq!(found, pieces);
        }

        /// Whatever comes, it ends, and nothing is told twice.
        #[test]
        fn any_text_is_taken_apart_or_refused(text in ".{0,60}") {
            if let Ok(script) = split(&text) {
                let length: usize = script.statements.iter().map(|one| one.text.len()).sum();
                assert!(length <= text.len());
            }
        }
    }
}

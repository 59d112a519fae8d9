//! What a value is to be: `expect >= 1000`, and otherwise just not false.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Of the first column of each row, and of at least one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// Neither false nor NULL.
    NotFalse,
    Compared(Operator, Wanted),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Compared as numbers are.
    Number(Decimal),
    /// Compared byte for byte.
    Text(String),
}

/// A number as people and PostgreSQL write it, exact however long it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    is_negative: bool,
    /// Before the point, without leading zeros.
    whole: String,
    /// After it, without zeros at the end.
    fraction: String,
}

impl Expectation {
    /// Whether the value is as expected, or what is wrong with it.
    pub fn judge(&self, value: Option<&str>) -> Result<(), String> {
        let Some(value) = value else { return Err("NULL".to_owned()) };
        match self {
            Expectation::NotFalse => match value {
                "f" | "false" => Err("false".to_owned()),
                _ => Ok(()),
            },
            Expectation::Compared(operator, wanted) => {
                let ordering = match wanted {
                    Wanted::Text(text) => value.as_bytes().cmp(text.as_bytes()),
                    Wanted::Number(number) => match value.parse::<Decimal>() {
                        Ok(value) => value.cmp(number),
                        Err(_) => return Err(format!("{value:?}, which is no number")),
                    },
                };
                if operator.holds(ordering) { Ok(()) } else { Err(value.to_owned()) }
            }
        }
    }
}

impl Operator {
    const ALL: [(&str, Operator); 8] = [
        (">=", Operator::GreaterOrEqual),
        ("<=", Operator::LessOrEqual),
        ("<>", Operator::NotEqual),
        ("!=", Operator::NotEqual),
        ("==", Operator::Equal),
        ("=", Operator::Equal),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];

    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Operator::Equal => ordering.is_eq(),
            Operator::NotEqual => ordering.is_ne(),
            Operator::Less => ordering.is_lt(),
            Operator::LessOrEqual => ordering.is_le(),
            Operator::Greater => ordering.is_gt(),
            Operator::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// What stands behind the word `expect`.
impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let known = Operator::ALL.iter().find(|(sign, _)| text.starts_with(sign));
        let Some((sign, operator)) = known else {
            return Err(format!("expect needs one of = <> < <= > >=, not {text:?}"));
        };
        let value = text[sign.len()..].trim();
        let quoted = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
        let wanted = match (quoted, value) {
            (Some(inside), _) => Wanted::Text(unquoted(inside)?),
            // As PostgreSQL writes them.
            (None, "true") => Wanted::Text("t".to_owned()),
            (None, "false") => Wanted::Text("f".to_owned()),
            (None, number) => Wanted::Number(number.parse().map_err(|_| {
                format!("expect needs a number, true, false or a text in quotes, not {number:?}")
            })?),
        };
        Ok(Expectation::Compared(*operator, wanted))
    }
}

fn unquoted(inside: &str) -> Result<String, String> {
    let text = inside.replace("''", "\u{0}");
    match text.contains('\'') {
        true => Err("a quote within a text is written twice".to_owned()),
        false => Ok(text.replace('\u{0}', "'")),
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expectation::NotFalse => f.write_str("neither false nor NULL"),
            Expectation::Compared(operator, wanted) => {
                let sign = Operator::ALL.iter().find(|(_, known)| known == operator);
                write!(f, "{} ", sign.map_or("", |(sign, _)| sign))?;
                match wanted {
                    Wanted::Number(number) => write!(f, "{number}"),
                    Wanted::Text(text) => write!(f, "'{text}'"),
                }
            }
        }
    }
}

impl FromStr for Decimal {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| ())?),
            None => (text, 0),
        };
        let digits = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || whole.len() + fraction.len() == 0 {
            return Err(());
        }
        // What PostgreSQL's numbers can be, and not the memory of this machine.
        if exponent.unsigned_abs() > 20_000 {
            return Err(());
        }
        let (mut whole, mut fraction) = (whole.to_owned(), fraction.to_owned());
        for _ in 0..exponent {
            whole.push(if fraction.is_empty() { '0' } else { fraction.remove(0) });
        }
        for _ in exponent..0 {
            fraction.insert(0, whole.pop().unwrap_or('0'));
        }
        let whole = whole.trim_start_matches('0').to_owned();
        let fraction = fraction.trim_end_matches('0').to_owned();
        let is_zero = whole.is_empty() && fraction.is_empty();
        Ok(Decimal { is_negative: mantissa.starts_with('-') && !is_zero, whole, fraction })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |of: &Decimal| (of.whole.len(), of.whole.clone(), of.fraction.clone());
        match (self.is_negative, other.is_negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => size(self).cmp(&size(other)),
            (true, true) => size(other).cmp(&size(self)),
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negative { "-" } else { "" };
        let whole = if self.whole.is_empty() { "0" } else { &self.whole };
        let point = if self.fraction.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{}", self.fraction)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{Decimal, Expectation};

    fn holds(expectation: &str, value: &str) -> bool {
        expectation.parse::<Expectation>().unwrap().judge(Some(value)).is_ok()
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(holds(">= 1000", "1000") && holds(">= 1000", "1000.00") && holds(">= 9", "10"));
        assert!(!holds(">= 1000", "999.99") && holds("< 0", "-1e3") && !holds("< -5", "-4.9"));
        assert!(holds("= 1e3", "1000") && holds("<> 1", "1.0001") && holds("== 0", "-0.0"));
        assert!(holds("> 18446744073709551616", "18446744073709551617"));
        assert!(holds("<= 0.015", "1.5e-2") && !holds("< 0.015", "1.5e-2"));
        for nonsense in ["NaN", "", "abc", "Infinity", "1 000", "."] {
            assert!(!holds(">= 0", nonsense), "{nonsense}");
        }
    }

    #[test]
    fn texts_and_truth_are_compared_as_they_are() {
        assert!(holds("= 'it''s'", "it's") && holds("=true", "t") && holds("= false", "f"));
        assert!(holds(">= '2026-11-21'", "2026-11-21 00:00:00+00") && !holds("= ''", " "));
        assert!(!holds("= 'a'", "A"));
    }

    #[test]
    fn without_an_operator_anything_but_false_and_null_is_right() {
        let any = Expectation::NotFalse;
        assert!(any.judge(Some("t")).is_ok() && any.judge(Some("0")).is_ok());
        assert!(any.judge(Some("f")).is_err() && any.judge(None).is_err());
        let number: Expectation = ">= 0".parse().unwrap();
        assert_eq!(number.judge(None).unwrap_err(), "NULL");
        assert_eq!(number.to_string(), ">= 0");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in ["", "1000", "at least 5", ">= many", "= 'a", "= 'a'b'", ">", "~ 'a'"] {
            assert!(wrong.parse::<Expectation>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn order_is_that_of_numbers(one in any::<i64>(), other in any::<i64>(), scale in 0u32..6) {
            let text = |n: i64| format!("{n}e-{scale}").parse::<Decimal>().unwrap();
            assert_eq!(text(one).cmp(&text(other)), one.cmp(&other));
        }
    }
}

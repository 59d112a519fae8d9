//! Figures as people read them, each with where it stands in `--json`.

use bytesize::ByteSize;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use serde::Serialize;

use crate::commands::report::statements::span;
use crate::commands::report::{Shown, State};
use crate::repository::audit::Outcome;
use crate::repository::drill_record::Verdict;

/// `at` is a JSON pointer into the report, `value` what stands there.
pub fn figure<T: Serialize + ?Sized>(at: &str, value: &T, text: &str) -> Markup {
    let value = serde_json::to_string(value).unwrap_or_default();
    html! { data data-at=(at) value=(value) { (text) } }
}

pub fn count(at: &str, value: u64) -> Markup {
    figure(at, &value, &grouped(value))
}

pub fn bytes(at: &str, value: u64) -> Markup {
    figure(at, &value, &size(value))
}

pub fn optional_bytes(at: &str, value: Option<u64>) -> Markup {
    figure(at, &value, &value.map_or_else(|| "–".to_owned(), size))
}

/// Of milliseconds.
pub fn time_span(at: &str, value: Option<u64>) -> Markup {
    figure(at, &value, &value.map_or_else(|| "–".to_owned(), span))
}

pub fn time(at: &str, value: Option<Timestamp>) -> Markup {
    figure(at, &value, &value.map_or_else(|| "–".to_owned(), moment))
}

/// Of a commit: with six digits always, as `walden window` has it.
pub fn commit_time(at: &str, value: Option<Timestamp>) -> Markup {
    let text = value.map_or_else(|| "–".to_owned(), moment);
    figure(at, &value.map(|value| format!("{value:.6}")), &text)
}

pub fn words(at: &str, value: &str) -> Markup {
    figure(at, value, value)
}

pub fn optional_words(at: &str, value: Option<&str>) -> Markup {
    figure(at, &value, value.unwrap_or("–"))
}

pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `2026-11-22 10:15:30 UTC`
pub fn moment(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

pub fn day(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
}

/// `12 345`, with a narrow space that does not break.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A word and its mark: never by colour alone.
pub struct Badge {
    pub class: &'static str,
    pub mark: &'static str,
    pub word: &'static str,
}

impl Badge {
    pub fn markup(&self) -> Markup {
        html! {
            span class={ "badge " (self.class) } {
                span.mark aria-hidden="true" { (self.mark) } " " (self.word)
            }
        }
    }
}

const GOOD: &str = "good";
const ATTENTION: &str = "attention";
const BAD: &str = "bad";

pub fn of_state(state: State) -> Badge {
    match state {
        State::Good => Badge { class: GOOD, mark: "✓", word: "good" },
        State::Note => Badge { class: "note", mark: "i", word: "to know" },
        State::Attention => Badge { class: ATTENTION, mark: "!", word: "attention" },
        State::Bad => Badge { class: BAD, mark: "✕", word: "wrong" },
    }
}

pub fn of_verdict(verdict: Verdict) -> Badge {
    match verdict {
        Verdict::Passed => Badge { class: GOOD, mark: "✓", word: "passed" },
        Verdict::Incomplete => Badge { class: ATTENTION, mark: "!", word: "incomplete" },
        Verdict::Failed => Badge { class: BAD, mark: "✕", word: "failed" },
    }
}

pub fn of_outcome(outcome: Outcome) -> Badge {
    match outcome {
        Outcome::Done => Badge { class: GOOD, mark: "✓", word: "done" },
        Outcome::FoundWrong => Badge { class: BAD, mark: "✕", word: "found wrong" },
        Outcome::CouldNotCheck => Badge { class: ATTENTION, mark: "!", word: "could not check" },
        Outcome::Failed => Badge { class: BAD, mark: "✕", word: "failed" },
    }
}

pub fn of_shown(shown: Shown) -> Badge {
    match shown {
        Shown::Yes => Badge { class: GOOD, mark: "✓", word: "shown" },
        Shown::Partly => Badge { class: ATTENTION, mark: "!", word: "in part" },
        Shown::No => Badge { class: BAD, mark: "–", word: "not shown" },
    }
}

#[cfg(test)]
mod tests {
    use super::{figure, grouped};

    #[test]
    fn a_figure_says_where_it_stands_and_is_escaped() {
        let markup = figure("/a/0", "<b>", "<i>").into_string();
        assert_eq!(
            markup,
            r#"<data data-at="/a/0" value="&quot;&lt;b&gt;&quot;">&lt;i&gt;</data>"#
        );
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        let plain = |number| grouped(number).replace('\u{202f}', " ");
        assert_eq!([0, 999, 1000, 1_234_567].map(plain), ["0", "999", "1 000", "1 234 567"]);
    }
}

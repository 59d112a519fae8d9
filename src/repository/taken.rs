//! By what, by whom and how a backup was taken, and what its owner wanted noted.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};

/// Notes stand in the header of the manifest, which lists read.
const NOTES_MAX: usize = 16;
const KEY_BYTES_MAX: usize = 40;
const VALUE_BYTES_MAX: usize = 200;
/// PostgreSQL takes 1024 bytes, and a file name of its own beside them.
const LABEL_BYTES_MAX: usize = 512;

/// Of use to people only: no restore depends on it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Taken {
    /// As the server says it: `17.11 (Debian 17.11-1.pgdg12+1)`.
    pub server_version: String,
    /// `None`: the server did not say.
    pub data_checksums: Option<bool>,
    /// Who ran walden, on the host of `origin`.
    pub os_user: String,
    pub database_user: String,
    /// Threads.
    pub jobs: usize,
    pub compression_level: i32,
    /// In bytes a second, where there was a limit.
    pub max_rate: Option<u64>,
    /// From the end of the checkpoint to the last pack.
    pub copy_ms: u64,
    /// From the first word until all but the manifest was stored.
    pub duration_ms: u64,
    /// Raw bytes in a second of the copy.
    pub rate: u64,
}

/// Notes as they were written, one by one, each `KEY=VALUE`.
pub fn notes(written: &[String]) -> Result<BTreeMap<String, String>> {
    let mut notes = BTreeMap::new();
    for text in written {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            usage(format!("the note {text:?} has no =")).hint("Write it as --note KEY=VALUE.")
        })?;
        check_key(key)?;
        if value.len() > VALUE_BYTES_MAX || !is_printable(value) {
            return Err(usage(format!("the note {key} has a value that cannot be kept"))
                .hint(format!("Up to {VALUE_BYTES_MAX} bytes of printable UTF-8 are.")));
        }
        if notes.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(usage(format!("there are two notes {key}")).hint("Write each once."));
        }
    }
    if notes.len() > NOTES_MAX {
        return Err(usage(format!("{} notes are too many", notes.len()))
            .hint(format!("Up to {NOTES_MAX} are kept.")));
    }
    Ok(notes)
}

/// A label that stands on one line of `backup_label`.
pub fn label(text: String) -> Result<String> {
    if text.len() <= LABEL_BYTES_MAX && !text.is_empty() && is_printable(&text) {
        return Ok(text);
    }
    Err(usage("the label cannot be one".to_owned()).hint(format!(
        "Write up to {LABEL_BYTES_MAX} bytes of printable UTF-8; for more there is --note."
    )))
}

fn check_key(key: &str) -> Result<()> {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    if (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(fits) {
        return Ok(());
    }
    Err(usage(format!("{key:?} cannot be the key of a note"))
        .hint(format!("Keys have 1 to {KEY_BYTES_MAX} of a-z, 0-9, `.`, `_` and `-`.")))
}

fn is_printable(text: &str) -> bool {
    // What turns the direction of writing would make a list say other than it holds.
    let turns = |c: char| {
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
    };
    !text.chars().any(|c| c.is_control() || turns(c))
}

fn usage(message: String) -> Error {
    Error::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::{label, notes};
    use crate::error::ErrorKind;

    fn of(written: &[&str]) -> Result<Vec<(String, String)>, ErrorKind> {
        let written: Vec<String> = written.iter().map(|text| (*text).to_owned()).collect();
        notes(&written).map(|notes| notes.into_iter().collect()).map_err(|error| error.kind())
    }

    #[test]
    fn notes_are_kept_as_they_are_written() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected = vec![pair("b.c", "x=y, Ünïcode"), pair("ticket", "OPS-1")];
        assert_eq!(of(&["ticket=OPS-1", "b.c=x=y, Ünïcode"]), Ok(expected));
        assert_eq!(of(&["empty="]), Ok(vec![pair("empty", "")]));
        assert_eq!(of(&[]), Ok(vec![]));
    }

    #[test]
    fn what_a_list_could_not_show_is_refused() {
        let (long_key, long_value) = ("k".repeat(41), format!("k={}", "v".repeat(201)));
        let long_key = format!("{long_key}=v");
        let many: Vec<String> = (0..17).map(|number| format!("k{number}=v")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for bad in [
            &["no"][..],
            &["=v"],
            &["Key=v"],
            &["a b=v"],
            &["k=two\nlines"],
            &["k=\u{1b}[31m"],
            &["k=\u{202e}txt"],
            &["k=1", "k=2"],
            &[&long_key],
            &[&long_value],
            &many,
        ] {
            assert_eq!(of(bad), Err(ErrorKind::Usage), "{bad:?}");
        }
    }

    #[test]
    fn a_label_is_one_line() {
        assert_eq!(label("it's nightly".to_owned()).unwrap(), "it's nightly");
        for bad in ["", "two\nlines", &"x".repeat(513)] {
            assert_eq!(label(bad.to_owned()).unwrap_err().kind(), ErrorKind::Usage);
        }
    }
}

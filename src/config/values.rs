//! Text to values. What a variable or a flag says is text, so every type can be read from it.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::keys::Kind;

/// Why a text is not of a type: what is wrong with it, and how to write it.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfit {
    pub wrong: String,
    pub write: String,
}

/// Longer makes no sense for any setting, and keeps clock arithmetic far from its limits.
const SPAN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

pub fn switch(text: &str) -> Result<bool, Unfit> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(unfit(text, "is neither true nor false", "Write true or false.")),
    }
}

pub fn number(text: &str, min: i64, max: i64) -> Result<i64, Unfit> {
    let write = || format!("Write a whole number from {min} to {max}.");
    let number: i64 =
        text.trim().parse().map_err(|_| unfit(text, "is not a whole number", write()))?;
    if (min..=max).contains(&number) {
        return Ok(number);
    }
    Err(unfit(text, "is out of range", write()))
}

/// A time span with its unit, zero included; at most a year.
pub fn span(text: &str) -> Result<Duration, Unfit> {
    let write = "Write a number with its unit: \"120s\", \"5min\" or \"1h 30min\".";
    let span: jiff::Span =
        text.trim().parse().map_err(|_| unfit(text, "is not a time span", write))?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let signed = span.to_duration(days).map_err(|_| unfit(text, "is not a time span", write))?;
    match Duration::try_from(signed) {
        Ok(span) if span <= SPAN_MAX => Ok(span),
        Ok(_) => Err(unfit(text, "is longer than a year", write)),
        Err(_) => Err(unfit(text, "is negative", write)),
    }
}

/// Bytes, both bounds included.
pub fn size(text: &str, min: u64, max: u64) -> Result<u64, Unfit> {
    let [least, most] = [min, max].map(|bytes| bytesize::ByteSize(bytes).display().iec());
    let write = || format!("Write a size with its unit, like \"64MiB\", from {least} to {most}.");
    let size: bytesize::ByteSize =
        text.trim().parse().map_err(|_| unfit(text, "is not a size", write()))?;
    if (min..=max).contains(&size.as_u64()) {
        return Ok(size.as_u64());
    }
    Err(unfit(text, "is out of range", write()))
}

/// `5%` as 0.05.
pub fn share(text: &str) -> Result<f64, Unfit> {
    let number = text.trim().strip_suffix('%').and_then(|digits| digits.trim().parse().ok());
    let share = number.filter(|percent: &f64| *percent > 0.0 && *percent <= 100.0);
    let write = "Write a percentage above 0 and up to 100, like \"5%\".";
    share.map(|percent| percent / 100.0).ok_or_else(|| unfit(text, "is not a percentage", write))
}

pub fn choice(text: &str, choices: &[&'static str]) -> Result<&'static str, Unfit> {
    let write = || format!("Write one of {}.", choices.join(", "));
    choices
        .iter()
        .copied()
        .find(|choice| *choice == text)
        .ok_or_else(|| unfit(text, "is not one of the choices", write()))
}

/// Absolute: PostgreSQL calls us in its data directory, a person elsewhere.
pub fn path(path: PathBuf) -> Result<PathBuf, Unfit> {
    if path.is_absolute() {
        return Ok(path);
    }
    let write =
        "Write it from the root, because PostgreSQL and you stand in different directories.";
    Err(unfit(&path.to_string_lossy(), "is not an absolute path", write))
}

/// A URL, or a path, that holds no credentials. The text itself is never repeated: it may hold
/// some.
pub fn url(text: &str) -> Result<&str, Unfit> {
    let write = "Credentials come by the cloud's own chain, such as AWS_ACCESS_KEY_ID, a profile \
                 or a role.";
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(text);
    };
    let is_remote = !scheme.eq_ignore_ascii_case("file");
    if is_remote && rest.contains(['@', '?']) {
        let wrong = format!("the {scheme} URL holds credentials or parameters");
        return Err(Unfit { wrong, write: write.to_owned() });
    }
    Ok(text)
}

/// How a type is called when TOML holds another one.
pub fn expected(kind: Kind) -> String {
    match kind {
        Kind::Text | Kind::Path | Kind::Url => "a text in quotes".to_owned(),
        Kind::Switch => "true or false".to_owned(),
        Kind::Number { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Span => "a time span in quotes, like \"120s\" or \"5min\"".to_owned(),
        Kind::Size { .. } => "a size in quotes, like \"64MiB\"".to_owned(),
        Kind::Share => "a percentage in quotes, like \"5%\"".to_owned(),
        Kind::Choice(choices) => format!("one of \"{}\"", choices.join("\", \"")),
    }
}

fn unfit(text: &str, wrong: &str, write: impl Into<String>) -> Unfit {
    Unfit { wrong: format!("{text:?} {wrong}"), write: write.into() }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use crate::config::values;

    #[test]
    fn spans_are_read_as_people_write_them() {
        let seconds = |text| values::span(text).map(|span| span.as_secs());
        assert_eq!(seconds("120s"), Ok(120));
        assert_eq!(seconds("5min"), Ok(300));
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("1h 30min"), Ok(5400));
        assert_eq!(seconds("0s"), Ok(0));
        assert_eq!(seconds("7d"), Ok(7 * 86_400));
        assert_eq!(values::span("1500ms"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn a_span_without_a_unit_or_beyond_reason_is_refused() {
        for text in ["120", "", "s", "-5s", "100000h", "1mo", "soon", "5 parsecs"] {
            let unfit = values::span(text).unwrap_err();
            assert!(unfit.wrong.starts_with(&format!("{text:?} is")), "{unfit:?}");
            assert!(unfit.write.contains("5min"), "{unfit:?}");
        }
    }

    #[test]
    fn sizes_know_binary_and_decimal_units_and_their_bounds() {
        let size = |text| values::size(text, 32 << 10, 1 << 30);
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("64 MB"), Ok(64_000_000));
        assert_eq!(size("32KiB"), Ok(32 << 10));
        for text in ["1KiB", "2GiB", "much", "", "-1MiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!(super::share("5%").unwrap(), 0.05);
        assert_eq!(super::share(" 100 %").unwrap(), 1.0);
        assert_eq!(super::share("0.5%").unwrap(), 0.005);
        for wrong in ["5", "0%", "101%", "-1%", "NaN%", "inf%", "", "%"] {
            assert!(super::share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_keep_their_range() {
        assert_eq!(values::number("-7", -7, 19), Ok(-7));
        assert_eq!(values::number("19", -7, 19), Ok(19));
        for text in ["-8", "20", "1.5", "", "three"] {
            assert!(values::number(text, -7, 19).is_err(), "{text}");
        }
    }

    #[test]
    fn switches_are_read_in_the_words_postgresql_takes() {
        for text in ["true", "on", "YES", "1"] {
            assert_eq!(values::switch(text), Ok(true));
        }
        for text in ["false", "off", "No", "0"] {
            assert_eq!(values::switch(text), Ok(false));
        }
        assert!(values::switch("maybe").is_err());
    }

    #[test]
    fn a_url_with_credentials_is_refused_and_not_repeated() {
        for text in ["s3://AKIA:hunter2@bucket/x", "https://u:hunter2@s3/", "az://c/?sig=hunter2"] {
            let unfit = values::url(text).unwrap_err();
            assert!(!format!("{unfit:?}").contains("hunter2"), "{unfit:?}");
        }
        for text in ["s3://bucket/prefix", "file:///srv/a@b?c", "/srv/walden", "http://[::1]:9000"]
        {
            assert_eq!(values::url(text), Ok(text));
        }
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert!(values::path(PathBuf::from("data")).is_err());
        assert!(values::path(PathBuf::from("/data")).is_ok());
    }
}

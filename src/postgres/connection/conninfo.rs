//! Connection strings: `host=db1 port=5433` and `postgresql://user@db1:5433/name?sslmode=require`.
//!
//! The grammar is libpq's ("Connection Strings" in its manual). Messages name keywords, never
//! values: one of them is the password.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};

/// libpq's keywords and what was given for them.
pub type Keywords = BTreeMap<String, String>;

/// A text without `=` that is no URI names a database, as in `psql -d`.
pub fn parse(text: &str) -> Result<Keywords> {
    let text = text.trim();
    let uri = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
    match uri {
        Some(rest) => parse_uri(rest),
        None if text.contains('=') => parse_pairs(text),
        None if text.is_empty() => Ok(Keywords::new()),
        None => Ok(Keywords::from([("dbname".to_owned(), text.to_owned())])),
    }
}

/// `keyword = value`, values with spaces in single quotes, `\` before a quote or a backslash.
fn parse_pairs(text: &str) -> Result<Keywords> {
    let mut keywords = Keywords::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (keyword, after) =
            rest.split_once('=').ok_or_else(|| bad("a keyword without \"=\" in it"))?;
        let (value, after) = take_value(after.trim_start())?;
        keywords.insert(keyword.trim().to_owned(), value);
        rest = after.trim_start();
    }
    Ok(keywords)
}

fn take_value(text: &str) -> Result<(String, &str)> {
    let (quoted, text) = text.strip_prefix('\'').map_or((false, text), |inner| (true, inner));
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            letter if letter.is_whitespace() && !quoted => return Ok((value, &text[at..])),
            letter => value.push(letter),
        }
    }
    if quoted { Err(bad("a quote that does not end")) } else { Ok((value, "")) }
}

/// What follows `postgresql://`:
/// `[user[:password]@][host[:port],...][/dbname][?keyword=value&...]`.
fn parse_uri(rest: &str) -> Result<Keywords> {
    let mut keywords = Keywords::new();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (account, hosts) = match authority.rsplit_once('@') {
        Some((account, hosts)) => (account, hosts),
        None => ("", authority),
    };
    let (user, password) = account.split_once(':').unwrap_or((account, ""));
    for (keyword, value) in [("user", user), ("password", password), ("dbname", dbname)] {
        if !value.is_empty() {
            keywords.insert(keyword.to_owned(), percent_decoded(value)?);
        }
    }
    if !hosts.is_empty() {
        let endpoints: Vec<_> = hosts.split(',').map(host_and_port).collect();
        let join = |parts: Vec<&str>| percent_decoded(&parts.join(","));
        keywords.insert("host".into(), join(endpoints.iter().map(|(host, _)| *host).collect())?);
        if endpoints.iter().any(|(_, port)| !port.is_empty()) {
            let ports = endpoints.iter().map(|(_, port)| *port).collect();
            keywords.insert("port".into(), join(ports)?);
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (keyword, value) =
            pair.split_once('=').ok_or_else(|| bad("a parameter without \"=\" in it"))?;
        keywords.insert(percent_decoded(keyword)?, percent_decoded(value)?);
    }
    Ok(keywords)
}

/// IPv6 addresses stand in brackets.
fn host_and_port(endpoint: &str) -> (&str, &str) {
    if let Some((host, rest)) = endpoint.strip_prefix('[').and_then(|e| e.split_once(']')) {
        return (host, rest.strip_prefix(':').unwrap_or_default());
    }
    endpoint.split_once(':').unwrap_or((endpoint, ""))
}

fn percent_decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit(), digit());
        let code = high.zip(low).map(|(high, low)| high * 16 + low);
        bytes.push(code.and_then(|code| u8::try_from(code).ok()).ok_or_else(bad_percent)?);
    }
    String::from_utf8(bytes).map_err(|_| bad_percent())
}

fn bad_percent() -> Error {
    bad("a \"%\" that is not followed by two hexadecimal digits")
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("the connection string has {what}"))
        .hint("Write it as for psql: \"host=db1 user=walden\" or \"postgresql://walden@db1\".")
}

#[cfg(test)]
mod tests {
    use super::{Keywords, parse};

    fn keywords(pairs: &[(&str, &str)]) -> Keywords {
        pairs.iter().map(|(keyword, value)| ((*keyword).into(), (*value).into())).collect()
    }

    #[test]
    fn pairs_take_quotes_and_escapes() {
        assert_eq!(
            parse(r"host = db1  password='it\'s a \\ secret' user=w\ x port=5433").unwrap(),
            keywords(&[
                ("host", "db1"),
                ("password", r"it's a \ secret"),
                ("user", "w x"),
                ("port", "5433")
            ])
        );
        assert_eq!(parse("password=''").unwrap(), keywords(&[("password", "")]));
        assert_eq!(parse(" postgres ").unwrap(), keywords(&[("dbname", "postgres")]));
        assert!(parse("password='open").is_err());
        assert!(parse("host=a b").is_err());
    }

    #[test]
    fn uris_take_every_part() {
        assert_eq!(
            parse("postgresql://me:s%40crt@db1:1,[::1]:2/shop?sslmode=require&options=-c%20x%3D1")
                .unwrap(),
            keywords(&[
                ("user", "me"),
                ("password", "s@crt"),
                ("host", "db1,::1"),
                ("port", "1,2"),
                ("dbname", "shop"),
                ("sslmode", "require"),
                ("options", "-c x=1"),
            ])
        );
        assert_eq!(parse("postgres://%2Fvar%2Frun").unwrap(), keywords(&[("host", "/var/run")]));
        assert_eq!(parse("postgresql://").unwrap(), keywords(&[]));
        assert!(parse("postgresql://db1/%zz").is_err());
    }

    #[test]
    fn messages_never_show_the_password() {
        for text in ["password='hunter2", "postgresql://me:hunter2@h/%2", "password=hunter2 x"] {
            assert!(!parse(text).unwrap_err().one_line().contains("hunter2"), "{text}");
        }
    }
}

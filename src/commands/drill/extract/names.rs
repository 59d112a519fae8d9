//! Which table is meant: `orders`, `sales.orders`, `shop.sales.orders`, quoted as in SQL, with `*`
//! and `?`.

use std::fmt;
use std::str::FromStr;

use crate::catalog::events::Pattern;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::names::Identifier;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    pub database: Option<String>,
    schema: Option<Part>,
    name: Part,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    text: String,
    is_quoted: bool,
}

impl TableName {
    pub fn fits(&self, schema: &str, name: &str) -> bool {
        self.schema.as_ref().is_none_or(|part| part.fits(schema)) && self.name.fits(name)
    }

    /// One table of one schema, as far as the words say: its names as PostgreSQL keeps them.
    pub fn exact(&self) -> Option<(String, String)> {
        let schema = self.schema.as_ref()?;
        (!schema.is_pattern() && !self.name.is_pattern())
            .then(|| (schema.as_stored(), self.name.as_stored()))
    }

    /// Whether it may mean several tables without being ambiguous.
    pub fn is_pattern(&self) -> bool {
        self.name.is_pattern() || self.schema.as_ref().is_some_and(Part::is_pattern)
    }

    /// Without quotes, to be compared with other names.
    pub fn plain(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", schema.text, self.name.text),
            None => self.name.text.clone(),
        }
    }
}

impl Part {
    fn is_pattern(&self) -> bool {
        !self.is_quoted && self.text.contains(['*', '?'])
    }

    /// As in SQL: without quotes the case does not count.
    fn as_stored(&self) -> String {
        if self.is_quoted { self.text.clone() } else { self.text.to_lowercase() }
    }

    fn fits(&self, name: &str) -> bool {
        if !self.is_pattern() {
            return name == self.as_stored();
        }
        let pattern = self.as_stored().parse::<Pattern>();
        pattern.is_ok_and(|pattern| pattern.fits_text(name))
    }
}

impl FromStr for TableName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::Usage, format!("{text:?} is no name of a table"))
                .hint("Write table, schema.table or database.schema.table; quote parts as in SQL.")
        };
        let mut parts = parts(text).ok_or_else(wrong)?;
        let name = parts.pop().ok_or_else(wrong)?;
        let schema = parts.pop();
        let database = parts.pop();
        if !parts.is_empty() || database.as_ref().is_some_and(Part::is_pattern) {
            return Err(wrong());
        }
        Ok(TableName { database: database.map(|part| part.as_stored()), schema, name })
    }
}

fn parts(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(inside) => quoted(inside)?,
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                let text = rest[..end].trim().to_owned();
                (Part { text, is_quoted: false }, &rest[end..])
            }
        };
        if part.text.is_empty() || !part.is_quoted && part.text.contains('"') {
            return None;
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

fn quoted(inside: &str) -> Option<(Part, &str)> {
    let mut text = String::new();
    let mut rest = inside;
    loop {
        let end = rest.find('"')?;
        text.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                text.push('"');
                rest = more;
            }
            None => return Some((Part { text, is_quoted: true }, rest)),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(database) = &self.database {
            write!(f, "{}.", Identifier(database))?;
        }
        for part in self.schema.iter().chain([&self.name]) {
            let dot = if std::ptr::eq(part, &self.name) { "" } else { "." };
            match part.is_quoted {
                true => write!(f, "{}{dot}", Identifier(&part.text))?,
                false => write!(f, "{}{dot}", part.text)?,
            }
        }
        Ok(())
    }
}

/// In double quotes whatever it is: reserved words are names too.
pub fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn quoted_pair(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted_name(schema), quoted_name(name))
}

pub fn literal(text: &str) -> String {
    // Before a backslash a plain quote would depend on standard_conforming_strings.
    format!("E'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::{TableName, literal, quoted_pair};

    fn name(text: &str) -> TableName {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_read_as_sql_reads_them() {
        assert!(name("orders").fits("public", "orders") && name("Orders").fits("s", "orders"));
        assert!(!name("orders").fits("public", "Orders"));
        assert!(name("\"Orders\"").fits("public", "Orders"));
        assert!(name("sales.orders").fits("sales", "orders"));
        assert!(!name("sales.orders").fits("public", "orders"));
        assert!(name("sales.*").fits("sales", "anything") && name("order?").fits("x", "orders"));
        assert!(name("\"a.b\".\"c\"\"d*\"").fits("a.b", "c\"d*"));
        assert!(!name("\"c*\"").fits("a", "cd"));
        let full = name("Shop.sales.\"Orders\"");
        assert_eq!(full.database.as_deref(), Some("shop"));
        assert_eq!(full.exact(), Some(("sales".to_owned(), "Orders".to_owned())));
        assert_eq!(full.to_string(), "shop.sales.\"Orders\"");
        assert_eq!(name("sales.*").exact(), None);
        assert_eq!(name("orders").exact(), None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", ".", "a.", ".a", "a.b.c.d", "\"a", "\"a\"b", "a\"b", "*.s.t", "\"\""] {
            assert!(text.parse::<TableName>().is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_leaves_its_quotes() {
        assert_eq!(quoted_pair("a\"b", "c.d"), "\"a\"\"b\".\"c.d\"");
        assert_eq!(literal(r"it's \"), r"E'it''s \\'");
    }
}

//! Flag beats environment beats file beats default; where each value came from is remembered.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::keys::{self, KEYS, Key, Kind};
use crate::config::values::{self, Unfit};
use crate::error::{Error, ErrorKind, Result};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag(&'static str),
    Variable(String),
    File { path: PathBuf, line: usize },
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Variable(name) => f.write_str(name),
            Origin::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value as somebody wrote it. Not printable on purpose: it may hold what does not belong there.
pub struct Written {
    pub value: OsString,
    pub origin: Origin,
}

/// For each key the values of the strongest source that has any; none where only the default
/// speaks.
pub struct Merged {
    written: Vec<Vec<Written>>,
}

impl Merged {
    /// `sources`: the strongest first.
    pub fn new(sources: impl IntoIterator<Item = Vec<(usize, Written)>>) -> Self {
        let mut merged: Vec<Vec<Written>> = KEYS.iter().map(|_| Vec::new()).collect();
        for source in sources {
            let taken: Vec<bool> = merged.iter().map(|values| !values.is_empty()).collect();
            for (index, written) in source {
                if !taken[index] {
                    merged[index].push(written);
                }
            }
        }
        Merged { written: merged }
    }

    /// Each key with the origin of its value.
    pub fn origins(&self) -> Vec<(&'static str, Origin)> {
        KEYS.iter().map(|key| (key.path, self.origin(key.path))).collect()
    }

    pub fn origin(&self, path: &'static str) -> Origin {
        self.at(path).1.first().map_or(Origin::Default, |one| one.origin.clone())
    }

    /// What flags and variables said, as variables; all but `pgdata`.
    pub fn carried(&self) -> Vec<(String, OsString)> {
        let said = |one: &&Written| matches!(one.origin, Origin::Flag(_) | Origin::Variable(_));
        KEYS.iter()
            .zip(&self.written)
            .filter(|(key, _)| key.path != "pgdata")
            .filter_map(|(key, values)| {
                values.first().filter(said).map(|one| (key.variable(), one.value.clone()))
            })
            .collect()
    }

    /// What was written, or else the default.
    pub fn text(&self, path: &'static str) -> Result<Option<String>> {
        self.read(path, |_, text| Ok(text.to_owned()))
    }

    pub fn url(&self, path: &'static str) -> Result<Option<String>> {
        self.read(path, |_, text| values::url(text).map(str::to_owned))
    }

    /// Every one that was written.
    pub fn urls(&self, path: &'static str) -> Result<Vec<(String, Origin)>> {
        let (key, written) = self.at(path);
        let url = |one: &Written| {
            let parsed = utf8(one).and_then(|text| values::url(text).map(str::to_owned));
            parsed.map(|url| (url, one.origin.clone())).map_err(|e| misfit(key, &one.origin, e))
        };
        written.iter().map(url).collect()
    }

    pub fn path(&self, path: &'static str) -> Result<Option<PathBuf>> {
        let (key, written) = self.at(path);
        let Some(one) = written.first() else {
            return Ok(None);
        };
        let value = PathBuf::from(&one.value);
        let parsed = match one.origin {
            // Who types a relative path means the directory they stand in.
            Origin::Flag(_) => Ok(std::path::absolute(&value).unwrap_or(value)),
            _ => values::path(value),
        };
        parsed.map(Some).map_err(|unfit| misfit(key, &one.origin, unfit))
    }

    pub fn switch(&self, path: &'static str) -> Result<Option<bool>> {
        self.read(path, |_, text| values::switch(text))
    }

    pub fn span(&self, path: &'static str) -> Result<Duration> {
        Ok(self.read(path, |_, text| values::span(text))?.unwrap_or_default())
    }

    pub fn number(&self, path: &'static str) -> Result<Option<i64>> {
        self.read(path, |kind, text| match kind {
            Kind::Number { min, max } => values::number(text, min, max),
            _ => values::number(text, i64::MIN, i64::MAX),
        })
    }

    /// In bytes.
    pub fn size(&self, path: &'static str) -> Result<Option<u64>> {
        self.read(path, |kind, text| match kind {
            Kind::Size { min, max } => values::size(text, min, max),
            _ => values::size(text, 0, u64::MAX),
        })
    }

    /// A part, 1.0 for all.
    pub fn share(&self, path: &'static str) -> Result<Option<f64>> {
        self.read(path, |_, text| values::share(text))
    }

    /// One of the key's choices.
    pub fn choice(&self, path: &'static str) -> Result<Option<&'static str>> {
        self.read(path, |kind, text| match kind {
            Kind::Choice(choices) => values::choice(text, choices),
            _ => values::choice(text, &[]),
        })
    }

    /// Says what is wrong with the value of a key, and where it came from.
    pub fn refuse(&self, path: &'static str, unfit: Unfit) -> Error {
        misfit(self.at(path).0, &self.origin(path), unfit)
    }

    fn read<T>(
        &self,
        path: &'static str,
        parse: impl FnOnce(Kind, &str) -> std::result::Result<T, Unfit>,
    ) -> Result<Option<T>> {
        let (key, written) = self.at(path);
        let (text, origin) = match (written.first(), key.default) {
            (Some(one), _) => (utf8(one), &one.origin),
            (None, Some(default)) => (Ok(default), &Origin::Default),
            (None, None) => return Ok(None),
        };
        let value = text.and_then(|text| parse(key.kind, text));
        value.map(Some).map_err(|unfit| misfit(key, origin, unfit))
    }

    fn at(&self, path: &'static str) -> (&'static Key, &[Written]) {
        let index = keys::find(path).expect("the paths asked for are those of the table: tested");
        (&KEYS[index], &self.written[index])
    }
}

fn utf8(written: &Written) -> std::result::Result<&str, Unfit> {
    written.value.to_str().ok_or_else(|| Unfit {
        wrong: "the value is not UTF-8".to_owned(),
        write: "Write it in UTF-8.".to_owned(),
    })
}

fn misfit(key: &Key, origin: &Origin, unfit: Unfit) -> Error {
    Error::new(ErrorKind::Usage, format!("{} ({origin}): {}", key.path, unfit.wrong))
        .hint(unfit.write)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::config::keys;
    use crate::config::precedence::{Merged, Origin, Written};

    fn written(path: &str, value: &str, origin: Origin) -> (usize, Written) {
        (keys::find(path).unwrap(), Written { value: OsString::from(value), origin })
    }

    fn variable(path: &str, value: &str) -> (usize, Written) {
        written(path, value, Origin::Variable("V".to_owned()))
    }

    fn file(path: &str, value: &str) -> (usize, Written) {
        written(path, value, Origin::File { path: "/f".into(), line: 7 })
    }

    #[test]
    fn the_strongest_source_wins_key_by_key() {
        let flags = vec![written("cluster", "flag", Origin::Flag("--cluster"))];
        let variables = vec![variable("cluster", "variable"), variable("s3.region", "variable")];
        let in_file =
            vec![file("cluster", "file"), file("s3.region", "file"), file("s3.sse", "AES256")];
        let merged = Merged::new([flags, variables, in_file]);
        assert_eq!(merged.text("cluster").unwrap().as_deref(), Some("flag"));
        assert_eq!(merged.text("s3.region").unwrap().as_deref(), Some("variable"));
        assert_eq!(merged.choice("s3.sse").unwrap(), Some("AES256"));
        assert_eq!(merged.span("push.deadline").unwrap().as_secs(), 120);
        let origins = merged.origins();
        let origin = |path| origins.iter().find(|(key, _)| *key == path).unwrap().1.to_string();
        assert_eq!(origin("cluster"), "--cluster");
        assert_eq!(origin("s3.region"), "V");
        assert_eq!(origin("s3.sse"), "/f, line 7");
        assert_eq!(origin("push.deadline"), "default");
    }

    #[test]
    fn a_stronger_source_replaces_all_repositories_of_a_weaker_one() {
        let two = || vec![file("repository.url", "file:///a"), file("repository.url", "file:///b")];
        let urls = |merged: &Merged| {
            let urls = merged.urls("repository.url").unwrap();
            urls.into_iter().map(|(url, _)| url).collect::<Vec<_>>()
        };
        assert_eq!(urls(&Merged::new([two()])), ["file:///a", "file:///b"]);
        let one = vec![variable("repository.url", "file:///c")];
        assert_eq!(urls(&Merged::new([one, two()])), ["file:///c"]);
    }

    #[test]
    fn a_wrong_value_names_the_key_and_who_said_it() {
        let merged = Merged::new([vec![file("push.deadline", "soon")]]);
        let message = merged.span("push.deadline").unwrap_err().one_line();
        assert!(message.starts_with("push.deadline (/f, line 7): \"soon\" is not a"), "{message}");
    }
}

//! The configuration file: found, read, flattened into keys, unknown ones refused by name and line.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::config::keys::{self, KEYS, Kind};
use crate::config::precedence::{Origin, Written};
use crate::config::suggest;
use crate::config::values::expected;
use crate::error::{Error, ErrorKind, Result};

/// Where it is looked for when nobody names another.
pub const DEFAULT_PATH: &str = "/etc/walden/walden.toml";

/// What the file says: the position in `KEYS` and the value, in the file's order.
pub struct ConfigFile {
    pub path: PathBuf,
    pub written: Vec<(usize, Written)>,
}

/// Reads the file that a flag or a variable names, which must be there, or the default one, which
/// may be absent.
pub fn read(named: Option<(&Path, Origin)>, default: &Path) -> Result<Option<ConfigFile>> {
    let path = named.as_ref().map_or(default, |(path, _)| path);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(path, named.map(|(_, origin)| origin), error)),
    };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let written = Reader { path: &absolute, text: &text, written: Vec::new() }.read()?;
    Ok(Some(ConfigFile { path: absolute, written }))
}

fn unreadable(path: &Path, named_by: Option<Origin>, error: io::Error) -> Error {
    let hint = match (error.kind(), &named_by) {
        (io::ErrorKind::NotFound, Some(origin)) => format!("It is named by {origin}: correct it."),
        (io::ErrorKind::PermissionDenied, _) => {
            "Let the user PostgreSQL runs as read it; it holds no secrets.".to_owned()
        }
        _ => "It must be a readable text file in UTF-8.".to_owned(),
    };
    Error::new(ErrorKind::Usage, format!("read configuration {}", path.display()))
        .source(error)
        .hint(hint)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    written: Vec<(usize, Written)>,
}

impl Reader<'_> {
    fn read(mut self) -> Result<Vec<(usize, Written)>> {
        let document = DeTable::parse(self.text).map_err(|error| {
            // The parser's own display repeats the line, which may hold what somebody took for a
            // setting: a password.
            let place = self.place(error.span().map_or(0, |span| span.start));
            Error::new(ErrorKind::Usage, format!("{place}: {}", error.message()))
                .hint("The file must be TOML: key = \"value\", under [table] lines.")
        })?;
        self.table("", document.get_ref())?;
        Ok(self.written)
    }

    fn table(&mut self, above: &str, table: &DeTable<'_>) -> Result<()> {
        for (name, value) in table {
            let path = match above {
                "" => name.get_ref().to_string(),
                above => format!("{above}.{}", name.get_ref()),
            };
            let at = name.span().start;
            match value.get_ref() {
                DeValue::Table(inner) if is_table(&path) => self.table(&path, inner)?,
                // Several repositories: the only key that may be given more than once.
                DeValue::Array(entries) if path == "repository" => {
                    for entry in entries {
                        let DeValue::Table(inner) = entry.get_ref() else {
                            return Err(self.mistyped(&path, at, "a table, as in [[repository]]"));
                        };
                        self.table(&path, inner)?;
                    }
                }
                _ if is_table(&path) => {
                    return Err(self.mistyped(&path, at, &format!("a table, as in [{path}]")));
                }
                scalar => self.scalar(&path, at, scalar)?,
            }
        }
        Ok(())
    }

    fn scalar(&mut self, path: &str, at: usize, value: &DeValue<'_>) -> Result<()> {
        let Some(index) = keys::find(path) else {
            return Err(self.unknown(path, at));
        };
        let kind = KEYS[index].kind;
        let text = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Boolean(on) if kind == Kind::Switch => on.to_string(),
            DeValue::Integer(number) if is_number(kind) => {
                i64::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| self.mistyped(path, at, &expected(kind)))?
                    .to_string()
            }
            _ => return Err(self.mistyped(path, at, &expected(kind))),
        };
        let origin = Origin::File { path: self.path.to_path_buf(), line: self.line(at) };
        self.written.push((index, Written { value: OsString::from(text), origin }));
        Ok(())
    }

    fn unknown(&self, path: &str, at: usize) -> Error {
        let known = KEYS.iter().map(|key| key.path).collect::<Vec<_>>();
        let hint = match suggest::nearest(path, &known) {
            Some(known) => format!("Did you mean {known:?}?"),
            None => "docs/configuration.md lists every key.".to_owned(),
        };
        Error::new(ErrorKind::Usage, format!("{}: unknown key {path:?}", self.place(at))).hint(hint)
    }

    fn mistyped(&self, path: &str, at: usize, expected: &str) -> Error {
        let place = self.place(at);
        Error::new(ErrorKind::Usage, format!("{place}: the value of {path:?} is of the wrong type"))
            .hint(format!("Write {expected}."))
    }

    fn place(&self, offset: usize) -> String {
        format!("{}, line {}", self.path.display(), self.line(offset))
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|&&byte| byte == b'\n').count()
    }
}

/// Whether keys lie under this path.
fn is_table(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

fn is_number(kind: Kind) -> bool {
    matches!(kind, Kind::Number { .. } | Kind::Size { .. })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::file::{ConfigFile, read};
    use crate::config::keys::KEYS;
    use crate::config::precedence::Origin;
    use crate::error::{ErrorKind, Result};

    fn read_text(text: &str) -> Result<ConfigFile> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("walden.toml");
        std::fs::write(&path, text).unwrap();
        let named = Some((path.as_path(), Origin::Flag("--config")));
        read(named, Path::new("/nowhere")).map(|file| file.unwrap())
    }

    fn refused(text: &str) -> String {
        let error = read_text(text).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        error.one_line()
    }

    #[test]
    fn tables_become_paths_and_lines_are_remembered() {
        let text = "cluster = 'a'\n\n[s3]\npath_style = true\n[compression]\nlevel = 0x3\n";
        let written: Vec<_> = read_text(text)
            .unwrap()
            .written
            .into_iter()
            .map(|(index, written)| {
                let Origin::File { line, .. } = written.origin else { panic!() };
                (KEYS[index].path, written.value.into_string().unwrap(), line)
            })
            .collect();
        let expected =
            [("cluster", "a", 1), ("compression.level", "3", 6), ("s3.path_style", "true", 4)];
        let expected = expected.map(|(path, value, line)| (path, value.to_owned(), line));
        let mut sorted = written;
        sorted.sort();
        assert_eq!(sorted, expected);
    }

    #[test]
    fn one_repository_or_several() {
        let count = |text| read_text(text).unwrap().written.len();
        assert_eq!(count("repository.url = 'file:///a'"), 1);
        assert_eq!(count("[[repository]]\nurl = 'file:///a'\n[[repository]]\nurl = 's3://b'"), 2);
        assert!(refused("repository = 's3://b'").contains("as in [repository]"));
        assert!(refused("repository = ['s3://b']").contains("as in [[repository]]"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_a_guess() {
        let message = refused("cluster = 'a'\n[s3]\nendpont = 'http://x'\n");
        assert!(message.contains("walden.toml, line 3: unknown key \"s3.endpont\""), "{message}");
        assert!(message.contains("Did you mean \"s3.endpoint\"?"), "{message}");
        assert!(refused("level = 3").contains("Did you mean \"compression.level\"?"));
        assert!(refused("[push]\nbananas = 3").contains("lists every key"));
        assert!(refused("[encryption]\nkey_file = '/k'").contains("unknown key \"encryption"));
        assert!(refused("[encryption]").contains("unknown key \"encryption\""));
        assert!(refused("[[s3]]").contains("as in [s3]"));
    }

    #[test]
    fn what_is_written_wrongly_is_never_repeated() {
        let texts = [
            "[s3]\nsecret_access_key = 'hunter2'\n",
            "[s3]\nregion = hunter2\n",
            "[s3]\nregion = ['hunter2']\n",
            "[s3]\nregion = 'hunter2\n",
        ];
        for text in texts {
            let message = refused(text);
            assert!(message.contains("line 2"), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_value_of_another_type_says_which_one_is_meant() {
        assert!(refused("[push]\ndeadline = 120").contains("\"120s\""));
        assert!(refused("cluster = 5").contains("a text in quotes"));
        assert!(refused("[s3]\npath_style = 1").contains("true or false"));
        assert!(refused("[compression]\nlevel = 1.5").contains("from -7 to 19"));
    }

    #[test]
    fn a_named_file_must_be_there_the_default_one_need_not() {
        let missing = Path::new("/nowhere/walden.toml");
        assert!(read(None, missing).unwrap().is_none());
        let named = Some((missing, Origin::Variable("WALDEN_CONFIG".to_owned())));
        let error = read(named, Path::new("/nowhere")).map(|_| ()).unwrap_err();
        assert!(error.one_line().contains("WALDEN_CONFIG"), "{}", error.one_line());
        let directory = tempfile::tempdir().unwrap();
        assert!(read(None, directory.path()).is_err(), "a directory is no absent file");
    }
}

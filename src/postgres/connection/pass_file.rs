//! The password file, `~/.pgpass`: `host:port:database:user:password`, one entry a line.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What an entry must match; `*` in the file matches all.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `localhost` for the default socket directory, else as the user wrote it.
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// The password of the first entry that matches. As libpq does, a file that others may read is
/// ignored, with a warning.
pub fn password(path: &Path, wanted: &Wanted<'_>) -> Option<String> {
    let about = std::fs::metadata(path).ok()?;
    if !about.is_file() {
        tracing::warn!("password file {} is not a plain file: ignored", path.display());
        return None;
    }
    if about.mode() & 0o077 != 0 {
        tracing::warn!(
            "password file {} may be read by others: ignored; chmod 0600 makes it count",
            path.display()
        );
        return None;
    }
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            tracing::warn!("password file {} cannot be read: {error}", path.display());
            return None;
        }
    };
    find(&text, wanted)
}

fn find(text: &str, wanted: &Wanted<'_>) -> Option<String> {
    let port = wanted.port.to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let [host, of_port, database, user, password] = fields(line)?;
        let fits = |field: &Field, value: &str| field.is_any || field.text == value;
        let all = fits(&host, wanted.host)
            && fits(&of_port, &port)
            && fits(&database, wanted.database)
            && fits(&user, wanted.user);
        (all && !password.text.is_empty()).then_some(password.text)
    })
}

struct Field {
    text: String,
    /// A lone `*`; an escaped one is a star.
    is_any: bool,
}

/// Splits at colons; `\` takes the next letter as it is. The password is what follows the fourth
/// colon, up to a fifth.
fn fields(line: &str) -> Option<[Field; 5]> {
    let mut found = vec![Field { text: String::new(), is_any: false }];
    let mut raw = vec![String::new()];
    let mut letters = line.trim_end_matches(['\r', '\n']).chars();
    while let Some(letter) = letters.next() {
        if letter == ':' {
            found.push(Field { text: String::new(), is_any: false });
            raw.push(String::new());
            continue;
        }
        let (field, written) = (found.last_mut()?, raw.last_mut()?);
        written.push(letter);
        let escaped = if letter == '\\' { letters.next() } else { None };
        written.extend(escaped);
        field.text.push(escaped.unwrap_or(letter));
    }
    for (field, written) in found.iter_mut().zip(raw) {
        field.is_any = written == "*";
    }
    found.truncate(5);
    found.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Wanted, find, password};

    const WANTED: Wanted<'_> =
        Wanted { host: "db1", port: 5432, database: "replication", user: "walden" };

    #[test]
    fn the_first_entry_that_matches_wins() {
        let text = "# db1:5432:replication:walden:comment\n\
                    db2:5432:*:walden:other\n\
                    db1:5433:*:walden:port\n\
                    db1:*:replication:walden:right\n\
                    *:*:*:*:late\n";
        assert_eq!(find(text, &WANTED).as_deref(), Some("right"));
        let other = Wanted { user: "somebody", ..WANTED };
        assert_eq!(find(text, &other).as_deref(), Some("late"));
        assert_eq!(find("db1:5432:shop:walden:x", &WANTED), None);
        assert_eq!(find("db1:5432:replication:walden", &WANTED), None);
    }

    #[test]
    fn colons_backslashes_and_stars_are_escaped() {
        let wanted = Wanted { host: "::1", user: "*", ..WANTED };
        assert_eq!(find(r"\:\:1:*:*:\*:a\:b\\c", &wanted).as_deref(), Some(r"a:b\c"));
        let other = Wanted { user: "x", ..wanted };
        assert_eq!(find(r"\:\:1:*:*:\*:secret", &other), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        std::fs::write(&path, "*:*:*:*:secret\n").unwrap();
        for (mode, expected) in [(0o644, None), (0o640, None), (0o600, Some("secret"))] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(password(&path, &WANTED).as_deref(), expected, "{mode:o}");
        }
        assert_eq!(password(&folder.path().join("none"), &WANTED), None);
    }
}

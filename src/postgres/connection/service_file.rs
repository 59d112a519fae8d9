//! The service file, `pg_service.conf`: connection parameters under a name, in INI form.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::conninfo::Keywords;

/// Where Debian and the PostgreSQL packages keep the system's file; libpq has its own compiled in.
const SYSTEM_FOLDERS: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc"];

/// Where to look.
#[derive(Debug, Default)]
pub struct Places {
    /// PGSERVICEFILE: then no other user file is read.
    pub file: Option<PathBuf>,
    pub home: Option<PathBuf>,
    /// PGSYSCONFDIR
    pub system: Option<PathBuf>,
}

/// The parameters of `service`, from the first file that has it.
pub fn read(service: &str, places: &Places) -> Result<Keywords> {
    let user_file = places
        .file
        .clone()
        .or_else(|| places.home.as_ref().map(|home| home.join(".pg_service.conf")));
    let system = match &places.system {
        Some(folder) => vec![folder.clone()],
        None => SYSTEM_FOLDERS.iter().map(PathBuf::from).collect(),
    };
    let system_files = system.iter().map(|folder| folder.join("pg_service.conf"));
    for path in user_file.into_iter().chain(system_files) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                if let Some(keywords) = section(&text, service, &path)? {
                    return Ok(keywords);
                }
            }
            // A file that was named must be there.
            Err(error) if Some(&path) == places.file.as_ref() => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("read the service file {}", path.display()),
                )
                .source(error)
                .hint("PGSERVICEFILE names it."));
            }
            Err(_) => {}
        }
    }
    Err(Error::new(ErrorKind::Usage, format!("no service file defines the service {service:?}"))
        .hint("Services stand in ~/.pg_service.conf, or in the file that PGSERVICEFILE names."))
}

fn section(text: &str, service: &str, path: &Path) -> Result<Option<Keywords>> {
    let mut found: Option<Keywords> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (name == service).then(Keywords::new);
            continue;
        }
        let Some(keywords) = &mut found else { continue };
        let pair = line.split_once('=').filter(|(keyword, _)| !keyword.starts_with("service"));
        let (keyword, value) = pair.ok_or_else(|| {
            let place = format!("{}, line {}", path.display(), number + 1);
            Error::new(ErrorKind::Usage, format!("{place}: not \"keyword=value\""))
                .hint("A service holds connection parameters only, and no other service.")
        })?;
        // The first one counts, as in libpq.
        keywords.entry(keyword.to_owned()).or_insert_with(|| value.to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{Places, read};

    #[test]
    fn a_service_is_found_and_ends_where_the_next_begins() {
        let folder = tempfile::tempdir().unwrap();
        let text = "# services\n[other]\nhost=no\n[shop]\nhost=db1\nport=5433\nhost=late\n\n\
                    [last]\nuser=x\n";
        let file = folder.path().join("pg_service.conf");
        std::fs::write(&file, text).unwrap();

        let named = Places { file: Some(file), ..Places::default() };
        let keywords = read("shop", &named).unwrap();
        assert_eq!(keywords.len(), 2);
        assert_eq!((&*keywords["host"], &*keywords["port"]), ("db1", "5433"));
        assert!(read("nobody", &named).is_err());

        let system = Places { system: Some(folder.path().into()), ..Places::default() };
        assert_eq!(read("last", &system).unwrap()["user"], "x");
    }

    #[test]
    fn a_named_file_must_be_there_and_make_sense() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services");
        let places = Places { file: Some(file.clone()), ..Places::default() };
        assert!(read("shop", &places).unwrap_err().to_string().contains("services"));
        std::fs::write(&file, "[shop]\nhost\n").unwrap();
        assert!(read("shop", &places).unwrap_err().to_string().contains("line 2"));
    }
}

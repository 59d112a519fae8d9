//! Where this machine keeps PostgreSQL's client programs: pg_dump may be newer than its server.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges::{self, User};
use crate::postgres::{MajorVersion, installation};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientProgram {
    pub path: PathBuf,
    pub major: MajorVersion,
}

impl ClientProgram {
    /// The program `name` for a server of this version: in `bin` where the user named it and it is
    /// there, else beside the server (`beside`), where packages put it, or on PATH. It is asked for
    /// its version as the user who will run it, and never older than the server.
    pub fn find(
        name: &str,
        server: MajorVersion,
        bins: &[Option<&Path>],
        user: Option<&User>,
    ) -> Result<ClientProgram> {
        let named = bins.iter().flatten().map(|bin| bin.to_path_buf());
        let mut older = Vec::new();
        for bin in named.chain(installation::places()) {
            let path = bin.join(name);
            let Some(major) = version(&path, user) else { continue };
            if major >= server {
                return Ok(ClientProgram { path, major });
            }
            older.push(format!("{major} in {}", bin.display()));
        }
        let found = match older.is_empty() {
            true => "none".to_owned(),
            false => older.join(", "),
        };
        Err(Error::new(
            ErrorKind::CouldNotCheck,
            format!("no {name} for PostgreSQL {server} on this machine (found: {found})"),
        )
        .hint(
            "Install PostgreSQL's client package of this version or a later one, or name --pg-bin.",
        ))
    }
}

/// `pg_dump (PostgreSQL) 17.5 (Debian …)` is 17.
fn version(path: &Path, user: Option<&User>) -> Option<MajorVersion> {
    if !path.exists() {
        return None;
    }
    let mut program = Command::new(path);
    let output =
        privileges::run_as(program.arg("--version"), user).current_dir("/").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_version(&said).filter(|_| output.status.success())
}

fn parse_version(said: &str) -> Option<MajorVersion> {
    let (_, version) = said.split_once("(PostgreSQL) ")?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok().map(MajorVersion)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{ClientProgram, parse_version};
    use crate::postgres::MajorVersion;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("pg_dump (PostgreSQL) 17.5\n"), Some(MajorVersion(17)));
        assert_eq!(parse_version("pg_dump (PostgreSQL) 18beta1"), Some(MajorVersion(18)));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn one_that_is_older_than_the_server_is_passed_over_and_told() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("pg_nothing");
        fs::write(&path, "#!/bin/sh\necho 'pg_nothing (PostgreSQL) 16.1'\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let find = |major| {
            let bins = [None, Some(scratch.path())];
            ClientProgram::find("pg_nothing", MajorVersion(major), &bins, None)
        };
        assert_eq!(find(15).unwrap().path, path);
        assert_eq!(find(16).unwrap().major, MajorVersion(16));
        let error = find(17).unwrap_err().to_string();
        assert!(error.contains("found: 16 in"), "{error}");
    }
}

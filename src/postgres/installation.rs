//! Where this machine keeps PostgreSQL's programs, and which version they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges;
use crate::postgres::MajorVersion;

/// One directory of server programs: `postgres`, `initdb` and their kin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub bin: PathBuf,
    pub major: MajorVersion,
    /// As the server says it: `17.5`, `18beta1`.
    pub version: String,
}

/// Where packages put a major version; `{}` stands for it. Debian, RPM (PGDG), Alpine, Gentoo,
/// Homebrew (both places), MacPorts, Postgres.app.
const PACKAGED: [&str; 8] = [
    "/usr/lib/postgresql/{}/bin",
    "/usr/pgsql-{}/bin",
    "/usr/libexec/postgresql{}",
    "/usr/lib64/postgresql-{}/bin",
    "/opt/homebrew/opt/postgresql@{}/bin",
    "/usr/local/opt/postgresql@{}/bin",
    "/opt/local/lib/postgresql{}/bin",
    "/Applications/Postgres.app/Contents/Versions/{}/bin",
];

/// Where a machine with one version only may have it.
const UNVERSIONED: [&str; 2] = ["/usr/local/pgsql/bin", "/usr/local/bin"];

impl Installation {
    /// The programs in `bin`, asked for their version as the user who will run them.
    pub fn at(bin: &Path) -> Result<Installation> {
        let unusable = |why: String| {
            Error::new(
                ErrorKind::Server,
                format!("no usable PostgreSQL in {}: {why}", bin.display()),
            )
            .hint("Name the directory that has postgres and initdb with --pg-bin.")
        };
        // Absolute: the servers it starts are called from elsewhere.
        let bin = std::path::absolute(bin).map_err(|error| unusable(error.to_string()))?;
        let user = privileges::server_user()?;
        let mut postgres = Command::new(bin.join("postgres"));
        let output = privileges::run_as(postgres.arg("--version"), user.as_ref())
            .current_dir("/")
            .output()
            .map_err(|error| unusable(error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let Some((version, major)) = parse_version(&said) else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(unusable(format!("it said {:?}", format!("{said}{complaint}").trim())));
        };
        Ok(Installation { bin, major, version })
    }

    /// The programs of one major version: those in `bin` where the user named it, else what this
    /// machine has.
    pub fn find(major: MajorVersion, bin: Option<&Path>) -> Result<Installation> {
        if let Some(bin) = bin {
            let named = Installation::at(bin)?;
            if named.major == major {
                return Ok(named);
            }
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{} has PostgreSQL {}, not {major}", bin.display(), named.version),
            )
            .hint(format!("Name the programs of PostgreSQL {major} with --pg-bin.")));
        }
        let found = installed();
        let fits = found.iter().find(|candidate| candidate.major == major);
        fits.cloned().ok_or_else(|| missing(&format!("PostgreSQL {major}"), &found))
    }

    /// The newest version walden supports: in `bin` where the user named it, else of what this
    /// machine has.
    pub fn newest(bin: Option<&Path>) -> Result<Installation> {
        if let Some(bin) = bin {
            return Installation::at(bin);
        }
        let found = installed();
        let supported = found.iter().filter(|candidate| candidate.major.is_supported());
        supported
            .max_by_key(|candidate| candidate.major)
            .cloned()
            .ok_or_else(|| missing("PostgreSQL 15 to 18", &found))
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// Everything this machine has, the places of packages first, then PATH. One directory is listed
/// once.
pub fn installed() -> Vec<Installation> {
    let mut found: Vec<Installation> = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    for directory in places() {
        // Debian's PATH has a wrapper or link now and then: the file decides, not the directory.
        let Ok(program) = directory.join("postgres").canonicalize() else { continue };
        let bin = program.parent().map_or_else(|| directory.clone(), Path::to_owned);
        if seen.contains(&bin) || !bin.join("initdb").exists() {
            continue;
        }
        if let Ok(installation) = Installation::at(&bin) {
            found.push(installation);
        }
        seen.push(bin);
    }
    found
}

/// Where programs may be, best first.
pub(in crate::postgres) fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    for major in (MajorVersion::OLDEST.0..=MajorVersion::NEWEST.0 + 2).rev() {
        places.extend(PACKAGED.iter().map(|place| place.replace("{}", &major.to_string()).into()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    places.extend(std::env::split_paths(&path).filter(|directory| directory.is_absolute()));
    places.extend(UNVERSIONED.iter().map(PathBuf::from));
    places.retain(|place| fs::metadata(place).is_ok_and(|metadata| metadata.is_dir()));
    places
}

fn missing(wanted: &str, found: &[Installation]) -> Error {
    let list: Vec<String> = found
        .iter()
        .map(|installation| format!("{} in {}", installation.version, installation.bin.display()))
        .collect();
    let found = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    Error::new(ErrorKind::Server, format!("no programs of {wanted} found (found: {found})"))
        .hint("Install the server package, or name its bin directory with --pg-bin.")
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15.18, major 15.
fn parse_version(said: &str) -> Option<(String, MajorVersion)> {
    let version = said.trim().strip_prefix("postgres (PostgreSQL) ")?.split(' ').next()?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    let major = version[..digits].parse().ok()?;
    Some((version.to_owned(), MajorVersion(major)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Installation, missing, parse_version};
    use crate::postgres::MajorVersion;

    #[test]
    fn reads_the_version_a_server_says() {
        let read = |said| parse_version(said).map(|(version, major)| (version, major.0));
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(read(debian), Some(("15.18".to_owned(), 15)));
        assert_eq!(read("postgres (PostgreSQL) 18beta1"), Some(("18beta1".to_owned(), 18)));
        assert_eq!(read("postgres (PostgreSQL) devel"), None);
        assert_eq!(read("bash: postgres: not found"), None);
    }

    #[test]
    fn a_directory_without_a_server_is_named_in_the_error() {
        let error = Installation::at(Path::new("/no/such/bin")).unwrap_err();
        assert!(error.to_string().contains("/no/such/bin"), "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("--pg-bin")));
    }

    #[test]
    fn what_was_found_instead_is_listed() {
        let other = Installation {
            bin: "/usr/lib/postgresql/13/bin".into(),
            major: MajorVersion(13),
            version: "13.1".to_owned(),
        };
        let error = missing("PostgreSQL 17", &[other]);
        assert!(error.to_string().contains("13.1 in /usr/lib/postgresql/13/bin"), "{error}");
        assert!(missing("PostgreSQL 17", &[]).to_string().contains("found: none"));
    }
}

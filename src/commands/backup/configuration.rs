//! Configuration files that lie outside of the data directory, saved beside the backup.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::commands::backup::copy::Target;
use crate::commands::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::configuration_files::{self, ConfigurationFiles, Role};
use crate::postgres::connection::{Connection, ConnectionOptions};
use crate::repository::configuration::{
    BYTES_MAX, ConfigurationFile, FILE_BYTES_MAX, FILES_MAX, Saved,
};
use crate::repository::manifest::Mode;

/// A file that only its owner could read may hold what nobody else should.
const MODE_UNKNOWN: u32 = 0o600;
/// Whatever the file is called.
const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";

/// Saves what can be had of them, and lists it. No backup fails over it.
pub fn save(
    target: &Target<'_>,
    options: &ConnectionOptions,
    mode: Mode,
    progress: &Progress,
) -> Vec<ConfigurationFile> {
    progress.enter("saving configuration files");
    let saved = find(options, mode).and_then(|(saved, unsaved)| {
        if !unsaved.is_empty() {
            tracing::info!("configuration that was not saved: {}", unsaved.join(", "));
        }
        if !saved.is_empty() {
            let (home, origin) = (target.home, target.origin);
            home.put_configuration(target.id, &saved, origin, target.compression)?;
        }
        Ok(saved)
    });
    match saved {
        Ok(saved) => saved.into_iter().map(|(file, _)| file).collect(),
        Err(error) => {
            let error = error.one_line();
            tracing::info!("configuration outside of the data directory was not saved: {error}");
            Vec::new()
        }
    }
}

/// What could be read, and what not, with the reasons.
fn find(options: &ConnectionOptions, mode: Mode) -> Result<(Vec<Saved>, Vec<String>)> {
    let mut connection = Connection::connect(&options.clone().sql())?;
    let found = ConfigurationFiles::ask(&mut connection)?;
    let is_here = mode == Mode::Local || connection.is_on_this_host();
    let mut reader = Reader { is_here, connection };
    let (mut saved, mut unsaved, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (path, role) in found.files {
        let Some(path) = outside(&path, &found.data_directory, reader.is_here) else { continue };
        match reader.read(&path, role) {
            Ok(None) => {}
            Ok(Some((_, content))) if bytes + content.len() > BYTES_MAX => {
                unsaved.push(format!("{path} (too much in all)"));
            }
            Ok(Some(_)) if saved.len() == FILES_MAX => {
                unsaved.push(format!("{path} (too many files)"));
            }
            Ok(Some(file)) => {
                bytes += file.1.len();
                saved.push(file);
            }
            Err(error) => unsaved.push(format!("{path} ({error})")),
        }
    }
    Ok((saved, unsaved))
}

struct Reader {
    connection: Connection,
    /// The server's files are those of this host.
    is_here: bool,
}

impl Reader {
    /// `None`: there is no such file.
    fn read(&mut self, path: &str, role: Option<Role>) -> Result<Option<Saved>> {
        let here = if self.is_here { read_here(path) } else { Err(not_here()) };
        let found = match here {
            Ok(found) => found,
            // Said by whoever was asked last.
            Err(here) => {
                let max = FILE_BYTES_MAX;
                let through = configuration_files::read_through(&mut self.connection, path, max);
                let through = through.map_err(|error| if self.is_here { here } else { error })?;
                through.map(|content| (content, MODE_UNKNOWN, 0))
            }
        };
        let Some((content, mode, modified)) = found else { return Ok(None) };
        if content.len() > FILE_BYTES_MAX {
            return Err(Error::new(ErrorKind::Refused, "larger than 1 MiB"));
        }
        if content.windows(PRIVATE_KEY.len()).any(|piece| piece == PRIVATE_KEY) {
            return Err(Error::new(ErrorKind::Refused, "it holds a private key"));
        }
        let size = content.len() as u64;
        Ok(Some((ConfigurationFile { path: path.to_owned(), role, mode, size, modified }, content)))
    }
}

fn not_here() -> Error {
    Error::new(ErrorKind::Host, "on another host")
}

fn read_here(path: &str) -> Result<Option<(Vec<u8>, u32, i64)>> {
    let failed =
        |error: std::io::Error| Error::new(ErrorKind::Host, "cannot be read").source(error);
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed)?,
    };
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::Host, "no regular file"));
    }
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut content).map_err(failed)?;
    Ok(Some((content, metadata.mode() & 0o7777, metadata.mtime())))
}

/// The path where a base backup does not have it; a link that leads out of the data directory is
/// left out of base backups, and so counts by where it leads.
fn outside(path: &str, data_directory: &str, is_here: bool) -> Option<String> {
    let resolved = |path: &str| -> PathBuf {
        let real = is_here.then(|| fs::canonicalize(path).ok()).flatten();
        real.unwrap_or_else(|| Path::new(path).to_owned())
    };
    let data_directory = resolved(data_directory);
    if !Path::new(path).starts_with(&data_directory) && !resolved(path).starts_with(&data_directory)
    {
        return Some(path.to_owned());
    }
    let real = resolved(path);
    (!real.starts_with(&data_directory)).then(|| real.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{FILE_BYTES_MAX, outside, read_here};

    #[test]
    fn what_lies_in_the_data_directory_is_in_the_backup_already() {
        let scratch = tempfile::tempdir().unwrap();
        let place = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir_all(place("data")).unwrap();
        fs::create_dir_all(place("etc")).unwrap();
        for file in ["data/postgresql.conf", "etc/pg_hba.conf"] {
            fs::write(place(file), "#").unwrap();
        }
        symlink(place("etc/pg_hba.conf"), place("data/pg_hba.conf")).unwrap();
        symlink(place("data"), place("link")).unwrap();
        let data = place("data");
        assert_eq!(outside(&place("data/postgresql.conf"), &data, true), None);
        assert_eq!(outside(&place("link/postgresql.conf"), &data, true), None);
        assert_eq!(outside(&place("data/postgresql.conf"), &place("link"), true), None);
        let hba = Some(place("etc/pg_hba.conf"));
        assert_eq!(outside(&place("etc/pg_hba.conf"), &data, true), hba);
        assert_eq!(outside(&place("data/pg_hba.conf"), &data, true), hba, "where the link leads");
        // Of another host only the names are known.
        assert_eq!(outside("/data/a.conf", "/data", false), None);
        assert_eq!(
            outside("/database/a.conf", "/data", false).as_deref(),
            Some("/database/a.conf")
        );
    }

    #[test]
    fn a_file_is_read_with_its_mode_and_no_further_than_needed() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a.conf");
        fs::write(&path, vec![b'#'; 3 * FILE_BYTES_MAX]).unwrap();
        let (content, mode, modified) = read_here(path.to_str().unwrap()).unwrap().unwrap();
        assert_eq!((content.len(), mode & 0o600), (FILE_BYTES_MAX + 1, 0o600));
        assert!(modified > 1_700_000_000);
        assert_eq!(read_here("/nowhere/a.conf").unwrap(), None);
        assert!(read_here(scratch.path().to_str().unwrap()).is_err());
    }
}

//! Configuration files that were saved with a backup: brought along where that is asked for, and
//! never over others.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::commands::restore::targets::NO_LINK;
use crate::commands::restore::{host_failed, settle};
use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges::{self, User};
use crate::postgres::configuration_files::Role;
use crate::repository::manifest::ConfigurationFile;
use crate::repository::{Home, Manifest};

/// What will be written, and where.
#[derive(Debug)]
pub struct Configuration {
    files: Vec<Placed>,
}

#[derive(Debug)]
struct Placed {
    path: PathBuf,
    listed: ConfigurationFile,
    content: Vec<u8>,
}

impl Configuration {
    /// All refusals come from here; nothing is changed.
    pub fn prepare(
        home: &Home,
        manifest: &Manifest,
        root: &Path,
        data_directory: &Path,
    ) -> Result<Self> {
        if manifest.configuration.is_empty() {
            return Err(refused(format!("backup {} has no configuration files", manifest.id))
                .hint(
                    "Leave --configuration out: what the cluster keeps in its data directory comes \
                 anyway.",
                ));
        }
        let root = std::path::absolute(root)
            .map_err(|error| refused(format!("{}: {error}", root.display())))?;
        if root.starts_with(data_directory) {
            return Err(refused("--configuration leads into the data directory".to_owned())
                .hint("Name a directory beside it, or / for where the files were."));
        }
        let mut files = Vec::new();
        for (listed, content) in home.configuration(manifest)? {
            let path = listed.below(&root).ok_or_else(|| {
                let odd = format!("the backup lists {:?}, which is no sound path", listed.path);
                Error::new(ErrorKind::Corrupt, odd).hint("Leave --configuration out.")
            })?;
            files.push(Placed { path, listed, content });
        }
        files.iter().try_for_each(Placed::refuse_another)?;
        Ok(Configuration { files })
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone()).collect()
    }

    /// What a server is told that shall use it, by the words of `postgres -c`.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let name = |role| match role {
            Role::Config => "config_file",
            Role::Hba => "hba_file",
            Role::Ident => "ident_file",
        };
        let setting = |file: &Placed| Some((name(file.listed.role?), shown(&file.path)));
        self.files.iter().filter_map(setting).collect()
    }

    pub fn has_main_file(&self) -> bool {
        self.files.iter().any(|file| file.listed.role == Some(Role::Config))
    }

    /// Writes what is not there yet: what was interrupted goes on.
    pub fn place(&self, owner: Option<&User>) -> Result<()> {
        self.files.iter().try_for_each(|file| file.place(owner))
    }
}

impl Placed {
    fn refuse_another(&self) -> Result<()> {
        let is_there = fs::symlink_metadata(&self.path).is_ok();
        if !is_there || self.is_in_place() {
            return Ok(());
        }
        Err(refused(format!("{} is there already", self.path.display()))
            .hint("Name another directory for --configuration, and compare the two."))
    }

    fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_file())
            && fs::read(&self.path).is_ok_and(|content| content == self.content)
    }

    fn place(&self, owner: Option<&User>) -> Result<()> {
        if self.is_in_place() {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        make_folders(folder, owner)?;
        let failed = |error| host_failed(format!("write {}", self.path.display()), error);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(self.listed.mode & 0o777)
            .custom_flags(NO_LINK)
            .open(&self.path)
            .map_err(failed)?;
        file.write_all(&self.content).and_then(|()| file.sync_all()).map_err(failed)?;
        privileges::give(&self.path, owner)?;
        settle::sync(folder)
    }
}

/// Everybody may look into them, as into `/etc`; what is in them has modes of its own.
fn make_folders(folder: &Path, owner: Option<&User>) -> Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        let made = DirBuilder::new().mode(0o755).create(path);
        made.map_err(|error| host_failed(format!("make {}", path.display()), error))?;
        privileges::give(path, owner)?;
    }
    Ok(())
}

/// What to say of a cluster that keeps its configuration elsewhere.
pub fn note(
    manifest: &Manifest,
    brought: Option<&Configuration>,
    data_directory: &Path,
) -> Option<String> {
    let has_own = manifest.files.iter().any(|file| file.path == "postgresql.conf");
    let main = manifest.configuration.iter().find(|file| file.role == Some(Role::Config));
    match (brought, main) {
        (Some(brought), _) if has_own => Some(format!(
            "{} configuration files come along: {}.",
            brought.files.len(),
            brought.paths().first().map(|path| shown(path)).unwrap_or_default()
        )),
        (Some(brought), _) => {
            let words = brought.settings().into_iter();
            let words: Vec<String> =
                words.map(|(name, value)| format!("-c {name}={value}")).collect();
            Some(format!(
                "start the server with what comes along: postgres -D {} -c data_directory={} {}.",
                data_directory.display(),
                data_directory.display(),
                words.join(" ")
            ))
        }
        (None, _) if has_own => None,
        (None, Some(main)) => Some(format!(
            "the backup has no postgresql.conf in the data directory: this cluster keeps it in {}. \
             Say the same with --configuration DIR: it brings that and {} more below DIR.",
            main.path,
            manifest.configuration.len() - 1
        )),
        (None, None) => Some(
            "the backup has no postgresql.conf: this cluster keeps it elsewhere, as Debian does; \
             copy it before you start the server."
                .to_owned(),
        ),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;
    use std::sync::Arc;

    use super::{Configuration, note};
    use crate::codec::Compression;
    use crate::error::ErrorKind;
    use crate::postgres::SystemIdentifier;
    use crate::postgres::configuration_files::Role;
    use crate::repository::manifest::ConfigurationFile;
    use crate::repository::manifest::samples::manifest;
    use crate::repository::{ClusterName, Home, Manifest, Repository};
    use crate::storage::memory::Memory;

    const DATA: &str = "/data";
    const PLACE: &str = "etc/postgresql/17/main/postgresql.conf";

    fn stored() -> (Home, Manifest) {
        let repository =
            Repository::new(Arc::new(Memory::new()), ClusterName::new("main").unwrap());
        let home = repository.home(SystemIdentifier(7));
        let mut manifest = manifest(SystemIdentifier(7), 1);
        let file = |path: &str, role, content: &str| {
            let (path, size) = (path.to_owned(), content.len() as u64);
            let listed = ConfigurationFile { path, role, mode: 0o640, size, modified: 0 };
            (listed, content.as_bytes().to_vec())
        };
        let files = [
            file("/etc/postgresql/17/main/postgresql.conf", Some(Role::Config), "port = 1\n"),
            file("/etc/postgresql/17/main/conf.d/a.conf", None, "#"),
        ];
        let compression = Compression::default();
        home.put_configuration(&manifest.id, &files, &manifest.origin, compression).unwrap();
        manifest.configuration = files.into_iter().map(|(listed, _)| listed).collect();
        (home, manifest)
    }

    fn prepare(root: &Path) -> crate::error::Result<Configuration> {
        let (home, manifest) = stored();
        Configuration::prepare(&home, &manifest, root, Path::new(DATA))
    }

    #[test]
    fn files_come_below_the_root_with_their_modes_and_again_is_the_same() {
        let root = tempfile::tempdir().unwrap();
        let configuration = prepare(root.path()).unwrap();
        configuration.place(None).unwrap();
        let path = root.path().join(PLACE);
        assert_eq!(fs::read_to_string(&path).unwrap(), "port = 1\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(configuration.settings()[0], ("config_file", path.display().to_string()));
        prepare(root.path()).unwrap().place(None).unwrap();
    }

    #[test]
    fn what_is_there_and_other_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(PLACE);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "port = 2\n").unwrap();
        assert_eq!(prepare(root.path()).unwrap_err().kind(), ErrorKind::Refused);
        fs::remove_file(&path).unwrap();
        symlink("/nowhere", &path).unwrap();
        assert_eq!(prepare(root.path()).unwrap_err().kind(), ErrorKind::Refused);
        fs::remove_file(&path).unwrap();

        let configuration = prepare(root.path()).unwrap();
        fs::write(&path, "port = 2\n").unwrap();
        assert!(configuration.place(None).is_err(), "somebody was quicker");
        assert_eq!(fs::read_to_string(&path).unwrap(), "port = 2\n");
    }

    #[test]
    fn it_is_refused_where_it_makes_no_sense() {
        for root in ["/data", "/data/etc"] {
            assert_eq!(prepare(Path::new(root)).unwrap_err().kind(), ErrorKind::Refused);
        }
        let (home, mut manifest) = stored();
        manifest.configuration.clear();
        let outcome = Configuration::prepare(&home, &manifest, Path::new("/x"), Path::new(DATA));
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Refused);
    }

    #[test]
    fn the_plan_says_how_to_come_by_it() {
        let (_, mut manifest) = stored();
        let said = |manifest: &Manifest| note(manifest, None, Path::new(DATA));
        let elsewhere = said(&manifest).unwrap();
        assert!(elsewhere.contains("/etc/postgresql/17/main/postgresql.conf"), "{elsewhere}");
        assert!(elsewhere.contains("--configuration DIR"), "{elsewhere}");
        manifest.configuration.clear();
        assert!(said(&manifest).unwrap().contains("copy it"));
        manifest.files[1].path = "postgresql.conf".to_owned();
        assert_eq!(said(&manifest), None);
    }
}

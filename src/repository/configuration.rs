//! The configuration files of a server that keeps them outside of its data directory.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use crate::codec::{self, Compression, Header, Kind, Origin, Sealer};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::configuration_files::Role;
use crate::repository::object::ObjectReader;
use crate::repository::{BackupId, Home, Manifest, unopened};
use crate::storage::Body;

pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Of all files together.
pub const BYTES_MAX: usize = 8 << 20;
pub const FILES_MAX: usize = 256;
/// With what tar adds: three blocks for a file whose path is long.
const TAR_BYTES_MAX: usize = BYTES_MAX + 2048 * FILES_MAX + (1 << 20);

/// One of them, as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConfigurationFile {
    /// Absolute, on the source.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Permission bits.
    pub mode: u32,
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
}

impl ConfigurationFile {
    /// Where it goes below another root; `None` where the path would lead out of it.
    pub fn below(&self, root: &Path) -> Option<PathBuf> {
        let relative = Path::new(&self.path).strip_prefix("/").ok()?;
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let is_sound = relative.components().all(is_plain) && relative.file_name().is_some();
        is_sound.then(|| root.join(relative))
    }
}

/// With its content.
pub type Saved = (ConfigurationFile, Vec<u8>);

impl Home {
    /// Stores them beside a backup that is not published yet: a tar file, its paths without the
    /// slash they begin with.
    pub fn put_configuration(
        &self,
        id: &BackupId,
        files: &[Saved],
        origin: &Origin,
        compression: Compression,
    ) -> Result<()> {
        let tar = to_tar(files).map_err(|error| {
            Error::new(ErrorKind::Bug, "write a tar file of the configuration").source(error)
        })?;
        let mut sealer = Sealer::new(compression, tar.len() as u64)?;
        sealer.write(&tar)?;
        let sealed = sealer.finish(|content| {
            Header::new(Kind::Configuration, id.as_str(), content, origin.clone())
        })?;
        self.put_once(&self.configuration_key(id), &Body::new(sealed))
    }

    /// Those of a backup, in the order of its manifest.
    pub fn configuration(&self, manifest: &Manifest) -> Result<Vec<Saved>> {
        if manifest.configuration.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.configuration_key(&manifest.id);
        let damaged = |what: &'static str| unopened(Error::new(ErrorKind::Corrupt, what), &key);
        let mut tar = Vec::new();
        let header = codec::open(ObjectReader::begin(&*self.storage, &key)?, |piece| {
            if tar.len() + piece.len() > TAR_BYTES_MAX {
                return Err(damaged("it is longer than it can be"));
            }
            tar.extend_from_slice(piece);
            Ok(())
        });
        let header = header.map_err(|error| unopened(error, &key))?;
        let is_ours = header.name == manifest.id.as_str() && header.origin == manifest.origin;
        if header.kind != Kind::Configuration || !is_ours {
            return Err(damaged("it is of another backup"));
        }
        let contents = from_tar(&tar)
            .map_err(|error| damaged("it is no tar file of configuration").source(error))?;
        let listed = manifest.configuration.iter().cloned();
        let saved: Vec<Saved> = listed.zip(contents).collect();
        let fits = |(file, content): &Saved| file.size == content.len() as u64;
        match saved.len() == manifest.configuration.len() && saved.iter().all(fits) {
            true => Ok(saved),
            false => Err(damaged("its files are not those of the manifest")),
        }
    }
}

fn to_tar(files: &[Saved]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (file, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(file.mode);
        header.set_mtime(u64::try_from(file.modified).unwrap_or(0));
        tar.append_data(&mut header, file.path.trim_start_matches('/'), content.as_slice())?;
    }
    tar.into_inner()
}

/// The contents only: where they belong, the manifest says.
fn from_tar(tar: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
    let mut contents = Vec::new();
    for entry in tar::Archive::new(tar).entries()? {
        let mut content = Vec::new();
        entry?.read_to_end(&mut content)?;
        contents.push(content);
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::{ConfigurationFile, Saved};
    use crate::codec::Compression;
    use crate::error::ErrorKind;
    use crate::postgres::SystemIdentifier;
    use crate::postgres::configuration_files::Role;
    use crate::repository::manifest::samples::manifest;
    use crate::repository::{ClusterName, Home, Manifest, Repository};
    use crate::storage::memory::Memory;

    fn file(path: &str, content: &str) -> Saved {
        let size = content.len() as u64;
        let role = path.ends_with("postgresql.conf").then_some(Role::Config);
        let path = path.to_owned();
        let listed = ConfigurationFile { path, role, mode: 0o640, size, modified: 1_700_000_000 };
        (listed, content.as_bytes().to_vec())
    }

    fn stored(files: &[Saved]) -> (Home, Manifest) {
        let repository =
            Repository::new(Arc::new(Memory::new()), ClusterName::new("main").unwrap());
        let home = repository.home(SystemIdentifier(7));
        let mut manifest = manifest(SystemIdentifier(7), 1);
        let compression = Compression::default();
        home.put_configuration(&manifest.id, files, &manifest.origin, compression).unwrap();
        manifest.configuration = files.iter().map(|(listed, _)| listed.clone()).collect();
        (home, manifest)
    }

    #[test]
    fn what_was_stored_comes_back_long_paths_too() {
        let long = format!("/etc/{}/postgresql.conf", "long/".repeat(60));
        let files =
            [file("/etc/postgresql/17/main/postgresql.conf", "port = 1\n"), file(&long, "")];
        let (home, manifest) = stored(&files);
        assert_eq!(home.configuration(&manifest).unwrap(), files);
    }

    #[test]
    fn what_is_not_that_of_the_manifest_is_damage() {
        let (home, mut manifest) = stored(&[file("/etc/a.conf", "a"), file("/etc/b.conf", "b")]);
        manifest.configuration.pop();
        assert_eq!(home.configuration(&manifest).unwrap().len(), 1);
        manifest.configuration[0].size = 7;
        assert_eq!(home.configuration(&manifest).unwrap_err().kind(), ErrorKind::Corrupt);
        manifest.configuration.clear();
        assert_eq!(home.configuration(&manifest).unwrap(), []);
    }

    #[test]
    fn no_path_leads_out_of_where_it_is_restored_to() {
        let below = |path: &str| file(path, "").0.below(Path::new("/new"));
        assert_eq!(below("/etc/a.conf"), Some(PathBuf::from("/new/etc/a.conf")));
        for bad in ["etc/a.conf", "/etc/../../a.conf", "/", "", "/../a"] {
            assert_eq!(below(bad), None, "{bad:?}");
        }
    }
}

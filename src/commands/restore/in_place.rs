//! What lies in a directory that is restored into: which files may be kept in part, and what does
//! not belong there.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::commands::restore::host_failed;
use crate::commands::restore::marker::UNFINISHED;
use crate::commands::restore::placement::{CONTROL_FILE, Placement};
use crate::error::Result;

/// A file system's own, at the root of it.
const NOT_OURS: &str = "lost+found";

/// A look at the names and lengths; nothing was read yet.
#[derive(Debug, Default)]
pub struct InPlace {
    /// For each file of the placement: how long what lies in its place is.
    pub files: Vec<Option<u64>>,
    /// What is to be removed, with all that is in it.
    pub strangers: Vec<PathBuf>,
    pub stranger_files: u64,
    pub stranger_bytes: u64,
    /// Of what is to be kept or removed, as the disk has it.
    pub disk_bytes: u64,
}

impl InPlace {
    /// How many files lie in their place, and how many bytes of them may be right.
    pub fn there(&self, placement: &Placement) -> (u64, u64) {
        let both = self.files.iter().zip(&placement.files);
        both.filter_map(|(was, file)| was.map(|was| was.min(file.size)))
            .fold((0, 0), |(files, bytes), length| (files + 1, bytes + length))
    }

    /// Removes what does not belong. Symbolic links are removed, never followed.
    pub fn clear(&self) -> Result<()> {
        for path in &self.strangers {
            let removed = match fs::symlink_metadata(path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(path),
                Ok(_) => fs::remove_file(path),
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                outcome => {
                    outcome.map_err(|e| host_failed(format!("remove {}", path.display()), e))?;
                }
            }
        }
        Ok(())
    }
}

/// Looks into the data directory and the places of its tablespaces.
pub fn look(placement: &Placement, roots: &[&Path]) -> Result<InPlace> {
    let paths = placement.files.iter().map(|file| file.path.as_path());
    let mut look = Look {
        placement,
        files: paths.zip(0..).collect(),
        kept: roots.iter().map(|root| root.join(UNFINISHED)).collect(),
        found: InPlace { files: vec![None; placement.files.len()], ..InPlace::default() },
    };
    // It is removed first of all, and written last.
    look.kept.push(placement.control.clone());
    for root in roots {
        look.directory(root)?;
    }
    Ok(look.found)
}

struct Look<'a> {
    placement: &'a Placement,
    files: HashMap<&'a Path, usize>,
    kept: Vec<PathBuf>,
    found: InPlace,
}

impl Look<'_> {
    fn directory(&mut self, path: &Path) -> Result<()> {
        for entry in read(path)? {
            let (path, metadata) = entry;
            self.found.disk_bytes += metadata.blocks() * 512;
            let is_directory = metadata.is_dir();
            if is_directory && self.placement.directories.contains_key(&path) {
                self.directory(&path)?;
            } else if self.kept.contains(&path) || path.ends_with(NOT_OURS) {
                continue;
            } else if let Some(file) =
                self.files.get(path.as_path()).filter(|_| is_plain(&metadata))
            {
                self.found.files[*file] = Some(metadata.len());
            } else {
                self.stranger(&path, &metadata)?;
                self.found.strangers.push(path);
            }
        }
        Ok(())
    }

    fn stranger(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        if metadata.is_dir() {
            for (path, metadata) in read(path)? {
                self.found.disk_bytes += metadata.blocks() * 512;
                self.stranger(&path, &metadata)?;
            }
            return Ok(());
        }
        self.found.stranger_files += 1;
        self.found.stranger_bytes += if metadata.is_file() { metadata.len() } else { 0 };
        Ok(())
    }
}

/// One with several names is somebody else's too, and is not written into.
fn is_plain(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.nlink() == 1
}

/// What a directory holds; nothing where it is not there.
fn read(path: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let failed = |error| host_failed(format!("look into {}", path.display()), error);
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome.map_err(failed)?,
    };
    let with_metadata = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry?;
        // That of a symbolic link itself.
        Ok((entry.path(), entry.metadata()?))
    };
    let mut found =
        entries.map(with_metadata).collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

/// So that no server starts on what is about to change; durable on return.
pub fn remove_control(directory: &Path) -> Result<()> {
    let control = directory.join(CONTROL_FILE);
    match fs::remove_file(&control) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        outcome => {
            outcome.map_err(|error| host_failed(format!("remove {}", control.display()), error))?;
        }
    }
    control.parent().map_or(Ok(()), crate::commands::restore::settle::sync)
}

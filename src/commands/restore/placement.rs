//! Where each file of a backup goes on this host: the manifest's paths to absolute ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::repository::manifest::{FileEntry, FileKind, Manifest};

pub const CONTROL_FILE: &str = "global/pg_control";
/// `PG_CONTROL_FILE_SIZE` (pg_control.h) is 8192.
const CONTROL_BYTES_MAX: u64 = 1 << 20;
const OWN_TABLESPACES: &str = "pg_tblspc";

/// Left by the source's server or by an earlier restore; none may act here. `tablespace_map` is
/// written anew.
const NOT_PLACED: [&str; 8] = [
    "postmaster.pid",
    "postmaster.opts",
    "recovery.signal",
    "standby.signal",
    "backup_label.old",
    "tablespace_map",
    "tablespace_map.old",
    "current_logfiles",
];
/// PostgreSQL wants these, empty or not; some are left out of backups.
const NEEDED: [&str; 3] = ["pg_wal", "pg_wal/archive_status", OWN_TABLESPACES];

/// Where one tablespace goes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Link {
    pub oid: u32,
    pub from: String,
    pub to: PathBuf,
}

#[derive(Debug)]
pub struct Placement {
    /// In the order of the stream, `global/pg_control` left out.
    pub files: Vec<Placed>,
    /// Parents first, with their permission bits.
    pub directories: BTreeMap<PathBuf, u32>,
    /// It comes last of all, so a half-restored directory never starts.
    pub control: Placed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// Where the content begins in the stream.
    pub offset: u64,
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
}

impl Placement {
    pub fn new(manifest: &Manifest, directory: &Path, links: &[Link]) -> Result<Placement> {
        let map = Map { directory, links };
        let stream = manifest.packs.iter().try_fold(0u64, |sum, pack| sum.checked_add(pack.size));
        let stream = stream.ok_or_else(|| damaged("its packs hold more than can be".to_owned()))?;
        // Pack n begins at n * pack_bytes: a short one before the last would leave a hole.
        let short = manifest
            .packs
            .split_last()
            .is_some_and(|(_, packs)| packs.iter().any(|pack| pack.size != manifest.pack_bytes));
        if short {
            return Err(damaged("a pack before the last is not full".to_owned()));
        }
        let mode = directory_mode(manifest);
        let (mut files, mut control) = (Vec::new(), None);
        let mut directories = BTreeMap::from([(directory.to_owned(), mode)]);
        directories.extend(NEEDED.iter().map(|name| (directory.join(name), mode)));
        directories.extend(links.iter().map(|link| (link.to.clone(), mode)));
        for entry in &manifest.files {
            let path = map.path(&entry.path)?;
            if entry.kind == FileKind::Directory {
                directories.insert(path, entry.mode & 0o7777);
                continue;
            }
            if entry.offset.checked_add(entry.size).is_none_or(|end| end > stream) {
                return Err(damaged(format!("{} lies outside of the packs", entry.path)));
            }
            let placed = Placed::new(path, entry);
            match entry.path.as_str() {
                CONTROL_FILE => control = Some(placed),
                name if NOT_PLACED.contains(&name) => {}
                _ => files.push(placed),
            }
        }
        for parent in files.iter().chain(&control).filter_map(|file| file.path.parent()) {
            let missing: BTreeSet<&Path> = parent
                .ancestors()
                .take_while(|folder| !directories.contains_key(*folder))
                .collect();
            directories.extend(missing.into_iter().map(|folder| (folder.to_owned(), mode)));
        }
        files.sort_by_key(|file| (file.offset, file.size));
        let control = control.ok_or_else(|| damaged(format!("it has no {CONTROL_FILE}")))?;
        // It is held in memory until the end.
        if control.size > CONTROL_BYTES_MAX {
            return Err(damaged(format!("{CONTROL_FILE} has {} bytes", control.size)));
        }
        Ok(Placement { files, directories, control })
    }
}

impl Placed {
    fn new(path: PathBuf, entry: &FileEntry) -> Placed {
        let FileEntry { size, offset, mode, modified, .. } = *entry;
        Placed { path, size, offset, mode: mode & 0o7777, modified }
    }

    /// Where its content ends in the stream, exclusive.
    pub fn end(&self) -> u64 {
        self.offset + self.size
    }
}

struct Map<'a> {
    directory: &'a Path,
    links: &'a [Link],
}

impl Map<'_> {
    fn path(&self, relative: &str) -> Result<PathBuf> {
        let path = Path::new(relative);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !path.components().all(plain) {
            return Err(damaged(format!("{relative:?} leads out of the data directory")));
        }
        for link in self.links {
            let own = Path::new(OWN_TABLESPACES).join(link.oid.to_string());
            if let Ok(rest) = path.strip_prefix(&own) {
                return Ok(clean(&link.to, rest));
            }
        }
        Ok(clean(self.directory, path))
    }
}

/// Without a trailing slash or `.`, which `join` would keep.
fn clean(base: &Path, rest: &Path) -> PathBuf {
    let parts = rest.components().filter(|part| matches!(part, Component::Normal(_)));
    parts.fold(base.to_owned(), |path, part| path.join(part))
}

/// A cluster is made with or without access for its group (`initdb --allow-group-access`), and
/// PostgreSQL refuses any other mode.
pub fn directory_mode(manifest: &Manifest) -> u32 {
    let global = manifest.files.iter().find(|file| file.path.trim_end_matches('/') == "global");
    if global.is_some_and(|file| file.mode & 0o050 == 0o050) { 0o750 } else { 0o700 }
}

fn damaged(what: String) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the manifest is damaged: {what}"))
        .hint("Choose another backup with --backup.")
}

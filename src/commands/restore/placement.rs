//! Where each file of a backup goes on this host, and which bytes of which backups it is made of.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use crate::commands::restore::chain::{Chain, LABEL};
use crate::commands::restore::pieces::{Piece, Sources};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::manifest::{FileEntry, FileKind, Manifest};

pub const CONTROL_FILE: &str = "global/pg_control";
/// `PG_CONTROL_FILE_SIZE` (pg_control.h) is 8192.
const CONTROL_BYTES_MAX: u64 = 1 << 20;
pub const OWN_TABLESPACES: &str = "pg_tblspc";
/// Of files that were put together it would not be true.
const SERVERS_MANIFEST: &str = "backup_manifest";

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
    /// In the order of the newest backup's stream, `global/pg_control` left out.
    pub files: Vec<Placed>,
    /// Of all files, one file after the other; in a file they rise.
    pub pieces: Vec<Piece>,
    /// Parents first, with their permission bits.
    pub directories: BTreeMap<PathBuf, u32>,
    /// It comes last of all, so a half-restored directory never starts.
    pub control: PathBuf,
    /// Its permission bits.
    pub control_mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
    /// Those of its pieces, of all.
    pub pieces: Range<u32>,
}

impl Placement {
    /// All of a cluster. Files that `is_empty` names, by their path in the data directory, keep
    /// their length and lose their content.
    pub fn new(
        chain: &Chain,
        directory: &Path,
        links: &[Link],
        is_empty: &dyn Fn(&str) -> bool,
    ) -> Result<Placement> {
        let newest = chain.newest();
        let mode = directory_mode(newest);
        let mut placement = Placement::bare(directory.join(CONTROL_FILE));
        placement.directories.insert(directory.to_owned(), mode);
        placement.directories.extend(NEEDED.iter().map(|name| (directory.join(name), mode)));
        placement.directories.insert(directory.join("global"), mode);
        placement.directories.extend(links.iter().map(|link| (link.to.clone(), mode)));
        let is_left_out = |name: &str| {
            let is_written_anew = chain.is_combined() && [LABEL, SERVERS_MANIFEST].contains(&name);
            name == CONTROL_FILE || NOT_PLACED.contains(&name) || is_written_anew
        };
        placement.add(&chain.manifests, &Map { directory, links }, &is_left_out, is_empty)?;
        let control = newest.files.iter().find(|file| file.path == CONTROL_FILE);
        let control = control.ok_or_else(|| damaged(format!("it has no {CONTROL_FILE}")))?;
        // It is held in memory until the end.
        if control.size > CONTROL_BYTES_MAX {
            return Err(damaged(format!("{CONTROL_FILE} has {} bytes", control.size)));
        }
        placement.control_mode = control.mode & 0o7777;
        let links = links.iter().map(|link| link.to.as_path());
        let roots: Vec<&Path> = links.chain([directory]).collect();
        placement.add_parents(&roots, mode);
        Ok(placement)
    }

    /// Some files, under the names they have in a data directory.
    pub fn of_files(
        chain: &[Manifest],
        directory: &Path,
        is_wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Placement> {
        let mut placement = Placement::bare(directory.join(CONTROL_FILE));
        let map = Map { directory, links: &[] };
        placement.directories.insert(directory.to_owned(), 0o700);
        placement.add(chain, &map, &|name| !is_wanted(name), &|_| false)?;
        placement.add_parents(&[directory], 0o700);
        Ok(placement)
    }

    /// Raw bytes of all pieces.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.length).sum()
    }

    pub fn pieces_of(&self, file: &Placed) -> &[Piece] {
        &self.pieces[file.pieces.start as usize..file.pieces.end as usize]
    }

    fn bare(control: PathBuf) -> Placement {
        let (files, pieces) = (Vec::new(), Vec::new());
        let directories = BTreeMap::new();
        Placement { files, pieces, directories, control, control_mode: 0o600 }
    }

    fn add(
        &mut self,
        chain: &[Manifest],
        map: &Map<'_>,
        is_left_out: &dyn Fn(&str) -> bool,
        is_empty: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let streams = chain.iter().map(stream_bytes).collect::<Result<Vec<u64>>>()?;
        let (sources, newest) = (Sources::new(chain), &chain[0]);
        for (index, entry) in (0u32..).zip(&newest.files) {
            let name = entry.whole_path();
            let path = map.path(&name)?;
            if is_left_out(&name) {
                continue;
            }
            if entry.kind == FileKind::Directory {
                self.directories.insert(path, entry.mode & 0o7777);
                continue;
            }
            let (size, mut pieces) = sources.of(index, entry)?;
            for piece in &pieces {
                let end = piece.offset.checked_add(piece.length);
                if end.is_none_or(|end| end > streams[piece.source as usize]) {
                    return Err(damaged(format!("{} lies outside of the packs", entry.path)));
                }
            }
            if is_empty(&name) {
                pieces.clear();
            }
            self.add_file(path, size, entry, &pieces);
        }
        let mut paths: Vec<&Path> = self.files.iter().map(|file| file.path.as_path()).collect();
        paths.sort_unstable();
        match paths.windows(2).find(|two| two[0] == two[1]) {
            Some(twice) => Err(damaged(format!("it has {} twice", twice[0].display()))),
            None => Ok(()),
        }
    }

    fn add_file(&mut self, path: PathBuf, size: u64, entry: &FileEntry, pieces: &[Piece]) {
        let begin = self.pieces.len() as u32;
        self.pieces.extend_from_slice(pieces);
        let pieces = begin..self.pieces.len() as u32;
        let (mode, modified) = (entry.mode & 0o7777, entry.modified);
        self.files.push(Placed { path, size, mode, modified, pieces });
    }

    /// What manifests do not name, but files lie in.
    fn add_parents(&mut self, roots: &[&Path], mode: u32) {
        let folders: Vec<PathBuf> = self.directories.keys().cloned().collect();
        let below = folders.iter().filter(|folder| !roots.contains(&folder.as_path()));
        let paths = self.files.iter().map(|file| &file.path).chain(below);
        for parent in paths.filter_map(|path| path.parent()) {
            if self.directories.contains_key(parent) {
                continue;
            }
            let missing: Vec<PathBuf> = parent
                .ancestors()
                .take_while(|folder| !self.directories.contains_key(*folder))
                .map(Path::to_owned)
                .collect();
            self.directories.extend(missing.into_iter().map(|folder| (folder, mode)));
        }
    }
}

/// Raw bytes of all packs, as far as they can be those of a stream.
fn stream_bytes(manifest: &Manifest) -> Result<u64> {
    let bytes = manifest.packs.iter().try_fold(0u64, |sum, pack| sum.checked_add(pack.size));
    let bytes = bytes.ok_or_else(|| damaged("its packs hold more than can be".to_owned()))?;
    // Pack n begins at n * pack_bytes: a short one before the last would leave a hole.
    let short = manifest
        .packs
        .split_last()
        .is_some_and(|(_, packs)| packs.iter().any(|pack| pack.size != manifest.pack_bytes));
    match short {
        true => Err(damaged("a pack before the last is not full".to_owned())),
        false => Ok(bytes),
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

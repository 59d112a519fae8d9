//! Whether this host can take the backup: every refusal before anything is changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use rustix::fs::statvfs;

use crate::catalog::recovery_plan::estimate::Estimate;
use crate::commands::restore::Request;
use crate::commands::restore::marker::Marker;
use crate::commands::restore::occupied::{self, Into};
use crate::commands::restore::placement::{Link, Placement};
use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges::{self, User};
use crate::repository::Manifest;

/// File systems give out whole blocks.
const BLOCK_BYTES: u64 = 4096;
/// A server that recovers keeps replayed WAL up to its next restart point or so, two at most: twice
/// PostgreSQL's default of `max_wal_size`.
const WAL_KEPT_BYTES_MAX: u64 = 2 << 30;

#[derive(Debug)]
pub struct Destination {
    /// Absolute.
    pub directory: PathBuf,
    pub links: Vec<Link>,
    /// Whom the files shall belong to; `None`: to us.
    pub owner: Option<User>,
    /// What lies there already.
    pub into: Into,
}

impl Destination {
    /// The data directory and the places of its tablespaces.
    pub fn roots(&self) -> Vec<&Path> {
        let links = self.links.iter().map(|link| link.to.as_path());
        std::iter::once(self.directory.as_path()).chain(links).collect()
    }
}

/// Looks at the host without changing it.
pub fn examine(request: &Request, manifest: &Manifest, repository: &str) -> Result<Destination> {
    let directory = absolute(&request.directory)?;
    occupied::refuse_live_server(&directory)?;
    let into = occupied::look(&directory, &Marker::new(request, manifest), request.delta)?;
    refuse_dangerous(&directory, repository)?;
    let links = links(request, manifest, &directory)?;
    for link in &links {
        occupied::expect_own(link, &directory, into)?;
        refuse_dangerous(&link.to, repository)?;
    }
    let owner = owner(request, &directory)?;
    Ok(Destination { directory, links, owner, into })
}

pub fn refuse_dangerous(path: &Path, repository: &str) -> Result<()> {
    let shown = path.display();
    let elsewhere = "Name a directory outside of it.";
    if path.parent().is_none() {
        return Err(refused(format!("{shown} is the root of this host")).hint(elsewhere));
    }
    let around = path.ancestors().skip(1).find(|folder| folder.join("PG_VERSION").is_file());
    if let Some(cluster) = around {
        let message = format!("{shown} lies in the data directory {}", cluster.display());
        return Err(refused(message).hint(elsewhere));
    }
    let kept = repository.strip_prefix("file://").map(Path::new);
    if kept.and_then(|kept| absolute(kept).ok()).is_some_and(|kept| path.starts_with(kept)) {
        return Err(refused(format!("{shown} lies in the repository {repository}")).hint(elsewhere));
    }
    Ok(())
}

/// Every tablespace gets the place it was given: never silently the one it had on the source.
fn links(request: &Request, manifest: &Manifest, directory: &Path) -> Result<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    let mut unmapped = Vec::new();
    // A relative path is that of a tablespace in the data directory (allow_in_place_tablespaces).
    let linked = || manifest.tablespaces.iter().filter(|space| space.path.starts_with('/'));
    for space in linked() {
        let mapped = request.tablespace_map.iter().find(|(old, _)| *old == Path::new(&space.path));
        let root = request.tablespace_root.as_ref().map(|root| root.join(space.oid.to_string()));
        let Some(to) = mapped.map(|(_, new)| new.clone()).or(root) else {
            unmapped.push(space.path.clone());
            continue;
        };
        links.push(Link { oid: space.oid, from: space.path.clone(), to: absolute(&to)? });
    }
    for (old, _) in &request.tablespace_map {
        if !linked().any(|space| *old == Path::new(&space.path)) {
            let all: Vec<&str> = linked().map(|space| space.path.as_str()).collect();
            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            return Err(refused(format!("the backup has no tablespace at {}", old.display()))
                .hint(format!("Its tablespaces: {all}.")));
        }
    }
    if !unmapped.is_empty() {
        let flags: Vec<String> =
            unmapped.iter().map(|path| format!("--tablespace-map {path}=NEW")).collect();
        return Err(refused(format!(
            "no place is given for the tablespaces at {}",
            unmapped.join(", ")
        ))
        .hint(format!(
            "Give each a new directory: {}; or all: --tablespace-root DIR. The old place must \
                 be asked for as such: {}={}.",
            flags.join(" "),
            unmapped[0],
            unmapped[0]
        )));
    }
    refuse_overlap(&links, directory)?;
    Ok(links)
}

fn refuse_overlap(links: &[Link], directory: &Path) -> Result<()> {
    let places: Vec<&Path> =
        std::iter::once(directory).chain(links.iter().map(|link| link.to.as_path())).collect();
    for (index, one) in places.iter().enumerate() {
        for other in &places[index + 1..] {
            if one.starts_with(other) || other.starts_with(one) {
                let message = format!("{} and {} overlap", one.display(), other.display());
                return Err(refused(message)
                    .hint("Give the data directory and each tablespace a place of its own."));
            }
        }
    }
    Ok(())
}

/// PostgreSQL refuses to run as root and wants to own its files.
pub fn owner(request: &Request, directory: &Path) -> Result<Option<User>> {
    if !privileges::is_root() {
        return match &request.owner {
            Some(name) => Err(refused(format!("only root can give files to {name}"))
                .hint("Leave --owner away, or run walden as root.")),
            None => Ok(None),
        };
    }
    if let Some(name) = &request.owner {
        return match privileges::user_named(name) {
            Some(user) => Ok(Some(user)),
            None => Err(refused(format!("{name} is no user who could run PostgreSQL here"))
                .hint("Name an existing user other than root with --owner.")),
        };
    }
    let owner =
        privileges::owner_of(existing(directory)).or_else(|| privileges::user_named("postgres"));
    owner.map(Some).ok_or_else(|| {
        refused("running as root, and nobody is known to whom the files should belong".to_owned())
            .hint("Name the user who will run PostgreSQL with --owner USER.")
    })
}

/// What the files need on each file system, and in the data directory the WAL that is kept while it
/// is replayed; `disk_bytes` are those of what is overwritten or removed. By how much replay lets
/// the files grow nobody knows.
pub fn refuse_full(
    placement: &Placement,
    destination: &Destination,
    estimate: &Estimate,
    disk_bytes: u64,
) -> Result<()> {
    let device =
        |folder: &Path| fs::metadata(folder).map(|metadata| metadata.dev()).unwrap_or_default();
    let wal = estimate.wal_bytes.min(WAL_KEPT_BYTES_MAX);
    let directory = destination.directory.as_path();
    let mut needed: BTreeMap<u64, (u64, &Path)> = BTreeMap::new();
    needed.insert(device(existing(directory)), (wal, existing(directory)));
    let links = &destination.links;
    let places: Vec<&Path> =
        links.iter().map(|link| link.to.as_path()).chain([directory]).collect();
    let mut bytes = vec![0; places.len()];
    for file in &placement.files {
        let place = places.iter().position(|place| file.path.starts_with(place));
        let pieces = placement.pieces_of(file).iter();
        let size: u64 = pieces.map(|piece| piece.length.next_multiple_of(BLOCK_BYTES)).sum();
        bytes[place.unwrap_or(places.len() - 1)] += size;
    }
    for (place, bytes) in places.into_iter().zip(bytes) {
        let folder = existing(place);
        needed.entry(device(folder)).or_insert((0, folder)).0 += bytes;
    }
    for (bytes, folder) in needed.into_values() {
        let Ok(space) = statvfs(folder) else { continue };
        let free = space.f_bavail.saturating_mul(space.f_frsize).saturating_add(disk_bytes);
        if bytes > free {
            return Err(refused(format!(
                "not enough space: {} needed, {} free on the file system of {}",
                ByteSize::b(bytes).display().iec(),
                ByteSize::b(free).display().iec(),
                folder.display()
            ))
            .hint(
                "Free some, or restore elsewhere; what replay adds to tables needs room beyond \
                 that.",
            ));
        }
    }
    Ok(())
}

/// With links resolved as far as the path exists, so that two spellings of a place are one.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let full = std::path::absolute(path).map_err(|error| {
        Error::new(ErrorKind::Usage, format!("{} is not a path", path.display()))
            .source(error)
            .hint("Name a directory.")
    })?;
    if full.components().any(|part| part == std::path::Component::ParentDir) && !full.exists() {
        return Err(refused(format!("{} has .. in it and does not exist", full.display()))
            .hint("Name the directory without `..`."));
    }
    let there = existing(&full);
    let rest = full.strip_prefix(there).unwrap_or(Path::new(""));
    let base = there.canonicalize().unwrap_or_else(|_| there.to_owned());
    Ok(if rest.as_os_str().is_empty() { base } else { base.join(rest) })
}

/// The path itself, or the nearest folder above it that exists.
pub fn existing(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"))
}

pub fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, message)
}

#[cfg(test)]
mod tests;

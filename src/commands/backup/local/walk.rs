//! Which files there are to copy: the data directory and its tablespaces, walked by the rules of
//! `data_files`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;

use crate::commands::backup::local::plan::{Content, Item};
use crate::commands::backup::source::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::MajorVersion;
use crate::postgres::data_files::{self, Fork, RelationDirectory, RelationFileName};

/// Fewer files are looked at sooner than threads begin.
const FILES_PER_THREAD_MIN: usize = 1000;

/// Where a server's files lie, and which are its own.
#[derive(Debug)]
pub struct Ground<'g> {
    pub pgdata: &'g Path,
    pub major: MajorVersion,
    /// The directory in each tablespace that is this cluster's.
    pub version_directory: String,
    /// Threads that look at files.
    pub jobs: usize,
}

#[derive(Debug)]
pub struct Walked {
    pub items: Vec<Item>,
    /// The tablespaces that lie elsewhere.
    pub linked: Vec<u32>,
}

/// Every directory and file that belongs in a backup, in the order of the stream: those of each
/// tablespace, then the rest. `global/pg_control` is not among them.
pub fn walk(ground: &Ground<'_>) -> Result<Walked> {
    let links = ground.links()?;
    let mut walk = Walk { ground, targets: BTreeSet::new(), items: Vec::new() };
    for (oid, target) in &links {
        walk.targets.extend(target.canonicalize().ok());
        walk.tablespace(*oid, target)?;
    }
    walk.directory("", ground.pgdata)?;
    let linked = links.into_iter().map(|(oid, _)| oid).collect();
    Ok(Walked { items: walk.items, linked })
}

impl<'g> Ground<'g> {
    pub fn new(pgdata: &'g Path, source: &Source, catalog_version: u32, jobs: usize) -> Self {
        let major = MajorVersion::from_server_version_num(source.server_version_num);
        let version_directory = data_files::version_directory(major, catalog_version);
        Ground { pgdata, major, version_directory, jobs }
    }

    /// The tablespaces that lie elsewhere.
    fn links(&self) -> Result<Vec<(u32, PathBuf)>> {
        let folder = self.pgdata.join(data_files::TABLESPACES);
        let mut links = Vec::new();
        for name in names_in(&folder)?.unwrap_or_default() {
            let link = folder.join(&name.text);
            let Ok(oid) = name.text.parse() else { continue };
            if name.kind == Kind::Link {
                match fs::read_link(&link) {
                    Ok(target) => links.push((oid, target)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(unreadable(&link, error)),
                }
            }
        }
        Ok(links)
    }
}

struct Walk<'w> {
    ground: &'w Ground<'w>,
    /// Where tablespaces lie: none of them is walked twice, should it be in the data directory.
    targets: BTreeSet<PathBuf>,
    items: Vec<Item>,
}

/// An entry of a directory, not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Directory,
    File,
    Link,
    Socket,
    Other,
}

impl Walk<'_> {
    fn tablespace(&mut self, oid: u32, target: &Path) -> Result<()> {
        let path = format!("{}/{oid}", data_files::TABLESPACES);
        if !self.push_directory(&path, target)? {
            return Ok(());
        }
        let inner = target.join(&self.ground.version_directory);
        let path = format!("{path}/{}", self.ground.version_directory);
        match self.push_directory(&path, &inner)? {
            true => self.directory(&path, &inner),
            false => Ok(()),
        }
    }

    /// What is in one directory; `path` is empty for the data directory itself.
    fn directory(&mut self, path: &str, place: &Path) -> Result<()> {
        let Some(names) = names_in(place)? else { return Ok(()) };
        let relations = RelationDirectory::parse(path);
        let unlogged = relations.map(|_| unlogged(&names)).unwrap_or_default();
        let mut files = Vec::new();
        for name in names {
            let below = if path.is_empty() { String::new() } else { format!("{path}/") };
            let (inner, at) = (format!("{below}{}", name.text), place.join(&name.text));
            if data_files::is_excluded(&name.text) || inner == data_files::CONTROL_FILE {
                continue;
            }
            if relations.is_some_and(|directory| is_left_out(directory, &name.text, &unlogged)) {
                continue;
            }
            let is_linkable = matches!(name.kind, Kind::Directory | Kind::Link);
            if is_linkable && data_files::is_emptied(&name.text) {
                self.push_directory(&inner, &at)?;
            } else if is_linkable && inner == data_files::WAL {
                self.wal(&at)?;
            } else {
                match name.kind {
                    Kind::File => files.push(inner),
                    Kind::Directory => self.subdirectory(&inner, &at)?,
                    // Walked before, by themselves.
                    Kind::Link if path == data_files::TABLESPACES => {}
                    Kind::Socket => tracing::info!("{inner} is a socket, and is not copied"),
                    Kind::Link | Kind::Other => {
                        tracing::warn!("{inner} is neither a file nor a directory, and not copied");
                    }
                }
            }
        }
        self.items.extend(look_at_all(self.ground, path, place, &files)?);
        Ok(())
    }

    fn subdirectory(&mut self, path: &str, place: &Path) -> Result<()> {
        let is_tablespace = !self.targets.is_empty()
            && place.canonicalize().is_ok_and(|place| self.targets.contains(&place));
        match self.push_directory(path, place)? && !is_tablespace {
            true => self.directory(path, place),
            false => Ok(()),
        }
    }

    fn wal(&mut self, place: &Path) -> Result<()> {
        self.push_directory(data_files::WAL, place)?;
        for name in data_files::directories_of_wal(self.ground.major) {
            let path = format!("{}/{name}", data_files::WAL);
            // One that is not there now is there in a backup all the same.
            if !self.push_directory(&path, &place.join(name))? {
                self.items.push(directory(path, 0o700, 0));
            }
        }
        Ok(())
    }

    /// Follows a link; `false` where there is none any more.
    fn push_directory(&mut self, path: &str, place: &Path) -> Result<bool> {
        let Some(metadata) = found(place, fs::metadata(place))? else { return Ok(false) };
        let item = directory(path.to_owned(), metadata.mode() & 0o7777, metadata.mtime());
        self.items.push(item);
        Ok(true)
    }
}

fn directory(path: String, mode: u32, modified: i64) -> Item {
    Item { path, mode, modified, size: 0, content: Content::Directory }
}

/// Temporary relations, and of unlogged ones all but what they begin with after a crash.
fn is_left_out(directory: RelationDirectory, name: &str, unlogged: &BTreeSet<u32>) -> bool {
    let is_unlogged =
        |file: RelationFileName| file.fork != Fork::Init && unlogged.contains(&file.number);
    (directory.database != 0 && data_files::is_temporary_relation(name))
        || RelationFileName::parse(name).is_some_and(is_unlogged)
}

/// The relations that have an init fork.
pub fn unlogged(names: &[Name]) -> BTreeSet<u32> {
    let files = names.iter().filter_map(|name| RelationFileName::parse(&name.text));
    files.filter(|file| file.fork == Fork::Init).map(|file| file.number).collect()
}

/// Sorted; `None` where the directory is gone.
pub fn names_in(place: &Path) -> Result<Option<Vec<Name>>> {
    let Some(entries) = found(place, fs::read_dir(place))? else { return Ok(None) };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(place, error))?;
        let text = entry.file_name().into_string().map_err(|name| {
            let name = place.join(name);
            Error::new(ErrorKind::Refused, format!("the name of {} is not UTF-8", name.display()))
                .hint("It is not PostgreSQL's: move it out of the data directory.")
        })?;
        let Some(kind) = found(&entry.path(), entry.file_type())? else { continue };
        let kind = match kind {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::Link,
            kind if kind.is_socket() => Kind::Socket,
            _ => Kind::Other,
        };
        names.push(Name { text, kind });
    }
    names.sort();
    Ok(Some(names))
}

/// The files of one directory, each looked at, by several threads where they are many: on a cold
/// disk each look is a wait. Those that are gone meanwhile are passed over.
fn look_at_all(
    ground: &Ground<'_>,
    directory: &str,
    place: &Path,
    files: &[String],
) -> Result<Vec<Item>> {
    let share = files.len().div_ceil(ground.jobs.max(1)).max(FILES_PER_THREAD_MIN);
    let look = |path: &String| {
        let name = path.strip_prefix(directory).unwrap_or(path).trim_start_matches('/');
        look_at(path, &place.join(name))
    };
    thread::scope(|scope| {
        let shares = files.chunks(share).map(|share| {
            let work = move || share.iter().filter_map(|path| look(path).transpose()).collect();
            scope.spawn(work)
        });
        let shares: Vec<_> = shares.collect();
        let mut all = Vec::with_capacity(files.len());
        for share in shares {
            let looked: Result<Vec<Item>> = share.join().unwrap_or_else(|panic| {
                std::panic::resume_unwind(panic);
            });
            all.extend(looked?);
        }
        Ok(all)
    })
}

fn look_at(path: &str, place: &Path) -> Result<Option<Item>> {
    let Some(metadata) = found(place, fs::symlink_metadata(place))? else { return Ok(None) };
    let (mode, modified) = (metadata.mode() & 0o7777, metadata.mtime());
    // What was a file a moment ago may be something else by now.
    Ok(metadata.is_file().then(|| Item {
        path: path.to_owned(),
        mode,
        modified,
        size: metadata.len(),
        content: Content::File,
    }))
}

/// `None` for what is gone: files come and go under a running server.
fn found<T>(place: &Path, outcome: io::Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(place, error)),
    }
}

pub fn unreadable(place: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Host, format!("cannot read {}", place.display()))
        .hint(
            "Run walden as the user that PostgreSQL runs as, or take the backup by --mode stream.",
        )
        .source(error)
}

#[cfg(test)]
mod tests;

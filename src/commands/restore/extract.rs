//! Some files of a backup by their path, for a look at them: into a directory of their own, or one
//! of them as a stream. No server shall start on them, and no WAL is replayed.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::commands::restore::carry_out::{file_systems, make_ready};
use crate::commands::restore::chain::Chain;
use crate::commands::restore::destination::{absolute, refuse_dangerous, refused};
use crate::commands::restore::occupied::first_entry;
use crate::commands::restore::packs;
use crate::commands::restore::pieces::{Piece, Sources};
use crate::commands::restore::place::{self, Fetch, Work};
use crate::commands::restore::placement::Placement;
use crate::commands::restore::settle;
use crate::commands::restore::targets::Targets;
use crate::commands::survey;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::SystemIdentifier;
use crate::repository::manifest::{FileEntry, FileKind};
use crate::repository::{BackupId, Home, Manifest, PackReader, PackSink, Repository};

/// Held in memory of a file that is streamed.
const WINDOW_BYTES: u64 = 32 << 20;

/// Which backup to take files of.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The newest one if not said.
    pub backup: Option<String>,
    pub system_identifier: Option<SystemIdentifier>,
    pub jobs: usize,
}

/// What came of it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Extracted {
    pub walden: u32,
    pub backup: BackupId,
    pub files: u64,
    /// Raw bytes.
    pub size: u64,
}

/// The files and folders at `paths`, under their names in the data directory, in a new or empty
/// directory.
pub fn into_directory(
    repository: &Repository,
    request: &Request,
    paths: &[String],
    directory: &Path,
) -> Result<Extracted> {
    let directory = absolute(directory)?;
    if let Some(first) = first_entry(&directory, "the directory")? {
        let message =
            format!("the directory {} is not empty: it holds {first}", directory.display());
        return Err(refused(message).hint("Name an empty or new directory."));
    }
    refuse_dangerous(&directory, &repository.url())?;
    let (home, newest) = choose(repository, request)?;
    let paths: Vec<&str> = paths.iter().map(|path| plain(path)).collect();
    let is_in = |name: &str, path: &str| {
        name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for path in &paths {
        if !newest.files.iter().any(|entry| is_in(&entry.whole_path(), path)) {
            return Err(no_such(&newest, path));
        }
    }
    let is_wanted = |name: &str| paths.iter().any(|path| is_in(name, path));
    let is_in_part = |entry: &FileEntry| entry.part.is_some() && is_wanted(&entry.whole_path());
    let chain = sources(&home, newest, is_in_part)?;
    let placement = Placement::of_files(&chain, &directory, &is_wanted)?;
    make_ready(&directory, None)?;
    place::make_directories(&placement)?;
    let file_systems = file_systems(placement.directories.keys().map(PathBuf::as_path))?;
    let targets = Targets::new(&placement, None);
    let empty: Vec<usize> = (0..placement.files.len()).collect();
    let empty: Vec<usize> =
        empty.into_iter().filter(|file| targets.has_nothing_to_come(*file)).collect();
    settle::in_parallel(&empty, request.jobs, |file| targets.finish_empty(*file))?;
    let fetch = Fetch::new(&home, &targets, &|_| (), None);
    Work::of_all(&chain, &placement).carry_out(&fetch, request.jobs)?;
    place::expect_whole(&targets)?;
    settle::settle(&placement, &file_systems, None, request.jobs)?;
    let size = placement.files.iter().map(|file| file.size).sum();
    let files = placement.files.len() as u64;
    Ok(Extracted { walden: 1, backup: chain[0].id.clone(), files, size })
}

/// The content of one file. What was written before an error counts for nothing.
pub fn into_stream(
    repository: &Repository,
    request: &Request,
    path: &str,
    stream: &mut dyn Write,
) -> Result<Extracted> {
    let path = plain(path);
    let (home, newest) = choose(repository, request)?;
    let is_it = |entry: &FileEntry| entry.kind == FileKind::File && entry.whole_path() == path;
    if !newest.files.iter().any(is_it) {
        return Err(no_such(&newest, path));
    }
    let chain = sources(&home, newest, |entry| entry.part.is_some() && is_it(entry))?;
    let mut all = (0u32..).zip(&chain[0].files);
    let (index, entry) =
        all.find(|(_, entry)| is_it(entry)).ok_or_else(|| no_such(&chain[0], path))?;
    let (size, pieces) = Sources::new(&chain).of(index, entry)?;
    let mut reader = PackReader::new(&home)?;
    let mut begin = 0;
    while begin < size {
        let range = begin..size.min(begin + WINDOW_BYTES);
        let window = window(&chain, &pieces, &range, &mut reader);
        let window = window.context(|| format!("read {path} of backup {}", chain[0].id))?;
        stream.write_all(&window).map_err(cannot_write)?;
        begin = range.end;
    }
    stream.flush().map_err(cannot_write)?;
    Ok(Extracted { walden: 1, backup: chain[0].id.clone(), files: 1, size })
}

fn choose(repository: &Repository, request: &Request) -> Result<(Home, Manifest)> {
    let asked: Option<BackupId> = request.backup.as_deref().map(str::parse).transpose()?;
    let home = survey::find_home(repository, request.system_identifier, asked.as_ref())?;
    let id = match asked {
        Some(id) => id,
        None => home.backups()?.pop().ok_or_else(|| {
            refused(format!("{} has no backup", home.url())).hint("Take one: walden backup.")
        })?,
    };
    let manifest = home.manifest(&id).map_err(|error| match error.kind() {
        ErrorKind::NotFound => refused(format!("there is no backup {id} in {}", home.url()))
            .hint("walden list shows the backups that are there."),
        _ => error,
    })?;
    Ok((home, manifest))
}

/// The backup alone where nothing of its parents is needed, so that a broken chain keeps nobody
/// from what is there.
fn sources(
    home: &Home,
    newest: Manifest,
    needs_parents: impl Fn(&FileEntry) -> bool,
) -> Result<Vec<Manifest>> {
    match newest.files.iter().any(needs_parents) {
        true => Chain::load(home, newest).map(|chain| chain.manifests),
        false => Ok(vec![newest]),
    }
}

/// Some bytes of a file, put together.
fn window(
    chain: &[Manifest],
    pieces: &[Piece],
    range: &Range<u64>,
    reader: &mut PackReader<'_>,
) -> Result<Vec<u8>> {
    let first = pieces.partition_point(|piece| piece.end() <= range.start);
    let mut here: Vec<Piece> =
        pieces[first..].iter().map_while(|piece| piece.within(range)).collect();
    here.sort_unstable_by_key(|piece| (piece.source, piece.offset));
    let mut bytes = vec![0; (range.end - range.start) as usize];
    for of_source in here.chunk_by(|one, other| one.source == other.source) {
        let manifest = &chain[of_source[0].source as usize];
        for number in 0..manifest.packs.len() as u32 {
            let pack = packs::pack_range(manifest, number);
            let parts: Vec<Piece> =
                of_source.iter().filter_map(|piece| piece.within_stream(&pack)).collect();
            if parts.is_empty() {
                continue;
            }
            let wanted = parts.iter().map(|piece| {
                let begin = piece.offset - pack.start;
                begin..begin + piece.length
            });
            let wanted: Vec<Range<u64>> = wanted.collect();
            let mut gather = Gather { pack, parts: &parts, begin: range.start, bytes: &mut bytes };
            reader.read(manifest, number, &wanted, &mut gather)?;
        }
    }
    Ok(bytes)
}

/// Puts what comes of a pack where it belongs in the window.
struct Gather<'a> {
    pack: Range<u64>,
    parts: &'a [Piece],
    /// Where the window begins in the file.
    begin: u64,
    bytes: &'a mut [u8],
}

impl PackSink for Gather<'_> {
    fn take(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let begin = self.pack.start + at;
        let range = begin..begin + bytes.len() as u64;
        for part in self.parts.iter().filter_map(|piece| piece.within_stream(&range)) {
            let from = &bytes[(part.offset - begin) as usize..][..part.length as usize];
            let to = (part.at - self.begin) as usize;
            self.bytes[to..to + from.len()].copy_from_slice(from);
        }
        Ok(())
    }
}

fn plain(path: &str) -> &str {
    path.trim_start_matches("./").trim_end_matches('/')
}

fn no_such(manifest: &Manifest, path: &str) -> Error {
    refused(format!("backup {} has no {path}", manifest.id)).hint(
        "Paths are relative to the data directory, as in base/5/16384; a tablespace's files stand \
         under pg_tblspc/<oid>/.",
    )
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Host, "write the file").source(error).hint("Look at where it goes.")
}

//! Packs to files: fetched and written in parallel, each byte at its place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use crate::codec::Header;
use crate::commands::restore::host_failed;
use crate::commands::restore::placement::{Placed, Placement};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::repository::{Home, Manifest, layout};

/// Root may be writing into a directory of a user who must not lead it elsewhere.
pub const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Makes the directories and writes every file but `pg_control`, whose content it returns.
///
/// `progress` is told the raw bytes placed, from any thread. Memory: one stored pack a job.
pub fn place(
    home: &Home,
    manifest: &Manifest,
    placement: &Placement,
    jobs: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Vec<u8>> {
    make_directories(placement)?;
    for file in placement.files.iter().filter(|file| file.size == 0) {
        open(&file.path)?;
    }
    let control = Mutex::new(vec![0; placement.control.size as usize]);
    let (next, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let work = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number as usize >= manifest.packs.len() {
                break;
            }
            let mut spread = Spread::new(placement, &control, number, manifest.pack_bytes);
            place_pack(home, manifest, number, |piece| {
                spread.write(piece)?;
                progress(piece.len() as u64);
                Ok(())
            })
            .inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(panicked))
    })?;
    expect_whole(placement)?;
    Ok(control.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// What was given to `sink` counts only once this returns: the checksums come last.
fn place_pack(
    home: &Home,
    manifest: &Manifest,
    number: u32,
    sink: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let id = &manifest.id;
    let lost = "Choose another backup with --backup; this one is damaged.";
    let header = home.get_pack(id, number, sink).map_err(|error| match error.kind() {
        ErrorKind::NotFound => error.with_kind(ErrorKind::Corrupt).hint(lost),
        ErrorKind::Corrupt => error.hint(lost),
        _ => error,
    });
    let header = header.context(|| format!("place pack {number} of backup {id}"))?;
    let expected = manifest.packs[number as usize].size;
    // All full packs have one size: what tells those of two backups apart is who made them when.
    let is_named_so = header.name == layout::pack_name(number);
    if header.size == expected && is_named_so && header.origin == manifest.origin {
        return Ok(());
    }
    let Header { name, size, origin, .. } = header;
    let found = format!("it is {name} of {size} bytes from {origin}");
    Err(Error::new(
        ErrorKind::Corrupt,
        format!("pack {number} of backup {id} is not the one of its manifest: {found}"),
    )
    .hint(lost))
}

/// One pack's part of the stream, piece by piece.
struct Spread<'a> {
    placement: &'a Placement,
    control: &'a Mutex<Vec<u8>>,
    /// In the stream.
    position: u64,
    /// The file written last, by its place in the list: most pieces go on where the last one ended.
    current: Option<(usize, File)>,
}

impl<'a> Spread<'a> {
    fn new(
        placement: &'a Placement,
        control: &'a Mutex<Vec<u8>>,
        number: u32,
        pack_bytes: u64,
    ) -> Self {
        let position = u64::from(number) * pack_bytes;
        Spread { placement, control, position, current: None }
    }

    fn write(&mut self, piece: &[u8]) -> Result<()> {
        let begin = self.position;
        self.position += piece.len() as u64;
        if let Some((part, offset)) = overlap(&self.placement.control, begin, piece) {
            let mut control =
                self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            control[offset as usize..offset as usize + part.len()].copy_from_slice(part);
        }
        let files = &self.placement.files;
        let first = files.partition_point(|file| file.end() <= begin);
        for (index, file) in files.iter().enumerate().skip(first) {
            if file.offset >= self.position {
                break;
            }
            if let Some((part, offset)) = overlap(file, begin, piece) {
                self.file(index)?
                    .write_all_at(part, offset)
                    .map_err(|e| cannot("write", file, e))?;
            }
        }
        Ok(())
    }

    fn file(&mut self, index: usize) -> Result<&File> {
        let kept = self.current.take().filter(|(current, _)| *current == index);
        let kept = match kept {
            Some(kept) => kept,
            None => (index, open(&self.placement.files[index].path)?),
        };
        Ok(&self.current.insert(kept).1)
    }
}

/// The part of `piece`, which begins at `begin` in the stream, that is of `file`, and where in it.
fn overlap<'p>(file: &Placed, begin: u64, piece: &'p [u8]) -> Option<(&'p [u8], u64)> {
    let from = begin.max(file.offset);
    let to = (begin + piece.len() as u64).min(file.end());
    (from < to)
        .then(|| (&piece[(from - begin) as usize..(to - begin) as usize], from - file.offset))
}

/// Two workers may write one file: whoever comes first creates it, nobody truncates it.
fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(NO_LINK)
        .open(path)
        .map_err(|error| host_failed(format!("create {}", path.display()), error))
}

/// Private until all is settled; the last mode comes then.
fn make_directories(placement: &Placement) -> Result<()> {
    for path in placement.directories.keys() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| host_failed(format!("make {}", path.display()), error))?;
    }
    Ok(())
}

/// A hole in the packs would leave a short file; none is believed to be there without a look.
fn expect_whole(placement: &Placement) -> Result<()> {
    for file in &placement.files {
        let length = fs::metadata(&file.path).map_err(|e| cannot("look at", file, e))?.len();
        if length != file.size {
            let path = file.path.display();
            let message = format!("{path} has {length} bytes, its manifest says {}", file.size);
            return Err(Error::new(ErrorKind::Corrupt, message)
                .hint("Choose another backup with --backup; this one is damaged."));
        }
    }
    Ok(())
}

fn cannot(verb: &str, file: &Placed, error: std::io::Error) -> Error {
    host_failed(format!("{verb} {}", file.path.display()), error)
}

fn panicked<T>(panic: Box<dyn std::any::Any + Send>) -> T {
    std::panic::resume_unwind(panic)
}

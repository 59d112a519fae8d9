//! The packs of a backup, read to the last byte: on all cores, and handed on in their order.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::commands::progress::Progress;
use crate::commands::verify::files::Files;
use crate::commands::verify::in_order::{Pace, in_order};
use crate::commands::verify::problem::{Cost, Notebook};
use crate::error::Result;
use crate::host::bandwidth::Bandwidth;
use crate::postgres::backup_manifest::{self, ListedFile};
use crate::postgres::low_level_backup::read_label;
use crate::repository::manifest::{FileKind, Manifest};
use crate::repository::{Home, PackReader, PackSink, Sums};

/// Each holds a stored pack and its content: with five, some 360 MiB.
const JOBS_MAX: usize = 5;

/// What all reading shares.
pub struct Means<'a> {
    pub home: &'a Home,
    pub jobs: usize,
    pub bandwidth: &'a Bandwidth,
    pub progress: &'a Progress,
}

/// What of a backup is read.
pub struct Part<'a> {
    pub manifest: &'a Manifest,
    pub sums: Option<&'a Sums>,
    pub wanted: &'a BTreeSet<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadPacks {
    /// Those that are what they should be.
    pub sound: BTreeSet<u32>,
    /// Stored bytes.
    pub bytes: u64,
}

/// Reads these packs; what is wrong with any goes into the notebook. `told` hears of each pack that
/// is done with, in order, and whether any file was wrong so far.
pub fn read(
    means: &Means<'_>,
    part: &Part<'_>,
    book: &mut Notebook,
    told: impl Fn(&Notebook, bool, u32),
) -> ReadPacks {
    let Part { manifest, sums, wanted } = *part;
    let mut done = ReadPacks::default();
    if wanted.is_empty() {
        return done;
    }
    let cost = || Cost::Backup(manifest.id.clone());
    let listed = server_list(means.home, manifest, book);
    label(means.home, manifest, book);
    let mut files = Files::new(manifest, sums, listed.as_deref());
    let numbers: Vec<u32> = (0..manifest.packs.len() as u32).collect();
    let work =
        |number: &u32| (*number, wanted.contains(number).then(|| fetch(means, manifest, *number)));
    let jobs = means.jobs.min(JOBS_MAX);
    in_order(&numbers, Pace { jobs, ahead: jobs + 1 }, work, |(number, outcome)| {
        let key = means.home.pack_key(&manifest.id, number);
        match outcome {
            None => return files.take(number, None),
            Some(Ok((raw, bytes))) => {
                done.sound.insert(number);
                done.bytes += bytes;
                files.take(number, Some(&raw));
            }
            Some(Err(error)) => {
                book.failed(&key, &error, cost());
                files.take(number, None);
            }
        }
        told(book, files.has_faults(), number);
    });
    let key = means.home.backup_key(&manifest.id);
    for fault in files.finish() {
        book.damage(&key, fault, cost());
    }
    done
}

/// The pack from which on the file that lies across the beginning of pack `next` can be checked.
pub fn beginning_of_file(manifest: &Manifest, next: u32) -> u32 {
    let begin = u64::from(next) * manifest.pack_bytes;
    let lies_across = |file: &&crate::repository::manifest::FileEntry| {
        file.kind == FileKind::File && file.offset < begin && begin < file.offset + file.size
    };
    let file = manifest.files.iter().find(lies_across);
    file.map_or(next, |file| (file.offset / manifest.pack_bytes.max(1)) as u32)
}

fn fetch(means: &Means<'_>, manifest: &Manifest, number: u32) -> Result<(Vec<u8>, u64)> {
    let pack = &manifest.packs[number as usize];
    means.bandwidth.take(pack.stored, &|| false);
    let mut content = Content { manifest, number, raw: Vec::with_capacity(room(pack.size)) };
    let whole = 0..pack.size;
    let mut reader = PackReader::new(means.home)?;
    let bytes = reader.read(manifest, number, std::slice::from_ref(&whole), &mut content);
    means.progress.add(pack.stored);
    Ok((content.raw, bytes?))
}

/// What the manifest says is not believed before it came.
fn room(size: u64) -> usize {
    usize::try_from(size.min(64 << 20)).unwrap_or_default()
}

/// The raw bytes of one pack.
struct Content<'a> {
    manifest: &'a Manifest,
    number: u32,
    raw: Vec<u8>,
}

impl PackSink for Content<'_> {
    fn take(&mut self, _at: u64, piece: &[u8]) -> Result<()> {
        self.raw.extend_from_slice(piece);
        Ok(())
    }

    fn owner(&self, raw: &Range<u64>) -> String {
        let begin = u64::from(self.number) * self.manifest.pack_bytes;
        let range = begin + raw.start..begin + raw.end;
        let lies_in = |file: &&crate::repository::manifest::FileEntry| {
            file.kind == FileKind::File
                && file.offset < range.end
                && range.start < file.offset + file.size
        };
        let mut files = self.manifest.files.iter().filter(lies_in);
        let Some(first) = files.next() else { return String::new() };
        match files.count() {
            0 => first.path.clone(),
            more => format!("{} and {more} more", first.path),
        }
    }
}

/// Where the server will begin to replay must be where the manifest says: the WAL that is kept for
/// a backup, and looked for, is that from there on. What cannot be read is told of with its pack.
fn label(home: &Home, manifest: &Manifest, book: &mut Notebook) {
    let Ok(Some(text)) = home.read_file(manifest, "backup_label") else { return };
    let label = read_label(&String::from_utf8_lossy(&text));
    let what = match label {
        Ok((lsn, timeline)) if (lsn, timeline) == (manifest.start_lsn, manifest.timeline) => return,
        Ok((lsn, timeline)) => format!(
            "its backup_label begins at {lsn} of timeline {timeline}, and its manifest at {} of \
             timeline {}",
            manifest.start_lsn, manifest.timeline
        ),
        Err(_) => "its backup_label cannot be read".to_owned(),
    };
    book.damage(home.manifest_key(&manifest.id), what, Cost::Backup(manifest.id.clone()));
}

/// What the server itself listed. Without it the packs are read all the same.
fn server_list(home: &Home, manifest: &Manifest, book: &mut Notebook) -> Option<Vec<ListedFile>> {
    let cost = || Cost::Backup(manifest.id.clone());
    let object = format!("{} (backup_manifest)", home.backup_key(&manifest.id));
    match home.read_file(manifest, "backup_manifest") {
        Ok(Some(text)) => {
            let listed = backup_manifest::listed(&text, manifest.system_identifier());
            listed.map_err(|error| book.failed(&object, &error, cost())).ok()
        }
        Ok(None) => {
            book.damage(&object, "the server's own list of files is not in it", cost());
            None
        }
        // The pack that it lies in is told of when it is read.
        Err(error) if super::problem::is_of_the_object(error.kind()) => None,
        Err(error) => {
            book.skip(&object, error);
            None
        }
    }
}

//! A backup over the replication protocol: the server reads its files and sends them as one stream.

use std::thread;
use std::time::Duration;

use crate::commands::backup::archiver::Watch;
use crate::commands::backup::copy::{self, StreamWriter, Target};
use crate::commands::backup::halt::Halt;
use crate::commands::backup::local::Damage;
use crate::commands::backup::source::Source;
use crate::commands::backup::tar_frames::TarFrames;
use crate::commands::backup::{Copied, Request, label};
use crate::commands::progress::Progress;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::Connection;
use crate::postgres::replication::base_backup::{self, BaseBackupRequest};
use crate::postgres::replication::{BackupEnd, BaseBackup, Entry, EntryKind, Piece, TarMerger};
use crate::postgres::{SystemIdentifier, backup_manifest};
use crate::repository::manifest::{FileEntry, FileKind};

/// The server's limits of MAX_RATE, in KiB a second.
const MAX_RATE: std::ops::RangeInclusive<u64> = 32..=1_048_576;
/// How long the server may be silent once data flows; before, it may be in a spread checkpoint.
const SILENCE_MAX: Duration = Duration::from_secs(600);

pub fn copy(
    connection: &mut Connection,
    source: &Source,
    target: &Target<'_>,
    request: &Request,
    progress: &Progress,
) -> Result<Copied> {
    let canceller = connection.canceller()?;
    let _cancel = connection.cancel_when_told()?;
    let wanted = BaseBackupRequest {
        label: label(request, target.id),
        checkpoint: match request.checkpoint {
            config::Checkpoint::Fast => base_backup::Checkpoint::Fast,
            config::Checkpoint::Spread => base_backup::Checkpoint::Spread,
        },
        max_rate: max_rate(request.max_rate)?,
    };
    progress.enter("waiting for the server's checkpoint");
    connection.set_read_timeout(None)?;
    let mut backup = BaseBackup::begin(connection, &wanted)?;
    backup.set_read_timeout(Some(SILENCE_MAX))?;
    let start = backup.start().clone();
    progress.expect(start.size);
    progress.enter("copying");

    // Closing the connection ends the server's part, and wakes who waits for its data.
    let halt = Halt::new(|| canceller.cancel());
    let watch = Watch::of(source, target, request, &start);
    let copied = thread::scope(|scope| {
        if let Some(watch) = &watch {
            scope.spawn(|| watch.run(&halt));
        }
        let identifier = source.system_identifier;
        copy::run(target, &halt, |writer| feed(backup, writer, identifier, progress))
    });
    let (Fed { entries, sums, end }, packs) = copied?;
    if let Some(error) = halt.error() {
        return Err(error);
    }
    let files = entries.into_iter().map(file_entry).collect();
    Ok(Copied { start, end, files, sums, packs, damage: Damage::default() })
}

/// What the server sent.
struct Fed {
    entries: Vec<Entry>,
    sums: Vec<u64>,
    end: BackupEnd,
}

/// From the server into the pipeline; at the end everything that came is held against the server's
/// manifest.
fn feed(
    mut backup: BaseBackup<'_>,
    writer: &mut StreamWriter<'_>,
    system_identifier: SystemIdentifier,
    progress: &Progress,
) -> Result<Fed> {
    let mut merger = TarMerger::default();
    let mut manifest: Option<Vec<u8>> = None;
    let mut out = TarFrames::new(writer);
    while let Some(piece) = backup.next_piece()? {
        match (piece, &mut manifest) {
            (Piece::Archive(tablespace), _) => merger.begin_archive(tablespace, &mut out)?,
            (Piece::Manifest, _) => manifest = Some(Vec::new()),
            (Piece::Data(bytes), Some(manifest)) => manifest.extend_from_slice(bytes),
            (Piece::Data(bytes), None) => {
                merger.write(bytes, &mut out)?;
                progress.add(bytes.len() as u64);
            }
        }
    }
    let end = backup.end()?;
    let manifest = manifest.unwrap_or_default();
    backup_manifest::verify(&manifest, merger.entries(), system_identifier)?;
    merger.append_file("backup_manifest", &manifest, &mut out)?;
    let entries = merger.finish(&mut out)?;
    Ok(Fed { entries, sums: out.finish(), end })
}

fn max_rate(bytes: Option<u64>) -> Result<Option<u32>> {
    let kibibytes = bytes.map(|bytes| bytes >> 10);
    match kibibytes {
        Some(rate) if !MAX_RATE.contains(&rate) => {
            Err(Error::new(ErrorKind::Usage, "the maximal rate is out of range")
                .hint("PostgreSQL takes 32KiB to 1GiB a second."))
        }
        rate => Ok(rate.and_then(|rate| u32::try_from(rate).ok())),
    }
}

fn file_entry(entry: Entry) -> FileEntry {
    let Entry { path, kind, mode, size, offset, modified, .. } = entry;
    let kind = match kind {
        EntryKind::File => FileKind::File,
        EntryKind::Directory => FileKind::Directory,
    };
    FileEntry { path, kind, mode, size, offset, modified, part: None }
}

//! A backup over the replication protocol: the server reads its files and sends them as one stream.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::commands::backup::archiver::Watch;
use crate::commands::backup::basis::Basis;
use crate::commands::backup::copy::{self, Target};
use crate::commands::backup::halt::Halt;
use crate::commands::backup::local::Damage;
use crate::commands::backup::source::Source;
use crate::commands::backup::tar_frames::TarFrames;
use crate::commands::backup::{Copied, Request, Wanted, label};
use crate::commands::progress::Progress;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::{Connection, sqlstate};
use crate::postgres::replication::base_backup::{self, BaseBackupRequest};
use crate::postgres::replication::{
    BackupEnd, BaseBackup, Entry, EntryKind, Piece, TarMerger, upload_manifest,
};
use crate::postgres::{MajorVersion, SystemIdentifier, backup_manifest};
use crate::repository::Home;
use crate::repository::manifest::{FileEntry, FileKind, Part};

const BACKUP_MANIFEST: &str = "backup_manifest";
const INCREMENTAL_SINCE: MajorVersion = MajorVersion(17);
/// The server's limits of MAX_RATE, in KiB a second.
const MAX_RATE: std::ops::RangeInclusive<u64> = 32..=1_048_576;
/// How long the server may be silent once data flows; before, it may be in a spread checkpoint.
const SILENCE_MAX: Duration = Duration::from_secs(600);

pub fn copy(
    connection: &mut Connection,
    source: &Source,
    target: &Target<'_>,
    Wanted { request, basis }: Wanted<'_>,
    progress: &Progress,
) -> Result<Copied> {
    let mut wanted = BaseBackupRequest {
        label: label(request, target.id),
        checkpoint: match request.checkpoint {
            config::Checkpoint::Fast => base_backup::Checkpoint::Fast,
            config::Checkpoint::Spread => base_backup::Checkpoint::Spread,
        },
        max_rate: max_rate(request.max_rate)?,
        is_incremental: false,
    };
    let mut basis = announce(connection, source, (target.home, request), basis)?;
    wanted.is_incremental = matches!(basis, Basis::Parent(_));
    let mut canceller = connection.canceller()?;
    let mut _cancel = connection.cancel_when_told()?;
    progress.enter("waiting for the server's checkpoint");
    connection.set_read_timeout(None)?;
    let mut backup = match BaseBackup::begin(connection, &wanted) {
        Err(error) if wanted.is_incremental && is_refusal(&error) => {
            basis = Basis::full(error.to_string());
            wanted.is_incremental = false;
            reconnect(connection, request)?;
            canceller = connection.canceller()?;
            _cancel = connection.cancel_when_told()?;
            BaseBackup::begin(connection, &wanted)?
        }
        begun => begun?,
    };
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
        copy::run(target, &halt, |writer| {
            let frames = TarFrames::new(writer, wanted.is_incremental);
            feed(backup, frames, identifier, progress)
        })
    });
    let (Fed { entries, sums, mut parts, end }, packs) = copied?;
    if let Some(error) = halt.error() {
        return Err(error);
    }
    let part_of = |entry: Entry| {
        let part = parts.remove(&entry.path);
        file_entry(entry, part)
    };
    let files = entries.into_iter().map(part_of).collect();
    Ok(Copied {
        start,
        end,
        files,
        sums,
        packs,
        lineage: basis.lineage(),
        damage: Damage::default(),
    })
}

/// Hands the parent's manifest over to the server, where it can make use of it; what the backup
/// builds on then.
fn announce(
    connection: &mut Connection,
    source: &Source,
    (home, request): (&Home, &Request),
    basis: Basis,
) -> Result<Basis> {
    let Basis::Parent(parent) = &basis else { return Ok(basis) };
    let (major, id) = (source.major(), &parent.manifest.id);
    if major < INCREMENTAL_SINCE {
        return Ok(Basis::full(format!(
            "PostgreSQL {major} cannot send an incremental one; --mode local on its host takes one"
        )));
    }
    if base_backup::show(connection, "summarize_wal")? != "on" {
        let because = "summarize_wal is off: the server does not know what has changed";
        return Ok(Basis::full(because.to_owned()));
    }
    let manifest = match home.read_file(&parent.manifest, BACKUP_MANIFEST) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok(Basis::full(format!("backup {id} has no {BACKUP_MANIFEST}"))),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            return Ok(Basis::full(format!("{BACKUP_MANIFEST} of {id} cannot be read: {error}")));
        }
        Err(error) => return Err(error),
    };
    match upload_manifest(connection, &manifest) {
        Err(error) if is_refusal(&error) => {
            reconnect(connection, request)?;
            Ok(Basis::full(error.to_string()))
        }
        outcome => outcome.map(|()| basis),
    }
}

/// Whether the server answered, and not because it or its connection is being ended (class 57).
fn is_refusal(error: &Error) -> bool {
    sqlstate(error).is_some_and(|state| !state.starts_with("57"))
}

fn reconnect(connection: &mut Connection, request: &Request) -> Result<()> {
    *connection = Connection::connect(&request.connection.clone().replication(true))?;
    connection.set_read_timeout(None)
}

/// What the server sent.
struct Fed {
    entries: Vec<Entry>,
    sums: Vec<u64>,
    /// What incremental files hold, by their paths.
    parts: BTreeMap<String, Part>,
    end: BackupEnd,
}

/// From the server into the pipeline; at the end everything that came is held against the server's
/// manifest.
fn feed(
    mut backup: BaseBackup<'_>,
    mut out: TarFrames<'_, '_>,
    system_identifier: SystemIdentifier,
    progress: &Progress,
) -> Result<Fed> {
    let mut merger = TarMerger::default();
    let mut manifest: Option<Vec<u8>> = None;
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
    merger.append_file(BACKUP_MANIFEST, &manifest, &mut out)?;
    let entries = merger.finish(&mut out)?;
    let (sums, parts) = out.finish()?;
    Ok(Fed { entries, sums, parts, end })
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

fn file_entry(entry: Entry, part: Option<Part>) -> FileEntry {
    let Entry { path, kind, mode, size, offset, modified, .. } = entry;
    let kind = match kind {
        EntryKind::File => FileKind::File,
        EntryKind::Directory => FileKind::Directory,
    };
    FileEntry { path, kind, mode, size, offset, modified, part }
}

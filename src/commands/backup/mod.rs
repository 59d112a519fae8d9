//! Takes a base backup: begin, copy, end, wait for its WAL, publish; last of all the manifest.
//!
//! Until the manifest is there, nothing is a backup: whatever fails or is interrupted leaves packs
//! that nobody reads.

mod archiver;
mod copy;
mod finish;
mod halt;
mod names;

use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use crate::codec::{Compression, Origin};
use crate::commands::{App, Retries};
use crate::config;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::{self, clock};
use crate::postgres::connection::{Connection, ConnectionOptions};
use crate::postgres::replication::base_backup::{self, BaseBackupRequest};
use crate::postgres::replication::{
    BackupEnd, BackupStart, BaseBackup, Entry, EntryKind, Piece, TarMerger, backup_manifest,
};
use crate::postgres::{Lsn, MajorVersion, SystemIdentifier, TimelineId};
use crate::repository::manifest::{FileEntry, FileKind, Mode, PACK_BYTES, Pack, Tablespace};
use crate::repository::{BackupId, Manifest, NamesFacts, Repository};

use archiver::{ArchiverStatus, Watch};
use copy::{StreamWriter, Target};
use halt::Halt;

pub use crate::commands::progress::Progress;

/// A store that is away for so long is away.
const STORE_PATIENCE: Duration = Duration::from_secs(300);
/// The server's limits of MAX_RATE, in KiB a second.
const MAX_RATE: std::ops::RangeInclusive<u64> = 32..=1_048_576;
/// How long the server may be silent once data flows; before, it may be in a spread checkpoint.
const SILENCE_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Clone)]
pub struct Request {
    /// To the server, of its SQL side: the replication connection is derived from it.
    pub connection: ConnectionOptions,
    /// `None`: "walden" and the backup's id.
    pub label: Option<String>,
    pub checkpoint: config::Checkpoint,
    /// In bytes a second.
    pub max_rate: Option<u64>,
    /// Threads that compress; `None`: one per processor.
    pub jobs: Option<NonZeroUsize>,
    pub wal_timeout: Duration,
    /// `None`: no look at the archiver.
    pub archive_check: Option<Duration>,
    pub compression: Compression,
}

/// The JSON shape of `walden backup --json`, version 1.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    pub walden: u32,
    pub id: BackupId,
    pub repository: String,
    pub system_identifier: SystemIdentifier,
    pub server_version_num: u32,
    pub from_standby: bool,
    pub began: jiff::Timestamp,
    pub ended: jiff::Timestamp,
    /// From the first word to the manifest.
    pub duration_ms: u64,
    /// Raw bytes of all files.
    pub size: u64,
    /// Bytes as stored, packs only.
    pub stored: u64,
    pub files: usize,
    pub tablespaces: Vec<Tablespace>,
    pub timeline: TimelineId,
    pub start_lsn: Lsn,
    pub end_lsn: Lsn,
    /// The first and the last segment that replay needs.
    pub first_wal: String,
    pub last_wal: String,
    /// What was saved of them; `None`: they could not be had.
    pub names: Option<NamesFacts>,
}

pub fn run(app: &App, request: &Request, progress: &Progress) -> Result<Report> {
    let repository = app.repository(Retries::PerCall(STORE_PATIENCE))?;
    take(&repository, request, progress)
}

/// The same into any repository.
pub fn take(repository: &Repository, request: &Request, progress: &Progress) -> Result<Report> {
    let clock = Instant::now();
    progress.enter("connecting to PostgreSQL");
    let options = request.connection.clone().replication(true);
    let mut connection = Connection::connect(&options)?;
    let source = Source::identify(&mut connection)?;
    let home = repository.home(source.system_identifier);
    let status = ArchiverStatus::ask(&request.connection);
    let is_watched = !source.is_standby && request.archive_check.is_some();
    let has_archived = status.as_ref().is_none_or(|status| status.last_archived.is_some());
    // A server that was just told to archive has archived nothing yet: then the watch decides.
    if (has_archived || !is_watched) && !home.is_claimed()? {
        home.prove().context(|| "look for this cluster's WAL archive")?;
    }
    let ahead = status.as_ref().map_or(jiff::SignedDuration::ZERO, |status| status.clock_ahead);
    // A standby's WAL is archived by its primary.
    if is_watched {
        archiver::check_settings(&mut connection)?;
        status.map_or(Ok(()), |status| status.check())?;
    }

    let began = server_time(ahead);
    let id = BackupId::new(began, fastrand::u16(..));
    let origin = Origin {
        host: host::name(),
        source: connection.place().to_owned(),
        system_identifier: source.system_identifier,
        time: began,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let target = Target {
        home: &home,
        id: &id,
        origin: &origin,
        compression: request.compression,
        jobs: jobs(request),
    };
    let copied = stream(&mut connection, &source, &target, request, progress)?;
    finish::refuse_timeline_switch(&copied.start, &copied.end)?;
    let ended = server_time(ahead);
    let history = finish::ask_for_history(&mut connection, copied.start.timeline);
    drop(connection);

    let label = label(request, &id);
    let manifest = manifest(&source, &target, copied, (began, ended), label);
    let options = &request.connection;
    let names = names::save(&target, options, progress);
    finish::wait_for_wal(&home, &manifest, request.wal_timeout, options, progress)?;
    finish::provide_history(&target, manifest.timeline, history)?;
    progress.enter("publishing the backup");
    home.publish(&manifest, request.compression).context(|| format!("publish backup {id}"))?;
    Ok(report(repository, &manifest, names, clock.elapsed()))
}

/// What is known of the server before the copy.
struct Source {
    system_identifier: SystemIdentifier,
    server_version_num: u32,
    /// In bytes.
    segment_size: u32,
    is_standby: bool,
    time_zone: Option<String>,
    log_time_zone: Option<String>,
}

impl Source {
    fn identify(connection: &mut Connection) -> Result<Self> {
        let server_version_num = connection.server_version_num()?;
        let major = MajorVersion::from_server_version_num(server_version_num);
        if major < MajorVersion::OLDEST {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("this is PostgreSQL {major}, which is too old"),
            )
            .hint(format!("walden backs up PostgreSQL {} and later.", MajorVersion::OLDEST)));
        }
        if !major.is_supported() {
            tracing::warn!("PostgreSQL {major} is newer than this walden was tested with");
        }
        let identity = base_backup::identify_system(connection)?;
        Ok(Source {
            system_identifier: identity.system_identifier,
            server_version_num,
            segment_size: segment_size(&base_backup::show(connection, "wal_segment_size")?)?,
            is_standby: connection.parameter("in_hot_standby") == Some("on"),
            time_zone: base_backup::show(connection, "TimeZone").ok(),
            log_time_zone: base_backup::show(connection, "log_timezone").ok(),
        })
    }
}

/// `1MB` to `1GB`, as SHOW prints it.
fn segment_size(text: &str) -> Result<u32> {
    let bytes = |number: &str, shift: u32| number.parse::<u32>().ok()?.checked_mul(1 << shift);
    let size = match (text.strip_suffix("GB"), text.strip_suffix("MB")) {
        (Some(gibibytes), _) => bytes(gibibytes, 30),
        (None, Some(mebibytes)) => bytes(mebibytes, 20),
        (None, None) => None,
    };
    size.filter(|size| size.is_power_of_two()).ok_or_else(|| {
        Error::new(ErrorKind::Server, format!("{text:?} is not a size of WAL segments"))
            .hint("Report it with the server's version.")
    })
}

/// Commits carry times of the server's clock, and so do targets.
fn server_time(ahead: jiff::SignedDuration) -> jiff::Timestamp {
    let now = clock::now();
    let time = now.checked_add(ahead).unwrap_or(now);
    time.round(jiff::Unit::Millisecond).unwrap_or(time)
}

fn label(request: &Request, id: &BackupId) -> String {
    request.label.clone().unwrap_or_else(|| format!("walden {id}"))
}

fn jobs(request: &Request) -> usize {
    let processors = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    request.jobs.map_or_else(processors, NonZeroUsize::get)
}

/// What the copy brought.
struct Copied {
    start: BackupStart,
    end: BackupEnd,
    entries: Vec<Entry>,
    packs: Vec<Pack>,
}

fn stream(
    connection: &mut Connection,
    source: &Source,
    target: &Target<'_>,
    request: &Request,
    progress: &Progress,
) -> Result<Copied> {
    let canceller = connection.canceller()?;
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
    let watch = request.archive_check.filter(|_| !source.is_standby).map(|patience| Watch {
        home: target.home,
        start: &start,
        segment_size: source.segment_size,
        patience,
        options: &request.connection,
    });
    let copied = thread::scope(|scope| {
        if let Some(watch) = &watch {
            scope.spawn(|| watch.run(&halt));
        }
        let identifier = source.system_identifier;
        copy::run(target, &halt, |writer| feed(backup, writer, identifier, progress))
    });
    let ((entries, end), packs) = copied?;
    if let Some(error) = halt.error() {
        return Err(error);
    }
    Ok(Copied { start, end, entries, packs })
}

/// From the server into the pipeline; at the end everything that came is held against the server's
/// manifest.
fn feed(
    mut backup: BaseBackup<'_>,
    writer: &mut StreamWriter<'_>,
    system_identifier: SystemIdentifier,
    progress: &Progress,
) -> Result<(Vec<Entry>, BackupEnd)> {
    let mut merger = TarMerger::default();
    let mut manifest: Option<Vec<u8>> = None;
    let mut out = |bytes: &[u8]| writer.write(bytes);
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
    Ok((merger.finish(&mut out)?, end))
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

fn manifest(
    source: &Source,
    target: &Target<'_>,
    copied: Copied,
    (began, ended): (jiff::Timestamp, jiff::Timestamp),
    label: String,
) -> Manifest {
    let Copied { start, end, entries, packs } = copied;
    let tablespaces = start.tablespaces.into_iter();
    Manifest {
        walden: 1,
        id: target.id.clone(),
        parent: None,
        mode: Some(Mode::Stream),
        origin: target.origin.clone(),
        server_version_num: source.server_version_num,
        wal_segment_size: source.segment_size,
        timeline: start.timeline,
        start_lsn: start.lsn,
        end_lsn: end.lsn,
        began,
        ended,
        from_standby: source.is_standby,
        time_zone: source.time_zone.clone(),
        log_time_zone: source.log_time_zone.clone(),
        label: Some(label),
        notes: Default::default(),
        damaged_pages: Vec::new(),
        tablespaces: tablespaces.map(|t| Tablespace { oid: t.oid, path: t.path }).collect(),
        pack_bytes: PACK_BYTES,
        packs,
        chunk_bytes: None,
        files: entries.into_iter().map(file_entry).collect(),
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

fn report(
    repository: &Repository,
    manifest: &Manifest,
    names: Option<NamesFacts>,
    duration: Duration,
) -> Report {
    let segments = || manifest.wal_needed().map(|segment| segment.to_string());
    Report {
        walden: 1,
        id: manifest.id.clone(),
        repository: repository.url(),
        system_identifier: manifest.system_identifier(),
        server_version_num: manifest.server_version_num,
        from_standby: manifest.from_standby,
        began: manifest.began,
        ended: manifest.ended,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        size: manifest.size(),
        stored: manifest.stored(),
        files: manifest.file_count(),
        tablespaces: manifest.tablespaces.clone(),
        timeline: manifest.timeline,
        start_lsn: manifest.start_lsn,
        end_lsn: manifest.end_lsn,
        first_wal: segments().next().unwrap_or_default(),
        last_wal: segments().last().unwrap_or_default(),
        names,
    }
}

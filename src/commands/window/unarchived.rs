//! How far the archive is behind its server, seen from the server's host: from the files in
//! `pg_wal`, and from the server where it lets us ask. A help, never a need.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::WalPart;
use crate::catalog::inventory::{Inventory, Segment};
use crate::commands::window::report::microseconds;
use crate::error::Result;
use crate::postgres::connection::{Connection, ConnectionOptions};
use crate::postgres::control_file::ControlFile;
use crate::postgres::wal::digest::TransactionEnd;
use crate::postgres::wal::page::{LONG_HEADER_BYTES, LongPageHeader};
use crate::postgres::wal::{Digest, Digester};
use crate::postgres::{Lsn, SegmentName, TimelineId, WalFileName, archive_status};
use crate::repository::Home;

/// How long the server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many of the newest segments in pg_wal are read, at most.
const READ_MAX: usize = 16;
const PIECE_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unarchived {
    pub state: State,
    /// WAL files that wait for archive_command (`.ready`), of all four kinds.
    pub files: u64,
    /// Complete segments that are not archived, whether or not they wait.
    pub segments: u64,
    pub bytes: u64,
    /// Since when the first of them waits.
    pub oldest: Option<Timestamp>,
    /// Commits that are not archived; `None` where that is not known.
    pub commits: Option<u64>,
    /// The last one on the server, archived or not.
    #[serde(serialize_with = "microseconds")]
    pub last_commit: Option<Timestamp>,
    /// Where the server writes now; `None` where it cannot be asked.
    pub current_lsn: Option<Lsn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Every commit is archived.
    CaughtUp,
    /// What is not archived is in the segment that is being written.
    Writing,
    /// Complete segments wait.
    Behind,
    Unknown,
}

/// What waits in `archive_status`.
#[derive(Debug, Default)]
struct Waiting {
    files: u64,
    segments: u64,
    bytes: u64,
    oldest: Option<Timestamp>,
}

/// What the WAL in `pg_wal` holds beyond the archive.
#[derive(Debug, Default, PartialEq, Eq)]
struct Local {
    commits: u64,
    last_commit: Option<TransactionEnd>,
    /// Every segment beyond the archive was read.
    is_whole: bool,
    /// Complete segments beyond the archive, whether or not they wait for archive_command.
    segments: u64,
}

#[derive(Debug, Default)]
struct Server {
    current_lsn: Option<Lsn>,
    last_commit: Option<Timestamp>,
}

/// `None` where nothing of the server can be seen.
pub fn look(home: &Home, pgdata: Option<&Path>, inventory: &Inventory) -> Option<Unarchived> {
    let is_ours = |pgdata: &&Path| {
        let file = ControlFile::read(pgdata);
        file.is_ok_and(|file| file.system_identifier == home.system_identifier())
    };
    let pg_wal = pgdata.filter(is_ours).map(|pgdata| pgdata.join("pg_wal"));
    let waiting = pg_wal.as_deref().and_then(|pg_wal| waiting(pg_wal, inventory.segment_size));
    let local = pg_wal.as_deref().and_then(|pg_wal| local(home, pg_wal, inventory));
    let server = ask(home);
    if waiting.is_none() && server.is_none() {
        return None;
    }
    Some(put_together(waiting, local, server.unwrap_or_default(), inventory))
}

fn put_together(
    waiting: Option<Waiting>,
    local: Option<Local>,
    server: Server,
    inventory: &Inventory,
) -> Unarchived {
    let archived = inventory.segments.values().filter_map(|segment| segment.wal);
    let archived_commit =
        archived.clone().filter_map(|wal| wal.last_commit).map(|commit| commit.time).max();
    let archived_until = archived.filter_map(|wal| wal.latest_time).max();
    let local_commit = local.as_ref().and_then(|local| local.last_commit).map(|commit| commit.time);
    let last_commit = server.last_commit.max(local_commit).max(archived_commit);
    let commits = local.as_ref().filter(|local| local.is_whole).map(|local| local.commits);
    // The server is asked after the files were read, and may have gone on.
    let by_files = commits.map(|commits| commits == 0);
    let by_server = server.last_commit.map(|last| archived_until >= Some(last));
    let is_archived = match (by_files, by_server) {
        (Some(by_files), Some(by_server)) => Some(by_files && by_server),
        (known, None) | (None, known) => known,
    };
    let beyond = local.as_ref().map(|local| local.segments).unwrap_or_default();
    let segments = waiting.as_ref().map(|waiting| waiting.segments.max(beyond));
    let state = match (segments, is_archived) {
        (Some(1..), _) => State::Behind,
        (_, Some(true)) => State::CaughtUp,
        (Some(0), Some(false)) => State::Writing,
        (None, Some(false)) if is_in_next(server.current_lsn, inventory) => State::Writing,
        (None, Some(false)) => State::Behind,
        (_, None) => State::Unknown,
    };
    let commits = commits.filter(|commits| *commits > 0 || state != State::Writing);
    let waiting = waiting.unwrap_or_default();
    Unarchived {
        state,
        files: waiting.files,
        segments: waiting.segments.max(beyond),
        bytes: waiting.bytes.max(beyond * u64::from(inventory.segment_size)),
        oldest: waiting.oldest,
        commits,
        last_commit,
        current_lsn: server.current_lsn,
    }
}

/// Whether the server writes the very segment that comes after the archived ones.
fn is_in_next(current: Option<Lsn>, inventory: &Inventory) -> bool {
    let size = inventory.segment_size;
    let last = inventory.segments.keys().next_back();
    current
        .zip(last)
        .is_some_and(|(current, last)| current.0 <= last.next(size).start(size).0 + u64::from(size))
}

fn waiting(pg_wal: &Path, segment_size: u32) -> Option<Waiting> {
    let folder = pg_wal.join(archive_status::FOLDER);
    let mut waiting = Waiting::default();
    for name in archive_status::ready(&folder).ok()? {
        waiting.files += 1;
        if let WalFileName::Segment(_) = name {
            waiting.segments += 1;
        }
        let size = fs::metadata(pg_wal.join(name.to_string())).map(|file| file.len());
        waiting.bytes += size.unwrap_or(u64::from(segment_size));
        let since = fs::metadata(folder.join(format!("{name}.ready")));
        let since = since.and_then(|file| file.modified()).ok();
        let since = since.and_then(|since| Timestamp::try_from(since).ok());
        waiting.oldest = [waiting.oldest, since].into_iter().flatten().min();
    }
    Some(waiting)
}

/// Reads what comes after the archived WAL of the newest timeline in `pg_wal`. Files beyond the one
/// that is being written are old ones that wait for their new content.
fn local(home: &Home, pg_wal: &Path, inventory: &Inventory) -> Option<Local> {
    let size = inventory.segment_size;
    let names = fs::read_dir(pg_wal).ok()?.flatten();
    let names = names.filter_map(|entry| SegmentName::parse(entry.file_name().to_str()?));
    let names: BTreeSet<SegmentName> = names.collect();
    let timeline = names.last()?.timeline;
    // The last archived one is read too, for what begins in it and ends in the next.
    let archived = last_archived(inventory, timeline).filter(|_| size > 0)?;
    let archived = advanced(home, archived, size, &names);
    let path = |name: &SegmentName| pg_wal.join(name.to_string());
    let following = std::iter::successors(Some(archived), |name| Some(name.next(size)));
    let written: Vec<SegmentName> = following
        .take_while(|name| names.contains(name) && begins_as_named(&path(name), *name))
        .collect();
    let beyond = written.iter().filter(|name| **name > archived).count();
    // Segments that were removed from pg_wal without being archived.
    let is_broken = beyond == 0
        && names.iter().any(|name| {
            name.timeline == timeline && *name > archived && begins_as_named(&path(name), *name)
        });
    let read = &written[written.len().saturating_sub(READ_MAX)..];
    let digests: Vec<_> = read.iter().map(|name| (*name, digest(&path(name), *name))).collect();
    let segments =
        digests.iter().map(|(name, digest)| (*name, Segment::default(), digest.as_ref()));
    let part = WalPart::distil(segments, size);
    let is_whole = !is_broken && beyond < READ_MAX;
    // The last one is being written.
    let segments = (beyond as u64).saturating_sub(1);
    let mut local = Local { is_whole, segments, ..Local::default() };
    for (_, segment) in part.segments.iter().filter(|(name, _)| **name > archived) {
        let wal = segment.wal.unwrap_or_default();
        local.is_whole &= segment.wal.is_some() && !wal.opens_unknown;
        local.commits += u64::from(wal.commits);
        local.last_commit = wal.last_commit.or(local.last_commit);
    }
    Some(local)
}

/// Past what was archived since the store was listed, while it cannot be much.
fn advanced(
    home: &Home,
    mut archived: SegmentName,
    segment_size: u32,
    names: &BTreeSet<SegmentName>,
) -> SegmentName {
    for _ in 0..READ_MAX {
        let next = archived.next(segment_size);
        if !names.contains(&next) || !home.has_wal(&WalFileName::Segment(next)).unwrap_or(false) {
            break;
        }
        archived = next;
    }
    archived
}

fn last_archived(inventory: &Inventory, timeline: TimelineId) -> Option<SegmentName> {
    let first = SegmentName { timeline, log: 0, segment: 0 };
    let last = SegmentName { log: u32::MAX, segment: u32::MAX, ..first };
    inventory.segments.range(first..=last).next_back().map(|(name, _)| *name)
}

fn begins_as_named(path: &Path, name: SegmentName) -> bool {
    let mut start = [0; LONG_HEADER_BYTES];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    let header = LongPageHeader::parse(&start);
    read.is_ok()
        && header.segment_size.is_power_of_two()
        && header.page.address == name.start(header.segment_size)
}

fn digest(path: &Path, name: SegmentName) -> Option<Digest> {
    let mut file = File::open(path).ok()?;
    let mut digester = Digester::of_partial(name);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).ok()? {
            0 => return digester.finish(),
            length => digester.write(&piece[..length]),
        }
    }
}

fn ask(home: &Home) -> Option<Server> {
    let asked = ask_server(home);
    if let Err(error) = &asked {
        tracing::info!("the server is not asked: {error}");
    }
    asked.ok().flatten()
}

/// `None`: a server answers, but it is another one.
fn ask_server(home: &Home) -> Result<Option<Server>> {
    const WHERE: &str = "SELECT system_identifier, CASE WHEN pg_is_in_recovery() \
        THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END FROM pg_control_system()";
    const WHEN: &str =
        "SELECT (extract(epoch FROM timestamp) * 1000000)::bigint FROM pg_last_committed_xact()";
    let options = ConnectionOptions::from_environment()?;
    let options = options.connect_timeout(PATIENCE).read_timeout(Some(PATIENCE));
    let mut connection = Connection::connect(&options.sql())?;
    let rows = connection.query(WHERE)?;
    let Some([Some(identifier), current]) =
        rows.into_iter().next().and_then(|row| <[_; 2]>::try_from(row).ok())
    else {
        return Ok(None);
    };
    if identifier != home.system_identifier().to_string() {
        return Ok(None);
    }
    // Known only with track_commit_timestamp, and not asked of a standby.
    let last = connection.value(WHEN).unwrap_or_default();
    let last = last.and_then(|text| text.parse().ok());
    Ok(Some(Server {
        current_lsn: current.and_then(|lsn| lsn.parse().ok()),
        last_commit: last.and_then(|micros| Timestamp::from_microsecond(micros).ok()),
    }))
}

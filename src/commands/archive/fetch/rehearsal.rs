//! `--rehearsal`, the hidden flag with which a drill's server calls `fetch`: what is handed to it
//! creates no tablespace outside of its data directory.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::wal::tablespaces::{Changes, keep_inside};
use crate::postgres::{Lsn, SegmentName, WalFileName};

/// In the data directory: what the segment before has begun.
const BEGUN: &str = "walden.rehearsal";
/// With which each line about a tablespace begins; the drill looks for it in the server's log.
pub const MARK: &str = "walden rehearsal: ";
/// What is said of WAL that is kept from a drill's server.
pub const REFUSED: &str = "cannot be rehearsed";

/// Changes the file that was brought to `destination`. PostgreSQL looks at it once we have ended.
pub fn keep_inside_of_data_directory(name: &WalFileName, destination: &Path) -> Result<()> {
    let WalFileName::Segment(segment) = *name else { return Ok(()) };
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Host, format!("rehearse with {segment}"))
            .hint("Is there room in the drill's directory?")
            .source(error)
    };
    let bytes = fs::read(destination).map_err(failed)?;
    let start = start(segment, &bytes)?;
    let begun_in =
        destination.parent().and_then(Path::parent).unwrap_or(Path::new(".")).join(BEGUN);
    let begun = read_begun(&begun_in, start);
    let changes = keep_inside(segment, &bytes, begun.as_deref()).map_err(|what| {
        Error::new(ErrorKind::Host, format!("{segment} {REFUSED}: {what}"))
            .hint("Nobody can tell whether it would reach for the tablespaces of this host.")
    })?;
    apply(&changes, destination, bytes.len() as u64).map_err(failed)?;
    if let Some(begun) = &changes.begun {
        let next = Lsn(start.0 + bytes.len() as u64);
        fs::write(&begun_in, [&next.0.to_le_bytes()[..], begun].concat()).map_err(failed)?;
    }
    for created in &changes.created {
        // On stderr, which is the server's log.
        eprintln!("{MARK}tablespace {} at {}", created.oid, created.path);
    }
    Ok(())
}

fn start(segment: SegmentName, bytes: &[u8]) -> Result<Lsn> {
    let size = u32::try_from(bytes.len()).ok().filter(|size| *size > 0);
    size.map(|size| segment.start(size))
        .ok_or_else(|| Error::new(ErrorKind::Host, format!("{segment} has {} bytes", bytes.len())))
}

/// Only where it is of the segment before this one.
fn read_begun(path: &PathBuf, start: Lsn) -> Option<Vec<u8>> {
    let content = fs::read(path).ok()?;
    let (next, begun) = content.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*next) == start.0).then(|| begun.to_vec())
}

fn apply(changes: &Changes, destination: &Path, length: u64) -> io::Result<()> {
    if changes.bytes.is_empty() && changes.nothing_from.is_none() {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(destination)?;
    for (at, bytes) in &changes.bytes {
        file.write_all_at(bytes, *at)?;
    }
    if let Some(from) = changes.nothing_from {
        let zeros = vec![0; usize::try_from(length - from.min(length)).unwrap_or_default()];
        file.write_all_at(&zeros, from)?;
    }
    Ok(())
}

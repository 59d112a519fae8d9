//! A file in pg_wal: read once, checked against its name and its server, and sealed.

use std::fs::File;
use std::iter;
use std::path::Path;

use crate::codec::{Compression, Header, Kind, Origin};
use crate::commands::archive::Caller;
use crate::commands::archive::push::frames::{self, Input, Keep};
use crate::error::{Error, ErrorKind, Result};
use crate::host::spill;
use crate::postgres::wal::SegmentFacts;
use crate::postgres::wal_file_check::WalFileCheck;
use crate::postgres::{SystemIdentifier, WalFileName};
use crate::storage::{Body, Part};

/// Segments of 16 and 32 MiB stay in memory, whatever they hold; of larger ones, the rest goes into
/// a temporary file.
const MEMORY_BYTES_MAX: u64 = 32 << 20;

/// A file in pg_wal, and the server it belongs to.
pub struct Source<'a> {
    pub path: &'a Path,
    pub name: WalFileName,
    pub caller: &'a Caller,
    /// As it is configured; what is too large for memory waits there.
    pub state_dir: Option<&'a Path>,
}

/// A file ready to be stored.
pub struct Sealed {
    pub body: Body,
    pub origin: Origin,
    /// Of the raw content.
    pub crc32: u32,
    /// WAL of a PostgreSQL version that this walden does not know.
    pub is_unknown: bool,
}

impl Source<'_> {
    /// Reads the file once: checked, counted, compressed in the same pass, by so many threads at
    /// most.
    pub fn seal(&self, compression: Compression, threads: usize) -> Result<Sealed> {
        let file = File::open(self.path).map_err(|e| self.unreadable(e))?;
        let size = file.metadata().map_err(|e| self.unreadable(e))?.len();
        let mut check = WalFileCheck::new(&self.name);
        let unreadable = |error| self.unreadable(error);
        let input = Input { file, size, check: &mut check, unreadable: &unreadable };
        let keep = Keep {
            memory_bytes_max: MEMORY_BYTES_MAX,
            folders: spill::folders(self.state_dir, Path::new(&self.caller.place)),
        };
        let (content, sealed) = frames::seal(input, &keep, compression, threads)?;
        let facts = check.finish()?;
        let is_unknown = facts.is_some_and(|facts| facts.version.is_none());
        let origin = self.caller.origin(self.owner(facts)?);
        let header = Header::new(kind(&self.name), self.name.to_string(), content, origin.clone());
        let header = Part::new(header.to_frame());
        let body = Body::of(iter::once(header).chain(sealed));
        Ok(Sealed { body, origin, crc32: content.crc32, is_unknown })
    }

    /// The cluster the file belongs to: what the WAL itself says, which must be what the data
    /// directory says.
    fn owner(&self, facts: Option<SegmentFacts>) -> Result<SystemIdentifier> {
        let Some(facts) = facts else { return self.caller.system_identifier() };
        let found = facts.system_identifier;
        match self.caller.control_file {
            Some(ours) if ours.system_identifier != found => Err(Error::new(
                ErrorKind::ForeignCluster,
                format!(
                    "file is of cluster {found}, {} is {}",
                    self.caller.place, ours.system_identifier
                ),
            )
            .hint("Somebody put WAL of another cluster into this pg_wal; nothing was archived.")),
            _ => Ok(found),
        }
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        Error::new(ErrorKind::InvalidSource, format!("cannot read {}", self.path.display()))
            .source(error)
            .hint("Does the file exist, and may the server's user read it?")
    }
}

fn kind(name: &WalFileName) -> Kind {
    match name {
        WalFileName::Segment(_) => Kind::Segment,
        WalFileName::Partial(_) => Kind::Partial,
        WalFileName::History(_) => Kind::History,
        WalFileName::BackupHistory(..) => Kind::BackupHistory,
    }
}

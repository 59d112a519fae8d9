//! A file in pg_wal: read once, checked against its name and its server, and sealed.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::codec::{Compression, Header, Kind, Origin, Sealer};
use crate::commands::archive::{Caller, PIECE_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::wal_file_check::WalFileCheck;
use crate::postgres::{SystemIdentifier, WalFileName};
use crate::storage::Body;

/// A file in pg_wal, and the server it belongs to.
pub struct Source<'a> {
    pub path: &'a Path,
    pub name: WalFileName,
    pub caller: &'a Caller,
}

/// A file ready to be stored.
pub struct Sealed {
    pub body: Body,
    pub origin: Origin,
    /// Of the raw content.
    pub crc32: u32,
}

impl Source<'_> {
    /// Reads the file once: checked, counted, compressed in the same pass.
    pub fn seal(&self, compression: Compression) -> Result<Sealed> {
        let mut file = File::open(self.path).map_err(|e| self.unreadable(e))?;
        let size = file.metadata().map_err(|e| self.unreadable(e))?.len();
        let mut check = WalFileCheck::new(&self.name);
        let mut sealer = Sealer::new(compression, size)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            file.read_exact(&mut piece[..wanted]).map_err(|e| self.unreadable(e))?;
            check.write(&piece[..wanted])?;
            sealer.write(&piece[..wanted])?;
            left -= wanted as u64;
        }
        let origin = self.caller.origin(self.owner(check)?);
        let mut crc32 = 0;
        let sealed = sealer.finish(|content| {
            crc32 = content.crc32;
            Header::new(kind(&self.name), self.name.to_string(), content, origin.clone())
        })?;
        Ok(Sealed { body: Body::new(sealed), origin, crc32 })
    }

    /// The cluster the file belongs to: what the WAL itself says, which must be what the data
    /// directory says.
    fn owner(&self, check: WalFileCheck) -> Result<SystemIdentifier> {
        let Some(facts) = check.finish()? else { return self.caller.system_identifier() };
        if facts.version.is_none() {
            tracing::warn!(name = %self.name, "archived unchecked: WAL of a PostgreSQL version \
                                               unknown to walden");
        }
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

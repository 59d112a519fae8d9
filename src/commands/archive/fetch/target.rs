//! Where PostgreSQL wants a file: checked against its name and its server, and there whole or not
//! at all. The mirror image of `source`.

use std::path::Path;

use crate::codec::Header;
use crate::commands::archive::Caller;
use crate::commands::archive::fetch::spool::{Spool, Spooled};
use crate::error::{Error, ErrorKind, Result};
use crate::host::atomic_file::PendingFile;
use crate::postgres::wal::digest::InvalidRecord;
use crate::postgres::wal_file_check::WalFileCheck;
use crate::postgres::{SystemIdentifier, WalFileName};
use crate::repository::Home;

/// A fetch that is killed leaves its temporary file in pg_wal. Under this name PostgreSQL removes
/// it when it starts again (`RemoveTempXlogFiles`, xlog.c), and ignores it until then.
const TEMPORARY_PREFIX: &str = "xlogtemp.walden-";

/// A file that is wanted, where, and the server it is for.
pub struct Target<'a> {
    pub name: WalFileName,
    pub destination: &'a Path,
    pub caller: &'a Caller,
}

/// What push found and was told to archive all the same.
fn invalid_in(header: &Header) -> Option<&InvalidRecord> {
    header.digest.as_ref().and_then(|digest| digest.invalid.as_ref())
}

/// Something that hands a file in pieces to whom it is given.
type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

impl Target<'_> {
    /// Nobody sees the file before it is whole and checked.
    pub fn take_from(&self, home: &Home) -> Result<()> {
        let mut pending = self.pending(TEMPORARY_PREFIX)?;
        let write = |piece: &[u8]| pending.write(piece);
        let ours = home.system_identifier();
        let header = self.receive(ours, |sink| home.get_wal(&self.name, sink), write)?;
        // Recovery to a target before that needs it, and PostgreSQL goes no further than that.
        if let Some(invalid) = invalid_in(&header) {
            self.tell_of(invalid);
        }
        // Not synced: PostgreSQL does so when it takes the file (`KeepFileRestoredFromArchive`,
        // xlogarchive.c).
        pending.hand_over().map_err(|e| self.unwritable(e))
    }

    /// The same from the spool. What lies there was checked once; it is read and checked again all
    /// the same, since a crash or a disk may have changed it.
    pub fn take_spooled(&self, spooled: &Spooled, ours: SystemIdentifier) -> Result<()> {
        if spooled.is_on_disk_of(self.destination) {
            self.receive(ours, |sink| spooled.read(sink), |_| Ok(()))?;
            match spooled.move_to(self.destination) {
                // One disk mounted at two places.
                Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {}
                moved => return moved.map_err(|e| self.unwritable(e)),
            }
        }
        let mut pending = self.pending(TEMPORARY_PREFIX)?;
        let write = |piece: &[u8]| pending.write(piece);
        self.receive(ours, |sink| spooled.read(sink), write)?;
        pending.hand_over().map_err(|e| self.unwritable(e))?;
        spooled.remove();
        Ok(())
    }

    /// From the store into the spool, checked just as much, but for what fetch has to speak of.
    pub fn put_aside(&self, home: &Home, spool: &Spool) -> Result<()> {
        let mut pending = spool.pending().map_err(|e| self.unwritable(e))?;
        let write = |piece: &[u8]| pending.write(piece);
        let ours = home.system_identifier();
        let header = self.receive(ours, |sink| home.get_wal(&self.name, sink), write)?;
        if invalid_in(&header).is_some() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "has a mark that fetch itself must tell of",
            ));
        }
        spool.keep(pending, &self.name, header.crc32).map_err(|e| self.unwritable(e))
    }

    fn pending(&self, prefix: &str) -> Result<PendingFile> {
        PendingFile::create_as(prefix, self.destination, 0o600).map_err(|e| self.unwritable(e))
    }

    /// Reads the file once, checks it and writes it in the same pass. Its records are not read:
    /// push did so, and PostgreSQL will; what it is given is what was stored, by its checksums.
    fn receive<T>(
        &self,
        ours: SystemIdentifier,
        read: impl FnOnce(Sink<'_>) -> Result<T>,
        mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<T> {
        let mut check = WalFileCheck::new(&self.name);
        let read = read(&mut |piece| {
            check.write(piece).map_err(|error| error.with_kind(ErrorKind::Corrupt))?;
            write(piece).map_err(|e| self.unwritable(e))
        })?;
        self.expect_ours(check, ours)?;
        Ok(read)
    }

    fn tell_of(&self, invalid: &InvalidRecord) {
        let (name, InvalidRecord { lsn, what, .. }) = (&self.name, invalid);
        tracing::error!(%name, "archived with a mark, recovery ends at {lsn}: {what}");
    }

    fn unwritable(&self, error: std::io::Error) -> Error {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Host,
        };
        Error::new(kind, format!("cannot write {}", self.destination.display()))
            .source(error)
            .hint("Is there room in pg_wal, and may the server's user write there?")
    }

    fn expect_ours(&self, check: WalFileCheck, ours: SystemIdentifier) -> Result<()> {
        let checked = check.finish().map_err(|error| error.with_kind(ErrorKind::Corrupt))?;
        let Some(facts) = checked else { return Ok(()) };
        if facts.system_identifier != ours {
            let found = facts.system_identifier;
            return Err(Error::new(
                ErrorKind::ForeignCluster,
                format!("the archived file is of cluster {found}, {} is {ours}", self.caller.place),
            )
            .hint("Point walden at the repository of this cluster."));
        }
        let wanted = self.caller.control_file.and_then(|file| file.wal_segment_size);
        match wanted {
            Some(wanted) if wanted != facts.segment_size => Err(Error::new(
                ErrorKind::ForeignCluster,
                format!(
                    "the archived file has {} bytes, this server wants {wanted}",
                    facts.segment_size
                ),
            )
            .hint("The cluster was given another --wal-segsize; restore a backup made since.")),
            _ => Ok(()),
        }
    }
}

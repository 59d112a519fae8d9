//! `global/pg_control`: which cluster a data directory is.
//!
//! Layout: `ControlFileData` in src/include/catalog/pg_control.h; the offsets below were read off
//! files of 15, 16, 17 and 18, which agree in all that is used here.

use std::path::Path;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, SystemIdentifier};

const CATALOG_VERSION_AT: usize = 12;
const REDO_AT: usize = 40;
const MAX_PREPARED_AT: usize = 192;
const WAL_SEGMENT_SIZE_AT: usize = 228;
/// Where the CRC-32C of all before it stands, by `pg_control_version`: 15 and 16, 17, 18.
const CRC_AT: [(u32, usize); 3] = [(1300, 288), (1700, 288), (1800, 292)];

const ATTEMPTS_MAX: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    pub system_identifier: SystemIdentifier,
    /// `None` where the version of the file is not known to this walden.
    pub wal_segment_size: Option<u32>,
    /// What `max_prepared_transactions` was; `None` as above.
    pub max_prepared_transactions: Option<u32>,
    /// `None` as above.
    pub checkpoint: Option<LatestCheckpoint>,
}

/// What the file says of the latest checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatestCheckpoint {
    /// Which catalogs the cluster has: names the directory in a tablespace that belongs to it.
    pub catalog_version: u32,
    pub redo_lsn: Lsn,
}

impl ControlFile {
    /// Reads it from a data directory; again where the server was just writing it, which may last
    /// as long as its disk takes (`get_controlfile`, controldata_utils.c, does the same).
    pub fn read(pgdata: &Path) -> Result<Self> {
        Self::parse(&Self::read_bytes(pgdata)?)
    }

    /// The file itself, as it was between two writes.
    pub fn read_bytes(pgdata: &Path) -> Result<Vec<u8>> {
        let path = pgdata.join("global/pg_control");
        let read = || {
            let bytes = std::fs::read(&path).map_err(|e| {
                Error::new(ErrorKind::Usage, format!("cannot read {}", path.display()))
                    .source(e)
                    .hint("Run walden in the data directory, as PostgreSQL does, or give --pgdata.")
            })?;
            ControlFile::parse(&bytes).map(|_| bytes)
        };
        for _ in 0..ATTEMPTS_MAX {
            if let Ok(bytes) = read() {
                return Ok(bytes);
            }
            std::thread::sleep(PAUSE);
        }
        read()
    }

    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = || {
            Error::new(ErrorKind::Usage, "global/pg_control is damaged")
                .hint("Look at it with pg_controldata, and at the disk it is on.")
        };
        let (identifier, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (version, _) = rest.split_first_chunk().ok_or_else(damaged)?;
        let system_identifier = SystemIdentifier(u64::from_le_bytes(*identifier));
        let version = u32::from_le_bytes(*version);
        let Some((_, crc_at)) = CRC_AT.iter().find(|(known, _)| *known == version) else {
            return Ok(ControlFile {
                system_identifier,
                wal_segment_size: None,
                max_prepared_transactions: None,
                checkpoint: None,
            });
        };
        let number = |at: usize| {
            bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes)
        };
        let covered = bytes.get(..*crc_at).ok_or_else(damaged)?;
        if number(*crc_at) != Some(crc32c(covered)) {
            return Err(damaged());
        }
        let redo = bytes.get(REDO_AT..REDO_AT + 8).and_then(|eight| eight.try_into().ok());
        let checkpoint = number(CATALOG_VERSION_AT).zip(redo.map(u64::from_le_bytes));
        let checkpoint = checkpoint.map(|(catalog_version, redo)| LatestCheckpoint {
            catalog_version,
            redo_lsn: Lsn(redo),
        });
        let wal_segment_size = number(WAL_SEGMENT_SIZE_AT);
        let max_prepared_transactions = number(MAX_PREPARED_AT);
        Ok(ControlFile {
            system_identifier,
            wal_segment_size,
            max_prepared_transactions,
            checkpoint,
        })
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    // The register is 32 bits wide; the crate returns it in 64 for all its algorithms.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::{ControlFile, crc32c};
    use crate::postgres::SystemIdentifier;

    fn control_file(version: u32, crc_at: usize) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        bytes[..8].copy_from_slice(&7_710_620_488_620_347_611u64.to_le_bytes());
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[192..196].copy_from_slice(&7u32.to_le_bytes());
        bytes[228..232].copy_from_slice(&(1u32 << 20).to_le_bytes());
        let crc = crc32c(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn every_known_version_is_read() {
        for (version, crc_at) in super::CRC_AT {
            let read = ControlFile::parse(&control_file(version, crc_at)).unwrap();
            assert_eq!(read.system_identifier, SystemIdentifier(7_710_620_488_620_347_611));
            assert_eq!(read.wal_segment_size, Some(1 << 20));
            assert_eq!(read.max_prepared_transactions, Some(7));
        }
    }

    #[test]
    fn a_version_to_come_still_tells_which_cluster_it_is() {
        let read = ControlFile::parse(&control_file(1900, 300)).unwrap();
        assert_eq!(read.system_identifier, SystemIdentifier(7_710_620_488_620_347_611));
        assert_eq!(read.wal_segment_size, None);
    }

    #[test]
    fn one_that_is_being_written_is_waited_for() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("global/pg_control");
        std::fs::create_dir(scratch.path().join("global")).unwrap();
        let whole = control_file(1700, 288);
        let mut torn = whole.clone();
        torn[100] ^= 1;
        std::fs::write(&path, torn).unwrap();
        std::thread::scope(|scope| {
            let read = scope.spawn(|| ControlFile::read(scratch.path()));
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::write(&path, whole).unwrap();
            assert!(read.join().unwrap().is_ok());
        });
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let mut flipped = control_file(1700, 288);
        flipped[100] ^= 1;
        assert!(ControlFile::parse(&flipped).is_err());
        assert!(ControlFile::parse(&flipped[..200]).is_err());
        assert!(ControlFile::parse(b"").is_err());
    }
}

//! One WAL record: its header (`XLogRecord`), its checksum, and what its parts are.
//!
//! Written like this by 15 to 18 alike (access/xlogrecord.h): the header; then for each block it
//! touches a reference with the lengths of the image and data kept for it; the length of the main
//! data; then those images and data in the same order, the main data last.

use crate::postgres::wal::digest::RelationFile;
use crate::postgres::wal::fields::Fields;
use crate::postgres::{Lsn, MajorVersion};

pub const HEADER_BYTES: usize = 24;
/// The checksum covers the header up to the checksum itself.
const CHECKED_HEADER_BYTES: usize = 20;
/// No record is longer, since no server could read it (`MaxAllocSize`). From 16 on none writes one
/// above 1020 MiB (`XLogRecordMaxSize`, access/xlogrecord.h); 15 does.
pub const RECORD_BYTES_MAX: u32 = (1 << 30) - 1;

/// `XLR_MAX_BLOCK_ID`
const BLOCK_NUMBER_MAX: u8 = 32;
const SHORT_MAIN_DATA: u8 = 255;
const LONG_MAIN_DATA: u8 = 254;
const ORIGIN: u8 = 253;
const TOP_TRANSACTION: u8 = 252;

const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const SAME_RELATION: u8 = 0x80;

const IMAGE_HAS_HOLE: u8 = 0x01;
/// pglz, lz4, zstd
const IMAGE_IS_COMPRESSED: u8 = 0x04 | 0x08 | 0x10;

/// `RmgrId`: who wrote a record and knows how to read it (access/rmgrlist.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResourceManager(pub u8);

impl ResourceManager {
    pub const XLOG: ResourceManager = ResourceManager(0);
    pub const TRANSACTION: ResourceManager = ResourceManager(1);
    pub const STORAGE: ResourceManager = ResourceManager(2);
    pub const DATABASE: ResourceManager = ResourceManager(4);
    pub const STANDBY: ResourceManager = ResourceManager(8);
    pub const HEAP2: ResourceManager = ResourceManager(9);
    pub const HEAP: ResourceManager = ResourceManager(10);

    const BUILT_IN_MAX: u8 = 21;
    const CUSTOM_MIN: u8 = 128;

    pub fn is_possible(self) -> bool {
        self.0 <= Self::BUILT_IN_MAX || self.0 >= Self::CUSTOM_MIN
    }

    /// As pg_walinspect and pg_waldump call it; `None` for an extension's.
    pub fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 22] = [
            "XLOG",
            "Transaction",
            "Storage",
            "CLOG",
            "Database",
            "Tablespace",
            "MultiXact",
            "RelMap",
            "Standby",
            "Heap2",
            "Heap",
            "Btree",
            "Hash",
            "Gin",
            "Gist",
            "Sequence",
            "SPGist",
            "BRIN",
            "CommitTs",
            "ReplicationOrigin",
            "Generic",
            "LogicalMessage",
        ];
        NAMES.get(usize::from(self.0)).copied()
    }
}

/// The header's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record.
    pub total: u32,
    /// 0 where no transaction wrote it.
    pub xid: u32,
    /// Where the record before it begins.
    pub previous: Lsn,
    pub info: u8,
    pub resource_manager: ResourceManager,
    pub checksum: u32,
}

impl RecordHeader {
    #[inline]
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        RecordHeader {
            total: u32_at(0),
            xid: u32_at(4),
            previous: Lsn(u64::from(u32_at(12)) << 32 | u64::from(u32_at(8))),
            info: bytes[16],
            resource_manager: ResourceManager(bytes[17]),
            checksum: u32_at(20),
        }
    }
}

/// A record that was read whole and whose checksum is right.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Of the server that wrote it.
    pub version: MajorVersion,
    /// Where it begins.
    pub lsn: Lsn,
    /// Where the next one may begin.
    pub end: Lsn,
    pub header: RecordHeader,
    /// Header and all, without page headers. The reader keeps no more than the beginning of a very
    /// long one.
    pub bytes: &'a [u8],
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    pub blocks: u8,
    /// The relation of block reference 0.
    pub first_file: Option<RelationFile>,
    /// Of full-page images, as they are kept.
    pub image_bytes: u32,
    /// The transaction that its own is a subtransaction of: `wal_level` = logical says so once.
    pub top_xid: Option<u32>,
    pub main_bytes: u32,
    /// The main data, or the beginning of it where the record was kept in part.
    pub main: &'a [u8],
}

/// Why a record's parts are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartsError {
    /// The bytes at hand end before its references do.
    Incomplete,
    /// No server wrote this.
    Wrong(&'static str),
}

impl<'a> Record<'a> {
    /// The upper four bits, which are the resource manager's own; the lower are the same for all.
    #[inline]
    pub fn operation(&self) -> u8 {
        self.header.info & 0xF0
    }

    pub fn parts(&self) -> Result<Parts<'a>, PartsError> {
        Parts::parse(self.header.total, self.bytes)
    }

    /// The main data of a record that touches no blocks or keeps little for them; empty if there is
    /// none.
    pub fn main(&self) -> &'a [u8] {
        self.parts().map_or(&[], |parts| parts.main)
    }
}

impl<'a> Parts<'a> {
    /// Of a record of `total` bytes of which the first are `bytes`.
    pub fn parse(total: u32, bytes: &'a [u8]) -> Result<Parts<'a>, PartsError> {
        if (total as usize) < HEADER_BYTES {
            return Err(PartsError::Wrong("record shorter than its header"));
        }
        let mut references = References::new(bytes);
        let found = references.read(total)?;
        let header_bytes = bytes.len() - references.fields.0.len();
        let expected = header_bytes as u64 + references.data_bytes + u64::from(found.main_bytes);
        if expected != u64::from(total) {
            return Err(PartsError::Wrong("record length is not that of its parts"));
        }
        let main_at = (total - found.main_bytes) as usize;
        Ok(Parts { main: bytes.get(main_at..).unwrap_or_default(), ..found })
    }
}

/// Reads the references at the beginning of a record.
struct References<'a> {
    fields: Fields<'a>,
    bytes: usize,
    /// Images and data of the blocks so far.
    data_bytes: u64,
    last_file: Option<RelationFile>,
    last_block: Option<u8>,
}

impl<'a> References<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let fields = Fields(bytes.get(HEADER_BYTES..).unwrap_or_default());
        let (last_file, last_block) = (None, None);
        References { fields, bytes: bytes.len(), data_bytes: 0, last_file, last_block }
    }

    fn read(&mut self, total: u32) -> Result<Parts<'a>, PartsError> {
        let mut parts = Parts {
            blocks: 0,
            first_file: None,
            image_bytes: 0,
            top_xid: None,
            main_bytes: 0,
            main: &[],
        };
        if self.bytes < HEADER_BYTES {
            return Err(PartsError::Incomplete);
        }
        let total = u64::from(total);
        loop {
            // What is left of the record is data that was announced: the references end here.
            let read = (self.bytes - self.fields.0.len()) as u64;
            if total <= read + self.data_bytes {
                return Ok(parts);
            }
            match self.u8()? {
                SHORT_MAIN_DATA => {
                    parts.main_bytes = u32::from(self.u8()?);
                    return Ok(parts);
                }
                LONG_MAIN_DATA => {
                    parts.main_bytes = self.u32()?;
                    return Ok(parts);
                }
                ORIGIN => {
                    self.u16()?;
                }
                TOP_TRANSACTION => parts.top_xid = Some(self.u32()?),
                number @ 0..=BLOCK_NUMBER_MAX => self.block(number, &mut parts)?,
                _ => return Err(PartsError::Wrong("block reference of no known kind")),
            }
        }
    }

    /// `XLogRecordBlockHeader` and what its flags say follows.
    fn block(&mut self, number: u8, parts: &mut Parts<'a>) -> Result<(), PartsError> {
        if self.last_block.is_some_and(|last| number <= last) {
            return Err(PartsError::Wrong("block references out of order"));
        }
        self.last_block = Some(number);
        let flags = self.u8()?;
        let data_bytes = self.u16()?;
        if (flags & HAS_DATA != 0) != (data_bytes != 0) {
            return Err(PartsError::Wrong("block data without a length"));
        }
        self.data_bytes += u64::from(data_bytes);
        if flags & HAS_IMAGE != 0 {
            let image_bytes = self.u16()?;
            let _hole_offset = self.u16()?;
            let image = self.u8()?;
            if image & IMAGE_HAS_HOLE != 0 && image & IMAGE_IS_COMPRESSED != 0 {
                let _hole_bytes = self.u16()?;
            }
            self.data_bytes += u64::from(image_bytes);
            parts.image_bytes += u32::from(image_bytes);
        }
        let file = if flags & SAME_RELATION != 0 {
            self.last_file.ok_or(PartsError::Wrong("block of the same relation as none"))?
        } else {
            let (tablespace, database, number) = (self.u32()?, self.u32()?, self.u32()?);
            RelationFile { tablespace, database, number }
        };
        let _block_number = self.u32()?;
        self.last_file = Some(file);
        if number == 0 && flags & FORK_MASK == 0 {
            parts.first_file = Some(file);
        }
        parts.blocks += 1;
        Ok(())
    }

    fn u8(&mut self) -> Result<u8, PartsError> {
        self.fields.u8().ok_or(PartsError::Incomplete)
    }

    fn u16(&mut self) -> Result<u16, PartsError> {
        self.fields.u16().ok_or(PartsError::Incomplete)
    }

    fn u32(&mut self) -> Result<u32, PartsError> {
        self.fields.u32().ok_or(PartsError::Incomplete)
    }
}

/// The CRC-32C of a record: its bytes after the header, in pieces, then its header up to the
/// checksum (`ValidXLogRecord`).
#[derive(Debug, Clone, Copy)]
pub struct Checksum(crc_fast::Digest);

impl Default for Checksum {
    #[inline]
    fn default() -> Self {
        Checksum(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }
}

impl Checksum {
    #[inline]
    pub fn data(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// Then it is ready for the next one: making a new one takes as long as a short record.
    #[inline]
    pub fn finish(&mut self, header: &[u8; HEADER_BYTES]) -> u32 {
        self.0.update(&header[..CHECKED_HEADER_BYTES]);
        self.0.finalize_reset() as u32
    }
}

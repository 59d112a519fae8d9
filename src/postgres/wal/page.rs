//! WAL page headers: `XLogPageHeaderData` and `XLogLongPageHeaderData` (access/xlog_internal.h).

use crate::postgres::{Lsn, SystemIdentifier};

/// Bytes of the header that every page begins with.
pub const SHORT_HEADER_BYTES: usize = 24;
/// Bytes of the header that the first page of a segment begins with.
pub const LONG_HEADER_BYTES: usize = 40;

/// `XLP_FIRST_IS_CONTRECORD`
const CONTINUES_FLAG: u16 = 0x0001;
/// `XLP_LONG_HEADER`
const LONG_HEADER_FLAG: u16 = 0x0002;
/// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`
const OVERWRITES_FLAG: u16 = 0x0008;
/// `XLP_ALL_FLAGS`
const ALL_FLAGS: u16 = 0x000F;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    pub magic: u16,
    pub timeline: u32,
    /// Where the page stands in the WAL.
    pub address: Lsn,
    pub is_long: bool,
    /// It begins with the rest of a record that began before it.
    pub is_continuation: bool,
    /// The record that should go on here was lost in a crash; another one begins instead.
    pub is_overwrite: bool,
    /// Bytes of that rest, here and on the pages that follow.
    pub remaining: u32,
    /// It has flags that no known version sets.
    pub is_strange: bool,
}

/// What the first page of a segment says beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongPageHeader {
    pub page: PageHeader,
    pub system_identifier: SystemIdentifier,
    /// In bytes.
    pub segment_size: u32,
    /// `wal_block_size`, in bytes.
    pub block_size: u32,
}

impl PageHeader {
    /// `bytes`: magic, flags, timeline, address (8 bytes), remaining length, padding; all
    /// little-endian.
    pub fn parse(bytes: &[u8; SHORT_HEADER_BYTES]) -> Self {
        let flags = u16::from_le_bytes([bytes[2], bytes[3]]);
        PageHeader {
            magic: u16::from_le_bytes([bytes[0], bytes[1]]),
            timeline: u32_at(bytes, 4),
            address: Lsn(u64_at(bytes, 8)),
            is_long: flags & LONG_HEADER_FLAG != 0,
            is_continuation: flags & CONTINUES_FLAG != 0,
            is_overwrite: flags & OVERWRITES_FLAG != 0,
            remaining: u32_at(bytes, 16),
            is_strange: flags & !ALL_FLAGS != 0,
        }
    }
}

impl LongPageHeader {
    /// `bytes`: a page header, then system identifier (8 bytes), segment size, block size.
    pub fn parse(bytes: &[u8; LONG_HEADER_BYTES]) -> Self {
        let mut short = [0; SHORT_HEADER_BYTES];
        short.copy_from_slice(&bytes[..SHORT_HEADER_BYTES]);
        LongPageHeader {
            page: PageHeader::parse(&short),
            system_identifier: SystemIdentifier(u64_at(bytes, 24)),
            segment_size: u32_at(bytes, 32),
            block_size: u32_at(bytes, 36),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at + 4)) << 32 | u64::from(u32_at(bytes, at))
}

//! A record that is put together from several pages or pieces.

use crate::postgres::Lsn;
use crate::postgres::wal::record::{
    Checksum, HEADER_BYTES, Parts, PartsError, RECORD_BYTES_MAX, RecordHeader, ResourceManager,
};

/// Of most records no more than this is kept: 33 pages, the most a record can hold images of, and
/// what describes them.
const KEPT_BYTES_MAX: usize = 512 << 10;
/// Ends of transactions name every file they drop and every cache entry they invalidate.
const KEPT_LIST_BYTES_MAX: usize = 64 << 20;

/// A record that lies in several pages or pieces.
#[derive(Debug, Default)]
pub struct OpenRecord {
    pub lsn: Lsn,
    /// 0 while the bytes that say so are missing.
    pub total: u32,
    /// Bytes that have come.
    pub gathered: u32,
    checksum: Checksum,
    /// The first of them.
    pub kept: Vec<u8>,
    kept_bytes_max: usize,
}

impl OpenRecord {
    pub fn begin(&mut self, lsn: Lsn) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        *self = OpenRecord { lsn, kept, kept_bytes_max: HEADER_BYTES, ..OpenRecord::default() };
    }

    /// Takes the bytes that are missing, up to the end of the header at first; says how many.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let gathered = self.gathered as usize;
        let expected = if gathered < HEADER_BYTES { HEADER_BYTES } else { self.total as usize };
        let bytes = &bytes[..bytes.len().min(expected - gathered)];
        if gathered >= HEADER_BYTES {
            self.checksum.data(bytes);
        }
        let room = self.kept_bytes_max.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.gathered += bytes.len() as u32;
        bytes.len()
    }

    /// As soon as the length is there; nothing is put aside for it before.
    pub fn check_length(&mut self) -> Result<(), &'static str> {
        let Some(length) = self.kept.first_chunk::<4>().filter(|_| self.total == 0) else {
            return Ok(());
        };
        self.total = u32::from_le_bytes(*length);
        if self.total == 0 {
            return Err("no record where one should be");
        }
        if (self.total as usize) < HEADER_BYTES {
            return Err("record shorter than its header");
        }
        if self.total > RECORD_BYTES_MAX {
            return Err("record longer than any");
        }
        Ok(())
    }

    /// A wrong length would hide the records after it where the segment ends before the record, and
    /// nothing but its parts can give it away.
    pub fn check_parts(&self) -> Result<(), &'static str> {
        match Parts::parse(self.total, &self.kept) {
            Err(PartsError::Wrong(what)) if self.gathered as usize >= HEADER_BYTES => Err(what),
            _ => Ok(()),
        }
    }

    pub fn keep_for(&mut self, resource_manager: ResourceManager) {
        let is_list =
            matches!(resource_manager, ResourceManager::TRANSACTION | ResourceManager::STANDBY);
        self.kept_bytes_max = if is_list { KEPT_LIST_BYTES_MAX } else { KEPT_BYTES_MAX };
    }

    /// Zeros where its length should be.
    pub fn is_none(&self) -> bool {
        self.total == 0 && self.gathered >= 4
    }

    pub fn is_whole(&self) -> bool {
        self.total != 0 && self.gathered == self.total
    }

    /// Bytes that have not come yet.
    pub fn missing(&self) -> u32 {
        self.total.saturating_sub(self.gathered)
    }

    pub fn header(&self) -> Option<RecordHeader> {
        self.kept.first_chunk::<HEADER_BYTES>().map(RecordHeader::parse)
    }

    /// Of what has come, as if it were all.
    pub fn checksum(&self) -> Option<u32> {
        let mut checksum = self.checksum;
        self.kept.first_chunk::<HEADER_BYTES>().map(|head| checksum.finish(head))
    }
}

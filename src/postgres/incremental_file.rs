//! PostgreSQL 17's incremental file: some blocks of a relation's file, and which they are.
//!
//! `basebackup_incremental.c` and `basebackup.c` (`sendFile`) write it, `reconstruct.c` of
//! pg_combinebackup reads it. Little-endian: a magic number, how many blocks, the truncation block
//! length, the blocks' numbers; zeros up to a whole page if there is a block; then the contents.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::page::{BLOCKS_PER_FILE, PAGE_BYTES};

pub const PREFIX: &str = "INCREMENTAL.";

const MAGIC: u32 = 0xD3AE_1F0D;
const FIXED_BYTES: usize = 12;

/// What stands before the blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IncrementalHeader {
    /// `truncation_block_length`: of the blocks below it, those that are not here are those of the
    /// backup before; from it on there are only those that are here.
    pub length: u32,
    /// Rising, each once.
    pub blocks: Vec<u32>,
}

impl IncrementalHeader {
    /// As it stands in the file, with the zeros behind it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(header_bytes(self.blocks.len()));
        for number in start(self.blocks.len() as u32, self.length) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend(self.blocks.iter().flat_map(|block| block.to_le_bytes()));
        bytes.resize(header_bytes(self.blocks.len()), 0);
        bytes
    }

    /// Bytes of the header and of all blocks.
    pub fn file_size(&self) -> u64 {
        header_bytes(self.blocks.len()) as u64 + self.blocks.len() as u64 * PAGE_BYTES as u64
    }
}

/// What stands before the numbers of `count` blocks.
pub fn start(count: u32, length: u32) -> [u32; 3] {
    [MAGIC, count, length]
}

/// Bytes before the first block's content (`GetIncrementalHeaderSize`).
pub fn header_bytes(blocks: usize) -> usize {
    let bare = FIXED_BYTES + 4 * blocks;
    if blocks == 0 { bare } else { bare.next_multiple_of(PAGE_BYTES) }
}

/// Reads a header out of a file that comes in pieces, and passes over the rest of it.
#[derive(Debug, Default)]
pub struct HeaderReader {
    fixed: Vec<u8>,
    header: IncrementalHeader,
    /// Blocks that have still to be named.
    missing: u32,
    number: Vec<u8>,
    /// Of all that came, content too.
    seen: u64,
}

impl HeaderReader {
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.seen += bytes.len() as u64;
        if self.fixed.len() < FIXED_BYTES {
            let taken = bytes.len().min(FIXED_BYTES - self.fixed.len());
            self.fixed.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.fixed.len() == FIXED_BYTES {
                self.begin()?;
            }
        }
        while self.missing > 0 && !bytes.is_empty() {
            let taken = bytes.len().min(4 - self.number.len());
            self.number.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let Ok(number) = <[u8; 4]>::try_from(self.number.as_slice()) {
                self.number.clear();
                self.missing -= 1;
                self.block(u32::from_le_bytes(number))?;
            }
        }
        Ok(())
    }

    /// The whole file has come; it must be as long as its header says.
    pub fn finish(self) -> Result<IncrementalHeader> {
        if self.fixed.len() < FIXED_BYTES || self.missing > 0 {
            return Err(wrong("ends within its header"));
        }
        if self.seen != self.header.file_size() {
            return Err(wrong("is not as long as its header says"));
        }
        Ok(self.header)
    }

    fn begin(&mut self) -> Result<()> {
        let (numbers, _) = self.fixed.as_chunks::<4>();
        let [magic, count, length] = [0, 1, 2].map(|at: usize| u32::from_le_bytes(numbers[at]));
        if magic != MAGIC {
            return Err(wrong("does not begin with its magic number"));
        }
        if count > BLOCKS_PER_FILE || length > BLOCKS_PER_FILE {
            return Err(wrong("names more blocks than a file has"));
        }
        self.missing = count;
        self.header.length = length;
        Ok(())
    }

    fn block(&mut self, block: u32) -> Result<()> {
        if block >= BLOCKS_PER_FILE || self.header.blocks.last().is_some_and(|last| *last >= block)
        {
            return Err(wrong("does not name its blocks in order"));
        }
        self.header.blocks.push(block);
        Ok(())
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("an incremental file {what}"))
        .hint("Take a full backup (--full), and report this with the server's version.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HeaderReader, IncrementalHeader};
    use crate::error::{ErrorKind, Result};
    use crate::postgres::page::{BLOCKS_PER_FILE, PAGE_BYTES};

    fn read(file: &[u8], piece: usize) -> Result<IncrementalHeader> {
        let mut reader = HeaderReader::default();
        for piece in file.chunks(piece) {
            reader.take(piece)?;
        }
        reader.finish()
    }

    /// With contents that look like headers.
    fn file(header: &IncrementalHeader) -> Vec<u8> {
        let mut file = header.to_bytes();
        file.resize(file.len() + header.blocks.len() * PAGE_BYTES, 0x0D);
        file
    }

    /// What a server of version 17 sent of a table of 417 blocks of which three had changed.
    #[test]
    fn a_header_is_written_as_the_server_writes_it() {
        let header = IncrementalHeader { length: 0x1a1, blocks: vec![0, 0xd0, 0x1a0] };
        let bytes = header.to_bytes();
        assert_eq!(bytes.len(), 8192);
        assert_eq!(header.file_size(), 32_768);
        assert_eq!(
            bytes[..24],
            [
                0x0d, 0x1f, 0xae, 0xd3, 3, 0, 0, 0, 0xa1, 1, 0, 0, 0, 0, 0, 0, 0xd0, 0, 0, 0, 0xa0,
                1, 0, 0
            ]
        );
        assert!(bytes[24..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn one_without_a_block_has_no_zeros_behind_it() {
        let header = IncrementalHeader { length: 5, blocks: Vec::new() };
        assert_eq!(header.to_bytes(), [0x0d, 0x1f, 0xae, 0xd3, 0, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(read(&header.to_bytes(), 5).unwrap(), header);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = file(&IncrementalHeader { length: 9, blocks: vec![1, 4] });
        let with = |at: usize, number: u32| {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&number.to_le_bytes());
            bad
        };
        let cases = [
            with(0, 1),
            with(4, 1),
            with(4, 3),
            with(4, u32::MAX),
            with(8, BLOCKS_PER_FILE + 1),
            with(12, 4),
            with(16, BLOCKS_PER_FILE),
            good[..good.len() - 1].to_vec(),
            good[..14].to_vec(),
            good[..5].to_vec(),
            Vec::new(),
        ];
        for bad in cases {
            assert_eq!(read(&bad, 1000).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        assert!(read(&good, 1).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_however_it_comes(
            length in 0..=BLOCKS_PER_FILE,
            blocks in prop::collection::btree_set(0..BLOCKS_PER_FILE, 0..40),
            piece in 1..20_000usize,
        ) {
            let header = IncrementalHeader { length, blocks: blocks.into_iter().collect() };
            prop_assert_eq!(read(&file(&header), piece).unwrap(), header);
        }

        #[test]
        fn no_bytes_can_break_the_reader(
            count in 0..200_000u32,
            rest in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            let fixed = [0xD3AE_1F0D, count, 7].map(u32::to_le_bytes).concat();
            let _ = read(&[&fixed[..], &rest[..]].concat(), 100);
            let _ = read(&rest, 7);
        }
    }
}

//! The layout of the tar stream, made before anything is copied: with it packs can be made
//! independently of each other.

use std::ops::Range;

use crate::error::Result;
use crate::postgres::data_files::{BLOCK_BYTES, RelationDirectory, RelationFileName};
use crate::postgres::{incremental_file, tar_header};
use crate::repository::manifest::{FileEntry, FileKind, Part};
use crate::repository::sums::CHUNK_BYTES;

const TAR_BLOCK: u64 = tar_header::BLOCK_BYTES as u64;

/// All entries, in the order of the stream.
#[derive(Debug, Default)]
pub struct Plan {
    entries: Vec<Planned>,
    end: u64,
    chunks: usize,
    size: u64,
}

/// One entry of the stream.
#[derive(Debug)]
pub struct Planned {
    /// Relative to the data directory, without a slash at its end.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
    /// Bytes of content in the stream; 0 for a directory.
    pub size: u64,
    /// Where the content begins in the stream.
    pub offset: u64,
    /// How many chunks with checksums stand before those of this one.
    pub first_chunk: usize,
    pub content: Content,
}

/// Where the content of an entry comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Directory,
    /// The file itself, from its beginning, as far as the entry is long; zeros where it has become
    /// shorter meanwhile.
    File,
    /// Read already: a small file that is no relation's.
    Bytes(Box<[u8]>),
    /// A file in PostgreSQL's incremental format, put together from blocks of another.
    Blocks(Box<Blocks>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// The file that the blocks are read from, relative to the data directory.
    pub path: String,
    pub part: Part,
    /// How many blocks stand before each run of `part`, and at last how many there are.
    before: Vec<u32>,
}

/// An entry that has no place yet.
#[derive(Debug)]
pub struct Item {
    pub path: String,
    pub mode: u32,
    pub modified: i64,
    /// Bytes of content; 0 for a directory.
    pub size: u64,
    pub content: Content,
}

impl Plan {
    /// Gives each item its place, one after the other.
    pub fn new(items: impl IntoIterator<Item = Item>) -> Plan {
        let mut plan = Plan::default();
        for item in items {
            plan.push(item);
        }
        plan
    }

    /// One more at the end.
    pub fn push(&mut self, item: Item) {
        let Item { path, mode, modified, size, content } = item;
        let (offset, first_chunk) = (self.end + TAR_BLOCK, self.chunks);
        let planned = Planned { path, mode, modified, size, offset, first_chunk, content };
        self.end = offset + size.next_multiple_of(TAR_BLOCK);
        self.chunks += planned.chunks();
        self.size += size;
        self.entries.push(planned);
    }

    pub fn entries(&self) -> &[Planned] {
        &self.entries
    }

    pub fn into_entries(self) -> impl Iterator<Item = Planned> {
        self.entries.into_iter()
    }

    /// Where the stream is after the last entry.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of content of all entries.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many chunks have checksums.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// The entries that have a byte in `range`: of their header, their content, or the zeros
    /// behind it.
    pub fn overlapping(&self, range: &Range<u64>) -> Range<usize> {
        let first = self.entries.partition_point(|entry| entry.end() <= range.start);
        let end = self.entries.partition_point(|entry| entry.offset - TAR_BLOCK < range.end);
        first..end.max(first)
    }
}

impl Planned {
    pub fn header(&self) -> Result<[u8; tar_header::BLOCK_BYTES]> {
        let slash = if self.content == Content::Directory { "/" } else { "" };
        tar_header::bytes(&format!("{}{slash}", self.path), self.mode, self.size, self.modified)
    }

    /// Where its header begins.
    pub fn start(&self) -> u64 {
        self.offset - TAR_BLOCK
    }

    /// Where the next entry begins.
    pub fn end(&self) -> u64 {
        self.offset + self.size.next_multiple_of(TAR_BLOCK)
    }

    /// How many chunks of it have checksums: those of whole files.
    pub fn chunks(&self) -> usize {
        match self.content {
            Content::File | Content::Bytes(_) => self.size.div_ceil(CHUNK_BYTES as u64) as usize,
            Content::Directory | Content::Blocks(_) => 0,
        }
    }

    /// Whether a frame begins with its content, and with each chunk of it.
    pub fn is_large(&self) -> bool {
        self.size >= CHUNK_BYTES as u64
    }

    /// The file that its content is read from.
    pub fn file(&self) -> &str {
        match &self.content {
            Content::Blocks(blocks) => &blocks.path,
            Content::Directory | Content::File | Content::Bytes(_) => &self.path,
        }
    }

    /// The relation whose pages it holds.
    pub fn relation(&self) -> Option<(RelationDirectory, RelationFileName)> {
        match &self.content {
            Content::File | Content::Blocks(_) => RelationDirectory::of_file(self.file()),
            Content::Directory | Content::Bytes(_) => None,
        }
    }

    /// As the backup's manifest has it.
    pub fn into_manifest(self) -> FileEntry {
        let (kind, part) = match self.content {
            Content::Directory => (FileKind::Directory, None),
            Content::File | Content::Bytes(_) => (FileKind::File, None),
            Content::Blocks(blocks) => (FileKind::File, Some(blocks.part)),
        };
        FileEntry {
            path: self.path,
            kind,
            mode: self.mode,
            size: self.size,
            offset: self.offset,
            modified: self.modified,
            part,
        }
    }
}

impl Blocks {
    /// `runs` of blocks, rising and apart, of a file of `length` blocks.
    pub fn new(path: String, length: u32, runs: Vec<(u32, u32)>) -> Blocks {
        let mut before = vec![0];
        let mut count = 0;
        for (_, blocks) in &runs {
            count += blocks;
            before.push(count);
        }
        let header = incremental_file::header_bytes(count as usize) as u32;
        Blocks { path, part: Part { length, header, blocks: runs }, before }
    }

    /// Bytes of the whole entry.
    pub fn size(&self) -> u64 {
        self.header_bytes() + u64::from(self.count()) * BLOCK_BYTES as u64
    }

    /// What stands before the first block, padding included.
    pub fn header_bytes(&self) -> u64 {
        u64::from(self.part.header)
    }

    /// Writes a part of the header, from `at` on, over zeros. It is made anew each time: of many
    /// files it would cost much memory.
    pub fn fill_header(&self, at: u64, buffer: &mut [u8]) {
        let start = incremental_file::start(self.count(), self.part.length);
        let blocks = u64::from(self.count());
        let mut done = 0;
        while done < buffer.len() {
            let (word, into) = ((at + done as u64) / 4, ((at + done as u64) % 4) as usize);
            let number = match word.checked_sub(start.len() as u64) {
                None => start[word as usize],
                Some(index) if index < blocks => self.block_at(index).map_or(0, |(it, _)| it),
                Some(_) => break,
            };
            let bytes = &number.to_le_bytes()[into..];
            let length = bytes.len().min(buffer.len() - done);
            buffer[done..done + length].copy_from_slice(&bytes[..length]);
            done += length;
        }
    }

    /// The block of the file that the entry has at `index`, and how many there are from it on
    /// without a gap.
    pub fn block_at(&self, index: u64) -> Option<(u32, u32)> {
        let index = u32::try_from(index).ok().filter(|index| *index < self.count())?;
        let run = self.before.partition_point(|before| *before <= index) - 1;
        let (first, count) = self.part.blocks[run];
        let ahead = index - self.before[run];
        Some((first + ahead, count - ahead))
    }

    fn count(&self) -> u32 {
        self.before.last().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Blocks;

    #[test]
    fn the_header_of_a_part_can_be_made_from_anywhere() {
        let runs = vec![(0, 1), (7, 3000), (5000, 2)];
        let blocks = Blocks::new("base/5/1".to_owned(), 6000, runs);
        let whole = blocks.part.incremental_header().to_bytes();
        assert_eq!(blocks.header_bytes(), whole.len() as u64);
        assert_eq!(blocks.size(), whole.len() as u64 + 3003 * 8192);
        for (at, length) in [(0, whole.len()), (1, 30), (10, 2), (11_000, 2000), (12_020, 300)] {
            let mut part = vec![0; length];
            blocks.fill_header(at as u64, &mut part);
            assert_eq!(part, whole[at..at + length], "{at}");
        }
        assert_eq!(blocks.block_at(0), Some((0, 1)));
        assert_eq!(blocks.block_at(1), Some((7, 3000)));
        assert_eq!(blocks.block_at(3000), Some((3006, 1)));
        assert_eq!(blocks.block_at(3002), Some((5001, 1)));
        assert_eq!(blocks.block_at(3003), None);
        let none = Blocks::new("base/5/1".to_owned(), 9, Vec::new());
        let mut header = [0; 12];
        none.fill_header(0, &mut header);
        assert_eq!((header.to_vec(), none.size()), (none.part.incremental_header().to_bytes(), 12));
    }
}

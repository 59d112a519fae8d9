//! The layout of the tar stream, made before anything is copied: with it packs can be made
//! independently of each other.

use std::ops::Range;

use crate::error::Result;
use crate::postgres::data_files::{BLOCK_BYTES, RelationDirectory, RelationFileName};
use crate::postgres::tar_header;
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
    /// What stands before the first block, padding included: `part.header` bytes.
    pub header: Box<[u8]>,
    pub part: Part,
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

    /// The relation whose pages it holds.
    pub fn relation(&self) -> Option<(RelationDirectory, RelationFileName)> {
        match &self.content {
            Content::File => RelationDirectory::of_file(&self.path),
            Content::Blocks(blocks) => RelationDirectory::of_file(&blocks.path),
            Content::Directory | Content::Bytes(_) => None,
        }
    }

    pub fn manifest_entry(&self) -> FileEntry {
        let (kind, part) = match &self.content {
            Content::Directory => (FileKind::Directory, None),
            Content::File | Content::Bytes(_) => (FileKind::File, None),
            Content::Blocks(blocks) => (FileKind::File, Some(blocks.part.clone())),
        };
        FileEntry {
            path: self.path.clone(),
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
    /// Bytes of the whole entry.
    pub fn size(&self) -> u64 {
        let blocks: u64 = self.part.blocks.iter().map(|(_, count)| u64::from(*count)).sum();
        self.header.len() as u64 + blocks * BLOCK_BYTES as u64
    }

    /// The block of the file that the entry has at `index`, and how many follow it without a gap.
    pub fn block_at(&self, index: u64) -> Option<(u32, u32)> {
        let mut left = index;
        for (first, count) in &self.part.blocks {
            if left < u64::from(*count) {
                let ahead = left as u32;
                return Some((first + ahead, count - ahead));
            }
            left -= u64::from(*count);
        }
        None
    }
}

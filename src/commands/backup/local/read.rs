//! Reads the content of entries: the one place where files of the cluster are read while packs are
//! made.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use crate::commands::backup::halt::{Halt, others_stopped};
use crate::commands::backup::local::plan::{Blocks, Content, Planned};
use crate::commands::backup::local::walk::unreadable;
use crate::commands::progress::Progress;
use crate::error::Result;
use crate::host::bandwidth::Bandwidth;
use crate::host::page_cache;
use crate::postgres::page::{PAGE_BYTES, Page};

/// What all that read share.
pub struct Reader<'r> {
    pub pgdata: &'r Path,
    pub bandwidth: &'r Bandwidth,
    pub progress: &'r Progress,
    pub halt: &'r Halt<'r>,
}

/// An entry whose content is being read.
pub struct Opened<'o> {
    entry: &'o Planned,
    /// `None` where there is nothing to open, or not any more.
    file: Option<File>,
    is_gone: bool,
}

impl Reader<'_> {
    pub fn open<'o>(&self, entry: &'o Planned) -> Result<Opened<'o>> {
        let path = match &entry.content {
            Content::Directory | Content::Bytes(_) => {
                return Ok(Opened { entry, file: None, is_gone: false });
            }
            Content::File => &entry.path,
            Content::Blocks(blocks) => &blocks.path,
        };
        let path = self.pgdata.join(path);
        match File::open(&path) {
            Ok(file) => Ok(Opened { entry, file: Some(file), is_gone: false }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Opened { entry, file: None, is_gone: true })
            }
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    /// Fills `buffer`, which holds zeros, with the content from `at` on; what is no longer there
    /// stays zeros.
    pub fn fill(&self, opened: &Opened<'_>, at: u64, buffer: &mut [u8]) -> Result<()> {
        if self.halt.is_on() {
            return Err(others_stopped());
        }
        self.peek(opened, at, buffer)?;
        self.progress.add(buffer.len() as u64);
        Ok(())
    }

    /// The same for what is filled in somewhere else too.
    pub fn peek(&self, opened: &Opened<'_>, at: u64, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len() as u64;
        match &opened.entry.content {
            Content::Directory => {}
            Content::Bytes(bytes) => buffer.copy_from_slice(&bytes[within(at, length)]),
            Content::File => self.read_at(opened, at, buffer)?,
            Content::Blocks(blocks) => self.fill_from_blocks(opened, blocks, at, buffer)?,
        }
        Ok(())
    }

    /// One block once more; `false` where it is no longer there.
    pub fn read_again(&self, opened: &Opened<'_>, block: u32, page: &mut Page) -> bool {
        let Some(file) = &opened.file else { return false };
        let at = u64::from(block) * PAGE_BYTES as u64;
        std::os::unix::fs::FileExt::read_exact_at(file, page, at).is_ok()
    }

    fn fill_from_blocks(
        &self,
        opened: &Opened<'_>,
        blocks: &Blocks,
        at: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let header = blocks.header_bytes();
        let mut done = 0;
        if at < header {
            done = buffer.len().min((header - at) as usize);
            blocks.fill_header(at, &mut buffer[..done]);
        }
        while done < buffer.len() {
            let content = at + done as u64 - header;
            let (index, into) = (content / PAGE_BYTES as u64, content % PAGE_BYTES as u64);
            let Some((block, count)) = blocks.block_at(index) else { break };
            let run = u64::from(count) * PAGE_BYTES as u64 - into;
            let end = buffer.len().min(done + usize::try_from(run).unwrap_or(usize::MAX));
            let place = u64::from(block) * PAGE_BYTES as u64 + into;
            self.read_at(opened, place, &mut buffer[done..end])?;
            done = end;
        }
        Ok(())
    }

    /// Everything read of the cluster's large files comes by here.
    fn read_at(&self, opened: &Opened<'_>, at: u64, buffer: &mut [u8]) -> Result<()> {
        let Some(file) = &opened.file else { return Ok(()) };
        if !self.bandwidth.take(buffer.len() as u64, &|| self.halt.is_on()) {
            return Err(others_stopped());
        }
        let read = page_cache::read_at_sparing(file, buffer, at);
        read.map_err(|error| unreadable(&self.pgdata.join(&opened.entry.path), error))?;
        Ok(())
    }
}

impl Opened<'_> {
    /// The file was removed since the plan was made.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }
}

fn within(at: u64, length: u64) -> Range<usize> {
    at as usize..(at + length) as usize
}

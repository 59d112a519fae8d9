//! Reads the content of entries: the one place where files of the cluster are read while packs are
//! made.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::commands::backup::halt::{Halt, others_stopped};
use crate::commands::backup::local::plan::{Blocks, Content, Planned};
use crate::commands::backup::local::walk::unreadable;
use crate::commands::progress::Progress;
use crate::error::{Error, Result};
use crate::host::bandwidth::Bandwidth;
use crate::host::page_cache;
use crate::host::read_ahead::ReadAhead;
use crate::postgres::page::{PAGE_BYTES, Page};

/// What is asked of the disk at once: with less it is slower by half, where nothing is read ahead.
const WINDOW_BYTES: u64 = 2 << 20;

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
    file: Option<Arc<File>>,
    is_gone: bool,
    window: RefCell<Window>,
}

/// What was read of a file and not yet asked for, while it is read from its beginning to its end.
#[derive(Default)]
struct Window {
    at: u64,
    bytes: Vec<u8>,
    /// Nothing beyond it is asked for.
    end: u64,
    /// Has the next ones ready, where this is not the only one.
    ahead: Option<ReadAhead>,
}

impl Reader<'_> {
    /// What is asked for of the entry lies before `end`.
    pub fn open<'o>(&self, entry: &'o Planned, end: u64) -> Result<Opened<'o>> {
        let opened = |file, is_gone| {
            let window = RefCell::new(Window { end, ..Window::default() });
            Opened { entry, file, is_gone, window }
        };
        let path = match &entry.content {
            Content::Directory | Content::Bytes(_) => {
                return Ok(opened(None, false));
            }
            Content::File => &entry.path,
            Content::Blocks(blocks) => &blocks.path,
        };
        let path = self.pgdata.join(path);
        match File::open(&path) {
            Ok(file) => {
                page_cache::read_nothing_ahead(&file);
                Ok(opened(Some(Arc::new(file)), false))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(opened(None, true)),
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
            Content::File => self.read_on(opened, at, buffer)?,
            Content::Blocks(blocks) => self.fill_from_blocks(opened, blocks, at, buffer)?,
        }
        Ok(())
    }

    /// One block once more; `false` where it is no longer there.
    pub fn read_again(&self, opened: &Opened<'_>, block: u32, page: &mut Page) -> bool {
        let Some(file) = opened.file.as_deref() else { return false };
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

    /// A file that is read from one end to the other, in large pieces.
    fn read_on(&self, opened: &Opened<'_>, at: u64, buffer: &mut [u8]) -> Result<()> {
        let mut window = opened.window.borrow_mut();
        let mut done = 0;
        while done < buffer.len() {
            let at = at + done as u64;
            let read = window.from(at);
            if read.is_empty() {
                if window.end <= at {
                    return self.read_at(opened, at, &mut buffer[done..]);
                }
                self.refill(opened, at, &mut window)?;
                continue;
            }
            let length = read.len().min(buffer.len() - done);
            buffer[done..done + length].copy_from_slice(&read[..length]);
            done += length;
        }
        Ok(())
    }

    fn refill(&self, opened: &Opened<'_>, at: u64, window: &mut Window) -> Result<()> {
        let length = WINDOW_BYTES.min(window.end - at) as usize;
        window.at = at;
        if window.begin_ahead(opened, at)
            && let Some(ahead) = &mut window.ahead
        {
            self.wait_for_turn(length)?;
            let piece = ahead.next(std::mem::take(&mut window.bytes));
            window.bytes = piece.map_err(|error| self.unreadable(opened, error))?;
            return Ok(());
        }
        window.bytes.clear();
        window.bytes.resize(length, 0);
        self.read_at(opened, at, &mut window.bytes)
    }

    fn read_at(&self, opened: &Opened<'_>, at: u64, buffer: &mut [u8]) -> Result<()> {
        let Some(file) = &opened.file else { return Ok(()) };
        self.wait_for_turn(buffer.len())?;
        let read = page_cache::read_at_sparing(file, buffer, at);
        read.map_err(|error| self.unreadable(opened, error))?;
        Ok(())
    }

    /// Everything read of the cluster's large files is counted here.
    fn wait_for_turn(&self, length: usize) -> Result<()> {
        match self.bandwidth.take(length as u64, &|| self.halt.is_on()) {
            true => Ok(()),
            false => Err(others_stopped()),
        }
    }

    fn unreadable(&self, opened: &Opened<'_>, error: io::Error) -> Error {
        unreadable(&self.pgdata.join(&opened.entry.path), error)
    }
}

impl Window {
    /// Whether the window that begins at `at` comes from a thread that reads ahead; where no thread
    /// can be had, none does.
    fn begin_ahead(&mut self, opened: &Opened<'_>, at: u64) -> bool {
        let range = at..self.end;
        if self.ahead.is_none()
            && range.end - range.start > WINDOW_BYTES
            && let Some(file) = &opened.file
        {
            self.ahead = ReadAhead::begin(file.clone(), range, WINDOW_BYTES as usize).ok();
        }
        self.ahead.as_ref().is_some_and(|ahead| ahead.at() == at)
    }

    /// What of it begins at this place of the file.
    fn from(&self, at: u64) -> &[u8] {
        let skipped = at.checked_sub(self.at).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| self.bytes.get(skipped..)).unwrap_or_default()
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

//! Checks the pages of relations on their way, by the rules of PostgreSQL.
//!
//! A page whose LSN is at or after the start of the backup may have been written while it was
//! read; replay writes it anew, whatever was read of it (`verify_page_checksum`, basebackup.c). The
//! server leaves it at that; here such an LSN must also be one that there was by the end of the
//! backup, else it is as damaged as the rest of the page.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::commands::backup::local::plan::{Content, Planned};
use crate::postgres::Lsn;
use crate::postgres::data_files::RelationFileName;
use crate::postgres::page::{self, Mismatch, PAGE_BYTES, Page};
use crate::repository::manifest::DamagedPage;

/// How often a page is read again that looks damaged: its write may be under way.
const ATTEMPTS_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);
/// Beyond so many a disk is broken, and waiting for each page would take for ever.
const PATIENT_WITH: u64 = 100;
/// More are counted, not listed.
const LISTED_MAX: usize = 1000;
const SUSPECTS_MAX: usize = 100_000;

/// Pages that are damaged on the disk of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// How many.
    pub count: u64,
    /// Where: not all of very many.
    pub pages: Vec<DamagedPage>,
}

/// The check, and what it found so far.
#[derive(Debug)]
pub struct PageCheck {
    /// `None`: the cluster has no checksums.
    rules: Option<Rules>,
    found: Mutex<Damage>,
    /// Pages that do not match their checksum and have an LSN since the start.
    suspects: Mutex<Vec<(Lsn, DamagedPage)>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub start_lsn: Lsn,
    /// Blocks in each file of a relation but the last.
    pub blocks_per_file: u32,
}

/// The pages of one entry.
pub struct Pages<'p> {
    check: &'p PageCheck,
    rules: Rules,
    entry: &'p Planned,
    /// In the whole relation.
    first_block: u32,
}

impl PageCheck {
    pub fn new(rules: Option<Rules>) -> Self {
        PageCheck { rules, found: Mutex::default(), suspects: Mutex::default() }
    }

    /// `None` where the entry holds no pages, or none that can be checked.
    pub fn of<'p>(&'p self, entry: &'p Planned) -> Option<Pages<'p>> {
        let rules = self.rules?;
        let (_, RelationFileName { segment, .. }) = entry.relation()?;
        let first_block = segment.checked_mul(rules.blocks_per_file)?;
        Some(Pages { check: self, rules, entry, first_block })
    }

    /// `end_lsn`: no page was written with a later one before the backup ended.
    pub fn finish(self, end_lsn: Lsn) -> Damage {
        let suspects = std::mem::take(&mut *locked(&self.suspects));
        for (_, damaged) in suspects.into_iter().filter(|(lsn, _)| *lsn > end_lsn) {
            self.report(damaged);
        }
        let mut found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.pages.sort_by(|one, other| (&one.path, one.block).cmp(&(&other.path, other.block)));
        found
    }

    fn report(&self, damaged: DamagedPage) {
        let mut found = locked(&self.found);
        found.count += 1;
        if found.pages.len() < LISTED_MAX {
            found.pages.push(damaged);
        }
    }

    /// Either replay writes it anew, or what stands in it is no LSN: that the end will tell.
    fn suspect(&self, lsn: Lsn, damaged: DamagedPage) {
        let mut suspects = locked(&self.suspects);
        if suspects.len() < SUSPECTS_MAX {
            suspects.push((lsn, damaged));
        }
    }

    fn is_patient(&self) -> bool {
        locked(&self.found).count + (locked(&self.suspects).len() as u64) < PATIENT_WITH
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pages<'_> {
    /// Checks the pages in `content`, which stands at `at` of the entry and begins with a page.
    /// What is right when read again replaces what was read first.
    pub fn check(&self, at: u64, content: &mut [u8], read_again: &dyn Fn(u32, &mut Page) -> bool) {
        // The beginning of a page that was being appended is no page yet.
        let (pages, _) = content.as_chunks_mut::<PAGE_BYTES>();
        for (number, page) in pages.iter_mut().enumerate() {
            let Some(block) = self.block(at / PAGE_BYTES as u64 + number as u64) else { continue };
            if let Err(mismatch) = self.judge(block, page) {
                self.try_again(block, page, mismatch, read_again);
            }
        }
    }

    /// The block of the file that the entry has as its page `index`.
    fn block(&self, index: u64) -> Option<u32> {
        match &self.entry.content {
            Content::File => u32::try_from(index).ok(),
            Content::Blocks(blocks) => {
                let header = blocks.header_bytes();
                let index = index.checked_sub(header / PAGE_BYTES as u64)?;
                let is_aligned = header.is_multiple_of(PAGE_BYTES as u64);
                blocks.block_at(index).filter(|_| is_aligned).map(|(block, _)| block)
            }
            Content::Directory | Content::Bytes(_) => None,
        }
    }

    fn judge(&self, block: u32, page: &Page) -> Result<(), Mismatch> {
        page::check(page, self.first_block.wrapping_add(block))
    }

    fn try_again(
        &self,
        block: u32,
        page: &mut Page,
        mut mismatch: Mismatch,
        read_again: &dyn Fn(u32, &mut Page) -> bool,
    ) {
        let attempts = if self.check.is_patient() { ATTEMPTS_MAX } else { 1 };
        let mut fresh = Box::new([0; PAGE_BYTES]);
        for attempt in 0..attempts {
            if !read_again(block, &mut fresh) {
                // It was truncated away: replay does the same.
                return;
            }
            match self.judge(block, &fresh) {
                Ok(()) => {
                    page.copy_from_slice(&*fresh);
                    return;
                }
                Err(again) => mismatch = again,
            }
            if attempt + 1 < attempts {
                thread::sleep(PAUSE * (attempt + 1));
            }
        }
        let path = self.entry.file().to_owned();
        let damaged = DamagedPage { path, block, what: mismatch.to_string(), relation: None };
        match page::lsn(&fresh) {
            lsn if lsn >= self.rules.start_lsn && !page::is_new(&fresh) => {
                self.check.suspect(lsn, damaged);
            }
            _ => self.check.report(damaged),
        }
    }
}

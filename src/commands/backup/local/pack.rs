//! Makes packs of a planned stream, each by itself: reads, checks, takes checksums, compresses.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crc_fast::{CrcAlgorithm, Digest};

use crate::commands::backup::local::frames::PackWriter;
use crate::commands::backup::local::pages::PageCheck;
use crate::commands::backup::local::plan::{Content, Plan, Planned};
use crate::commands::backup::local::read::{Opened, Reader};
use crate::commands::backup::local::seams::{Half, Seams};
use crate::error::Result;
use crate::postgres::page::PAGE_BYTES;
use crate::repository::sums::{self, CHUNK_BYTES};

const CHUNK: u64 = CHUNK_BYTES as u64;
const PAGE: u64 = PAGE_BYTES as u64;
const ZEROS: [u8; 4096] = [0; 4096];

/// What the content of all entries came to, as far as it was made.
#[derive(Debug, Default)]
pub struct Findings {
    /// XXH3 of each chunk, as the plan counts them.
    sums: Vec<AtomicU64>,
    /// Of each stretch of an entry that lies in one pack.
    stretches: Mutex<Vec<Stretch>>,
    /// The entries whose file was removed meanwhile.
    gone: Mutex<BTreeSet<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stretch {
    entry: usize,
    from: u64,
    length: u64,
    crc32c: u32,
}

/// Makes any stretch of the stream.
pub struct Maker<'m> {
    pub plan: &'m Plan,
    pub reader: &'m Reader<'m>,
    pub pages: &'m PageCheck,
    pub seams: &'m Seams,
    pub findings: &'m Findings,
}

impl Maker<'_> {
    /// Writes the bytes of the stream in `range`, which does not go beyond one pack. What comes
    /// after the last entry is zeros.
    pub fn make(&self, range: Range<u64>, out: &mut PackWriter) -> Result<()> {
        for number in self.plan.overlapping(&range) {
            let entry = &self.plan.entries()[number];
            let header = overlap(&range, entry.start()..entry.offset);
            if !header.is_empty() {
                let [from, to] = [header.start, header.end].map(|at| (at - entry.start()) as usize);
                out.write(&entry.header()?[from..to])?;
            }
            let content = overlap(&range, entry.offset..entry.offset + entry.size);
            if !content.is_empty() {
                self.content(
                    number,
                    content.start - entry.offset..content.end - entry.offset,
                    out,
                )?;
            }
            zeros(overlap(&range, entry.offset + entry.size..entry.end()), out)?;
        }
        zeros(overlap(&range, self.plan.end()..u64::MAX), out)
    }

    /// The stretch `part` of an entry's content.
    fn content(&self, number: usize, part: Range<u64>, out: &mut PackWriter) -> Result<()> {
        let entry = &self.plan.entries()[number];
        let opened = self.reader.open(entry, part.end)?;
        if opened.is_gone() {
            self.findings.note_gone(number);
        }
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut at = part.start;
        while at < part.end {
            let end = part.end.min((at / CHUNK + 1) * CHUNK);
            if entry.is_large() && at.is_multiple_of(CHUNK) {
                out.cut()?;
            }
            let bytes = out.room((end - at) as usize);
            self.reader.fill(&opened, at, bytes)?;
            self.check(entry, &opened, at, bytes)?;
            digest.update(bytes);
            out.settle()?;
            at = end;
        }
        self.findings.note_stretch(Stretch {
            entry: number,
            from: part.start,
            length: part.end - part.start,
            crc32c: digest.finalize() as u32,
        });
        Ok(())
    }

    /// Page checks and the checksum of the chunk that `bytes` are, or are a part of.
    fn check(&self, entry: &Planned, opened: &Opened<'_>, at: u64, bytes: &mut [u8]) -> Result<()> {
        let first = at - at % CHUNK;
        let end = entry.size.min(first + CHUNK);
        if (at, at + bytes.len() as u64) == (first, end) {
            self.check_pages(entry, opened, first, bytes);
            self.note_sum(entry, first, bytes);
            return Ok(());
        }
        if entry.relation().is_some() {
            self.check_part(entry, opened, at, bytes)?;
        }
        let half = if at == first { Half::First } else { Half::Second };
        if let Some(whole) = self.seams.join(entry.offset + first, half, bytes) {
            self.note_sum(entry, first, &whole);
        }
        Ok(())
    }

    /// Pages are taken whole also where two packs share one: the halves of two states of a page
    /// are no page.
    fn check_part(
        &self,
        entry: &Planned,
        opened: &Opened<'_>,
        at: u64,
        bytes: &mut [u8],
    ) -> Result<()> {
        let end = at + bytes.len() as u64;
        let first = at.next_multiple_of(PAGE).min(end);
        let last = (end - end % PAGE).max(first);
        let place = |at_entry: u64| (at_entry - at) as usize;
        if first > at {
            let page = self.shared_page(entry, opened, at - at % PAGE)?;
            let from = (at % PAGE) as usize;
            bytes[..place(first)].copy_from_slice(&page[from..from + place(first)]);
        }
        self.check_pages(entry, opened, first, &mut bytes[place(first)..place(last)]);
        if last < end && end < entry.size {
            let page = self.shared_page(entry, opened, last)?;
            bytes[place(last)..].copy_from_slice(&page[..(end - last) as usize]);
        }
        Ok(())
    }

    /// Read once for both packs. The last one of a file may be short.
    fn shared_page(&self, entry: &Planned, opened: &Opened<'_>, at: u64) -> Result<Vec<u8>> {
        self.seams.page(entry.offset + at, || {
            let mut page = vec![0; PAGE.min(entry.size - at) as usize];
            self.reader.peek(opened, at, &mut page)?;
            self.check_pages(entry, opened, at, &mut page);
            Ok(page)
        })
    }

    fn check_pages(&self, entry: &Planned, opened: &Opened<'_>, at: u64, bytes: &mut [u8]) {
        if let Some(pages) = self.pages.of(entry) {
            pages.check(at, bytes, &|block, page| self.reader.read_again(opened, block, page));
        }
    }

    fn note_sum(&self, entry: &Planned, at: u64, bytes: &[u8]) {
        if !matches!(entry.content, Content::Blocks(_)) {
            let chunk = entry.first_chunk + (at / CHUNK) as usize;
            self.findings.sums[chunk].store(sums::sum(bytes), Ordering::Relaxed);
        }
    }
}

impl Findings {
    /// Room for the checksums of so many chunks.
    pub fn expect_chunks(&mut self, chunks: usize) {
        self.sums.resize_with(chunks, AtomicU64::default);
    }

    /// The entries whose file was removed before it was read.
    pub fn gone(&self) -> BTreeSet<usize> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Of the chunks of one entry.
    pub fn sums_of(&self, entry: &Planned) -> impl Iterator<Item = u64> + '_ {
        let sums = &self.sums[entry.first_chunk..entry.first_chunk + entry.chunks()];
        sums.iter().map(|sum| sum.load(Ordering::Relaxed))
    }

    /// CRC-32C of the content of each of `entries` entries, stretch by stretch.
    pub fn crcs(&self, entries: usize) -> Vec<u32> {
        let mut stretches = self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
        stretches.sort_unstable();
        let mut crcs = vec![0; entries];
        for Stretch { entry, from, length, crc32c } in stretches.iter() {
            crcs[*entry] = match from {
                0 => *crc32c,
                _ => crc_fast::checksum_combine(
                    CrcAlgorithm::Crc32Iscsi,
                    u64::from(crcs[*entry]),
                    u64::from(*crc32c),
                    *length,
                ) as u32,
            };
        }
        crcs
    }

    fn note_stretch(&self, stretch: Stretch) {
        self.stretches.lock().unwrap_or_else(PoisonError::into_inner).push(stretch);
    }

    fn note_gone(&self, entry: usize) {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).insert(entry);
    }
}

fn overlap(one: &Range<u64>, other: Range<u64>) -> Range<u64> {
    let start = one.start.max(other.start);
    start..one.end.min(other.end).max(start)
}

fn zeros(range: Range<u64>, out: &mut PackWriter) -> Result<()> {
    let mut left = (range.end - range.start) as usize;
    while left > 0 {
        let now = left.min(ZEROS.len());
        out.write(&ZEROS[..now])?;
        left -= now;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Reads the records of one segment that comes in pieces of any length.
//!
//! Every record that lies whole in the segment is checked (its length, its link to the record
//! before, its CRC-32C) and handed on without a copy where it lies in one page of a piece. As
//! PostgreSQL does, it stops at the first that is not valid: there is no way to find the next.

mod open_record;
mod outcome;
#[cfg(test)]
mod tests;

use open_record::OpenRecord;
pub use outcome::{Continued, Invalid, Outcome, Unfinished};

use crate::postgres::wal::page::{
    LONG_HEADER_BYTES, LongPageHeader, PageHeader, SHORT_HEADER_BYTES,
};
use crate::postgres::wal::record::{Checksum, HEADER_BYTES, Record, RecordHeader, ResourceManager};
use crate::postgres::wal::segment::{is_possible_block_size, is_possible_segment_size};
use crate::postgres::{Lsn, MajorVersion, SegmentName};

/// `XLOG_SWITCH`: the rest of the segment is not used.
const SWITCH: u8 = 0x40;
/// Records are aligned to it (`MAXALIGN`).
const ALIGNMENT: u64 = 8;
/// The rest of a record from the segment before is kept if it is not longer.
const CONTINUED_BYTES_MAX: u32 = 2 << 10;

/// Takes a segment in pieces of any length.
#[derive(Debug)]
pub struct Reader {
    name: SegmentName,
    /// Of the rest of a record from the segment before.
    continued_bytes_max: u32,
    /// A `.partial`: what is not valid ends the WAL there and is no damage.
    is_partial: bool,
    /// Bytes that have come.
    position: u64,
    page_header: [u8; LONG_HEADER_BYTES],
    layout: Option<Layout>,
    state: State,
    /// Of the last page.
    timeline: u32,
    /// Where the last whole record begins.
    previous: Option<Lsn>,
    checksum: Checksum,
    open: OpenRecord,
    outcome: Outcome,
    /// So far nothing but zeros follow what is not valid.
    only_zeros_follow: bool,
}

/// What the first page says of the whole segment.
#[derive(Debug, Clone, Copy)]
struct Layout {
    version: MajorVersion,
    magic: u16,
    block_size: u64,
    start: Lsn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next record begins at the next aligned place.
    Between,
    /// The record in `open` is not whole yet.
    Within,
    /// In the rest of a record of the segment before: bytes that remain.
    Continuing(u32),
    /// Nothing more is read: after a segment switch, or of an unknown version.
    Done,
    /// After what is not valid.
    Ended,
}

/// Reads a whole segment; `visit` sees every record in order.
pub fn read_segment<'a>(
    name: SegmentName,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    mut visit: impl FnMut(&Record<'_>),
) -> Outcome {
    let mut reader = Reader::new(name);
    for piece in pieces {
        reader.write(piece, &mut visit);
    }
    reader.finish()
}

impl Reader {
    pub fn new(name: SegmentName) -> Self {
        Reader {
            name,
            continued_bytes_max: CONTINUED_BYTES_MAX,
            is_partial: false,
            position: 0,
            page_header: [0; LONG_HEADER_BYTES],
            layout: None,
            state: State::Between,
            timeline: 0,
            previous: None,
            checksum: Checksum::default(),
            open: OpenRecord::default(),
            outcome: Outcome::default(),
            only_zeros_follow: false,
        }
    }

    /// Of a file whose end may be what a recycled one held before: what is not valid ends the WAL.
    pub fn of_partial(name: SegmentName) -> Self {
        Reader { is_partial: true, ..Reader::new(name) }
    }

    /// Of a segment the neighbours of which are read as well: keeps all that records across two of
    /// them have here.
    pub fn keeping_all(name: SegmentName) -> Self {
        Reader { continued_bytes_max: u32::MAX, ..Reader::new(name) }
    }

    pub fn write(&mut self, mut piece: &[u8], visit: &mut impl FnMut(&Record<'_>)) {
        while !piece.is_empty() {
            let taken = match self.state {
                State::Done => piece.len(),
                State::Ended => {
                    self.only_zeros_follow &= piece.iter().all(|byte| *byte == 0);
                    piece.len()
                }
                _ => self.page(piece, visit),
            };
            self.position += taken as u64;
            piece = &piece[taken..];
        }
    }

    /// The whole segment has come.
    pub fn finish(mut self) -> Outcome {
        let size = self.outcome.segment_size;
        let is_unknown = size != 0 && self.layout.is_none();
        let is_whole = size != 0 && self.position == u64::from(size);
        if self.state != State::Ended && !is_unknown && !is_whole {
            self.fail(self.here(0), "file does not end where the segment does");
        }
        if self.state == State::Within && self.open.total != 0 {
            self.keep_unfinished();
        }
        if let Some(invalid) = &mut self.outcome.invalid {
            invalid.only_zeros_follow = self.only_zeros_follow;
        }
        self.outcome
    }

    /// Takes what it can of a piece that goes on in a page; says how many bytes.
    fn page(&mut self, piece: &[u8], visit: &mut impl FnMut(&Record<'_>)) -> usize {
        let (block_size, header_bytes) = match &self.layout {
            Some(layout) if self.position >= LONG_HEADER_BYTES as u64 => {
                let is_first = self.position < layout.block_size;
                let header = if is_first { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES };
                (layout.block_size, header)
            }
            _ => (u64::MAX, LONG_HEADER_BYTES),
        };
        let in_page = self.position % block_size;
        if in_page >= header_bytes as u64 {
            let left = usize::try_from(block_size - in_page).unwrap_or(usize::MAX);
            return self.body(&piece[..piece.len().min(left)], visit);
        }
        // Below the length of a header, which is 40 at most.
        let in_page = in_page as usize;
        let taken = piece.len().min(header_bytes - in_page);
        self.page_header[in_page..in_page + taken].copy_from_slice(&piece[..taken]);
        if in_page + taken == header_bytes {
            let page_start = self.position - in_page as u64;
            let checked = match self.layout {
                None => self.first_page(),
                Some(layout) => self.later_page(&layout, page_start),
            };
            if let Err(what) = checked {
                let is_zeros = self.page_header[..header_bytes].iter().all(|byte| *byte == 0);
                let is_between = self.state == State::Between;
                let lsn = if is_between { self.at(page_start) } else { self.open.lsn };
                self.fail(lsn, what);
                self.only_zeros_follow = is_zeros && is_between;
            }
        }
        taken
    }

    fn first_page(&mut self) -> Result<(), &'static str> {
        let first = LongPageHeader::parse(&self.page_header);
        if !(0xD000..=0xDFFF).contains(&first.page.magic) {
            return Err("first page is not PostgreSQL's");
        }
        let sizes = is_possible_segment_size(first.segment_size)
            && is_possible_block_size(first.block_size);
        if !sizes {
            return Err("first page names impossible sizes");
        }
        if !self.name.exists(first.segment_size) {
            return Err("no segment of this size has this name");
        }
        self.outcome.segment_size = first.segment_size;
        let Some(version) = MajorVersion::from_wal_magic(first.page.magic) else {
            self.state = State::Done;
            return Ok(());
        };
        let layout = Layout {
            version,
            magic: first.page.magic,
            block_size: u64::from(first.block_size),
            start: self.name.start(first.segment_size),
        };
        self.outcome.version = Some(version);
        self.layout = Some(layout);
        self.open.lsn = layout.start;
        if !first.page.is_long {
            return Err("first page has no long header");
        }
        self.check_place(&layout, &first.page, 0)?;
        let remaining = first.page.remaining;
        if first.page.is_continuation && !first.page.is_overwrite {
            if remaining == 0 {
                return Err("page continues a record of no length");
            }
            self.outcome.continued = Some(Continued {
                lsn: layout.start,
                remaining,
                bytes: (remaining <= self.continued_bytes_max).then(Vec::new),
            });
            self.state = State::Continuing(remaining);
        }
        Ok(())
    }

    fn later_page(&mut self, layout: &Layout, page_start: u64) -> Result<(), &'static str> {
        let mut short = [0; SHORT_HEADER_BYTES];
        short.copy_from_slice(&self.page_header[..SHORT_HEADER_BYTES]);
        let page = PageHeader::parse(&short);
        if page.magic != layout.magic {
            return Err("page has another magic");
        }
        if page.is_long {
            return Err("page has a long header");
        }
        self.check_place(layout, &page, page_start)?;
        if page.is_overwrite {
            // A crash lost the rest of the record; the server went on without it.
            if let State::Continuing(_) = self.state {
                self.outcome.continued = None;
            }
            self.state = State::Between;
            return Ok(());
        }
        let expected = match self.state {
            State::Within => Some(self.open.missing()),
            State::Continuing(remaining) => Some(remaining),
            State::Between | State::Done | State::Ended => None,
        };
        match (expected, page.is_continuation) {
            (None, false) => Ok(()),
            (None, true) => Err("page continues a record where none is open"),
            (Some(_), false) => Err("page does not continue the record before it"),
            (Some(expected), true) if expected != page.remaining => {
                Err("page continues a record of another length")
            }
            (Some(_), true) => Ok(()),
        }
    }

    fn check_place(
        &mut self,
        layout: &Layout,
        page: &PageHeader,
        page_start: u64,
    ) -> Result<(), &'static str> {
        if page.is_strange {
            return Err("page has unknown flags");
        }
        if page.address != Lsn(layout.start.0 + page_start) {
            return Err("page has another address");
        }
        if page.timeline < self.timeline.max(1) || page.timeline > self.name.timeline.get() {
            return Err("page is of another timeline");
        }
        self.timeline = page.timeline;
        Ok(())
    }

    /// `body` lies in one page, after its header; says how many bytes it took.
    fn body(&mut self, body: &[u8], visit: &mut impl FnMut(&Record<'_>)) -> usize {
        let Some(layout) = self.layout else { return body.len() };
        let mut at = 0;
        while at < body.len() {
            match self.state {
                State::Between => {
                    let here = self.position + at as u64;
                    let padding = (here.next_multiple_of(ALIGNMENT) - here) as usize;
                    at += padding.min(body.len() - at);
                    at = self.records_in_place(&layout, body, at, visit);
                    if self.state == State::Between && at < body.len() {
                        self.open.begin(self.here(at));
                        self.state = State::Within;
                    }
                }
                State::Within => at += self.go_on(&layout, &body[at..], at, visit),
                State::Continuing(remaining) => {
                    at += self.skip(&body[at..], at, remaining);
                }
                State::Done | State::Ended => break,
            }
        }
        at
    }

    /// All records from `at` on that lie whole in `body`; says where the next begins.
    fn records_in_place(
        &mut self,
        layout: &Layout,
        body: &[u8],
        mut at: usize,
        visit: &mut impl FnMut(&Record<'_>),
    ) -> usize {
        let position = self.position;
        while let Some(head) = body.get(at..).and_then(<[u8]>::first_chunk::<HEADER_BYTES>) {
            let header = RecordHeader::parse(head);
            let length = header.total as usize;
            if length < HEADER_BYTES || length > body.len() - at {
                break;
            }
            let lsn = Lsn(layout.start.0 + position + at as u64);
            if let Err(what) = self.check_header(layout, &header, lsn) {
                self.fail(lsn, what);
                break;
            }
            let bytes = &body[at..at + length];
            self.checksum.data(&bytes[HEADER_BYTES..]);
            if self.checksum.finish(head) != header.checksum {
                self.fail(lsn, "record has a wrong checksum");
                break;
            }
            let after = position + (at + length) as u64;
            let next = after.next_multiple_of(ALIGNMENT);
            let end = Lsn(layout.start.0 + next);
            self.whole(Record { version: layout.version, lsn, end, header, bytes }, visit);
            at = usize::try_from(next - position).unwrap_or(usize::MAX).min(body.len());
            if self.state != State::Between {
                break;
            }
        }
        at
    }

    /// The next bytes of the open record, `at` in the body; says how many it took.
    fn go_on(
        &mut self,
        layout: &Layout,
        bytes: &[u8],
        at: usize,
        visit: &mut impl FnMut(&Record<'_>),
    ) -> usize {
        let taken = self.open.append(bytes);
        if let Err(what) = self.check_open(layout) {
            if self.open.is_none() && self.begins_with_a_switch() {
                self.outcome.end = Some(self.at(u64::from(self.outcome.segment_size)));
                self.state = State::Done;
                return taken;
            }
            let is_zeros = self.open.kept.iter().all(|byte| *byte == 0);
            self.fail(self.open.lsn, what);
            self.only_zeros_follow = is_zeros;
            return taken;
        }
        if let Some(header) = self.open.header().filter(|_| self.open.is_whole()) {
            if self.open.checksum() == Some(header.checksum) {
                let kept = std::mem::take(&mut self.open.kept);
                let after = self.position + (at + taken) as u64;
                self.state = State::Between;
                let (version, lsn, bytes) = (layout.version, self.open.lsn, &kept[..]);
                let end = self.at(after.next_multiple_of(ALIGNMENT));
                self.whole(Record { version, lsn, end, header, bytes }, visit);
                self.open.kept = kept;
            } else {
                self.fail(self.open.lsn, "record has a wrong checksum");
            }
        }
        taken
    }

    /// As soon as the bytes that say it are there, so that nothing is believed for long.
    fn check_open(&mut self, layout: &Layout) -> Result<(), &'static str> {
        self.open.check_length()?;
        match self.open.header() {
            Some(header) if self.open.gathered as usize == HEADER_BYTES => {
                self.open.keep_for(header.resource_manager);
                self.check_header(layout, &header, self.open.lsn)
            }
            _ => Ok(()),
        }
    }

    /// `ValidXLogRecordHeader`, but for the length.
    fn check_header(
        &self,
        layout: &Layout,
        header: &RecordHeader,
        lsn: Lsn,
    ) -> Result<(), &'static str> {
        if !header.resource_manager.is_possible() {
            return Err("record is of no resource manager");
        }
        let is_linked = match self.previous {
            Some(previous) => header.previous == previous,
            None => header.previous < layout.start.min(lsn),
        };
        if is_linked { Ok(()) } else { Err("record does not follow the one before") }
    }

    fn whole(&mut self, mut record: Record<'_>, visit: &mut impl FnMut(&Record<'_>)) {
        let is_control = record.header.resource_manager == ResourceManager::XLOG;
        if is_control && record.operation() == SWITCH {
            self.state = State::Done;
            record.end = self.at(u64::from(self.outcome.segment_size));
        }
        self.outcome.records += 1;
        self.outcome.first_record.get_or_insert(record.lsn);
        self.outcome.end = Some(record.end);
        self.previous = Some(record.lsn);
        visit(&record);
    }

    /// The next bytes of a record that began before the segment.
    fn skip(&mut self, bytes: &[u8], at: usize, remaining: u32) -> usize {
        let taken = bytes.len().min(remaining as usize);
        if let Some(Continued { bytes: Some(kept), .. }) = &mut self.outcome.continued {
            kept.extend_from_slice(&bytes[..taken]);
        }
        let left = remaining - taken as u32;
        if left == 0 {
            let after = self.position + (at + taken) as u64;
            self.outcome.end = Some(self.at(after.next_multiple_of(ALIGNMENT)));
            self.state = State::Between;
        } else {
            self.state = State::Continuing(left);
        }
        taken
    }

    /// A switch that did not fit into the segment before ends here, and takes all of this one
    /// (`ReserveXLogSwitch`, xlog.c). Its checksum needs what lies there; but nothing else leaves a
    /// segment empty behind the last bytes of a record header.
    fn begins_with_a_switch(&self) -> bool {
        let Some(Continued { bytes: Some(bytes), .. }) = &self.outcome.continued else {
            return false;
        };
        let is_of_a_header = bytes.len() < HEADER_BYTES && self.outcome.records == 0;
        // The last eight: info, resource manager, padding, checksum.
        let last = bytes.last_chunk::<8>().filter(|_| is_of_a_header);
        last.is_some_and(|last| {
            last[0] & 0xF0 == SWITCH && last[1..4] == [ResourceManager::XLOG.0, 0, 0]
        })
    }

    /// The segment ends in the open record.
    fn keep_unfinished(&mut self) {
        if let Err(what) = self.open.check_parts() {
            self.fail(self.open.lsn, what);
            if let Some(invalid) = &mut self.outcome.invalid {
                invalid.goes_on = true;
            }
            return;
        }
        let open = &mut self.open;
        self.outcome.first_record.get_or_insert(open.lsn);
        self.outcome.unfinished = Some(Unfinished {
            lsn: open.lsn,
            total: open.total,
            resource_manager: open.kept.get(17).map(|id| ResourceManager(*id)),
            here: open.gathered,
            bytes: std::mem::take(&mut open.kept),
        });
    }

    fn fail(&mut self, lsn: Lsn, what: &'static str) {
        self.state = State::Ended;
        if !self.is_partial {
            let (only_zeros_follow, goes_on) = (false, false);
            self.outcome.invalid = Some(Invalid { lsn, what, only_zeros_follow, goes_on });
        }
    }

    /// Where the byte `at` of the body at hand lies.
    fn here(&self, at: usize) -> Lsn {
        self.at(self.position + at as u64)
    }

    fn at(&self, position: u64) -> Lsn {
        Lsn(self.layout.map_or(0, |layout| layout.start.0) + position)
    }
}

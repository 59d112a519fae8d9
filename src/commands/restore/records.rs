//! Segments read record by record, where the digest does not say enough for a decision.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::catalog::recovery_plan::{ReadRecords, Records};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::wal::digest::{Ending, Fragment, joint, to_hexadecimal};
use crate::postgres::wal::page::{LONG_HEADER_BYTES, LongPageHeader};
use crate::postgres::wal::reader::{Continued, Unfinished};
use crate::postgres::wal::{Outcome, Reader, Record, ending};
use crate::postgres::{SegmentName, WalFileName};
use crate::repository::Home;

/// The same few are asked for again and again: for each backup and each branch.
const KEPT_MAX: usize = 8;

type Asked = (SegmentName, Option<SegmentName>);

pub struct WalRecords<'a> {
    home: &'a Home,
    kept: RefCell<VecDeque<(Asked, Rc<Records>)>>,
}

impl<'a> WalRecords<'a> {
    pub fn new(home: &'a Home) -> WalRecords<'a> {
        WalRecords { home, kept: RefCell::default() }
    }
}

impl ReadRecords for WalRecords<'_> {
    fn records(&self, segment: SegmentName, before: Option<SegmentName>) -> Result<Rc<Records>> {
        let asked = (segment, before);
        let kept = self.kept.borrow().iter().find(|(of, _)| *of == asked).map(|(_, r)| r.clone());
        if let Some(records) = kept {
            return Ok(records);
        }
        let records = Rc::new(read(self.home, segment, before)?);
        let mut kept = self.kept.borrow_mut();
        kept.push_front((asked, records.clone()));
        kept.truncate(KEPT_MAX);
        Ok(records)
    }
}

/// Hands every whole record of an archived segment to `visit`.
pub fn read_archived(
    home: &Home,
    segment: SegmentName,
    visit: impl FnMut(&Record<'_>),
) -> Result<Outcome> {
    Ok(read_with_first_page(home, segment, visit)?.0)
}

/// And tells what its first page says.
pub fn read_with_first_page(
    home: &Home,
    segment: SegmentName,
    mut visit: impl FnMut(&Record<'_>),
) -> Result<(Outcome, LongPageHeader)> {
    let mut reader = Reader::new(segment);
    let (mut first_page, mut filled) = ([0; LONG_HEADER_BYTES], 0);
    home.get_wal(&WalFileName::Segment(segment), |piece| {
        let taken = piece.len().min(LONG_HEADER_BYTES - filled);
        first_page[filled..filled + taken].copy_from_slice(&piece[..taken]);
        filled += taken;
        reader.write(piece, &mut visit);
        Ok(())
    })
    .map_err(|error| match error.kind() {
        ErrorKind::Absent => Error::new(ErrorKind::Refused, format!("{segment} was removed"))
            .source(error)
            .hint("It was listed a moment ago: try again."),
        _ => error,
    })
    .context(|| format!("read {segment}"))?;
    Ok((reader.finish(), LongPageHeader::parse(&first_page)))
}

fn read(home: &Home, segment: SegmentName, before: Option<SegmentName>) -> Result<Records> {
    let mut records = Records::default();
    let outcome = read_archived(home, segment, |record| {
        records.starts.push(record.lsn);
        records.endings.extend(ending(record));
    })?;
    if let (Some(rest), Some(before)) = (&outcome.continued, before)
        && let Some(begun) = read_archived(home, before, |_| ())?.unfinished
        && is_whole(&begun, rest, &outcome)
    {
        records.starts.insert(0, begun.lsn);
        if let Some(first) = across(&begun, rest, &outcome) {
            records.endings.insert(0, first);
        }
    }
    Ok(records)
}

/// Whether the record that began before ends in this segment: else it ends in a later one.
fn is_whole(begun: &Unfinished, rest: &Continued, outcome: &Outcome) -> bool {
    let size = outcome.segment_size;
    rest.remaining == begun.total.saturating_sub(begun.here) && rest.remaining < size
}

/// The end of a transaction that lies in both.
fn across(begun: &Unfinished, rest: &Continued, outcome: &Outcome) -> Option<Ending> {
    let version = outcome.version?;
    let begun = Fragment {
        lsn: begun.lsn,
        version,
        total: begun.total,
        bytes: to_hexadecimal(&begun.bytes),
    };
    let rest = Fragment {
        lsn: rest.lsn,
        version,
        total: rest.remaining,
        bytes: to_hexadecimal(rest.bytes.as_ref()?),
    };
    joint(&Some(begun), &Some(rest))
}

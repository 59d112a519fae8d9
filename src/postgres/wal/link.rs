//! What one segment that was read tells its neighbours: whether the next one goes on where it ends.

use crate::postgres::wal::reader::Outcome;
use crate::postgres::wal::record::{Checksum, HEADER_BYTES, Record, RecordHeader};
use crate::postgres::{Lsn, SegmentName};

#[derive(Debug, Clone)]
pub struct Link {
    pub name: SegmentName,
    pub outcome: Outcome,
    /// Of the first record that begins and ends here: where it begins, and which it follows.
    first: Option<(Lsn, Lsn)>,
    /// Where the last record begins that begins and ends here.
    last: Option<Lsn>,
}

/// Watches the records of one segment go by.
#[derive(Debug, Default)]
pub struct Ends {
    first: Option<(Lsn, Lsn)>,
    last: Option<Lsn>,
}

impl Ends {
    #[inline]
    pub fn see(&mut self, record: &Record<'_>) {
        self.first.get_or_insert((record.lsn, record.header.previous));
        self.last = Some(record.lsn);
    }

    pub fn link(self, name: SegmentName, outcome: Outcome) -> Link {
        Link { name, outcome, first: self.first, last: self.last }
    }
}

impl Link {
    /// The record that lies in both is one record, and the first that begins in the second follows
    /// the last one of the first.
    pub fn joins(&self, after: &Link) -> Result<(), &'static str> {
        let begun = self.outcome.unfinished.as_ref();
        let continued = after.outcome.continued.as_ref();
        let previous = match (begun, continued) {
            (None, None) => self.last,
            // A crash lost the rest of the record, and the server went on without it.
            (Some(_), None) => self.last,
            (None, Some(_)) if self.last.is_none() => None,
            (None, Some(_)) => return Err("it continues a record that was not begun"),
            (Some(begun), Some(rest)) => {
                if begun.total.saturating_sub(begun.here) != rest.remaining {
                    return Err("it continues a record of another length");
                }
                if begun.bytes.len() == begun.here as usize
                    && let Some(bytes) = &rest.bytes
                    && !is_intact(&[&begun.bytes[..], bytes].concat())
                {
                    return Err("the record across both has a wrong checksum");
                }
                Some(begun.lsn)
            }
        };
        let is_first = |first: &(Lsn, Lsn)| after.outcome.first_record == Some(first.0);
        match (previous, after.first.filter(is_first)) {
            (Some(previous), Some((_, follows))) if follows != previous => {
                Err("its first record follows another one")
            }
            _ => Ok(()),
        }
    }
}

fn is_intact(record: &[u8]) -> bool {
    let Some(head) = record.first_chunk::<HEADER_BYTES>() else { return false };
    let mut checksum = Checksum::default();
    checksum.data(&record[HEADER_BYTES..]);
    checksum.finish(head) == RecordHeader::parse(head).checksum
}

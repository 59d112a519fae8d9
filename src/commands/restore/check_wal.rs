//! `--check-wal`: everything that will be replayed is fetched and read record by record before a
//! byte is written.

use crate::commands::restore::records::read_archived;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::wal::record::{Checksum, HEADER_BYTES, RecordHeader};
use crate::postgres::wal::{Outcome, Record};
use crate::postgres::{Lsn, SegmentName};
use crate::repository::Home;
use crate::repository::parallel::ask_all;

/// What was read, for the plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CheckedWal {
    pub segments: u64,
    pub records: u64,
}

/// What one segment tells its neighbours.
struct Link {
    name: SegmentName,
    outcome: Outcome,
    /// Of the first record that begins and ends here: where it begins, and which it follows.
    first: Option<(Lsn, Lsn)>,
    /// Where the last record begins that begins and ends here.
    last: Option<Lsn>,
}

/// `until`: nothing from there on is replayed. `progress` is told of each segment, from any thread.
pub fn check_wal(
    home: &Home,
    segments: &[SegmentName],
    until: Option<Lsn>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CheckedWal> {
    let links = ask_all(segments, |segment| {
        let link = read(home, *segment)?;
        progress(1);
        Ok(link)
    })?;
    for link in &links {
        expect_valid(link, until)?;
    }
    for pair in links.windows(2) {
        if let [before, after] = pair
            && let Err(what) = joined(before, after)
        {
            return Err(refused(format!(
                "{} does not go on where {} ends: {what}",
                after.name, before.name
            )));
        }
    }
    let records = links.iter().map(|link| link.outcome.records).sum();
    Ok(CheckedWal { segments: links.len() as u64, records })
}

fn read(home: &Home, name: SegmentName) -> Result<Link> {
    let (mut first, mut last) = (None, None);
    let outcome = read_archived(home, name, |record: &Record<'_>| {
        first.get_or_insert((record.lsn, record.header.previous));
        last = Some(record.lsn);
    })?;
    Ok(Link { name, outcome, first, last })
}

fn expect_valid(link: &Link, until: Option<Lsn>) -> Result<()> {
    if link.outcome.version.is_none() && link.outcome.invalid.is_none() {
        return Err(refused(format!("{} is WAL of a version that walden cannot read", link.name)));
    }
    match &link.outcome.invalid {
        Some(invalid) if until.is_none_or(|until| invalid.lsn < until) => Err(refused(format!(
            "the WAL at {} in {} is not valid: {}",
            invalid.lsn, link.name, invalid.what
        ))),
        _ => Ok(()),
    }
}

/// The record that lies in both is one record, and the first that begins in the second follows the
/// last one of the first.
fn joined(before: &Link, after: &Link) -> std::result::Result<(), &'static str> {
    let begun = before.outcome.unfinished.as_ref();
    let continued = after.outcome.continued.as_ref();
    let previous = match (begun, continued) {
        (None, None) => before.last,
        // A crash lost the rest of the record, and the server went on without it.
        (Some(_), None) => before.last,
        (None, Some(_)) if before.last.is_none() => None,
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

fn is_intact(record: &[u8]) -> bool {
    let Some(head) = record.first_chunk::<HEADER_BYTES>() else { return false };
    let mut checksum = Checksum::default();
    checksum.data(&record[HEADER_BYTES..]);
    checksum.finish(head) == RecordHeader::parse(head).checksum
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, message).hint(
        "Recovery would end there: choose a target before it, or archive the file anew if a \
         server still has it in pg_wal.",
    )
}

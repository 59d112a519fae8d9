//! One WAL segment: its header against its key, and where it is read its content against both.

use crate::codec::{Header, Kind};
use crate::commands::verify::packs::Means;
use crate::commands::verify::problem::is_of_the_object;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::wal::digest::Digest;
use crate::postgres::wal::link::{Ends, Link};
use crate::postgres::wal::{Digester, Outcome, SegmentCheck};
use crate::postgres::{SegmentName, SystemIdentifier, WalFileName};
use crate::repository::{Home, ListedSegment, index};

/// What looking at a segment told.
pub struct Seen {
    pub listed: ListedSegment,
    /// As true as it is known: of what was read where it was, else as the header says.
    pub digest: Option<Digest>,
    /// Of what its header says.
    pub fingerprint: Option<u64>,
    /// Raw bytes, by the header.
    pub bytes: Option<u64>,
    pub verdict: Verdict,
    /// Where it was read.
    pub link: Option<Link>,
    /// The header tells other than the content does.
    pub lie: Option<String>,
}

pub enum Verdict {
    Sound,
    /// It was removed since it was listed.
    Gone,
    /// What is wrong; no recovery gets past it.
    Damaged(String),
    Unchecked(Error),
    /// Of a version whose records cannot be read; everything else is as it should be.
    UnknownVersion,
}

pub fn look(means: &Means<'_>, listed: &ListedSegment, is_deep: bool) -> Seen {
    let seen = match is_deep {
        true => {
            means.bandwidth.take(listed.size, &|| false);
            let seen = read(means.home, listed);
            means.progress.add(listed.size);
            seen
        }
        false => by_header(means.home, listed),
    };
    seen.unwrap_or_else(|error| {
        let verdict = match error.kind() {
            ErrorKind::NotFound | ErrorKind::Absent => Verdict::Gone,
            kind if is_of_the_object(kind) => Verdict::Damaged(error.to_string()),
            _ => Verdict::Unchecked(error),
        };
        let (digest, fingerprint, bytes, link, lie) = (None, None, None, None, None);
        Seen { listed: *listed, digest, fingerprint, bytes, verdict, link, lie }
    })
}

fn by_header(home: &Home, listed: &ListedSegment) -> Result<Seen> {
    let header = home.wal_header(&WalFileName::Segment(listed.name))?;
    let verdict = match fault(home, listed, &header) {
        Some(what) => Verdict::Damaged(what),
        None => Verdict::Sound,
    };
    let lie = contradiction(listed, &header);
    let fingerprint = Some(index::fingerprint(header.digest.as_deref()));
    let (bytes, digest) = (Some(header.size), header.digest.map(|digest| *digest));
    // What it says must not be believed.
    let digest = digest.filter(|_| lie.is_none());
    Ok(Seen { listed: *listed, digest, fingerprint, bytes, verdict, link: None, lie })
}

fn read(home: &Home, listed: &ListedSegment) -> Result<Seen> {
    let name = listed.name;
    let mut digester = Digester::new(name);
    let mut ends = Ends::default();
    let mut first_page = FirstPage::new(name);
    let header = home.get_wal(&WalFileName::Segment(name), |piece| {
        first_page.write(piece);
        digester.write_and_show(piece, &mut |record| ends.see(record));
        Ok(())
    })?;
    let (digest, outcome) = digester.finish_with_outcome();
    let bytes = Some(header.size);
    let fingerprint = Some(index::fingerprint(header.digest.as_deref()));
    let wrong = fault(home, listed, &header).or_else(|| first_page.fault(home.system_identifier()));
    let is_unknown = outcome.version.is_none() && outcome.invalid.is_none();
    let verdict = match wrong {
        Some(what) => Verdict::Damaged(what),
        None if is_unknown => Verdict::UnknownVersion,
        None => Verdict::Sound,
    };
    let lie = lie(&header, digest.as_ref());
    let digest = digest.map(|digest| with_mark(digest, &header));
    let link = Some(ends.link(name, slim(outcome)));
    Ok(Seen { listed: *listed, digest, fingerprint, bytes, verdict, link, lie })
}

/// Only who stored it knew that the timeline ended in it.
fn with_mark(mut digest: Digest, header: &Header) -> Digest {
    let stored = header.digest.as_ref().and_then(|digest| digest.invalid.as_ref());
    if let (Some(invalid), Some(stored)) = (&mut digest.invalid, stored) {
        invalid.is_end_of_timeline = stored.is_end_of_timeline && stored.lsn == invalid.lsn;
    }
    digest
}

/// A longer piece of a record than is needed to join two segments is let go.
fn slim(mut outcome: Outcome) -> Outcome {
    if let Some(begun) = outcome.unfinished.as_mut().filter(|it| it.bytes.len() > 64 << 10) {
        begun.bytes = Vec::new();
    }
    outcome
}

fn fault(home: &Home, listed: &ListedSegment, header: &Header) -> Option<String> {
    let name = WalFileName::Segment(listed.name);
    if let Err(error) = home.expect_ours(header, &name) {
        return Some(error.to_string());
    }
    if header.kind != Kind::Segment {
        return Some("its header says that it is no segment".to_owned());
    }
    let size = u32::try_from(header.size).ok().filter(|size| listed.name.exists(*size));
    match size.filter(|size| size.is_power_of_two()) {
        Some(_) => None,
        None => Some(format!("its header says that it has {} bytes", header.size)),
    }
}

fn contradiction(listed: &ListedSegment, header: &Header) -> Option<String> {
    header.digest.as_ref()?.contradiction(listed.name, header.size)
}

/// A header without a digest says nothing that could be wrong.
fn lie(header: &Header, digest: Option<&Digest>) -> Option<String> {
    match (header.digest.as_deref(), digest) {
        (None, _) => None,
        (Some(_), None) => Some("it tells of records that cannot be read".to_owned()),
        (Some(stored), Some(digest)) => stored.difference(digest),
    }
}

/// The check that `push` and `fetch` make of the first page.
struct FirstPage {
    check: SegmentCheck,
    failure: Option<Error>,
}

impl FirstPage {
    fn new(name: SegmentName) -> FirstPage {
        FirstPage { check: SegmentCheck::new(name), failure: None }
    }

    fn write(&mut self, piece: &[u8]) {
        if self.failure.is_none() {
            self.failure = self.check.write(piece).err();
        }
    }

    fn fault(self, cluster: SystemIdentifier) -> Option<String> {
        let facts = match self.failure {
            Some(error) => Err(error),
            None => self.check.finish(),
        };
        match facts {
            Err(error) => Some(error.to_string()),
            Ok(facts) if facts.system_identifier != cluster => {
                Some(format!("its WAL is of cluster {}", facts.system_identifier))
            }
            Ok(_) => None,
        }
    }
}

//! What is known of the segments of a log file (4 GiB of WAL): their digests, from an index object
//! where there is one, else from their headers.
//!
//! An index object is a cache. It is written by whoever finds a log closed and unindexed, and where
//! it is lost, damaged or may not be written, the headers say the same at 256 requests for one.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use twox_hash::XxHash3_64;

use crate::codec::{self, Compression, Header, Kind, Origin, Sealer};
use crate::error::{Error, ErrorKind, Result};
use crate::host::{self, clock};
use crate::postgres::wal::{Digest, digest};
use crate::postgres::{SegmentName, TimelineId, WalFileName};
use crate::repository::parallel::ask_all;
use crate::repository::{Home, layout};
use crate::storage::{Body, ObjectInfo};

/// Of the shape of index objects.
const VERSION: u32 = 1;
/// More take a while, which is said to who wants to know.
const HEADERS_UNSAID_MAX: usize = 64;
/// The first log file of a timeline has no certain beginning: it counts as closed once nothing was
/// stored in it for so long.
const QUIET: SignedDuration = SignedDuration::from_hours(1);
/// An index object has a few hundred KiB before compression; a length far beyond is damage.
const INDEX_BYTES_MAX: usize = 256 << 20;

/// The segments of a log file that the store lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogIndex {
    pub segments: BTreeMap<SegmentName, IndexEntry>,
    /// In bytes, where any header told.
    pub segment_size: Option<u32>,
    /// No segment will come to it any more.
    pub is_closed: bool,
    /// What is wrong with objects here, as sentences.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexEntry {
    /// When the store took it, to the second.
    pub stored: Timestamp,
    /// Bytes as stored.
    pub size: u64,
    /// `None`: its header has none (WAL of an unknown version, or an older walden).
    pub digest: Option<Digest>,
    /// Its header cannot be read, or is of something else: no recovery gets past it.
    pub is_damaged: bool,
}

/// A segment as the store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedSegment {
    pub name: SegmentName,
    pub stored: Timestamp,
    /// Bytes as stored.
    pub size: u64,
}

/// What is wrong with an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexFault {
    /// It is passed over, wholly or in part.
    Useless(String),
    /// It is believed, and says of this segment other than its header does.
    Misleading(SegmentName),
}

/// A log file as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedLog {
    pub timeline: TimelineId,
    pub log: u32,
    /// In the order of their names.
    pub segments: Vec<ListedSegment>,
    /// The store lists no earlier one of this timeline.
    pub is_first: bool,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    walden: u32,
    /// In bytes.
    segment_size: u32,
    segments: Vec<StoredEntry>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct StoredEntry {
    name: String,
    stored: Timestamp,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
}

/// What the header of a segment told.
struct Told {
    digest: Option<Digest>,
    segment_size: Option<u32>,
    fault: Option<String>,
}

impl Home {
    /// One log file: what the store lists of it now, and the digests.
    pub fn log(&self, timeline: TimelineId, log: u32) -> Result<LogIndex> {
        let folders = self.storage.list(Some(&self.timeline_key(timeline)))?.folders;
        let first = folders.iter().filter_map(|folder| layout::log_of(folder)).min();
        self.log_as_listed(&self.listed_log(timeline, log, first == Some(log))?)
    }

    pub fn listed_log(&self, timeline: TimelineId, log: u32, is_first: bool) -> Result<ListedLog> {
        let objects = self.storage.list(Some(&self.log_key(timeline, log)))?.objects;
        let segments = objects.iter().filter_map(ListedSegment::of).collect();
        Ok(ListedLog { timeline, log, segments, is_first })
    }

    /// As `log`, of a listing there is already.
    pub fn log_as_listed(&self, listed: &ListedLog) -> Result<LogIndex> {
        let mut index = LogIndex::default();
        if listed.segments.is_empty() {
            return Ok(index);
        }
        let stored = self.index(listed, &mut index)?;
        let is_indexed = stored.is_some();
        let mut known = stored.map(|stored| trusted(stored, listed)).unwrap_or_default();
        let unknown: Vec<&ListedSegment> =
            listed.segments.iter().filter(|segment| !known.contains_key(&segment.name)).collect();
        if unknown.len() > HEADERS_UNSAID_MAX {
            let folder = self.log_key(listed.timeline, listed.log);
            tracing::info!("reading {} headers in {folder}", unknown.len());
        }
        for (segment, told) in unknown.iter().zip(self.headers(&unknown)?) {
            // Deleted since it was listed.
            let Some(told) = told else { continue };
            index.notes.extend(told.fault.iter().cloned());
            index.segment_size = index.segment_size.or(told.segment_size);
            let (is_damaged, digest) = (told.fault.is_some(), told.digest);
            known.insert(segment.name, IndexEntry { digest, is_damaged, ..segment.entry() });
        }
        index.segments = known;
        let size = index.segment_size;
        index.is_closed = size.is_some_and(|size| listed.is_closed(size, clock::now()));
        let is_whole = index.segments.len() == listed.segments.len();
        let is_sound = index.segments.values().all(|entry| !entry.is_damaged);
        if let Some(size) = size.filter(|_| !is_indexed && index.is_closed && is_whole && is_sound)
        {
            self.write_index(listed, &index, size)?;
        }
        Ok(index)
    }

    /// What is wrong with an index, where there is one: `told` are the fingerprints of what the
    /// headers of segments say now.
    pub fn index_fault(
        &self,
        timeline: TimelineId,
        log: u32,
        told: &BTreeMap<SegmentName, u64>,
    ) -> Result<Option<IndexFault>> {
        let useless = |what: String| Ok(Some(IndexFault::Useless(what)));
        let sealed = match self.storage.get(&self.index_key(timeline, log)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Corrupt => return useless(error.to_string()),
            sealed => sealed?,
        };
        let stored = match opened(&sealed) {
            Err(error) if error.kind() == ErrorKind::Corrupt => return useless(error.to_string()),
            stored => stored?,
        };
        let listed = self.listed_log(timeline, log, false)?;
        let (indexed, there) = (stored.segments.len(), listed.segments.len());
        let trusted = trusted(stored, &listed);
        let misleads = |(name, entry): (&SegmentName, &IndexEntry)| {
            let digest = entry.digest.as_ref()?;
            let header = told.get(name)?;
            (fingerprint(Some(digest)) != *header).then_some(*name)
        };
        if let Some(name) = trusted.iter().find_map(misleads) {
            return Ok(Some(IndexFault::Misleading(name)));
        }
        match trusted.len() == indexed && indexed == there {
            true => Ok(None),
            false => {
                let fits = trusted.len();
                useless(format!("of its {indexed} segments {fits} are as listed, of {there}"))
            }
        }
    }

    /// The segments of a timeline that the store lists, log file by log file, from `first_log` on.
    pub fn listed_logs(&self, timeline: TimelineId, first_log: u32) -> Result<Vec<ListedLog>> {
        let after = (first_log > 0).then(|| self.log_key(timeline, first_log));
        let objects = self.storage.list_all(&self.timeline_key(timeline), after.as_ref())?;
        let mut logs: Vec<ListedLog> = Vec::new();
        for segment in objects.iter().filter_map(ListedSegment::of) {
            let (timeline, log) = (segment.name.timeline, segment.name.log);
            match logs.last_mut().filter(|last| last.log == log) {
                Some(last) => last.segments.push(segment),
                None => {
                    let is_first = logs.is_empty() && first_log == 0;
                    logs.push(ListedLog { timeline, log, segments: vec![segment], is_first });
                }
            }
        }
        Ok(logs)
    }

    /// The timelines of which the store lists WAL segments.
    pub fn archived_timelines(&self) -> Result<Vec<TimelineId>> {
        let folders = self.storage.list(Some(&self.all_wal_key()))?.folders;
        Ok(folders.iter().filter_map(|folder| TimelineId::from_hex(folder).ok()).collect())
    }

    /// The index object; `None` where there is none that can be used.
    fn index(&self, listed: &ListedLog, index: &mut LogIndex) -> Result<Option<Stored>> {
        let key = self.index_key(listed.timeline, listed.log);
        let opened = match self.storage.get(&key) {
            Ok(sealed) => opened(&sealed),
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(error),
            // To read nothing but WAL is allowed to be all that somebody may.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotAllowed) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match opened {
            Ok(stored) => {
                index.segment_size = Some(stored.segment_size);
                Ok(Some(stored))
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                index.notes.push(format!(
                    "{key} is passed over ({error}). It is only a cache: where it is damaged, \
                     remove it, and it is written anew."
                ));
                Ok(Some(Stored { walden: VERSION, segment_size: 0, segments: Vec::new() }))
            }
            Err(error) => Err(error),
        }
    }

    /// What the headers tell, several at a time, in the order asked; `None` for what is gone.
    fn headers(&self, segments: &[&ListedSegment]) -> Result<Vec<Option<Told>>> {
        ask_all(segments, |segment| self.header(segment))
    }

    fn header(&self, segment: &ListedSegment) -> Result<Option<Told>> {
        match self.wal_header(&WalFileName::Segment(segment.name)) {
            Ok(header) => Ok(Some(self.told(segment.name, header))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // The object is at fault, or the store itself says that it is not what was put there.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                Ok(Some(Told::faulty(format!("{error}."))))
            }
            Err(error) => Err(error),
        }
    }

    fn told(&self, name: SegmentName, header: Header) -> Told {
        match self.expect_ours(&header, &WalFileName::Segment(name)) {
            Ok(()) => Told {
                digest: header.digest.map(|digest| *digest),
                segment_size: u32::try_from(header.size).ok().filter(|size| size.is_power_of_two()),
                fault: None,
            },
            Err(error) => Told::faulty(format!("{error}.")),
        }
    }

    /// Another one may have been faster, and not everybody may write: the answer is known anyway.
    fn write_index(&self, listed: &ListedLog, index: &LogIndex, segment_size: u32) -> Result<()> {
        let entries = index.segments.iter().map(|(name, entry)| StoredEntry {
            name: name.to_string(),
            stored: entry.stored,
            size: entry.size,
            digest: entry.digest.clone(),
        });
        let stored = Stored { walden: VERSION, segment_size, segments: entries.collect() };
        let key = self.index_key(listed.timeline, listed.log);
        let name = format!("{}{:08X}", listed.timeline.to_hex(), listed.log);
        let origin = Origin {
            host: host::name(),
            source: self.url(),
            system_identifier: self.system_identifier,
            time: clock::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        if let Err(error) = self.storage.put_new(&key, &Body::new(sealed(&stored, name, origin)?)) {
            tracing::info!(%key, %error, "the index is not written");
        }
        Ok(())
    }
}

impl ListedSegment {
    fn of(object: &ObjectInfo) -> Option<ListedSegment> {
        let name = layout::segment_of(&object.key)?;
        let stored = Timestamp::from_second(object.modified.as_second()).unwrap_or_default();
        Some(ListedSegment { name, stored, size: object.size })
    }

    fn entry(&self) -> IndexEntry {
        IndexEntry { stored: self.stored, size: self.size, ..IndexEntry::default() }
    }
}

impl ListedLog {
    /// Whether no segment can come to it any more. A segment missing in the middle may still be
    /// brought by hand.
    pub fn is_closed(&self, segment_size: u32, now: Timestamp) -> bool {
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else {
            return false;
        };
        let end = (1u64 << 32) / u64::from(segment_size.max(1));
        let is_unbroken = u64::from(last.name.segment) + 1 == end
            && self.segments.len() as u64 == end - u64::from(first.name.segment);
        // The very first segment of a cluster is that of number 1.
        let begins_at_once = first.name.segment == 0 || (self.log == 0 && first.name.segment == 1);
        let newest = self.segments.iter().map(|segment| segment.stored).max();
        let is_quiet = newest.is_some_and(|newest| now.duration_since(newest) > QUIET);
        is_unbroken && (begins_at_once || (self.is_first && is_quiet))
    }
}

impl Told {
    fn faulty(fault: String) -> Told {
        Told { digest: None, segment_size: None, fault: Some(fault) }
    }
}

/// Of what a header says of its segment.
pub fn fingerprint(digest: Option<&Digest>) -> u64 {
    // A digest always has a JSON form.
    XxHash3_64::oneshot(&serde_json::to_vec(&digest).unwrap_or_default())
}

/// The entries of an index that still hold: of segments that are listed with the same size, and of
/// the same time, unless all times changed: then the repository was copied.
fn trusted(stored: Stored, listed: &ListedLog) -> BTreeMap<SegmentName, IndexEntry> {
    let entries = stored.segments.into_iter();
    let mut entries: BTreeMap<SegmentName, StoredEntry> = entries
        .filter_map(|entry| SegmentName::parse(&entry.name).map(|name| (name, entry)))
        .collect();
    let same_time = |segment: &ListedSegment| {
        entries.get(&segment.name).is_some_and(|entry| entry.stored == segment.stored)
    };
    let was_copied = !listed.segments.iter().any(same_time);
    let mut trusted = BTreeMap::new();
    for segment in &listed.segments {
        let Some(entry) = entries.remove(&segment.name) else { continue };
        if entry.size == segment.size && (was_copied || entry.stored == segment.stored) {
            // As in a header: one to come is none.
            let digest = entry.digest.filter(|digest| digest.version <= digest::VERSION);
            trusted.insert(segment.name, IndexEntry { digest, ..segment.entry() });
        }
    }
    trusted
}

fn opened(sealed: &[u8]) -> Result<Stored> {
    let mut json = Vec::new();
    let damaged = |what: &str| Error::new(ErrorKind::Corrupt, format!("index {what}"));
    let header = codec::open(sealed, |piece| {
        if json.len() + piece.len() > INDEX_BYTES_MAX {
            return Err(damaged("is longer than any"));
        }
        json.extend_from_slice(piece);
        Ok(())
    })?;
    if header.kind != Kind::Index {
        return Err(damaged("is another object"));
    }
    let stored: Stored =
        serde_json::from_slice(&json).map_err(|e| damaged("is not of its shape").source(e))?;
    if stored.walden > VERSION || !stored.segment_size.is_power_of_two() {
        return Err(damaged("is of a format newer than this walden knows"));
    }
    Ok(stored)
}

fn sealed(stored: &Stored, name: String, origin: Origin) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(stored)
        .map_err(|e| Error::new(ErrorKind::Bug, "write an index").source(e))?;
    let mut sealer = Sealer::new(Compression::default(), json.len() as u64)?;
    sealer.write(&json)?;
    sealer.finish(|content| Header::new(Kind::Index, name, content, origin))
}

#[cfg(test)]
mod tests;

//! The WAL that a repository holds of a cluster, segment by segment, as far as decisions need it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::catalog::TimelineTree;
use crate::postgres::wal::digest::{Ending, Fragment, RestorePoint, TransactionEnd};
use crate::postgres::wal::{Digest, joint};
use crate::postgres::{Lsn, SegmentName};

/// What the store lists, in the order of the names: timeline by timeline.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// In bytes; of one system identifier all segments are of one size. 0: nothing is known of any.
    pub segment_size: u32,
    pub segments: BTreeMap<SegmentName, Segment>,
    /// In the order of the names of the segments they are in.
    pub restore_points: Vec<(SegmentName, RestorePoint)>,
}

/// Small, since there are hundreds of thousands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Segment {
    /// When the store took it, to the second.
    pub stored: Timestamp,
    /// Bytes as stored.
    pub size: u64,
    /// Its object cannot be read: no recovery gets past it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_damaged: bool,
    /// `None`: its header has no digest (WAL of an unknown version, or an older walden).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<SegmentWal>,
}

/// Distilled from the digest, and for a record across two segments from both, which counts where
/// it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SegmentWal {
    /// Where the last whole record ends, exclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Lsn>,
    pub commits: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_commit: Option<TransactionEnd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<TransactionEnd>,
    /// Of any commit or abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_time: Option<Timestamp>,
    /// A record in it is not valid: recovery ends before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<Lsn>,
    /// But nothing except zeros follows, as in the last segment of a timeline that a standby left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_zeros_follow: bool,
    /// The record that began before this segment and ends here may end a transaction, and nothing
    /// is known of it: what this says of commits holds for those after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opens_unknown: bool,
}

/// A part of the WAL of one timeline, distilled by itself: what it does not know of its neighbours
/// it keeps, for when they are put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalPart {
    pub segments: BTreeMap<SegmentName, Segment>,
    pub restore_points: Vec<(SegmentName, RestorePoint)>,
    /// Of the record that ends in the segment, where the segment before is not in this part.
    pub continued: BTreeMap<SegmentName, Fragment>,
    /// Of the record that begins in the segment, where the next one is not in this part.
    pub unfinished: BTreeMap<SegmentName, Fragment>,
    /// The same where that record may end a transaction, and is too long to be kept.
    pub unclear: BTreeSet<SegmentName>,
}

impl WalPart {
    /// Segments in the order of their names, each with its digest.
    pub fn distil<'a>(
        segments: impl IntoIterator<Item = (SegmentName, Segment, Option<&'a Digest>)>,
        segment_size: u32,
    ) -> WalPart {
        let mut part = WalPart::default();
        let mut before: Option<(SegmentName, Option<&Digest>)> = None;
        for (name, segment, digest) in segments {
            let mut wal = digest.map(SegmentWal::of);
            let follows = before.filter(|(before, _)| before.next(segment_size) == name);
            let continued = digest.and_then(|digest| digest.continued.as_ref());
            match (follows, &mut wal) {
                (Some((_, before)), Some(wal)) => {
                    wal.open(before.and_then(begun), continued);
                }
                (None, _) => {
                    part.keep_end(before);
                    part.continued.extend(continued.map(|rest| (name, rest.clone())));
                }
                (Some(_), None) => {}
            }
            part.segments.insert(name, Segment { wal, ..segment });
            let points = digest.map(|digest| digest.restore_points.as_slice()).unwrap_or_default();
            part.restore_points.extend(points.iter().map(|point| (name, point.clone())));
            before = Some((name, digest));
        }
        part.keep_end(before);
        part
    }

    /// Takes in another part; where one begins and the other ends they are joined only by
    /// `Inventory::new`.
    pub fn extend(&mut self, other: WalPart) {
        self.segments.extend(other.segments);
        self.restore_points.extend(other.restore_points);
        self.continued.extend(other.continued);
        self.unfinished.extend(other.unfinished);
        self.unclear.extend(other.unclear);
    }

    fn keep_end(&mut self, last: Option<(SegmentName, Option<&Digest>)>) {
        let Some((name, Some(digest))) = last else { return };
        match begun(digest) {
            Some(begun) => self.unfinished.extend(begun.map(|begun| (name, begun.clone()))),
            None => {
                self.unclear.insert(name);
            }
        }
    }
}

impl SegmentWal {
    fn of(digest: &Digest) -> SegmentWal {
        SegmentWal {
            end: digest.end,
            commits: u32::try_from(digest.commits).unwrap_or(u32::MAX),
            first_commit: digest.first_commit,
            last_commit: digest.last_commit,
            latest_time: digest.latest_time,
            invalid: digest.invalid.as_ref().map(|invalid| invalid.lsn),
            only_zeros_follow: (digest.invalid.as_ref())
                .is_some_and(|it| it.only_zeros_follow || it.is_end_of_timeline),
            opens_unknown: false,
        }
    }

    /// Takes in the record that began in the segment before, of which nothing is known where
    /// `before` is `None`.
    fn open(&mut self, before: Option<Option<&Fragment>>, continued: Option<&Fragment>) {
        match (before, continued) {
            // It ends no transaction, or there is none.
            (Some(None), _) | (None, None) => {}
            (Some(Some(begun)), Some(rest)) if are_whole(begun, rest) => {
                if let Some(ending) = joint(&Some(begun.clone()), &Some(rest.clone())) {
                    self.count(&ending);
                }
            }
            (Some(Some(_)) | None, _) => self.opens_unknown = true,
        }
    }

    fn count(&mut self, ending: &Ending) {
        self.latest_time = self.latest_time.max(Some(ending.at.time));
        if ending.is_commit {
            self.commits = self.commits.saturating_add(1);
            self.first_commit = Some(ending.at);
            self.last_commit = self.last_commit.or(Some(ending.at));
        }
    }
}

impl Inventory {
    /// Puts parts together, of which no two have a segment in common, and joins what crosses from
    /// one to the other, forks included.
    pub fn new(
        parts: impl IntoIterator<Item = WalPart>,
        tree: &TimelineTree,
        segment_size: u32,
    ) -> Inventory {
        let mut all = WalPart::default();
        parts.into_iter().for_each(|part| all.extend(part));
        if segment_size > 0 {
            all.join(tree, segment_size);
        }
        all.restore_points.sort_by_key(|(name, point)| (*name, point.lsn));
        let WalPart { segments, restore_points, .. } = all;
        Inventory { segment_size, segments, restore_points }
    }
}

impl WalPart {
    fn join(&mut self, tree: &TimelineTree, segment_size: u32) {
        let mut seams: Vec<(SegmentName, SegmentName)> = Vec::new();
        let next = |name: &SegmentName| (*name, name.next(segment_size));
        seams.extend(self.unfinished.keys().chain(&self.unclear).map(next));
        seams.extend(self.continued.keys().filter_map(|name| {
            let before = Lsn(name.start(segment_size).0.checked_sub(u64::from(segment_size))?);
            Some((SegmentName::containing(name.timeline, before, segment_size), *name))
        }));
        for timeline in tree.branches() {
            let (Some((_, fork)), Ok(path)) = (tree.parent(timeline), tree.path(timeline)) else {
                continue;
            };
            let first = SegmentName::containing(timeline, fork, segment_size);
            let before = first.start(segment_size).0.checked_sub(1).map(Lsn);
            seams.extend(before.map(|before| (path.segment(before, segment_size), first)));
        }
        seams.sort_unstable();
        seams.dedup();
        for (before, after) in seams {
            self.join_at(before, after, segment_size);
        }
    }

    fn join_at(&mut self, before: SegmentName, after: SegmentName, segment_size: u32) {
        let begins = self.segments.get(&before).copied().filter(|begins| !begins.is_damaged);
        let Some(begins) = begins else { return };
        let begun = self.unfinished.get(&before);
        // What `before` began was joined already with the next of its own timeline, and let go.
        let is_spent = begun.is_none()
            && before.timeline != after.timeline
            && self.segments.contains_key(&before.next(segment_size));
        let is_known = begins.wal.is_some() && !is_spent && !self.unclear.contains(&before);
        let known = is_known.then_some(begun);
        let continued = self.continued.get(&after);
        if let Some(wal) = self.segments.get_mut(&after).and_then(|ends| ends.wal.as_mut()) {
            wal.open(known, continued);
        }
    }
}

/// What of a record that goes on in the next segment may end a transaction; `None` where that
/// cannot be told.
fn begun(digest: &Digest) -> Option<Option<&Fragment>> {
    let begun = digest.unfinished.as_ref();
    // Of a record that is too long nothing is kept, and the digest says that something was cut.
    (begun.is_some() || !digest.is_cut).then_some(begun)
}

/// Whether both pieces of a record are there to the last byte.
fn are_whole(begun: &Fragment, rest: &Fragment) -> bool {
    let bytes = |fragment: &Fragment| fragment.bytes.len() as u64 / 2;
    bytes(rest) >= u64::from(rest.total) && bytes(begun) + bytes(rest) >= u64::from(begun.total)
}

#[cfg(test)]
pub mod samples;
#[cfg(test)]
mod tests;

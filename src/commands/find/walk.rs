//! The segments along a timeline, in the order of the WAL, with what their digests say.

use std::collections::{BTreeMap, HashMap};

use crate::catalog::{TargetTimeline, TimelinePath, TimelineTree};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, SegmentName, TimelineId};
use crate::repository::Home;
use crate::repository::parallel::ask_all;
use crate::repository::{IndexEntry, ListedLog, LogIndex};

/// Log files (4 GiB of WAL each) whose digests are held at a time.
const LOGS_AT_ONCE: usize = 8;

/// Which segments recovery would read on its way to the end of a timeline.
pub struct Walk<'h> {
    home: &'h Home,
    path: TimelinePath,
    /// In bytes.
    segment_size: u32,
    /// By where they start.
    segments: BTreeMap<Lsn, SegmentName>,
    logs: BTreeMap<u32, Vec<ListedLog>>,
    /// Timelines that are not on the way, as sentences.
    notes: Vec<String>,
}

/// A segment on the way.
pub struct Stretch<'e> {
    pub name: SegmentName,
    pub start: Lsn,
    /// What lies there or behind belongs to a timeline that was left.
    pub fork: Option<Lsn>,
    /// Segments missing just before it.
    pub missing: u64,
    pub entry: &'e IndexEntry,
}

impl<'h> Walk<'h> {
    /// Lists; where no backup says how large segments are, reads one log file's index too.
    pub fn plan(
        home: &'h Home,
        tree: &TimelineTree,
        timeline: TargetTimeline,
        segment_size: Option<u32>,
    ) -> Result<Walk<'h>> {
        let archived = home.archived_timelines()?;
        let newest = archived.iter().copied().chain(tree.branches()).max();
        let last = match timeline {
            TargetTimeline::Number(number) => number,
            TargetTimeline::Latest | TargetTimeline::Current => {
                newest.map_or_else(|| TimelineId::new(1), Ok)?
            }
        };
        let path = tree.path(last)?;
        let mut listed = Vec::new();
        for step in path.steps() {
            listed.extend(home.listed_logs(step.timeline, (step.begin.0 >> 32) as u32)?);
        }
        let segment_size = match segment_size.filter(|_| !listed.is_empty()) {
            Some(size) => size,
            None => segment_size_of(home, &listed)?,
        };
        let segments = on_path(&path, &listed, segment_size);
        let mut logs: BTreeMap<u32, Vec<ListedLog>> = BTreeMap::new();
        for log in listed {
            let is_on_path =
                |name| segments.get(&SegmentName::start(name, segment_size)) == Some(name);
            if log.segments.iter().any(|segment| is_on_path(&segment.name)) {
                logs.entry(log.log).or_default().push(log);
            }
        }
        let others = archived.iter().filter(|id| path.steps().iter().all(|s| s.timeline != **id));
        let notes = others.map(|id| {
            format!("timeline {id} branches off elsewhere and was not searched: --timeline {id}.")
        });
        Ok(Walk { home, segment_size, segments, logs, notes: notes.collect(), path })
    }

    pub fn segment_size(&self) -> u32 {
        self.segment_size
    }

    /// The timeline searched to its end.
    pub fn timeline(&self) -> TimelineId {
        self.path.last()
    }

    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether WAL of this timeline up to `end` is on the way.
    pub fn contains(&self, timeline: TimelineId, end: Lsn) -> bool {
        self.path.contains(timeline, end)
    }

    /// Hands every segment to `visit`, in the order of the WAL.
    pub fn each(&self, mut visit: impl FnMut(&Stretch<'_>) -> Result<()>) -> Result<Vec<String>> {
        let mut expected: Option<Lsn> = None;
        let mut notes = Vec::new();
        let numbers: Vec<u32> = self.logs.keys().copied().collect();
        for numbers in numbers.chunks(LOGS_AT_ONCE) {
            let listed: Vec<ListedLog> =
                numbers.iter().filter_map(|log| self.logs.get(log)).flatten().cloned().collect();
            let indexes = ask_all(&listed, |log| self.home.log_as_listed(log))?;
            let mut known: HashMap<(TimelineId, u32), LogIndex> = HashMap::new();
            for (log, index) in listed.iter().zip(indexes) {
                notes.extend(index.notes.iter().cloned());
                known.insert((log.timeline, log.log), index);
            }
            let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { continue };
            let range = Lsn(u64::from(*first) << 32)..Lsn((u64::from(*last) + 1) << 32);
            for (start, name) in self.segments.range(range) {
                let index = known.get(&(name.timeline, name.log));
                // Removed since it was listed: a gap as well.
                let Some(entry) = index.and_then(|index| index.segments.get(name)) else {
                    continue;
                };
                let missing = expected.map_or(0, |end| (start.0 - end.0) / self.size());
                let (name, start, fork) = (*name, *start, self.fork_of(name.timeline));
                visit(&Stretch { name, start, fork, missing, entry })?;
                expected = Some(Lsn(start.0 + self.size()));
            }
        }
        Ok(notes)
    }

    /// The segment that holds `lsn`, or that after it.
    pub fn segment_at(&self, lsn: Lsn) -> Option<SegmentName> {
        let start = Lsn(lsn.0 - lsn.0 % self.size());
        self.segments.get(&start).copied()
    }

    /// Those that follow `name`, without a gap.
    pub fn after(&self, name: SegmentName) -> impl Iterator<Item = SegmentName> + '_ {
        let mut at = name.start(self.segment_size);
        std::iter::from_fn(move || {
            at = Lsn(at.0 + self.size());
            self.segments.get(&at).copied()
        })
    }

    /// The timeline a record at `lsn` was written on, and the one to recover on: another only
    /// where the end of the first is archived in the segment of its successor alone.
    pub fn timelines_at(&self, lsn: Lsn) -> (TimelineId, TimelineId) {
        let is_here = |end: Option<Lsn>| end.is_none_or(|end| lsn < end);
        let step = self.path.steps().iter().find(|step| is_here(step.end));
        let written = step.map_or(self.path.last(), |step| step.timeline);
        let own = SegmentName::containing(written, lsn, self.segment_size);
        let is_archived = self.logs.get(&own.log).is_some_and(|logs| {
            let of_it = logs.iter().filter(|log| log.timeline == written);
            of_it.flat_map(|log| &log.segments).any(|segment| segment.name == own)
        });
        let target = match self.segment_at(lsn) {
            Some(name) if !is_archived => name.timeline,
            _ => written,
        };
        (written, target)
    }

    pub fn fork_of(&self, timeline: TimelineId) -> Option<Lsn> {
        let step = self.path.steps().iter().find(|step| step.timeline == timeline);
        step.and_then(|step| step.end)
    }

    fn size(&self) -> u64 {
        u64::from(self.segment_size)
    }
}

/// Of one system identifier all segments are of one size.
fn segment_size_of(home: &Home, listed: &[ListedLog]) -> Result<u32> {
    for log in listed.iter().rev() {
        if let Some(size) = home.log_as_listed(log)?.segment_size {
            return Ok(size);
        }
    }
    let message = if listed.is_empty() {
        "no WAL is archived on this timeline"
    } else {
        "no archived segment says how large segments are"
    };
    Err(Error::new(ErrorKind::Refused, message)
        .hint("Look at --timeline, --cluster and --repository, and at walden window."))
}

/// Of two that start alike that of the newer timeline, as PostgreSQL takes it.
fn on_path(path: &TimelinePath, listed: &[ListedLog], size: u32) -> BTreeMap<Lsn, SegmentName> {
    let mut by_start = BTreeMap::new();
    for step in path.steps() {
        let logs = listed.iter().filter(|log| log.timeline == step.timeline);
        for segment in logs.flat_map(|log| &log.segments) {
            let start = segment.name.start(size);
            let begins_before = step.end.is_none_or(|end| start < end);
            if begins_before && start.0 + u64::from(size) > step.begin.0 {
                by_start.insert(start, segment.name);
            }
        }
    }
    by_start
}

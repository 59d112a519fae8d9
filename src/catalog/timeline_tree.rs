//! The tree of timelines: which branch descends from which, and where they part.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::history_file::HistoryFile;
use crate::postgres::{Lsn, SegmentName, TimelineId};

/// Every timeline of which we have a history file; timeline 1 is always known and has none.
#[derive(Debug, Clone, Default)]
pub struct TimelineTree {
    histories: BTreeMap<TimelineId, HistoryFile>,
}

/// The way from the first timeline to the one recovery follows, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelinePath {
    steps: Vec<Step>,
}

/// The WAL of one timeline that belongs to the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub timeline: TimelineId,
    pub begin: Lsn,
    /// Exclusive; `None` for the last one, which goes on.
    pub end: Option<Lsn>,
}

impl TimelineTree {
    pub fn new(histories: impl IntoIterator<Item = HistoryFile>) -> Self {
        let histories = histories.into_iter().map(|file| (file.timeline, file)).collect();
        TimelineTree { histories }
    }

    /// Those that have a history file, lowest first.
    pub fn branches(&self) -> impl DoubleEndedIterator<Item = TimelineId> + '_ {
        self.histories.keys().copied()
    }

    /// The timeline this one branched off, and where; `None` for the first and for unknown ones.
    pub fn parent(&self, timeline: TimelineId) -> Option<(TimelineId, Lsn)> {
        let parent = self.histories.get(&timeline)?.ancestors.last()?;
        Some((parent.timeline, parent.end))
    }

    /// As if these had no history file.
    #[must_use]
    pub fn without(&self, timelines: &BTreeSet<TimelineId>) -> TimelineTree {
        let mut histories = self.histories.clone();
        histories.retain(|timeline, _| !timelines.contains(timeline));
        TimelineTree { histories }
    }

    /// `Refused` where the timeline's history file is not in the repository.
    pub fn path(&self, timeline: TimelineId) -> Result<TimelinePath> {
        let mut steps = Vec::new();
        let mut begin = Lsn(0);
        match self.histories.get(&timeline) {
            Some(history) => {
                for ancestor in &history.ancestors {
                    let (timeline, end) = (ancestor.timeline, Some(ancestor.end));
                    steps.push(Step { timeline, begin, end });
                    begin = ancestor.end;
                }
            }
            None if timeline.get() == 1 => {}
            None => return Err(self.no_history(timeline)),
        }
        steps.push(Step { timeline, begin, end: None });
        Ok(TimelinePath { steps })
    }

    fn no_history(&self, timeline: TimelineId) -> Error {
        let file = format!("{}.history", timeline.to_hex());
        let known: Vec<String> = std::iter::once(1)
            .chain(self.branches().map(TimelineId::get))
            .map(|n| n.to_string())
            .collect();
        Error::new(
            ErrorKind::Refused,
            format!("timeline {timeline} is not known: {file} is not in the repository"),
        )
        .hint(format!(
            "Known here: {}. If a server is on this timeline, archive the file from its data \
             directory: walden push pg_wal/{file}.",
            known.join(", ")
        ))
    }
}

impl TimelinePath {
    /// Oldest first.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The timeline recovery follows to its end.
    pub fn last(&self) -> TimelineId {
        self.steps.last().expect("a path has a last step: `path` pushes it").timeline
    }

    /// The segment that recovery reads for the byte at `lsn`: where a timeline branches off within
    /// it, the branch's.
    pub fn segment(&self, lsn: Lsn, segment_size: u32) -> SegmentName {
        let size = u64::from(segment_size);
        let last_byte = Lsn(lsn.0 - lsn.0 % size + (size - 1));
        let holds = |step: &&Step| step.end.is_none_or(|end| last_byte < end);
        let timeline = self.steps.iter().find(holds).map_or(self.last(), |step| step.timeline);
        SegmentName::containing(timeline, lsn, segment_size)
    }

    /// Whether WAL of this timeline up to `end` (exclusive) belongs to the path.
    pub fn contains(&self, timeline: TimelineId, end: Lsn) -> bool {
        self.steps
            .iter()
            .any(|step| step.timeline == timeline && step.end.is_none_or(|fork| end <= fork))
    }
}

/// `1 until 0/A000198, 2`
impl fmt::Display for TimelinePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            match step.end {
                Some(end) => write!(f, "{} until {end}, ", step.timeline)?,
                None => write!(f, "{}", step.timeline)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub mod samples {
    use super::TimelineTree;
    use crate::postgres::TimelineId;
    use crate::postgres::history_file::HistoryFile;

    pub fn timeline(id: u32) -> TimelineId {
        TimelineId::new(id).unwrap()
    }

    pub fn tree(histories: &[(u32, &str)]) -> TimelineTree {
        TimelineTree::new(
            histories.iter().map(|(id, text)| HistoryFile::parse(timeline(*id), text).unwrap()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{timeline, tree};
    use crate::error::ErrorKind;
    use crate::postgres::Lsn;

    #[test]
    fn a_fork_is_not_its_sibling() {
        // 2 and 3 both branched off 1; 4 off 3.
        let tree = tree(&[(2, "1 0/500"), (3, "1 0/300"), (4, "1 0/300\n3 0/700")]);
        let path = tree.path(timeline(4)).unwrap();
        assert_eq!(path.to_string(), "1 until 0/300, 3 until 0/700, 4");
        assert_eq!(path.last(), timeline(4));
        assert!(path.contains(timeline(1), Lsn(0x300)));
        assert!(!path.contains(timeline(1), Lsn(0x301)), "after the fork point");
        assert!(!path.contains(timeline(2), Lsn(0x400)), "a sibling");
        assert!(path.contains(timeline(3), Lsn(0x700)));
        assert!(path.contains(timeline(4), Lsn(0xFFFF_0000)));
    }

    #[test]
    fn timeline_one_needs_no_history_and_every_other_does() {
        let tree = tree(&[(2, "1 0/500")]);
        assert_eq!(tree.path(timeline(1)).unwrap().to_string(), "1");
        let error = tree.path(timeline(3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.one_line().contains("Known here: 1, 2"), "{error:?}");
    }
}

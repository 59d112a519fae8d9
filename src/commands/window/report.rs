//! What `walden window` tells, as a value; its JSON shape, version 1.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::catalog::wal_run::{Cause, Gap};
use crate::catalog::window::{Lack, TimelineWindow, Window};
use crate::commands::window::Unarchived;
use crate::postgres::{Lsn, SystemIdentifier, TimelineId};

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub walden: u32,
    pub cluster: String,
    pub repository: String,
    pub system_identifier: SystemIdentifier,
    /// That can be read, usable or not.
    pub backups: usize,
    /// Lowest first.
    pub timelines: Vec<TimelineReport>,
    /// `None` where neither the data directory nor the server can be seen from here.
    pub unarchived: Option<Unarchived>,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct TimelineReport {
    pub timeline: TimelineId,
    pub parent: Option<TimelineId>,
    /// Where it branched off its parent.
    pub switch_lsn: Option<Lsn>,
    /// Of the newest window; all of them `None` where nothing can be recovered.
    #[serde(serialize_with = "microseconds")]
    pub earliest: Option<Timestamp>,
    pub earliest_lsn: Option<Lsn>,
    pub earliest_backup: Option<String>,
    #[serde(serialize_with = "microseconds")]
    pub latest: Option<Timestamp>,
    pub latest_lsn: Option<Lsn>,
    pub latest_xid: Option<u32>,
    /// False: at least until then, since some WAL after it has no digest.
    pub latest_is_exact: Option<bool>,
    /// Its own segments in the repository.
    pub segments: u64,
    /// Oldest first.
    pub windows: Vec<WindowReport>,
    pub gaps: Vec<GapReport>,
    pub unusable_backups: Vec<UnusableBackup>,
    /// Why nothing can be recovered, where that has a reason of its own.
    pub obstacle: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct WindowReport {
    #[serde(serialize_with = "microseconds")]
    pub earliest: Option<Timestamp>,
    pub earliest_lsn: Lsn,
    pub earliest_backup: String,
    pub backups: u64,
    #[serde(serialize_with = "microseconds")]
    pub latest: Option<Timestamp>,
    pub latest_lsn: Lsn,
    pub latest_xid: Option<u32>,
    pub latest_is_exact: bool,
    pub first_segment: String,
    pub last_segment: String,
    /// Where the last record ends.
    pub end_lsn: Lsn,
    /// When the newest segment was stored: no commit in it is later.
    pub stored: Timestamp,
    pub segments: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
    pub commits: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct GapReport {
    pub cause: Cause,
    /// The timeline of `first_missing`.
    pub timeline: TimelineId,
    pub first_missing: String,
    pub from_lsn: Lsn,
    /// Exclusive.
    pub to_lsn: Lsn,
    pub segments: u64,
    /// Of WAL.
    pub bytes: u64,
    /// False where every backup begins after it: nothing needs what is missing.
    pub is_harmful: bool,
    /// The last commit known before it, the first known after it.
    #[serde(serialize_with = "microseconds")]
    pub after: Option<Timestamp>,
    #[serde(serialize_with = "microseconds")]
    pub before: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize)]
pub struct UnusableBackup {
    pub id: String,
    /// The first segment it needs and has not; `None` where WAL is not what it lacks.
    pub first_missing: Option<String>,
    pub reason: String,
}

impl UnusableBackup {
    fn new(id: &str, lack: &Lack) -> UnusableBackup {
        let (first_missing, reason) = match lack {
            Lack::Segment(first) => (Some(first.to_string()), format!("it lacks {first}")),
            Lack::Chain(broken) => (None, broken.to_string()),
        };
        UnusableBackup { id: id.to_owned(), first_missing, reason }
    }
}

impl Report {
    /// The caller adds whose it is.
    pub fn new(
        timelines: &[TimelineWindow],
        segment_size: u32,
        unarchived: Option<Unarchived>,
        notes: Vec<String>,
    ) -> Report {
        Report {
            walden: 1,
            cluster: String::new(),
            repository: String::new(),
            system_identifier: SystemIdentifier(0),
            backups: 0,
            timelines: timelines.iter().map(|it| TimelineReport::new(it, segment_size)).collect(),
            unarchived,
            notes,
        }
    }

    /// Whether any timeline can be recovered to any time.
    pub fn is_recoverable(&self) -> bool {
        self.timelines.iter().any(|timeline| timeline.latest.is_some())
    }
}

impl TimelineReport {
    fn new(window: &TimelineWindow, segment_size: u32) -> TimelineReport {
        let newest = window.newest();
        TimelineReport {
            timeline: window.timeline,
            parent: window.parent.map(|(parent, _)| parent),
            switch_lsn: window.parent.map(|(_, lsn)| lsn),
            earliest: newest.map(|newest| newest.earliest),
            earliest_lsn: newest.map(|newest| newest.earliest_lsn),
            earliest_backup: newest.map(|newest| newest.earliest_backup.clone()),
            latest: newest.map(|newest| newest.latest),
            latest_lsn: newest.map(|newest| newest.latest_lsn),
            latest_xid: newest.and_then(|newest| newest.latest_xid),
            latest_is_exact: newest.map(|newest| newest.is_exact),
            segments: window.segments,
            windows: window.windows.iter().map(WindowReport::new).collect(),
            gaps: window.gaps.iter().map(|gap| GapReport::new(gap, window, segment_size)).collect(),
            unusable_backups: window
                .unusable
                .iter()
                .map(|(id, lack)| UnusableBackup::new(id, lack))
                .collect(),
            obstacle: obstacle(window),
        }
    }
}

fn obstacle(window: &TimelineWindow) -> Option<String> {
    if window.lacks_history {
        let file = format!("{}.history", window.timeline.to_hex());
        return Some(format!(
            "{file} is not in the repository, or cannot be read: archive it from pg_wal of a \
             server on this timeline."
        ));
    }
    if window.newest().is_some() {
        return None;
    }
    if window.segments == 0 {
        return Some("none of its WAL is archived yet.".to_owned());
    }
    Some("no usable backup leads to its WAL: take one with walden backup.".to_owned())
}

impl WindowReport {
    fn new(window: &Window) -> WindowReport {
        let run = &window.run;
        WindowReport {
            earliest: Some(window.earliest),
            earliest_lsn: window.earliest_lsn,
            earliest_backup: window.earliest_backup.clone(),
            backups: window.backups,
            latest: Some(window.latest),
            latest_lsn: window.latest_lsn,
            latest_xid: window.latest_xid,
            latest_is_exact: window.is_exact,
            first_segment: run.first.to_string(),
            last_segment: run.last.to_string(),
            end_lsn: run.end,
            stored: run.stored,
            segments: run.segments,
            stored_bytes: run.stored_bytes,
            commits: run.commits,
        }
    }
}

impl GapReport {
    fn new(gap: &Gap, window: &TimelineWindow, segment_size: u32) -> GapReport {
        GapReport {
            cause: gap.cause,
            timeline: gap.first.timeline,
            first_missing: gap.first.to_string(),
            from_lsn: gap.from,
            to_lsn: gap.to,
            segments: gap.segments,
            bytes: gap.segments * u64::from(segment_size),
            is_harmful: window.is_harmful(gap),
            after: gap.after,
            before: gap.before,
        }
    }
}

/// Always six digits, so that texts compare as times do.
pub fn microseconds<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(&format_args!("{time:.6}")),
        None => serializer.serialize_none(),
    }
}

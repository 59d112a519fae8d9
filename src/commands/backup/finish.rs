//! The end of a backup: all the WAL it needs must be in the repository before it may be called one.

use std::time::Duration;

use crate::commands::backup::archiver;
use crate::commands::backup::progress::Progress;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::postgres::connection::ConnectionOptions;
use crate::postgres::replication::{BackupEnd, BackupStart};
use crate::postgres::{SegmentName, TimelineId, WalFileName};
use crate::repository::{Home, Manifest};

const POLL_FIRST: Duration = Duration::from_millis(200);
const POLL_MAX: Duration = Duration::from_secs(5);
/// How long a wait is nothing to speak of.
const SILENT: Duration = Duration::from_secs(15);

/// A standby that followed its primary onto another timeline has WAL of both; what it copied
/// belongs to neither alone.
pub fn refuse_timeline_switch(start: &BackupStart, end: &BackupEnd) -> Result<()> {
    if start.timeline == end.timeline {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "the server went from timeline {} to {} during the backup",
            start.timeline, end.timeline
        ),
    )
    .hint("A standby was promoted meanwhile. Nothing was published; take the backup again."))
}

/// Waits until every segment that replay needs is there; names the first that is not when time is
/// up.
pub fn wait_for_wal(
    home: &Home,
    manifest: &Manifest,
    timeout: Duration,
    options: &ConnectionOptions,
    progress: &Progress,
) -> Result<()> {
    let deadline = Deadline::after(timeout);
    let mut pause = POLL_FIRST;
    let mut waited = Duration::ZERO;
    let mut said = None;
    for segment in manifest.wal_needed() {
        while !home.has_wal(&WalFileName::Segment(segment)).context(|| "look for its WAL")? {
            if deadline.has_passed() {
                return Err(missing(home, manifest, segment, timeout, options));
            }
            if said != Some(segment) {
                progress.enter(format!("waiting for WAL segment {segment} to be archived"));
                said = Some(segment);
            }
            if waited < SILENT && waited + pause >= SILENT {
                tracing::warn!(
                    "still waiting for WAL segment {segment} to arrive at {}",
                    home.url()
                );
            }
            std::thread::sleep(pause.min(deadline.remaining()));
            waited += pause;
            pause = (pause * 3 / 2).min(POLL_MAX);
        }
    }
    Ok(())
}

/// A restore onto another timeline than this one will ask for the history file. One that was never
/// archived here, since this archive began later, hinders nothing else: a warning.
pub fn look_for_history(home: &Home, timeline: TimelineId) -> Result<()> {
    let history = WalFileName::History(timeline);
    if timeline.get() > 1 && !home.has_wal(&history)? {
        tracing::warn!("{history} is not at {}: archive it by hand from pg_wal", home.url());
    }
    Ok(())
}

fn missing(
    home: &Home,
    manifest: &Manifest,
    segment: SegmentName,
    timeout: Duration,
    options: &ConnectionOptions,
) -> Error {
    let hint = if manifest.from_standby {
        "Nobody switches segments at the end of a backup from a standby: run SELECT \
         pg_switch_wal() on the primary, or set its archive_timeout; then take the backup again."
    } else {
        "The server's log says why archive_command is behind or failing; --wal-timeout waits \
         longer. Nothing was published; take the backup again."
    };
    let said = if manifest.from_standby {
        String::new()
    } else {
        format!("; {}", archiver::in_words(options))
    };
    Error::new(
        ErrorKind::Refused,
        format!(
            "the copy is done, but WAL segment {segment}, which it needs, is not at {} after {} \
             s{said}",
            home.url(),
            timeout.as_secs()
        ),
    )
    .hint(hint)
}

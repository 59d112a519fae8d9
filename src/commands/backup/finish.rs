//! The end of a backup: all the WAL it needs must be in the repository before it may be called one.

use std::time::Duration;

use crate::codec::{Header, Kind, Sealer};
use crate::commands::backup::archiver;
use crate::commands::backup::copy::Target;
use crate::commands::progress::Progress;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::postgres::connection::{Connection, ConnectionOptions};
use crate::postgres::replication::{BackupEnd, BackupStart, base_backup};
use crate::postgres::wal_file_check::WalFileCheck;
use crate::postgres::{SegmentName, TimelineId, WalFileName};
use crate::repository::{Home, Manifest};
use crate::storage::Body;

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
        while !is_there(home, segment).context(|| "look for its WAL")? {
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

/// Before the very first push not even the place can be proven; that is no reason to stop waiting.
fn is_there(home: &Home, segment: SegmentName) -> Result<bool> {
    match home.has_wal(&WalFileName::Segment(segment)) {
        Err(error) if error.kind() == ErrorKind::WrongPlace && !home.is_claimed()? => Ok(false),
        outcome => outcome,
    }
}

/// The history of the backup's timeline, which a restore cannot do without. Timeline 1 has none.
pub fn ask_for_history(connection: &mut Connection, timeline: TimelineId) -> Option<String> {
    if timeline.get() == 1 {
        return None;
    }
    let history = base_backup::timeline_history(connection, timeline);
    history.inspect_err(|error| tracing::debug!(%error, "the server gives no history")).ok()
}

/// An archive that began after a promotion never got the history file of the timeline: the server
/// marked it done long ago. It is put there as a push would.
pub fn provide_history(
    target: &Target<'_>,
    timeline: TimelineId,
    history: Option<String>,
) -> Result<()> {
    let name = WalFileName::History(timeline);
    if timeline.get() == 1 || target.home.has_wal(&name)? {
        return Ok(());
    }
    let Some(text) = history else {
        let url = target.home.url();
        return Err(Error::new(
            ErrorKind::Refused,
            format!("{name} is not at {url}, and without it this backup cannot be restored"),
        )
        .hint(format!(
            "Archive it from the data directory of a server that has it: walden push \
             pg_wal/{name}; then take the backup again."
        )));
    };
    let mut check = WalFileCheck::new(&name);
    check.write(text.as_bytes())?;
    check.finish()?;
    let mut sealer = Sealer::new(target.compression, text.len() as u64)?;
    sealer.write(text.as_bytes())?;
    let sealed = sealer.finish(|content| {
        Header::new(Kind::History, name.to_string(), content, target.origin.clone())
    })?;
    let stored = target.home.put_wal(&name, &Body::new(sealed), target.origin);
    stored.map(|_| ()).context(|| format!("archive {name}"))
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
         pg_switch_wal() on the primary, \
         or set its archive_timeout; then take the backup again."
    } else {
        "The server's log says why archive_command is behind or failing; --wal-timeout waits \
         longer. Nothing was \
         published; take the backup again."
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

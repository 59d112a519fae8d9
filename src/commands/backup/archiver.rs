//! Whether archiving works at all: asked before anything is copied, so that a broken
//! `archive_command` fails a backup in its first minute and not after hours.

use std::time::Duration;

use crate::commands::backup::Request;
use crate::commands::backup::copy::Target;
use crate::commands::backup::halt::Halt;
use crate::commands::backup::source::Source;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock::{self, Deadline};
use crate::postgres::connection::{Connection, ConnectionOptions};
use crate::postgres::replication::BackupStart;
use crate::postgres::replication::base_backup::show;
use crate::postgres::{Lsn, SegmentName, TimelineId, WalFileName};
use crate::repository::Home;

/// How long the side connection may take; it is a help, not a need.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(500);
/// Later segments that also prove that WAL arrives.
const SEGMENTS_LOOKED_AT: usize = 3;

/// Refuses where archiving cannot work; the server's clock ahead of ours.
pub fn check(
    connection: &mut Connection,
    source: &Source,
    home: &Home,
    request: &Request,
) -> Result<jiff::SignedDuration> {
    let status = ArchiverStatus::ask(&request.connection);
    let is_watched = !source.is_standby && request.archive_check.is_some();
    let has_archived = status.as_ref().is_none_or(|status| status.last_archived.is_some());
    // A server that was just told to archive has archived nothing yet: then the watch decides.
    if (has_archived || !is_watched) && !home.is_claimed()? {
        home.prove().context(|| "look for this cluster's WAL archive")?;
    }
    let ahead = status.as_ref().map_or(jiff::SignedDuration::ZERO, |status| status.clock_ahead);
    // A standby's WAL is archived by its primary.
    if is_watched {
        check_settings(connection)?;
        status.map_or(Ok(()), |status| status.check())?;
    }
    Ok(ahead)
}

/// What `pg_stat_archiver` says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ArchiverStatus {
    last_archived: Option<String>,
    last_failed: Option<String>,
    failures: String,
    /// The last attempt failed.
    is_failing: bool,
    /// The server's clock ahead of ours.
    clock_ahead: jiff::SignedDuration,
}

impl ArchiverStatus {
    /// By SQL, over a connection of its own; `None` where that cannot be had.
    fn ask(options: &ConnectionOptions) -> Option<Self> {
        let asked = ask(options);
        if let Err(error) = &asked {
            tracing::info!("pg_stat_archiver cannot be asked: {error}");
        }
        asked.ok().flatten()
    }

    /// Refuses while the archiver fails.
    fn check(&self) -> Result<()> {
        match (&self.last_failed, self.is_failing) {
            (Some(file), true) => Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "archiving does not work: PostgreSQL could not archive {file}, {} failures so \
                     far",
                    self.failures
                ),
            )
            .hint(
                "The server's log has the line that archive_command wrote. A backup is worth \
                 nothing without its WAL; \
                 --no-archive-check takes the risk.",
            )),
            _ => Ok(()),
        }
    }

    fn in_words(&self) -> String {
        match (&self.last_failed, &self.last_archived) {
            (Some(file), _) if self.is_failing => {
                format!("pg_stat_archiver says that archiving {file} failed")
            }
            (_, Some(file)) => {
                format!(
                    "pg_stat_archiver says that {file} was archived well, but to another place?"
                )
            }
            _ => "pg_stat_archiver says that nothing was archived yet".to_owned(),
        }
    }
}

/// What to say of the archiver when WAL does not come.
pub fn in_words(options: &ConnectionOptions) -> String {
    let status = ArchiverStatus::ask(options);
    let unknown = || "pg_stat_archiver cannot be asked".to_owned();
    status.map_or_else(unknown, |status| status.in_words())
}

fn ask(options: &ConnectionOptions) -> Result<Option<ArchiverStatus>> {
    const SQL: &str = "SELECT last_archived_wal, last_failed_wal, failed_count, \
        coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false), \
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM pg_stat_archiver";
    let options = options.clone().connect_timeout(PATIENCE).read_timeout(Some(PATIENCE));
    let mut connection = Connection::connect(&options.sql())?;
    // Before the question, so that the server's clock is rather thought too far ahead than too
    // little: a backup that seems to end too early would be chosen for targets it cannot reach.
    let asked_at = clock::now();
    let rows = connection.query(SQL)?;
    let Some([last_archived, last_failed, failures, is_failing, now]) =
        rows.into_iter().next().and_then(|row| <[_; 5]>::try_from(row).ok())
    else {
        return Ok(None);
    };
    let now = now.and_then(|now| now.parse().ok()).and_then(millisecond);
    Ok(Some(ArchiverStatus {
        last_archived,
        last_failed,
        failures: failures.unwrap_or_default(),
        is_failing: is_failing.as_deref() == Some("t"),
        clock_ahead: now.map(|now| now.duration_since(asked_at)).unwrap_or_default(),
    }))
}

fn millisecond(number: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(number).ok()
}

/// Refuses a primary that archives nothing. Every role with REPLICATION may ask for these settings.
fn check_settings(connection: &mut Connection) -> Result<()> {
    let off = |what: &str| {
        Error::new(ErrorKind::Refused, format!("this server archives nothing: {what}")).hint(
            "Set archive_mode = on and archive_command = 'walden push \"%p\"', and restart the \
             server.",
        )
    };
    if show(connection, "archive_mode")? == "off" {
        return Err(off("archive_mode is off"));
    }
    // With archive_mode on, an empty command shows as itself, not as "(disabled)".
    let is_empty = |value: String| value.is_empty() || value == "(disabled)";
    if is_empty(show(connection, "archive_command")?)
        && is_empty(show(connection, "archive_library")?)
    {
        return Err(off("archive_command is empty"));
    }
    Ok(())
}

/// What the watch over the first minutes needs.
#[derive(Debug)]
pub struct Watch<'w> {
    pub home: &'w Home,
    pub start: &'w BackupStart,
    /// In bytes.
    pub segment_size: u32,
    pub patience: Duration,
    pub options: &'w ConnectionOptions,
}

impl<'w> Watch<'w> {
    /// `None` where nobody wants to know, and on a standby, whose WAL its primary archives.
    pub fn of(
        source: &Source,
        target: &Target<'w>,
        request: &'w Request,
        start: &'w BackupStart,
    ) -> Option<Self> {
        request.archive_check.filter(|_| !source.is_standby).map(|patience| Watch {
            home: target.home,
            start,
            segment_size: source.segment_size,
            patience,
            options: &request.connection,
        })
    }

    /// Stops the backup unless WAL arrives in time. The start of a backup switches to a new
    /// segment, so at least the one before is on its way. A copy that is done sooner than the watch
    /// is no reason to end it.
    pub fn run(&self, halt: &Halt<'_>) {
        if let Err(error) = self.wait(halt) {
            halt.fail(error);
        }
    }

    fn wait(&self, halt: &Halt<'_>) -> Result<()> {
        let deadline = Deadline::after(self.patience);
        let candidates = self.candidates();
        while !halt.is_on() {
            let is_claimed = self.home.is_claimed()?;
            for name in candidates.iter().filter(|_| is_claimed) {
                if self.home.has_wal(&WalFileName::Segment(*name))? {
                    tracing::info!("archiving works: {name} is in the repository");
                    return Ok(());
                }
            }
            if deadline.has_passed() {
                return self.judge();
            }
            std::thread::sleep(POLL.min(deadline.remaining().max(Duration::from_millis(10))));
        }
        Ok(())
    }

    /// The segment before the start, on this timeline or those it may have branched from, and those
    /// after it.
    fn candidates(&self) -> Vec<SegmentName> {
        let (timeline, size) = (self.start.timeline, self.segment_size);
        let before = Lsn(self.start.lsn.0.saturating_sub(u64::from(size)));
        let ancestors = (1..timeline.get()).rev().take(SEGMENTS_LOOKED_AT);
        let ancestors = ancestors.filter_map(|id| TimelineId::new(id).ok());
        let first = SegmentName::containing(timeline, before, size);
        let following = std::iter::successors(Some(first), |segment| Some(segment.next(size)));
        following
            .take(SEGMENTS_LOOKED_AT)
            .chain(ancestors.map(|ancestor| SegmentName::containing(ancestor, before, size)))
            .collect()
    }

    /// An archiver that is far behind, but arrives here, is no reason to give up.
    fn judge(&self) -> Result<()> {
        let status = ArchiverStatus::ask(self.options);
        let last = status.as_ref().and_then(|status| status.last_archived.as_deref());
        if let Some(name) = last.and_then(|name| WalFileName::parse(name).ok())
            && !status.as_ref().is_some_and(|status| status.is_failing)
            && self.home.is_claimed()?
            && self.home.has_wal(&name)?
        {
            tracing::warn!("archiving works, but is behind: the last file archived is {name}");
            return Ok(());
        }
        let said = status.map_or_else(|| in_words(self.options), |status| status.in_words());
        Err(Error::new(
            ErrorKind::Refused,
            format!(
                "no WAL of this backup arrived at {} within {} s; {said}",
                self.home.url(),
                self.patience.as_secs()
            ),
        )
        .hint(
            "Does archive_command name this repository and cluster? The server's log and \
             pg_stat_archiver say how it \
             fares. --no-archive-check goes on without this check.",
        ))
    }
}

//! `pg_backup_start` and `pg_backup_stop`: the server's part of a backup whose files somebody else
//! copies.
//!
//! Manual, "Making a Base Backup Using the Low Level API". The session between the two is the
//! backup: when it closes, the server ends its part and forgets about it.

use std::time::Duration;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::connection::{Connection, sqlstate};
use crate::postgres::replication::base_backup::{Checkpoint, Tablespace};
use crate::postgres::{Lsn, TimelineId, tablespace_map};

/// ERRCODE_INSUFFICIENT_PRIVILEGE.
const NOT_ALLOWED: &str = "42501";
/// How long any answer but that to the start may take: nothing here waits for WAL.
const PATIENCE: Duration = Duration::from_secs(600);

/// A backup that the server knows of. Dropping the connection ends it.
#[derive(Debug)]
pub struct LowLevelBackup<'c> {
    connection: &'c mut Connection,
    /// Where replay will begin.
    pub start_lsn: Lsn,
    /// As far as is known before the end.
    pub timeline: TimelineId,
    is_standby: bool,
}

/// What `pg_backup_stop` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// As the label says, which recovery goes by.
    pub start_lsn: Lsn,
    pub start_timeline: TimelineId,
    pub end_lsn: Lsn,
    /// Another one where a standby followed a promotion meanwhile.
    pub end_timeline: TimelineId,
    /// Becomes `backup_label`.
    pub label_file: String,
    /// Becomes `tablespace_map`, if it is not empty.
    pub tablespace_map: String,
}

/// Whether this role may do all of it, in the database it is connected to.
pub fn is_allowed(connection: &mut Connection) -> Result<bool> {
    const SQL: &str = "SELECT has_function_privilege('pg_backup_start(text, boolean)', 'EXECUTE') \
        AND has_function_privilege('pg_backup_stop(boolean)', 'EXECUTE')";
    Ok(connection.value(SQL)?.as_deref() == Some("t"))
}

impl<'c> LowLevelBackup<'c> {
    /// Returns once the starting checkpoint is done; with a spread one that takes minutes of
    /// silence.
    pub fn start(
        connection: &'c mut Connection,
        label: &str,
        checkpoint: Checkpoint,
    ) -> Result<Self> {
        let begun = begin(connection, label, checkpoint);
        let start_lsn = begun.map_err(|error| advise(connection, error))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let timeline = timeline(connection, "SELECT timeline_id FROM pg_control_checkpoint()")?;
        let is_standby = is_standby(connection)?;
        Ok(LowLevelBackup { connection, start_lsn, timeline, is_standby })
    }

    /// Fails where the session is gone, and with it the backup; and where no end can be a good one.
    pub fn is_alive(&mut self) -> Result<()> {
        let is_standby = is_standby(self.connection).context(|| "keep the backup's session")?;
        if is_standby == self.is_standby {
            return Ok(());
        }
        Err(promoted())
    }

    pub fn connection(&mut self) -> &mut Connection {
        self.connection
    }

    /// Once all files are copied. Does not wait until the WAL is archived.
    pub fn stop(self) -> Result<Stopped> {
        const SQL: &str =
            "SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(wait_for_archive => false)";
        if is_standby(self.connection)? != self.is_standby {
            return Err(promoted());
        }
        let rows = self.connection.query(SQL).map_err(|error| advise(self.connection, error));
        let rows = rows.context(|| "end the backup")?;
        let row = rows.into_iter().next().and_then(|row| <[_; 3]>::try_from(row).ok());
        let Some([Some(lsn), Some(label_file), map]) = row else {
            return Err(unexpected("pg_backup_stop gives no row"));
        };
        let (start_lsn, start_timeline) = read_label(&label_file)?;
        if start_lsn != self.start_lsn {
            return Err(unexpected("the label is of another backup"));
        }
        let timeline = match is_standby(self.connection)? {
            // A standby's WAL may be that of a new timeline by now.
            true => timeline(
                self.connection,
                "SELECT greatest(min_recovery_end_timeline, timeline_id) \
                 FROM pg_control_recovery(), pg_control_checkpoint()",
            )?,
            false => start_timeline,
        };
        let tablespace_map = map.unwrap_or_default();
        Ok(Stopped {
            start_lsn,
            start_timeline,
            end_lsn: lsn.parse()?,
            end_timeline: timeline,
            label_file,
            tablespace_map,
        })
    }
}

impl Stopped {
    /// The tablespaces there were when the backup began.
    pub fn tablespaces(&self) -> Result<Vec<Tablespace>> {
        let links = tablespace_map::parse(&self.tablespace_map);
        let links = links.ok_or_else(|| unexpected("its map of tablespaces cannot be read"))?;
        Ok(links.into_iter().map(|(oid, path)| Tablespace { oid, path }).collect())
    }
}

fn begin(connection: &mut Connection, label: &str, checkpoint: Checkpoint) -> Result<Lsn> {
    // What may end a session that is silent for hours.
    connection.query("SET statement_timeout = 0; SET idle_session_timeout = 0")?;
    connection.set_read_timeout(None)?;
    let fast = checkpoint == Checkpoint::Fast;
    let label = label.replace('\'', "''");
    let quote = if label.contains('\\') { "E" } else { "" };
    let label = label.replace('\\', "\\\\");
    let sql = format!("SELECT pg_backup_start({quote}'{label}', {fast})");
    let lsn = connection.value(&sql).context(|| "begin the backup")?;
    lsn.ok_or_else(|| unexpected("pg_backup_start gives no LSN"))?.parse()
}

fn is_standby(connection: &mut Connection) -> Result<bool> {
    Ok(connection.value("SELECT pg_is_in_recovery()")?.as_deref() == Some("t"))
}

/// As the server itself would refuse it at the end.
fn promoted() -> Error {
    Error::new(ErrorKind::Refused, "the standby was promoted during the backup")
        .hint("Nothing was published; take the backup again.")
}

fn timeline(connection: &mut Connection, sql: &str) -> Result<TimelineId> {
    let id = connection.value(sql)?.and_then(|id| id.parse().ok());
    TimelineId::new(id.ok_or_else(|| unexpected("pg_control has no timeline"))?)
}

/// `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)` and `START TIMELINE: 1`
/// (`build_backup_content`, xlogbackup.c).
pub fn read_label(label: &str) -> Result<(Lsn, TimelineId)> {
    let value = |key: &str| label.lines().find_map(|line| line.strip_prefix(key));
    let lsn = value("START WAL LOCATION: ").and_then(|rest| rest.split(' ').next());
    let timeline = value("START TIMELINE: ").and_then(|id| id.trim().parse().ok());
    let (Some(lsn), Some(timeline)) = (lsn, timeline) else {
        return Err(unexpected("its label cannot be read"));
    };
    Ok((lsn.parse()?, TimelineId::new(timeline)?))
}

fn advise(connection: &mut Connection, error: Error) -> Error {
    if sqlstate(&error) != Some(NOT_ALLOWED) {
        return error;
    }
    let who = connection.query("SELECT quote_ident(current_user), quote_ident(current_database())");
    let row = who.ok().and_then(|rows| rows.into_iter().next()).unwrap_or_default();
    let name =
        |at: usize, other: &str| row.get(at).cloned().flatten().unwrap_or_else(|| other.to_owned());
    let (role, database) = (name(0, "the role"), name(1, "the database"));
    let what = format!("{role} may not begin and end a backup");
    Error::new(ErrorKind::Refused, what).source(error).hint(format!(
        "Let it, in database {database}: GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), \
         pg_backup_stop(boolean) TO {role}; or take the backup by --mode stream."
    ))
}

fn unexpected(what: &'static str) -> Error {
    Error::new(ErrorKind::Server, format!("the server's answer makes no sense: {what}"))
        .hint("Does a pooler stand between? Then connect to the server itself.")
}

#[cfg(test)]
mod tests {
    use super::read_label;
    use crate::postgres::{Lsn, TimelineId};

    #[test]
    fn a_label_says_where_its_backup_began() {
        let label = "START WAL LOCATION: 0/9000028 (file 000000020000000000000009)\n\
                     CHECKPOINT LOCATION: 0/9000060\nBACKUP METHOD: streamed\n\
                     BACKUP FROM: primary\nSTART TIME: 2026-11-21 10:00:00 UTC\n\
                     LABEL: START TIMELINE\nSTART TIMELINE: 2\n";
        let expected = (Lsn(0x900_0028), TimelineId::new(2).unwrap());
        assert_eq!(read_label(label).unwrap(), expected);
        assert!(read_label("LABEL: nothing else\n").is_err());
    }
}

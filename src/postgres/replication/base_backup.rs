//! `BASE_BACKUP`: the server streams its data directory as tar archives.
//!
//! The messages are those of PostgreSQL 15 and later (manual, "Streaming Replication Protocol").

use std::time::Duration;

use postgres_protocol::message::backend::Message;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::connection::{Connection, Incoming, Rows, ServerMessage, nonsense, values};
use crate::postgres::{Lsn, SystemIdentifier, TimelineId};

/// The checkpoint that a backup begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// At once: more input and output, no waiting.
    Fast,
    /// Over the server's usual time.
    Spread,
}

#[derive(Debug, Clone)]
pub struct BaseBackupRequest {
    /// Stands in `backup_label` and in the server's log.
    pub label: String,
    pub checkpoint: Checkpoint,
    /// KiB a second, 32 to 1048576; `None`: as fast as it goes.
    pub max_rate: Option<u32>,
    /// Only what has changed since the backup of the manifest that was uploaded.
    pub is_incremental: bool,
}

/// What IDENTIFY_SYSTEM answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentity {
    pub system_identifier: SystemIdentifier,
    pub timeline: TimelineId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupStart {
    pub lsn: Lsn,
    pub timeline: TimelineId,
    /// Without the data directory itself.
    pub tablespaces: Vec<Tablespace>,
    /// The server's estimate of all that comes, in bytes.
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    pub oid: u32,
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupEnd {
    pub lsn: Lsn,
    pub timeline: TimelineId,
}

/// What comes between start and end.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// From here on, data is of this archive: of a tablespace, or (`None`) of the data directory.
    Archive(Option<u32>),
    /// From here on, data is of the server's `backup_manifest`.
    Manifest,
    Data(&'a [u8]),
}

/// A base backup under way. Dropping the connection ends it, at the server too.
#[derive(Debug)]
pub struct BaseBackup<'c> {
    connection: &'c mut Connection,
    start: BackupStart,
}

pub fn identify_system(connection: &mut Connection) -> Result<SystemIdentity> {
    let rows = connection.query("IDENTIFY_SYSTEM").context(|| "identify the system")?;
    let text = |at: usize| field(&rows, 0, at);
    Ok(SystemIdentity { system_identifier: text(0)?.parse()?, timeline: timeline(text(1)?)? })
}

/// A server setting, by the walsender's SHOW, which every role with REPLICATION may use.
pub fn show(connection: &mut Connection, setting: &str) -> Result<String> {
    let rows =
        connection.query(&format!("SHOW {setting}")).context(|| format!("show {setting}"))?;
    field(&rows, 0, 0).map(str::to_owned)
}

/// The history file of a timeline, as the server has it in pg_wal.
pub fn timeline_history(connection: &mut Connection, timeline: TimelineId) -> Result<String> {
    let rows = connection
        .query(&format!("TIMELINE_HISTORY {timeline}"))
        .context(|| format!("get the history of timeline {timeline}"))?;
    field(&rows, 0, 1).map(str::to_owned)
}

impl<'c> BaseBackup<'c> {
    /// Returns once the starting checkpoint is done; with a spread one that takes minutes of
    /// silence.
    pub fn begin(connection: &'c mut Connection, request: &BaseBackupRequest) -> Result<Self> {
        connection.start(&command(request))?;
        let starting = result_set(connection)?;
        let (lsn, timeline) = position(&starting)?;
        let listed = result_set(connection)?;
        let start = BackupStart {
            lsn,
            timeline,
            tablespaces: tablespaces(&listed)?,
            size: sizes(&listed) << 10,
        };
        loop {
            match connection.receive()? {
                Incoming::Other(Message::CopyOutResponse(_)) => break,
                Incoming::Other(message) => refused(message)?,
                Incoming::CopyData(_) => return Err(unexpected("data before its announcement")),
            }
        }
        Ok(BaseBackup { connection, start })
    }

    pub fn start(&self) -> &BackupStart {
        &self.start
    }

    /// How long the server may be silent from here on.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.connection.set_read_timeout(timeout)
    }

    /// `None` once all has come.
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>> {
        // Progress reports are passed over: we count what comes.
        while self.connection.next_is_progress()? {
            self.connection.receive()?;
        }
        match self.connection.receive()? {
            Incoming::CopyData(bytes) => piece(bytes).map(Some),
            Incoming::Other(Message::CopyDone) => Ok(None),
            Incoming::Other(message) => {
                refused(message)?;
                Err(unexpected("a message in the middle of the data"))
            }
        }
    }

    /// Where the backup ended. Damaged pages that the server found on its way end in an error here.
    pub fn end(self) -> Result<BackupEnd> {
        let ending = result_set(self.connection)?;
        let (lsn, timeline) = position(&ending)?;
        loop {
            match self.connection.receive()? {
                Incoming::Other(Message::ReadyForQuery(_)) => break,
                Incoming::Other(message) => refused(message).map_err(damaged_pages)?,
                Incoming::CopyData(_) => return Err(unexpected("data after its end")),
            }
        }
        Ok(BackupEnd { lsn, timeline })
    }
}

fn command(request: &BaseBackupRequest) -> String {
    let label = request.label.replace('\'', "''");
    let checkpoint = match request.checkpoint {
        Checkpoint::Fast => "fast",
        Checkpoint::Spread => "spread",
    };
    let max_rate = request.max_rate.map(|rate| format!(", MAX_RATE {rate}")).unwrap_or_default();
    let incremental = if request.is_incremental { ", INCREMENTAL" } else { "" };
    format!(
        "BASE_BACKUP (LABEL '{label}', PROGRESS true, CHECKPOINT '{checkpoint}', WAIT false, \
         WAL false, TABLESPACE_MAP true, MANIFEST 'yes', \
         MANIFEST_CHECKSUMS 'CRC32C'{max_rate}{incremental})"
    )
}

/// The first byte says what a piece of copy data is.
fn piece(bytes: &[u8]) -> Result<Piece<'_>> {
    match bytes.split_first() {
        Some((b'd', data)) => Ok(Piece::Data(data)),
        Some((b'm', _)) => Ok(Piece::Manifest),
        Some((b'n', names)) => {
            let name = names.split(|byte| *byte == 0).next().unwrap_or_default();
            archive(&String::from_utf8_lossy(name)).map(Piece::Archive)
        }
        _ => Err(unexpected("a kind of copy data that this version should not send")),
    }
}

/// `base.tar`, or `<oid>.tar` for a tablespace.
fn archive(name: &str) -> Result<Option<u32>> {
    match name.strip_suffix(".tar") {
        Some("base") => Ok(None),
        Some(oid) => oid.parse().map(Some).map_err(|_| unexpected("an archive of unknown name")),
        None => Err(unexpected("an archive that is no tar file")),
    }
}

/// The rows of one result set, of those that a replication command gives one after another.
fn result_set(connection: &mut Connection) -> Result<Rows> {
    let mut rows = Rows::new();
    loop {
        match connection.receive()? {
            Incoming::Other(Message::DataRow(row)) => rows.push(values(&row)?),
            Incoming::Other(Message::CommandComplete(_)) => return Ok(rows),
            Incoming::Other(message) => refused(message)?,
            Incoming::CopyData(_) => return Err(unexpected("data in place of a result")),
        }
    }
}

fn refused(message: Message) -> Result<()> {
    match message {
        Message::ErrorResponse(body) => Err(ServerMessage::parse(body.fields()).into_error()),
        Message::ReadyForQuery(_) => Err(unexpected("an early end")),
        _ => Ok(()),
    }
}

/// ERRCODE_DATA_CORRUPTED: the server verified the pages' checksums while it read them.
fn damaged_pages(error: Error) -> Error {
    if error.cause::<ServerMessage>().is_some_and(|message| message.sqlstate == "XX001") {
        return error.with_kind(ErrorKind::Corrupt).hint(
            "The server found damaged pages in its own data files: its log and checksum_failures \
             in pg_stat_database name them, pg_amcheck looks closer. No backup was made; keep the \
             older ones.",
        );
    }
    error
}

fn position(rows: &Rows) -> Result<(Lsn, TimelineId)> {
    Ok((field(rows, 0, 0)?.parse()?, timeline(field(rows, 0, 1)?)?))
}

fn timeline(text: &str) -> Result<TimelineId> {
    let id = text.parse().map_err(|_| unexpected("a timeline that is no number"))?;
    TimelineId::new(id)
}

/// Rows of oid, location and size in KiB; the data directory's own has neither oid nor location.
fn tablespaces(rows: &Rows) -> Result<Vec<Tablespace>> {
    let mut found = Vec::new();
    for row in rows {
        if let [Some(oid), Some(path), ..] = row.as_slice() {
            let oid = oid.parse().map_err(|_| unexpected("a tablespace without a number"))?;
            found.push(Tablespace { oid, path: path.clone() });
        }
    }
    Ok(found)
}

fn sizes(rows: &Rows) -> u64 {
    let size = |row: &Vec<Option<String>>| row.get(2)?.as_ref()?.parse::<u64>().ok();
    rows.iter().filter_map(size).sum()
}

fn field(rows: &Rows, row: usize, column: usize) -> Result<&str> {
    let value = rows.get(row).and_then(|row| row.get(column)).and_then(Option::as_deref);
    value.ok_or_else(|| unexpected("a result without the value that belongs there"))
}

pub(super) fn unexpected(what: &'static str) -> Error {
    nonsense(std::io::Error::other(what)).context("take a base backup")
}

#[cfg(test)]
mod tests {
    use super::{BaseBackupRequest, Checkpoint, Piece, command, piece, sizes, tablespaces};

    #[test]
    fn the_label_cannot_leave_its_quotes() {
        let request = BaseBackupRequest {
            label: "it's".to_owned(),
            checkpoint: Checkpoint::Spread,
            max_rate: Some(64),
            is_incremental: false,
        };
        let difference = BaseBackupRequest { is_incremental: true, ..request.clone() };
        assert!(command(&difference).ends_with(", MAX_RATE 64, INCREMENTAL)"));
        let command = command(&request);
        assert!(command.contains("LABEL 'it''s', "), "{command}");
        assert!(command.contains("CHECKPOINT 'spread'"), "{command}");
        assert!(command.ends_with(", MAX_RATE 64)"), "{command}");
    }

    #[test]
    fn pieces_are_told_apart_by_their_first_byte() {
        assert_eq!(piece(b"dabc").unwrap(), Piece::Data(b"abc"));
        assert_eq!(piece(b"m").unwrap(), Piece::Manifest);
        assert_eq!(piece(b"nbase.tar\0\0").unwrap(), Piece::Archive(None));
        assert_eq!(piece(b"n16384.tar\0/space\0").unwrap(), Piece::Archive(Some(16384)));
        for bad in [&b"nbase.tar.gz\0\0"[..], b"n../x.tar\0\0", b"x", b""] {
            assert!(piece(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_data_directory_is_no_tablespace_but_counts() {
        let text = |text: &str| Some(text.to_owned());
        let rows =
            vec![vec![text("16384"), text("/space"), text("100")], vec![None, None, text("2000")]];
        let found = tablespaces(&rows).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].oid, found[0].path.as_str()), (16384, "/space"));
        assert_eq!(sizes(&rows), 2100);
    }
}

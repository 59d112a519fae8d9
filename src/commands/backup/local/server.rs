//! Whether the server's files are those that we can read here.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

use crate::commands::backup::basis::Basis;
use crate::commands::backup::local::pages::Rules;
use crate::commands::backup::source::Source;
use crate::config::BackupMode;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::Connection;
use crate::postgres::control_file::ControlFile;
use crate::postgres::data_files::{self, BLOCK_BYTES};
use crate::postgres::low_level_backup::{self, LowLevelBackup};
use crate::postgres::{Lsn, TimelineId, WalFileName};
use crate::repository::Manifest;

/// `postmaster.pid` has the moment when the server began to start, SQL says when it had started:
/// large shared memory takes a while.
const START_SECONDS_MAX: i64 = 600;

/// A server by SQL, and its files.
#[derive(Debug)]
pub struct LocalServer {
    pub connection: Connection,
    pub pgdata: PathBuf,
}

/// What the checks of pages need to know of the server.
#[derive(Debug, Clone, Copy)]
pub struct BlocksPerFile(u32);

impl LocalServer {
    /// The server at the other end, if its data directory is here; else why we think it is not.
    /// `configured`: a data directory that somebody named. A server whose process cannot be seen,
    /// from another container say, takes somebody to say that this is the one.
    pub fn find(
        mut connection: Connection,
        source: &Source,
        configured: Option<&Path>,
        mode: BackupMode,
    ) -> Result<std::result::Result<LocalServer, String>> {
        let is_insisted_on = mode == BackupMode::Local;
        let said = connection.value("SHOW data_directory").ok().flatten().map(PathBuf::from);
        let mut why =
            "the role may not ask where the data directory is (pg_read_all_settings lets \
                       it)"
            .to_owned();
        let mut pgdata = None;
        for place in configured.map(Path::to_path_buf).into_iter().chain(said) {
            match is_of(&place, &mut connection, source, is_insisted_on)? {
                Ok(()) => {
                    if configured.is_some_and(|configured| configured != place) {
                        tracing::warn!(
                            "the server says that its files are in {}, which is read instead of \
                             pgdata (--pgdata): {why}",
                            place.display()
                        );
                    }
                    pgdata = Some(place);
                    break;
                }
                Err(not) => why = not,
            }
        }
        let Some(pgdata) = pgdata else { return Ok(Err(why)) };
        // Who insists gets the server's own refusal.
        if !is_insisted_on && !low_level_backup::is_allowed(&mut connection)? {
            let what = "the role may not execute pg_backup_start and pg_backup_stop";
            return Ok(Err(what.to_owned()));
        }
        Ok(Ok(LocalServer { connection, pgdata }))
    }

    /// The history of a timeline; 1 has none.
    pub fn history(&self, timeline: TimelineId) -> Option<String> {
        let name = WalFileName::History(timeline).to_string();
        let is_first = timeline.get() == 1;
        let read = || fs::read_to_string(self.pgdata.join(data_files::WAL).join(name)).ok();
        if is_first { None } else { read() }
    }

    /// What a backup may build on, by the server's settings.
    pub fn accept(&mut self, basis: Basis) -> Result<Basis> {
        let Basis::Parent(parent) = &basis else { return Ok(basis) };
        let reason = self.reason_against(&parent.manifest)?;
        Ok(reason.map_or(basis, Basis::full))
    }

    fn reason_against(&mut self, parent: &Manifest) -> Result<Option<String>> {
        const SQL: &str = "SELECT current_setting('data_checksums'), \
            current_setting('wal_log_hints'), \
            (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint, \
            current_setting('segment_size') = '1GB'";
        if parent.damaged > parent.damaged_pages.len() as u64 {
            let (id, damaged) = (&parent.id, parent.damaged);
            return Ok(Some(format!(
                "backup {id} has {damaged} damaged pages, too many to build on"
            )));
        }
        let row = self.connection.query(SQL)?.into_iter().next();
        let Some([checksums, hints, start, is_usual]) =
            row.and_then(|row| <[_; 4]>::try_from(row).ok())
        else {
            return Ok(Some("the server does not tell its settings".to_owned()));
        };
        let is_on = |setting: &Option<String>| setting.as_deref() == Some("on");
        if !is_on(&checksums) && !is_on(&hints) {
            let what = "the cluster has neither data checksums nor wal_log_hints, and so pages \
                        that change without a new LSN";
            return Ok(Some(what.to_owned()));
        }
        if is_usual.as_deref() != Some("t") {
            return Ok(Some("the files of its relations are not of 1 GiB".to_owned()));
        }
        // Both settings stay as they are while a server runs.
        let start = start.and_then(|start| start.parse::<i64>().ok());
        let has_run_since = start.is_some_and(|start| start < parent.began.as_millisecond());
        let had_checksums = parent.taken.as_ref().and_then(|taken| taken.data_checksums);
        if has_run_since || (is_on(&checksums) && had_checksums == Some(true)) {
            return Ok(None);
        }
        let setting = if is_on(&checksums) { "data checksums" } else { "wal_log_hints" };
        Ok(Some(format!(
            "the server was started since backup {}, and nothing tells that {setting} was on then",
            parent.id
        )))
    }

    /// `None` where the pages have no checksums.
    pub fn page_rules(&mut self) -> Result<Option<BlocksPerFile>> {
        let mut show = |name: &str| {
            let sql = format!("SELECT setting FROM pg_settings WHERE name = '{name}'");
            let value = self.connection.value(&sql)?;
            value.ok_or_else(|| Error::new(ErrorKind::Server, format!("there is no {name}")))
        };
        let block_bytes = show("block_size")?;
        if block_bytes != BLOCK_BYTES.to_string() {
            let what = format!("this server's pages have {block_bytes} bytes, not {BLOCK_BYTES}");
            return Err(Error::new(ErrorKind::Refused, what)
                .hint("Take the backup by --mode stream, which does not look at pages."));
        }
        let blocks = show("segment_size")?.parse();
        let has_checksums = show("data_checksums")? == "on";
        Ok(blocks.ok().filter(|_| has_checksums).map(BlocksPerFile))
    }
}

impl BlocksPerFile {
    /// The rules of a backup that began there.
    pub fn since(self, start_lsn: Lsn) -> Rules {
        Rules { start_lsn, blocks_per_file: self.0 }
    }
}

/// The checkpoint that a backup begins with is written in the `pg_control` of the server, and in no
/// copy of it. Gives the version of its catalogs.
pub fn expect_its_files(pgdata: &Path, backup: &LowLevelBackup<'_>) -> Result<u32> {
    let checkpoint = ControlFile::read(pgdata)?.checkpoint;
    let checkpoint = checkpoint.ok_or_else(|| {
        Error::new(ErrorKind::Refused, "the version of global/pg_control is not known")
            .hint("Use a newer walden, or take the backup by --mode stream.")
    })?;
    if checkpoint.redo_lsn >= backup.start_lsn {
        return Ok(checkpoint.catalog_version);
    }
    let what = format!(
        "{} is not the directory that the server works in: the backup began at {}, and its \
         pg_control knows of {}",
        pgdata.display(),
        backup.start_lsn,
        checkpoint.redo_lsn
    );
    Err(Error::new(ErrorKind::Refused, what)
        .hint("Is it a copy or a snapshot? Give the right --pgdata, or --mode stream."))
}

/// What a backup may build on, by where it begins: on the parent's way, and never behind what the
/// parent has seen.
pub fn accept_place(
    basis: Basis,
    source: &Source,
    backup: &mut LowLevelBackup<'_>,
) -> Result<Basis> {
    let Basis::Parent(parent) = &basis else { return Ok(basis) };
    let Manifest { id, start_lsn, end_lsn, .. } = &parent.manifest;
    if backup.timeline != source.timeline {
        return Ok(Basis::full("the server has just gone over to another timeline".to_owned()));
    }
    if backup.start_lsn >= *end_lsn {
        return Ok(basis);
    }
    // A standby begins at its last restartpoint, which may lie far behind. Then this is how far
    // replay must go for what is on its disk now.
    let sql = "SELECT min_recovery_end_lsn FROM pg_control_recovery()";
    let replayed: Option<Lsn> =
        backup.connection().value(sql)?.map(|lsn| lsn.parse()).transpose()?;
    let has_seen_all = replayed.is_some_and(|replayed| replayed >= *end_lsn);
    if source.is_standby && backup.start_lsn >= *start_lsn && has_seen_all {
        return Ok(basis);
    }
    Ok(Basis::full(format!(
        "this standby is behind backup {id}: that ended at {end_lsn}, and here a backup begins at \
         {}, its last restartpoint",
        backup.start_lsn
    )))
}

/// Whether a data directory is that of the server, as far as its files can tell; else why not.
fn is_of(
    pgdata: &Path,
    connection: &mut Connection,
    source: &Source,
    is_insisted_on: bool,
) -> Result<std::result::Result<(), String>> {
    let place = pgdata.display();
    let control = match fs::read(pgdata.join("global/pg_control")) {
        Ok(_) => ControlFile::read(pgdata)?,
        Err(error) => return Ok(Err(format!("its data directory {place} is not here: {error}"))),
    };
    if control.system_identifier != source.system_identifier {
        return Ok(Err(format!("{place} is of cluster {}", control.system_identifier)));
    }
    let lock_file = fs::read_to_string(pgdata.join("postmaster.pid"));
    let Some(postmaster) = lock_file.ok().as_deref().and_then(Postmaster::parse) else {
        return Ok(Err(format!("no server runs in {place}")));
    };
    let seconds = connection
        .value("SELECT extract(epoch FROM pg_postmaster_start_time())::bigint")?
        .and_then(|seconds| seconds.parse::<i64>().ok());
    let port = connection.value("SELECT current_setting('port')")?;
    let is_its = port.and_then(|port| port.parse().ok()) == Some(postmaster.port)
        && seconds.is_some_and(|seconds| postmaster.has_started_by(seconds));
    if !is_its {
        return Ok(Err(format!("another server runs in {place}")));
    }
    Ok(match is_insisted_on || postmaster.is_running() {
        true => Ok(()),
        false => Err(format!("no process of this machine runs in {place}")),
    })
}

/// The lines of `postmaster.pid` (`LOCK_FILE_LINE_…`, utils/pidfile.h).
#[derive(Debug, PartialEq, Eq)]
struct Postmaster {
    process: i32,
    /// Seconds since 1970.
    start: i64,
    port: u16,
}

impl Postmaster {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        let process = lines.next()?.parse().ok()?;
        let start = lines.nth(1)?.parse().ok()?;
        let port = lines.next()?.parse().ok()?;
        Some(Postmaster { process, start, port })
    }

    fn has_started_by(&self, seconds: i64) -> bool {
        (self.start - 1..=self.start + START_SECONDS_MAX).contains(&seconds)
    }

    /// A process that we may not signal runs all the same.
    fn is_running(&self) -> bool {
        let process = Pid::from_raw(self.process);
        process.is_some_and(|process| {
            !matches!(test_kill_process(process), Err(rustix::io::Errno::SRCH))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Postmaster;

    #[test]
    fn the_lock_file_tells_which_server_it_is() {
        let text = "4711\n/var/lib/postgresql/17/main\n1795301096\n5432\n/tmp\nlocalhost\n \
                    123 4\nready   \n";
        let postmaster = Postmaster::parse(text).unwrap();
        assert_eq!(postmaster, Postmaster { process: 4711, start: 1_795_301_096, port: 5432 });
        assert!(
            postmaster.has_started_by(1_795_301_096) && postmaster.has_started_by(1_795_301_110)
        );
        assert!(!postmaster.has_started_by(1_795_301_000));
        assert!(!postmaster.has_started_by(1_795_401_096));
        assert_eq!(Postmaster::parse("4711\n/data\n"), None);
    }
}

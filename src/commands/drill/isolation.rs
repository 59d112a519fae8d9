//! What keeps a rehearsal to itself: a configuration of its own, of which nothing comes from the
//! source but what recovery cannot do without.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use crate::commands::drill::scratch::Scratch;
use crate::commands::restore::recovery::{AUTO_CONF, write_file};
use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges::{self, User};
use crate::postgres::MajorVersion;
use crate::postgres::control_file::ControlFile;
use crate::postgres::recovery_settings::{RecoverySettings, quoted};

/// Names the socket only, in a directory where nobody else has one.
pub const PORT: u16 = 5432;
/// What a source can have had prepared at once, unless `pg_control` says more.
const PREPARED_MIN: u64 = 100;
/// Of subscriptions on the source: replay keeps their origins' progress.
const ORIGINS: u64 = 256;

/// What may differ from drill to drill.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For `shared_buffers`, in bytes.
    pub memory: u64,
    /// Libraries that may be loaded; none if nobody said so.
    pub preload: Vec<String>,
}

/// Writes all configuration there is: `postgresql.conf` and its like outside of the data directory,
/// and in the data directory, instead of what the source had set, the recovery alone.
pub fn write(
    scratch: &Scratch,
    major: MajorVersion,
    recovery: &RecoverySettings,
    limits: &Limits,
) -> Result<()> {
    let (folder, user) = (scratch.configuration(), scratch.user());
    make(&folder, user)?;
    let prepared = max_prepared_transactions(&scratch.data())?;
    let main = main_file(scratch, major, prepared, limits);
    write_file(&folder.join("postgresql.conf"), main.as_bytes(), user)?;
    write_file(&folder.join("pg_hba.conf"), b"local all all trust\n", user)?;
    write_file(&folder.join("pg_ident.conf"), b"", user)?;
    write_file(&scratch.data().join(AUTO_CONF), recovery.block().as_bytes(), user)
}

/// What the command line must say, since it is asked for before any file is read.
pub fn settings(scratch: &Scratch) -> Vec<(String, String)> {
    let file = scratch.configuration().join("postgresql.conf");
    vec![("config_file".to_owned(), file.display().to_string())]
}

/// The libraries that the source's server preloads, by the files of the data directory; the last
/// word counts.
pub fn preloaded(pgdata: &Path) -> Vec<String> {
    let text = |name: &str| fs::read(pgdata.join(name)).unwrap_or_default();
    let files = [text("postgresql.conf"), text(AUTO_CONF)].concat();
    let files = String::from_utf8_lossy(&files);
    let mut values = files.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        let is_it = name.trim().eq_ignore_ascii_case("shared_preload_libraries");
        is_it.then(|| value.split('#').next().unwrap_or_default().trim().trim_matches('\''))
    });
    let names =
        values.next_back().unwrap_or_default().split(',').map(|name| name.trim().trim_matches('"'));
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn make(folder: &Path, user: Option<&User>) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).create(folder);
    made.map_err(|error| {
        Error::new(ErrorKind::Host, format!("make {}", folder.display()))
            .hint("Look at the permissions of the drill's directory.")
            .source(error)
    })?;
    privileges::give(folder, user)
}

fn main_file(scratch: &Scratch, major: MajorVersion, prepared: u64, limits: &Limits) -> String {
    let path = |path: &Path| path.display().to_string();
    let folder = scratch.configuration();
    let mut settings: Vec<(&str, String)> = vec![
        // Nobody from outside gets in, and nothing gets out.
        ("data_directory", path(&scratch.data())),
        ("hba_file", path(&folder.join("pg_hba.conf"))),
        ("ident_file", path(&folder.join("pg_ident.conf"))),
        ("listen_addresses", String::new()),
        ("port", PORT.to_string()),
        ("unix_socket_directories", path(scratch.socket_directory())),
        ("shared_preload_libraries", limits.preload.join(",")),
    ];
    settings.extend(FIXED.iter().map(|(name, value)| (*name, (*value).to_owned())));
    if major >= MajorVersion(17) {
        settings.push(("event_triggers", "off".to_owned()));
        settings.push(("summarize_wal", "off".to_owned()));
    }
    if major >= MajorVersion(18) {
        settings.push(("max_active_replication_origins", ORIGINS.to_string()));
    }
    // Those of the source must find room again; hot standby, which would want more, is off.
    settings.push(("max_prepared_transactions", prepared.to_string()));
    settings.push(("max_replication_slots", ORIGINS.to_string()));
    settings.push(("shared_buffers", format!("{}kB", limits.memory / 1024)));
    let mut file = String::new();
    for (name, value) in settings {
        writeln!(file, "{name} = {}", quoted(&value)).expect("writing to a String cannot fail");
    }
    file
}

/// Whatever the source had.
const FIXED: [(&str, &str); 44] = [
    ("unix_socket_permissions", "0700"),
    ("unix_socket_group", ""),
    ("ssl", "off"),
    ("external_pid_file", ""),
    ("bonjour", "off"),
    ("archive_mode", "off"),
    ("archive_command", ""),
    ("archive_library", ""),
    ("primary_conninfo", ""),
    ("hot_standby", "off"),
    ("wal_level", "replica"),
    ("max_wal_senders", "0"),
    ("synchronous_standby_names", ""),
    // No workers that act by themselves: subscriptions, schedulers, vacuum.
    ("max_logical_replication_workers", "0"),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("autovacuum", "off"),
    ("jit", "off"),
    // A tablespace that is created while WAL is replayed stands inside of the data directory.
    ("allow_in_place_tablespaces", "on"),
    // Bounded, and nothing left behind outside of the directory, even where it is killed.
    ("max_connections", "40"),
    ("huge_pages", "off"),
    ("dynamic_shared_memory_type", "mmap"),
    ("restart_after_crash", "off"),
    ("max_wal_size", "1GB"),
    ("min_wal_size", "80MB"),
    ("work_mem", "8MB"),
    ("maintenance_work_mem", "64MB"),
    // What the drill reads.
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_line_prefix", "%m [%p] "),
    ("log_timezone", "UTC"),
    ("timezone", "UTC"),
    ("datestyle", "ISO, YMD"),
    ("lc_messages", "C"),
    ("log_min_messages", "warning"),
    ("log_error_verbosity", "default"),
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_checkpoints", "on"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("default_transaction_read_only", "off"),
    ("cluster_name", "walden drill"),
];

/// As the backup's `pg_control` has it.
fn max_prepared_transactions(pgdata: &Path) -> Result<u64> {
    let setting = ControlFile::read(pgdata)?.max_prepared_transactions;
    Ok(setting.map_or(PREPARED_MIN, u64::from).max(PREPARED_MIN))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::preloaded;

    #[test]
    fn the_last_word_says_what_is_preloaded() {
        let scratch = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(scratch.path().join(name), text).unwrap();
        assert!(preloaded(scratch.path()).is_empty());
        write("postgresql.conf", "#shared_preload_libraries = 'x'\nport = 1\n");
        assert!(preloaded(scratch.path()).is_empty());
        write("postgresql.conf", "shared_preload_libraries = 'a, \"b\"' # why\n");
        assert_eq!(preloaded(scratch.path()), ["a", "b"]);
        write("postgresql.auto.conf", "shared_preload_libraries = 'timescaledb'\n");
        assert_eq!(preloaded(scratch.path()), ["timescaledb"]);
        write("postgresql.auto.conf", "shared_preload_libraries = ''\n");
        assert!(preloaded(scratch.path()).is_empty());
    }
}

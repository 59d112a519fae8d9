//! `walden backup`: flags to a request, the report to text.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytesize::ByteSize;

use crate::cli::exit;
use crate::cli::progress::shown;
use crate::commands::App;
use crate::commands::backup::{self, Incremental, Progress, Report, Request};
use crate::config::{BackupMode, Checkpoint, Output};
use crate::error::{Error, ErrorKind, Result};
use crate::host::{priority, termination};
use crate::postgres::connection::ConnectionOptions;
use crate::repository::manifest::Taken;
use crate::repository::{BackupId, NamesFacts, taken};

/// Takes a base backup.
///
/// Over the replication protocol, from this machine or another: libpq's variables say where the
/// server is and who we are (PGHOST, PGPORT, PGUSER, PGPASSFILE, PGSERVICE, PGSSLMODE ...). The
/// role needs the attribute REPLICATION.
///
/// What databases and tables are called is saved along, for `walden find`. For that the role needs
/// CONNECT on each database; where it is refused, the backup says so and goes on.
#[derive(Debug, clap::Args)]
pub struct Backup {
    /// Where PostgreSQL is, as for psql: "host=db1 user=walden" or a URI. Wins over libpq's
    /// variables.
    #[arg(short, long, value_name = "CONNINFO")]
    dbname: Option<String>,
    /// How to get the server's files: local reads its data directory, which must be on this host;
    /// stream asks for them over the replication protocol; auto takes the first that works.
    #[arg(long, value_name = "MODE", value_parser = ["local", "stream", "auto"])]
    mode: Option<String>,
    /// Stores only what has changed since the newest usable backup of this server's history. Where
    /// that is not possible, takes a full one and says why.
    #[arg(long, conflicts_with = "full")]
    incremental: bool,
    /// Stores everything, whatever the configuration says. This is the default.
    #[arg(long)]
    full: bool,
    /// An incremental backup that builds on this one.
    #[arg(long, value_name = "ID", conflicts_with = "full")]
    parent: Option<BackupId>,
    /// The checkpoint to begin with: at once, or spread over the server's usual time.
    #[arg(long, value_name = "KIND", value_parser = ["fast", "spread"])]
    checkpoint: Option<String>,
    /// Stands in backup_label and in the server's log.
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Kept with the backup and shown by `walden list`; repeat it for each. Keys are of a-z, 0-9,
    /// `.`, `_` and `-`.
    #[arg(long, value_name = "KEY=VALUE")]
    note: Vec<String>,
    /// A lower priority for the processor, and by it for the disk: 1 to 19.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=19))]
    nice: Option<u8>,
    /// The most that is read in a second; in stream mode the server sees to that, and takes 32KiB
    /// to 1GiB.
    #[arg(long, value_name = "SIZE")]
    max_rate: Option<ByteSize>,
    /// How many threads compress.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// How long to wait for the WAL that the backup needs: "10min", "1h".
    #[arg(long, value_name = "TIME", value_parser = span)]
    wal_timeout: Option<Duration>,
    /// Begins even where archiving seems not to work. The backup is still published only with its
    /// WAL.
    #[arg(long)]
    no_archive_check: bool,
}

impl Backup {
    pub fn run(self, app: &App) -> Result<()> {
        // Nothing of ours needs undoing: without a manifest there is no backup. The server is told.
        termination::exit_when_told(
            exit::code(ErrorKind::Interrupted),
            "walden: backup: told to stop; no backup was published",
        );
        let output = app.settings.output;
        if let Some(nice) = self.nice.or(app.settings.backup.nice) {
            priority::lower(nice);
        }
        let request = self.request(app)?;
        let progress = Progress::default();
        let outcome = shown(&progress, output, || backup::run(app, &request, &progress));
        // What the server was asked to stop has failed; that it was told to is what counts.
        termination::stand_still_if_leaving();
        let report = outcome?;
        print(&report, output)?;
        sound(&report)
    }

    fn request(self, app: &App) -> Result<Request> {
        let settings = &app.settings.backup;
        let connection = match &self.dbname {
            Some(conninfo) => ConnectionOptions::from_conninfo(conninfo)?,
            None => ConnectionOptions::from_environment()?,
        };
        let checkpoint = match self.checkpoint.as_deref() {
            Some("spread") => Checkpoint::Spread,
            Some(_) => Checkpoint::Fast,
            None => settings.checkpoint,
        };
        let mode = match self.mode.as_deref() {
            Some("local") => BackupMode::Local,
            Some("stream") => BackupMode::Stream,
            Some(_) => BackupMode::Auto,
            None => settings.mode,
        };
        Ok(Request {
            connection,
            mode,
            pgdata: app.settings.pgdata.clone(),
            label: self.label.map(taken::label).transpose()?,
            notes: taken::notes(&self.note)?,
            checkpoint,
            max_rate: self.max_rate.map(|rate| rate.as_u64()).or(settings.max_rate),
            jobs: self.jobs.or(settings.jobs),
            wal_timeout: self.wal_timeout.unwrap_or(settings.wal_timeout),
            archive_check: (!self.no_archive_check).then_some(settings.archive_check),
            compression: app.settings.compression,
            incremental: Incremental {
                is_wanted: self.incremental
                    || self.parent.is_some()
                    || (settings.incremental && !self.full),
                parent: self.parent,
                chain_max: settings.chain_max,
                full_every: settings.full_every,
            },
        })
    }
}

fn span(text: &str) -> std::result::Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| "write it like 90s, 10min or 1h".to_owned())?;
    Duration::try_from(span).map_err(|_| "it cannot be negative".to_owned())
}

fn print(report: &Report, output: Output) -> Result<()> {
    let text = match (output.json, output.quiet) {
        (true, _) => serde_json::to_string_pretty(report)
            .map_err(|error| Error::new(ErrorKind::Bug, "write the report").source(error))?,
        (false, true) => report.id.to_string(),
        (false, false) => table(report),
    };
    // The backup is there whether or not anybody reads of it.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

/// The backup is there and can be restored; so can the damage.
fn sound(report: &Report) -> Result<()> {
    if report.damaged == 0 {
        return Ok(());
    }
    let (id, pages) = (&report.id, pages(report.damaged));
    let what = format!("backup {id} is published, with {pages} damaged on the server itself");
    Err(Error::new(ErrorKind::FoundWrong, what)
        .hint("Keep the older backups; look at the disk, and repair the relations named above."))
}

pub fn pages(number: u64) -> String {
    if number == 1 { "1 page".to_owned() } else { format!("{number} pages") }
}

fn table(report: &Report) -> String {
    let seconds = report.duration_ms as f64 / 1000.0;
    let (size, stored) = (ByteSize(report.size), ByteSize(report.stored));
    let server = report.server_version_num;
    let standby = if report.from_standby { ", a standby" } else { "" };
    let rows = [
        ("backup", report.id.to_string()),
        ("type", kind(report)),
        ("repository", report.repository.clone()),
        ("server", format!("PostgreSQL {}.{}{standby}", server / 10_000, server % 10_000)),
        ("began", format!("{:.0}", report.began)),
        ("ended", format!("{:.0}", report.ended)),
        ("took", format!("{seconds:.1} s{}", rate(report))),
        ("size", format!("{size} in {} files, {stored} stored", report.files)),
        ("timeline", report.timeline.to_string()),
        ("LSN", format!("{} to {}", report.start_lsn, report.end_lsn)),
        ("WAL needed", format!("{} to {}", report.first_wal, report.last_wal)),
        ("names", names(report.names.as_ref())),
        ("also saved", configuration(&report.configuration)),
    ];
    let lines = rows.map(|(name, value)| format!("{name:<12}{value}"));
    lines.join("\n")
}

fn kind(report: &Report) -> String {
    match (&report.parent, &report.full_because) {
        (Some(parent), _) => {
            format!("incremental to {parent}, {} in its chain", report.chain_length)
        }
        (None, Some(because)) => format!("full, since {because}"),
        (None, None) => "full".to_owned(),
    }
}

fn rate(report: &Report) -> String {
    let rate = |taken: &Taken| format!(", {}/s", ByteSize::b(taken.rate).display().iec());
    report.taken.as_ref().map(rate).unwrap_or_default()
}

fn configuration(saved: &[String]) -> String {
    match saved {
        [] => "nothing: no configuration outside of the data directory".to_owned(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

fn names(saved: Option<&NamesFacts>) -> String {
    match saved {
        Some(NamesFacts { relations, databases, unread, .. }) if unread.is_empty() => {
            format!("{relations} relations in {databases} databases")
        }
        Some(NamesFacts { relations, databases, unread, .. }) => {
            let without = unread.join(", ");
            format!("{relations} relations in {databases} databases, without {without}")
        }
        None => "not saved".to_owned(),
    }
}

//! `walden push` and `walden fetch`: words to a request, and the clock and signals they live under.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::exit;
use crate::commands::App;
use crate::commands::archive::fetch::{self, prefetch};
use crate::commands::archive::push;
use crate::error::{Error, ErrorKind, Result};
use crate::host::{termination, watchdog};
use crate::postgres::{SegmentName, WalFileName};

/// What a request in flight may take beyond the deadline before the watchdog ends it.
const GRACE: Duration = Duration::from_secs(10);

/// Archives one WAL file (segment, .partial, .history or .backup).
///
/// archive_command = 'walden push "%p"'
///
/// Exits 0 only when the file is in the repository, durable and verified, or the identical file was
/// there already.
#[derive(Debug, clap::Args)]
pub struct Push {
    /// The file, %p.
    path: PathBuf,
}

/// Brings one WAL file back, or proves that it is not in the archive.
///
/// restore_command = 'walden fetch "%f" "%p"'
///
/// Exits 1 only on proof of absence; whatever else fails ends in 200, and PostgreSQL stops instead
/// of promoting (in 3 beside standby.signal, and PostgreSQL asks again).
#[derive(Debug, clap::Args)]
pub struct Fetch {
    /// The file wanted, %f.
    file: String,
    /// Where to put it, %p.
    destination: PathBuf,
    /// For the server of a drill.
    #[arg(long, hide = true)]
    rehearsal: bool,
}

/// Fetches segments ahead of a recovery into the spool; `fetch` starts it by itself.
///
/// Ends when nothing was asked for in a while, when recovery or the server ends, or when it is told
/// to.
#[derive(Debug, clap::Args)]
pub struct Prefetch {
    /// The segment that was wanted last.
    segment: String,
}

impl Push {
    pub fn run(self, app: &App) -> Result<()> {
        let limit = app.settings.push.deadline;
        termination::exit_when_told(
            exit::code(ErrorKind::Interrupted),
            "walden: push: told to stop; PostgreSQL will archive the file again",
        );
        watchdog::start(limit + GRACE, exit::code(ErrorKind::Unreachable), move || {
            format!(
                "walden: push: no outcome after {} s (hint: Is the disk of pg_wal or of the \
                 repository stuck? PostgreSQL will archive the file again)",
                (limit + GRACE).as_secs()
            )
        });
        push::run(app, &self.path)
    }
}

impl Fetch {
    /// Installs no signal handler: told to stop, it must die by that signal at once, and PostgreSQL
    /// knows what it means.
    pub fn run(self, app: &App) -> Result<()> {
        let name = WalFileName::parse(&self.file)?;
        // The last attempt asks one repository after the other.
        let repositories = u32::try_from(app.settings.repositories.len()).unwrap_or(1).max(1);
        let attempt = app.settings.s3.request_timeout.saturating_mul(repositories);
        let limit = app.settings.fetch.retry_for + attempt;
        watchdog::start(limit + GRACE, exit::fetch_undecided(), move || {
            let seconds = (limit + GRACE).as_secs();
            format!(
                "walden: fetch: no outcome after {seconds} s (hint: Is a disk or a mount stuck?)"
            )
        });
        match self.rehearsal {
            true => fetch::rehearse(app, &name, &self.destination),
            false => fetch::run(app, &name, &self.destination),
        }
    }
}

impl Prefetch {
    /// No signal handler either: told to stop, it dies at once, and leaves nothing that counts.
    pub fn run(self, app: &App) -> Result<()> {
        let segment = SegmentName::parse(&self.segment).ok_or_else(|| {
            Error::new(ErrorKind::Usage, format!("{:?} is not a segment", self.segment))
                .hint("fetch starts this command by itself; there is no need to call it.")
        })?;
        prefetch::run(app, segment)
    }
}

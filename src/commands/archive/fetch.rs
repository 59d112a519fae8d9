//! `fetch`: one WAL file from the repository to where PostgreSQL wants it. The mirror image of
//! `push`.
//!
//! "Absent" makes PostgreSQL end recovery and promote, so it is said only on proof. Everything else
//! is tried again within `fetch.retry_for`; after that the caller exits with a code that PostgreSQL
//! does not take for an end.

use std::path::Path;
use std::time::Duration;

use crate::commands::archive::Caller;
use crate::commands::{App, Retries};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::atomic_file::PendingFile;
use crate::host::backoff;
use crate::host::clock::Deadline;
use crate::postgres::wal_file_check::WalFileCheck;
use crate::postgres::{SystemIdentifier, WalFileName};
use crate::repository::{Home, Repository};

/// What is damaged in the store stays damaged; what was damaged on the way comes whole the next
/// time.
const ATTEMPTS_AT_DAMAGED: u32 = 3;
/// How often a wait looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn run(app: &App, name: &WalFileName, destination: &Path) -> Result<()> {
    let caller = Caller::find(None, app.settings.pgdata.as_deref())?;
    let target = Target { name: *name, destination, caller: &caller };
    let deadline = Deadline::after(app.settings.fetch.retry_for);
    let repositories = app.repositories(Retries::None)?;
    let mut patience = Patience::new(deadline);
    loop {
        match fetch_from_any(&target, &repositories).context(|| format!("fetch {name}")) {
            Err(error) if patience.allows(&error) => {
                tracing::info!(%error, "will try again");
                patience.pause(&error, || caller.is_being_promoted(name));
            }
            Err(error) => return Err(patience.explain(error)),
            Ok(()) => return Ok(()),
        }
    }
}

/// The first repository that has the file serves it; absent is what all of them have proven absent.
fn fetch_from_any(target: &Target<'_>, repositories: &[Repository]) -> Result<()> {
    let system_identifier = target.caller.system_identifier()?;
    let mut undecided = None;
    let mut absent = None;
    for repository in repositories {
        let home = repository.home(system_identifier);
        match target.take_from(&home, system_identifier) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Absent => absent = Some(error),
            Err(error) => undecided = undecided.or(Some(error)),
        }
    }
    match undecided.or(absent) {
        Some(error) => Err(error),
        None => Err(Error::new(ErrorKind::Usage, "no repository is configured")),
    }
}

/// A fetch that is killed leaves its temporary file in pg_wal. Under this name PostgreSQL removes
/// it when it starts again (`RemoveTempXlogFiles`, xlog.c), and ignores it until then.
const TEMPORARY_PREFIX: &str = "xlogtemp.walden-";

/// Where PostgreSQL wants the file, and the server it is for.
struct Target<'a> {
    name: WalFileName,
    destination: &'a Path,
    caller: &'a Caller,
}

impl Target<'_> {
    /// Nobody sees the file before it is whole and checked.
    fn take_from(&self, home: &Home, system_identifier: SystemIdentifier) -> Result<()> {
        let mut pending = PendingFile::create_as(TEMPORARY_PREFIX, self.destination, 0o600)
            .map_err(|e| self.unwritable(e))?;
        let mut check = WalFileCheck::new(&self.name);
        home.get_wal(&self.name, |piece| {
            check.write(piece).map_err(|error| error.with_kind(ErrorKind::Corrupt))?;
            pending.write(piece).map_err(|e| self.unwritable(e))
        })?;
        self.expect_ours(check, system_identifier)?;
        // Not synced: PostgreSQL does so when it takes the file (`KeepFileRestoredFromArchive`,
        // xlogarchive.c).
        pending.hand_over().map_err(|e| self.unwritable(e))
    }

    fn unwritable(&self, error: std::io::Error) -> Error {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Host,
        };
        Error::new(kind, format!("cannot write {}", self.destination.display()))
            .source(error)
            .hint("Is there room in pg_wal, and may the server's user write there?")
    }

    fn expect_ours(&self, check: WalFileCheck, ours: SystemIdentifier) -> Result<()> {
        let checked = check.finish().map_err(|error| error.with_kind(ErrorKind::Corrupt))?;
        let Some(facts) = checked else { return Ok(()) };
        if facts.system_identifier != ours {
            let found = facts.system_identifier;
            return Err(Error::new(
                ErrorKind::ForeignCluster,
                format!("the archived file is of cluster {found}, {} is {ours}", self.caller.place),
            )
            .hint("Point walden at the repository of this cluster."));
        }
        let wanted = self.caller.control_file.and_then(|file| file.wal_segment_size);
        match wanted {
            Some(wanted) if wanted != facts.segment_size => Err(Error::new(
                ErrorKind::ForeignCluster,
                format!(
                    "the archived file has {} bytes, this server wants {wanted}",
                    facts.segment_size
                ),
            )
            .hint("The cluster was given another --wal-segsize; restore a backup made since.")),
            _ => Ok(()),
        }
    }
}

/// How long failures are borne.
struct Patience {
    deadline: Deadline,
    attempts: u32,
    damaged: u32,
    started: std::time::Instant,
}

impl Patience {
    fn new(deadline: Deadline) -> Self {
        Patience { deadline, attempts: 1, damaged: 0, started: std::time::Instant::now() }
    }

    /// Whether another attempt may end otherwise, and there is time for it.
    fn allows(&mut self, error: &Error) -> bool {
        let may_heal = match error.kind() {
            ErrorKind::Corrupt => {
                self.damaged += 1;
                self.damaged < ATTEMPTS_AT_DAMAGED
            }
            // A mount comes back, a credential is renewed, a bucket's policy is mended.
            ErrorKind::Unreachable
            | ErrorKind::WrongPlace
            | ErrorKind::NotAllowed
            | ErrorKind::Throttled
            | ErrorKind::NotFound
            | ErrorKind::Full => true,
            _ => false,
        };
        may_heal && !self.deadline.has_passed()
    }

    /// Waits with full jitter, so that many standbys do not come back at the same instant. Ends all
    /// patience once `is_called_off`.
    fn pause(&mut self, error: &Error, is_called_off: impl Fn() -> bool) {
        let pause = backoff::wait(self.attempts, error.retry_after());
        let until = Deadline::after(pause.min(self.deadline.remaining()));
        self.attempts += 1;
        while !until.has_passed() {
            if is_called_off() {
                self.deadline = Deadline::after(Duration::ZERO);
                return;
            }
            std::thread::sleep(until.remaining().min(LOOK_EVERY));
        }
    }

    fn explain(&self, error: Error) -> Error {
        if self.attempts == 1 {
            return error;
        }
        let seconds = self.started.elapsed().as_secs();
        error.context(format!("gave up after {} attempts in {seconds} s", self.attempts))
    }
}

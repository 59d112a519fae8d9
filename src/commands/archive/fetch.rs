//! `fetch`: one WAL file from the repository to where PostgreSQL wants it. The mirror image of
//! `push`.
//!
//! "Absent" makes PostgreSQL end recovery and promote, so it is said only on proof. Everything else
//! is tried again within `fetch.retry_for`; after that the caller exits with a code that PostgreSQL
//! does not take for an end.

mod target;
mod spool;
pub mod prefetch;
pub mod rehearsal;

use std::path::Path;
use std::time::Duration;

use crate::commands::archive::Caller;
use crate::commands::archive::fetch::prefetch::Prefetch;
use crate::commands::archive::fetch::target::Target;
use crate::commands::{App, Retries};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::backoff;
use crate::host::clock::Deadline;
use crate::postgres::WalFileName;
use crate::repository::Repository;

/// What is damaged in the store stays damaged; what was damaged on the way comes whole the next
/// time.
const ATTEMPTS_AT_DAMAGED: u32 = 3;
/// How often a wait looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a drill's server is handed.
pub fn rehearse(app: &App, name: &WalFileName, destination: &Path) -> Result<()> {
    run(app, name, destination)?;
    rehearsal::keep_inside_of_data_directory(name, destination)
}

pub fn run(app: &App, name: &WalFileName, destination: &Path) -> Result<()> {
    let caller = Caller::find(None, app.settings.pgdata.as_deref())?;
    let target = Target { name: *name, destination, caller: &caller };
    let deadline = Deadline::after(app.settings.fetch.retry_for);
    app.settings.require_repositories()?;
    let prefetch = Prefetch::of(app, &caller, name);
    if prefetch.as_ref().is_some_and(|prefetch| prefetch.serves(&target, deadline)) {
        return Ok(());
    }
    from_repositories(app, &target, deadline)?;
    if let Some(prefetch) = prefetch {
        prefetch.goes_on_from_here();
    }
    Ok(())
}

fn from_repositories(app: &App, target: &Target<'_>, deadline: Deadline) -> Result<()> {
    let repositories = app.repositories(Retries::None)?;
    let name = &target.name;
    let mut patience = Patience::new(deadline);
    loop {
        match fetch_from_any(target, &repositories).context(|| format!("fetch {name}")) {
            Err(error) if patience.allows(&error) => {
                tracing::info!(%error, "will try again");
                patience.pause(&error, || target.caller.is_being_promoted(name));
            }
            Err(error) => return Err(patience.explain(error)),
            Ok(()) => return Ok(()),
        }
    }
}

/// The first repository that has the file serves it; absent is what all of them have proven absent.
fn fetch_from_any(target: &Target<'_>, repositories: &[Repository]) -> Result<()> {
    let system_identifier = target.caller.system_identifier()?;
    first_that_has_it(repositories, |repository| {
        target.take_from(&repository.home(system_identifier))
    })
}

/// The outcome of the first repository that `take` succeeds with; else what leaves it undecided, if
/// anything does; else that all of them have proven it absent.
pub fn first_that_has_it(
    repositories: &[Repository],
    take: impl Fn(&Repository) -> Result<()>,
) -> Result<()> {
    let mut undecided = None;
    let mut absent = None;
    for repository in repositories {
        match take(repository) {
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

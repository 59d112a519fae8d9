//! `push`: one WAL file from pg_wal to the repository.
//!
//! PostgreSQL recycles the file as soon as we exit 0, so we exit 0 only after every repository has
//! confirmed that it holds the very bytes we read.

use std::path::Path;
use std::thread;

use crate::commands::App;
use crate::commands::archive::Caller;
use crate::commands::archive::frames;
use crate::commands::archive::place::Place;
use crate::commands::archive::source::Source;
use crate::config::RepositorySettings;
use crate::error::{Context, Result};
use crate::host::clock::Deadline;
use crate::postgres::WalFileName;

pub fn run(app: &App, path: &Path) -> Result<()> {
    app.settings.require_repositories()?;
    let deadline = Deadline::after(app.settings.push.deadline);
    let name = WalFileName::from_path(path)?;
    let caller = Caller::find(Some(path), app.settings.pgdata.as_deref())?;
    let state_dir = app.settings.state_dir.as_deref();
    push(app, &Source { path, name, caller: &caller, state_dir }, deadline)
}

/// One file into every repository.
fn push(app: &App, source: &Source<'_>, deadline: Deadline) -> Result<()> {
    let name = &source.name;
    let (sealed, origin) = source
        .seal(app.settings.compression, frames::threads())
        .context(|| format!("push {name}"))?;
    let store = |repository: &RepositorySettings| {
        let place = Place { app, repository, caller: source.caller, origin: &origin, deadline };
        let stored = place.claimed_home().and_then(|home| home.put_wal(name, &sealed, &origin));
        stored.map(|_| ()).context(|| format!("push {name} to {}", repository.url))
    };
    in_all(&app.settings.repositories, store)
}

/// All at once: one that is down, and takes all the time there is, must not leave the others behind
/// as well.
fn in_all(
    repositories: &[RepositorySettings],
    store: impl Fn(&RepositorySettings) -> Result<()> + Sync,
) -> Result<()> {
    match repositories {
        [one] => store(one),
        several => thread::scope(|scope| {
            let calls: Vec<_> = several.iter().map(|one| scope.spawn(|| store(one))).collect();
            let outcomes = calls
                .into_iter()
                .map(|call| call.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            // Each is joined before the first failure is told.
            outcomes.collect::<Vec<_>>().into_iter().collect()
        }),
    }
}

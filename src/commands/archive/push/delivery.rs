//! What the files of one `push` share: the server they come from and the way to its repositories.

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use crate::codec::Origin;
use crate::commands::archive::Caller;
use crate::commands::archive::place::{self, Place};
use crate::commands::archive::push::source::{Effort, Sealed, Source};
use crate::commands::{App, Retries};
use crate::error::{Context, Result};
use crate::host::clock::Deadline;
use crate::host::state::StateDirectory;
use crate::postgres::{SystemIdentifier, WalFileName};
use crate::repository::Home;

/// Each repository is opened and claimed once, by the first file that gets so far.
pub struct Delivery {
    pub app: App,
    pub caller: Caller,
    /// For everything this call does.
    pub deadline: Deadline,
    state: OnceLock<StateDirectory>,
    /// In the order of the settings.
    homes: Vec<Mutex<Option<Home>>>,
}

impl Delivery {
    pub fn new(app: App, caller: Caller, deadline: Deadline) -> Self {
        let homes = app.settings.repositories.iter().map(|_| Mutex::default()).collect();
        Delivery { app, caller, deadline, state: OnceLock::new(), homes }
    }

    /// Reads, checks and compresses a file, by so many threads at most.
    pub fn seal(&self, path: &Path, name: &WalFileName, threads: usize) -> Result<Sealed> {
        let state_dir = self.app.settings.state_dir.as_deref();
        let on_invalid = self.app.settings.push.on_invalid;
        let source = Source { path, name: *name, caller: &self.caller, state_dir, on_invalid };
        source.seal(Effort { compression: self.app.settings.compression, threads })
    }

    /// Returns when every repository has confirmed the file, or all have been tried.
    pub fn store(&self, name: &WalFileName, sealed: &Sealed) -> Result<()> {
        in_all(self.homes.len(), |number| {
            let stored = self
                .home(number, &sealed.origin)
                .and_then(|home| home.put_wal(name, &sealed.body, &sealed.origin));
            let url = || &self.app.settings.repositories[number].url;
            stored.map(|_| ()).context(|| format!("push {name} to {}", url()))
        })
    }

    /// Whether the repositories in directories are where they were. What is on a disk that is gone
    /// is not confirmed, or PostgreSQL would recycle the last copy.
    pub fn is_mounted(&self) -> bool {
        let Some(control_file) = self.caller.control_file else { return false };
        let app = &self.app;
        app.settings.repositories.iter().filter(|one| place::is_directory(&one.url)).all(|one| {
            let opened = app.open(one, Retries::None, app.settings.s3.conditional_put, None);
            let home = opened.map(|repository| repository.home(control_file.system_identifier));
            home.and_then(|home| home.is_claimed()).unwrap_or(false)
        })
    }

    /// What this host remembers for the cluster of that identifier, which is the same in one call.
    pub fn state(&self, system_identifier: SystemIdentifier) -> &StateDirectory {
        self.state.get_or_init(|| self.caller.state(&self.app, system_identifier))
    }

    fn home(&self, number: usize, origin: &Origin) -> Result<Home> {
        let place = Place {
            app: &self.app,
            repository: &self.app.settings.repositories[number],
            state: self.state(origin.system_identifier),
            origin,
            deadline: self.deadline,
        };
        let mut known = self.homes[number].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(home) = known.clone() {
            drop(known);
            return place.still_ours(home);
        }
        Ok(known.insert(place.claimed_home()?).clone())
    }
}

/// All at once: one that is down, and takes all the time there is, must not leave the others behind
/// as well.
fn in_all(count: usize, store: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    if count == 1 {
        return store(0);
    }
    thread::scope(|scope| {
        let store = &store;
        let calls: Vec<_> = (0..count).map(|number| scope.spawn(move || store(number))).collect();
        let outcomes = calls
            .into_iter()
            .map(|call| call.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        // Each is joined before the first failure is told.
        outcomes.collect::<Vec<_>>().into_iter().collect()
    })
}

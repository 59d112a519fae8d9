//! One use case each, in the order the manual tells them.

pub mod progress;
pub mod audit;
pub mod archive;
pub mod backup;
pub mod survey;
pub mod window;
pub mod find;
pub mod list;
pub mod restore;
pub mod verify;
pub mod drill;
pub mod report;
pub mod demo;

use std::sync::Arc;
use std::time::Duration;

use crate::config::{RepositorySettings, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::host;
use crate::host::clock::Deadline;
use crate::host::state::StateDirectory;
use crate::repository::Repository;
use crate::storage::s3::{self, ConditionalPut};
use crate::storage::{self, Location, Tally};

/// What every command works with.
#[derive(Debug, Clone)]
pub struct App {
    pub settings: Settings,
    /// What all repositories of this process were asked.
    pub tally: Arc<Tally>,
}

/// How long one call to a repository may go on after faults that may pass.
#[derive(Debug, Clone, Copy)]
pub enum Retries {
    /// The caller tries again itself.
    None,
    /// Each call anew.
    PerCall(Duration),
    /// All calls together.
    Until(Deadline),
}

impl App {
    pub fn new(settings: Settings) -> Self {
        App { settings, tally: Arc::default() }
    }

    /// The configured repositories, in their order; one at least.
    pub fn repositories(&self, retries: Retries) -> Result<Vec<Repository>> {
        let all = self.settings.require_repositories()?.iter();
        let conditional_put = self.settings.s3.conditional_put;
        all.map(|repository| self.open(repository, retries, conditional_put, None)).collect()
    }

    /// The repository of the commands that work with one: the first.
    pub fn repository(&self, retries: Retries) -> Result<Repository> {
        let mut all = self.repositories(retries)?;
        match self.settings.require_repositories()? {
            [_] => Ok(all.remove(0)),
            several => Err(Error::new(
                ErrorKind::Usage,
                format!("{} repositories are configured, this needs one", several.len()),
            )
            .hint("Name the one you mean by --repository.")),
        }
    }

    /// How many files `push` may have on their way beside the one asked for: more than the cores
    /// can compress at once, since most of them wait for the network.
    pub fn look_ahead(&self) -> usize {
        self.settings.push.look_ahead.unwrap_or_else(|| (16 * host::processors()).min(64))
    }

    /// Look-ahead has a limit of its own, which must not be undercut here.
    fn requests_in_flight_max(&self) -> usize {
        storage::Options::default().requests_in_flight_max.max(self.look_ahead() + 1)
    }

    /// Opens nothing yet: the first call does.
    pub fn open(
        &self,
        repository: &RepositorySettings,
        retries: Retries,
        conditional_put: ConditionalPut,
        memory: Option<StateDirectory>,
    ) -> Result<Repository> {
        let (retry_for, deadline) = match retries {
            Retries::None => (Duration::ZERO, None),
            Retries::PerCall(time) => (time, None),
            Retries::Until(deadline) => (deadline.remaining(), Some(deadline)),
        };
        let options = storage::Options {
            retry_for,
            s3: s3::Options { conditional_put, ..self.settings.s3.clone() },
            tally: self.tally.clone(),
            requests_in_flight_max: self.requests_in_flight_max(),
            memory,
        };
        let storage = storage::open(&Location::parse(&repository.url)?, &options, deadline)?;
        Ok(Repository::new(storage, self.settings.cluster.clone()))
    }
}

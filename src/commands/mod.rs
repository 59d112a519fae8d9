//! One use case each, in the order the manual tells them.

pub mod archive;
pub mod backup;
pub mod restore;
pub mod demo;

use std::sync::Arc;
use std::time::Duration;

use crate::config::{ConditionalPut, RepositorySettings, S3Settings, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::repository::Repository;
use crate::storage::{self, Location, Tally, s3};

/// What every command works with.
#[derive(Debug)]
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
        all.map(|repository| self.open(repository, retries, self.settings.s3.conditional_put))
            .collect()
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

    /// Opens nothing yet: the first call does.
    pub fn open(
        &self,
        repository: &RepositorySettings,
        retries: Retries,
        conditional_put: ConditionalPut,
    ) -> Result<Repository> {
        let (retry_for, deadline) = match retries {
            Retries::None => (Duration::ZERO, None),
            Retries::PerCall(time) => (time, None),
            Retries::Until(deadline) => (deadline.remaining(), Some(deadline)),
        };
        let options = storage::Options {
            retry_for,
            s3: s3_options(&self.settings.s3, conditional_put),
            tally: self.tally.clone(),
            ..storage::Options::default()
        };
        let storage = storage::open(&Location::parse(&repository.url)?, &options, deadline)?;
        Ok(Repository::new(storage, self.settings.cluster.clone()))
    }
}

fn s3_options(settings: &S3Settings, conditional_put: ConditionalPut) -> s3::Options {
    s3::Options {
        endpoint: settings.endpoint.clone(),
        region: settings.region.clone(),
        path_style: settings.path_style,
        storage_class: settings.storage_class.clone(),
        sse: settings.sse.clone(),
        kms_key_id: settings.kms_key_id.clone(),
        ca_file: settings.ca_file.clone(),
        request_timeout: settings.request_timeout,
        connect_timeout: settings.connect_timeout,
        conditional_put: match conditional_put {
            ConditionalPut::Auto => s3::ConditionalPut::Auto,
            ConditionalPut::Yes => s3::ConditionalPut::Yes,
            ConditionalPut::No => s3::ConditionalPut::No,
        },
        credentials: None,
    }
}

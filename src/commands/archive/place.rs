//! Where a server's WAL goes: a repository known to be the place, and to refuse to overwrite.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::codec::Origin;
use crate::commands::{App, Retries};
use crate::config::RepositorySettings;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::host::state::StateDirectory;
use crate::repository::{Claim, Home};
use crate::storage::Location;
use crate::storage::s3::ConditionalPut;

/// A bucket may have been emptied since, and without `cluster.json` no absence can be proven: it is
/// written anew.
const CLAIM_LASTS: Duration = Duration::from_secs(60 * 60);
/// A store may learn to refuse; but asking it says so in the server's log each time.
const OVERWRITES_LASTS: Duration = Duration::from_secs(24 * 60 * 60);

/// One repository, for the WAL of one server.
pub struct Place<'a> {
    pub app: &'a App,
    pub repository: &'a RepositorySettings,
    pub state: &'a StateDirectory,
    pub origin: &'a Origin,
    pub deadline: Deadline,
}

impl Place<'_> {
    /// The cluster's home, with its `cluster.json` in it. That it is there, and whether the store
    /// honours conditional writes, is found out once and then remembered.
    pub fn claimed_home(&self) -> Result<Home> {
        let url = &self.repository.url;
        let state = self.state;
        let place = name_of(self.app, self.repository);
        let (claimed, overwrites) = (format!("claimed {place}"), format!("{place} overwrites"));
        if state.remembers_for(&overwrites, OVERWRITES_LASTS) {
            return self.home(ConditionalPut::No);
        }
        let home = self.home(self.app.settings.s3.conditional_put)?;
        if is_directory(url) && state.remembers(&claimed) {
            return self.still_ours(home);
        }
        if state.remembers_for(&claimed, CLAIM_LASTS) {
            return Ok(home);
        }
        match home.claim(self.origin)? {
            Claim::Guarded => {
                state.remember(&claimed);
                Ok(home)
            }
            Claim::Overwritten => {
                tracing::warn!(
                    %url,
                    "this store overwrites objects it was asked not to; walden will look before \
                     it puts, but two servers pushing one file at the same instant can no longer \
                     be told apart"
                );
                state.remember(&overwrites);
                self.home(ConditionalPut::No)
            }
        }
    }

    /// To be asked before every file. A directory that was ours and has no `cluster.json` is an
    /// empty mount point, most likely: what went there would be gone the moment the disk is back.
    /// To look costs microseconds there.
    pub fn still_ours(&self, home: Home) -> Result<Home> {
        if !is_directory(&self.repository.url) || home.is_claimed()? {
            return Ok(home);
        }
        let message = format!("{}/cluster.json was there and is gone", home.url());
        let state =
            self.state.folder().map(|folder| folder.display().to_string()).unwrap_or_default();
        Err(Error::new(ErrorKind::WrongPlace, message).hint(format!(
            "Mount the disk it is on; if the repository was emptied on purpose, remove {state}, \
             and the next push begins it anew."
        )))
    }

    fn home(&self, conditional_put: ConditionalPut) -> Result<Home> {
        let (retries, memory) = (Retries::Until(self.deadline), Some(self.state.clone()));
        let repository = self.app.open(self.repository, retries, conditional_put, memory)?;
        Ok(repository.home(self.origin.system_identifier))
    }
}

/// What tells this place from every other: two stores may have a bucket of the same name.
pub fn name_of(app: &App, repository: &RepositorySettings) -> String {
    let by_variable = || {
        let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
        names.into_iter().find_map(|name| std::env::var(name).ok())
    };
    let url = &repository.url;
    match app.settings.s3.endpoint.clone().or_else(by_variable) {
        _ if is_directory(url) => url.clone(),
        Some(endpoint) => format!("{url} at {endpoint}"),
        None => format!("{url}{}", by_profile()),
    }
}

/// A profile may name an endpoint, too: another profile, or another text of the file, is another
/// place.
fn by_profile() -> String {
    let file = std::env::var_os("AWS_CONFIG_FILE").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".aws/config"))
    });
    let Some(text) = file.and_then(|file| std::fs::read(file).ok()) else {
        return String::new();
    };
    let profile = std::env::var("AWS_PROFILE").unwrap_or_default();
    format!(" by profile {profile:?} of {:08x}", crc32fast::hash(&text))
}

pub fn is_directory(url: &str) -> bool {
    matches!(Location::parse(url), Ok(Location::Directory(_)))
}

//! One use case each, in the order the manual tells them.

pub mod archive;
pub mod backup;
pub mod restore;
pub mod demo;

use std::sync::Arc;

use crate::config::Settings;
use crate::error::Result;
use crate::repository::Repository;
use crate::storage::directory::Directory;

/// What every command works with.
#[derive(Debug)]
pub struct App {
    pub settings: Settings,
}

impl App {
    pub fn new(settings: Settings) -> Self {
        App { settings }
    }

    /// The configured repositories, in their order; one at least.
    pub fn repositories(&self) -> Result<Vec<Repository>> {
        let mut opened = Vec::new();
        for repository in self.settings.require_repositories()? {
            let path = repository.url.strip_prefix("file://").unwrap_or(&repository.url);
            let storage = Arc::new(Directory::new(path));
            opened.push(Repository::new(storage, self.settings.cluster.clone()));
        }
        Ok(opened)
    }
}

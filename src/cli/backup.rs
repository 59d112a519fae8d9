//! `walden backup`: flags to a request, the report to text.

use crate::commands::App;
use crate::error::Result;

/// Takes a base backup.
#[derive(Debug, clap::Args)]
pub struct Backup {}

impl Backup {
    pub fn run(self, _app: &App) -> Result<()> {
        Ok(())
    }
}

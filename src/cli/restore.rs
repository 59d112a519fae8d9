//! `walden restore`: flags to a request, the report to text.

use crate::commands::App;
use crate::error::Result;

/// Places a backup and writes the recovery settings for a target.
#[derive(Debug, clap::Args)]
pub struct Restore {}

impl Restore {
    pub fn run(self, _app: &App) -> Result<()> {
        Ok(())
    }
}

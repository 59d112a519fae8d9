//! `walden demo`: flags to a request, the report to text.

use crate::commands::App;
use crate::error::Result;

/// Tells the whole story on this machine in a temporary directory.
#[derive(Debug, clap::Args)]
pub struct Demo {}

impl Demo {
    pub fn run(self, _app: &App) -> Result<()> {
        Ok(())
    }
}

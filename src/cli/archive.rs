//! `walden push` and `walden fetch`: flags to a request.

use std::path::PathBuf;

use crate::commands::App;
use crate::error::Result;

/// Archives one WAL file; PostgreSQL's archive_command.
#[derive(Debug, clap::Args)]
pub struct Push {
    /// The file, as PostgreSQL names it by %p.
    path: PathBuf,
}

/// Brings one WAL file back; PostgreSQL's restore_command.
#[derive(Debug, clap::Args)]
pub struct Fetch {
    /// The file wanted, %f.
    file: String,
    /// Where to put it, %p.
    destination: PathBuf,
}

impl Push {
    pub fn run(self, _app: &App) -> Result<()> {
        let _ = self.path;
        Ok(())
    }
}

impl Fetch {
    pub fn run(self, _app: &App) -> Result<()> {
        let _ = (self.file, self.destination);
        Ok(())
    }
}

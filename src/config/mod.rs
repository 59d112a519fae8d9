//! What was written, resolved once into what it means.

use std::path::PathBuf;

use crate::codec::Compression;
use crate::error::Result;
use crate::repository::ClusterName;

/// The flags every command takes.
#[derive(Debug, Default, clap::Args)]
pub struct Overrides {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// All present and valid.
#[derive(Debug)]
pub struct Settings {
    pub cluster: ClusterName,
    pub pgdata: Option<PathBuf>,
    pub compression: Compression,
}

impl Settings {
    pub fn resolve(overrides: &Overrides) -> Result<Settings> {
        let _ = overrides;
        Ok(Settings {
            cluster: ClusterName::new("main")?,
            pgdata: None,
            compression: Compression::default(),
        })
    }
}

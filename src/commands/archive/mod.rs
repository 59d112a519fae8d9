//! `push` and `fetch`: the life of one WAL file, out and back. They are mirror images.

pub mod push;
pub mod fetch;
pub mod place;

use std::path::Path;

use crate::codec::Origin;
use crate::commands::App;
use crate::error::{Error, ErrorKind, Result};
use crate::host::state::StateDirectory;
use crate::host::{self, clock};
use crate::postgres::control_file::ControlFile;
use crate::postgres::{SystemIdentifier, WalFileName};

/// Bytes read at a time from a file that is only looked at: large enough to be quick, small enough
/// to stay in the cache. A buffer for a whole segment would cost more in page faults than the
/// reading.
const PIECE_BYTES: usize = 256 << 10;

/// The cluster that a command was called for.
#[derive(Debug, Clone)]
struct Caller {
    /// `None` outside of a data directory: a segment says itself where it belongs, other files do
    /// not.
    control_file: Option<ControlFile>,
    /// As a person would name the place.
    place: String,
}

impl Caller {
    fn find(file: Option<&Path>, configured: Option<&Path>) -> Result<Self> {
        let Some(pgdata) = host::data_directory::find(file, configured) else {
            let place = file.and_then(Path::parent).unwrap_or(Path::new(".")).display().to_string();
            return Ok(Caller { control_file: None, place });
        };
        let control_file = Some(ControlFile::read(&pgdata)?);
        Ok(Caller { control_file, place: pgdata.display().to_string() })
    }

    /// `None` outside of one.
    fn data_directory(&self) -> Option<&Path> {
        self.control_file.map(|_| Path::new(&self.place))
    }

    fn system_identifier(&self) -> Result<SystemIdentifier> {
        let known = self.control_file.map(|file| file.system_identifier);
        known.ok_or_else(|| {
            Error::new(ErrorKind::Usage, "cannot tell which cluster this is for")
                .hint("Run walden in the data directory, as PostgreSQL does, or give --pgdata.")
        })
    }

    /// Somebody asked this standby to become the primary (`PROMOTE_SIGNAL_FILE`, xlog.h): what it
    /// waits for now only delays that. History files are worth the wait all the same: without them
    /// it would take a timeline that is taken.
    fn is_being_promoted(&self, name: &WalFileName) -> bool {
        let is_history = matches!(name, WalFileName::History(_));
        !is_history && Path::new("standby.signal").exists() && Path::new("promote").exists()
    }

    /// What this host remembers for that cluster: kept apart by cluster name, system identifier and
    /// data directory.
    fn state(&self, app: &App, system_identifier: SystemIdentifier) -> StateDirectory {
        let identity = format!("{} {system_identifier} {}", app.settings.cluster, self.place);
        let data_directory = Some(Path::new(&self.place));
        StateDirectory::open(app.settings.state_dir.as_deref(), data_directory, identity)
    }

    fn origin(&self, system_identifier: SystemIdentifier) -> Origin {
        Origin {
            host: host::name(),
            source: self.place.clone(),
            system_identifier,
            time: clock::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

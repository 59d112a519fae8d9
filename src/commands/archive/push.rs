//! `push`: one WAL file from pg_wal to the repository.
//!
//! PostgreSQL recycles the file as soon as we exit 0, so we exit 0 only after every repository has
//! confirmed that it holds the very bytes we read.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::thread;

use crate::codec::{Compression, Header, Kind, Origin, Sealer};
use crate::commands::App;
use crate::commands::archive::place::Place;
use crate::commands::archive::{Caller, PIECE_BYTES};
use crate::config::RepositorySettings;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::postgres::wal_file_check::WalFileCheck;
use crate::postgres::{SystemIdentifier, WalFileName};
use crate::storage::Body;

pub fn run(app: &App, path: &Path) -> Result<()> {
    let repositories = app.settings.require_repositories()?;
    let deadline = Deadline::after(app.settings.push.deadline);
    let name = WalFileName::from_path(path)?;
    let caller = Caller::find(Some(path), app.settings.pgdata.as_deref())?;
    let source = Source { path, name, caller: &caller };
    let (sealed, origin) =
        source.seal(app.settings.compression).context(|| format!("push {name}"))?;

    // All at once: one that is down, and takes all the time there is, must not leave the others
    // behind as well.
    let store = |repository: &RepositorySettings| {
        let place = Place { app, repository, origin: &origin, deadline };
        let stored = place.claimed_home().and_then(|home| home.put_wal(&name, &sealed, &origin));
        stored.map(|_| ()).context(|| format!("push {name} to {}", repository.url))
    };
    match repositories {
        [one] => store(one),
        several => thread::scope(|scope| {
            let calls: Vec<_> = several.iter().map(|one| scope.spawn(|| store(one))).collect();
            let outcomes = calls
                .into_iter()
                .map(|call| call.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            // Each is joined before the first failure is told.
            outcomes.collect::<Vec<_>>().into_iter().collect()
        }),
    }
}

/// A file in pg_wal, and the server it belongs to.
struct Source<'a> {
    path: &'a Path,
    name: WalFileName,
    caller: &'a Caller,
}

impl Source<'_> {
    /// Reads the file once: checked, counted, compressed in the same pass.
    fn seal(&self, compression: Compression) -> Result<(Body, Origin)> {
        let mut file = File::open(self.path).map_err(|e| self.unreadable(e))?;
        let size = file.metadata().map_err(|e| self.unreadable(e))?.len();
        let mut check = WalFileCheck::new(&self.name);
        let mut sealer = Sealer::new(compression, size)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            file.read_exact(&mut piece[..wanted]).map_err(|e| self.unreadable(e))?;
            check.write(&piece[..wanted])?;
            sealer.write(&piece[..wanted])?;
            left -= wanted as u64;
        }
        let origin = self.caller.origin(self.owner(check)?);
        let sealed = sealer.finish(|content| {
            Header::new(kind(&self.name), self.name.to_string(), content, origin.clone())
        })?;
        Ok((Body::new(sealed), origin))
    }

    /// The cluster the file belongs to: what the WAL itself says, which must be what the data
    /// directory says.
    fn owner(&self, check: WalFileCheck) -> Result<SystemIdentifier> {
        let Some(facts) = check.finish()? else { return self.caller.system_identifier() };
        if facts.version.is_none() {
            tracing::warn!(name = %self.name, "archived unchecked: WAL of a PostgreSQL version \
                                               unknown to walden");
        }
        let found = facts.system_identifier;
        match self.caller.control_file {
            Some(ours) if ours.system_identifier != found => Err(Error::new(
                ErrorKind::ForeignCluster,
                format!(
                    "file is of cluster {found}, {} is {}",
                    self.caller.place, ours.system_identifier
                ),
            )
            .hint("Somebody put WAL of another cluster into this pg_wal; nothing was archived.")),
            _ => Ok(found),
        }
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        Error::new(ErrorKind::InvalidSource, format!("cannot read {}", self.path.display()))
            .source(error)
            .hint("Does the file exist, and may the server's user read it?")
    }
}

fn kind(name: &WalFileName) -> Kind {
    match name {
        WalFileName::Segment(_) => Kind::Segment,
        WalFileName::Partial(_) => Kind::Partial,
        WalFileName::History(_) => Kind::History,
        WalFileName::BackupHistory(..) => Kind::BackupHistory,
    }
}

//! `push`: one WAL file from pg_wal to the repository.
//!
//! PostgreSQL recycles the file as soon as we exit 0, so we exit 0 only after every repository has confirmed that it
//! holds the very bytes we read.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::codec::{Compression, Header, Kind, Origin, Sealer};
use crate::commands::App;
use crate::commands::archive::{Caller, PIECE_BYTES};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::wal_file_check::WalFileCheck;
use crate::postgres::{SystemIdentifier, WalFileName};
use crate::repository::{Repository, Stored};
use crate::storage::Body;

pub fn run(app: &App, path: &Path) -> Result<()> {
    let name = WalFileName::from_path(path)?;
    let caller = Caller::find(Some(path), app.settings.pgdata.as_deref())?;
    let source = Source { path, name, caller: &caller };
    let (sealed, origin) =
        source.seal(app.settings.compression).context(|| format!("push {name}"))?;

    // Each repository is tried, so that one which is down does not leave the others behind as well.
    let mut outcome = Ok(());
    for repository in app.repositories()? {
        let stored = store(app, &repository, &name, &sealed, &origin)
            .context(|| format!("push {name} to {}", repository.url()));
        outcome = outcome.and(stored.map(|_| ()));
    }
    outcome
}

fn store(
    app: &App,
    repository: &Repository,
    name: &WalFileName,
    sealed: &Body,
    origin: &Origin,
) -> Result<Stored> {
    let home = repository.home(origin.system_identifier);
    let _ = app;
    home.claim(origin)?;
    home.put_wal(name, sealed, origin)
}

/// State is kept apart by cluster and data directory: two servers on one host never share it.
fn caller_key(origin: &Origin) -> String {
    format!("{} {}", origin.system_identifier, origin.source)
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

    /// The cluster the file belongs to: what the WAL itself says, which must be what the data directory says.
    fn owner(&self, check: WalFileCheck) -> Result<SystemIdentifier> {
        let Some(facts) = check.finish()? else { return self.caller.system_identifier() };
        if facts.version.is_none() {
            tracing::warn!(name = %self.name, "archived unchecked: WAL of a PostgreSQL version unknown to walden");
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

//! `push`: one WAL file from pg_wal to the repository.
//!
//! PostgreSQL recycles the file as soon as we exit 0, so we exit 0 only after every repository has
//! confirmed that it holds the very bytes we read.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::codec::{Compression, Header, Kind, Origin, Sealer};
use crate::commands::archive::{Caller, PIECE_BYTES};
use crate::commands::{App, Retries};
use crate::config::RepositorySettings;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::host::state::StateDirectory;
use crate::postgres::wal_file_check::WalFileCheck;
use crate::postgres::{SystemIdentifier, WalFileName};
use crate::repository::{Claim, Home, Stored};
use crate::storage::s3::ConditionalPut;
use crate::storage::{Body, Location};

pub fn run(app: &App, path: &Path) -> Result<()> {
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
        let stored = place.store(&name, &sealed);
        stored.map(|_| ()).context(|| format!("push {name} to {}", repository.url))
    };
    match app.settings.require_repositories()? {
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

/// One repository, for the WAL of one server.
struct Place<'a> {
    app: &'a App,
    repository: &'a RepositorySettings,
    origin: &'a Origin,
    deadline: Deadline,
}

impl Place<'_> {
    fn store(&self, name: &WalFileName, sealed: &Body) -> Result<Stored> {
        self.claimed_home()?.put_wal(name, sealed, self.origin)
    }

    /// The cluster's home, with its `cluster.json` in it. That it is there, and whether the store
    /// honours conditional writes, is found out once and then remembered.
    fn claimed_home(&self) -> Result<Home> {
        let url = &self.repository.url;
        let state = self.state();
        let place = self.place();
        let (claimed, overwrites) = (format!("claimed {place}"), format!("{place} overwrites"));
        if state.remembers(&overwrites) {
            return self.home(ConditionalPut::No);
        }
        let home = self.home(self.app.settings.s3.conditional_put)?;
        if is_directory(url) && state.remembers(&claimed) {
            return self.still_there(home, &state);
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

    /// A directory that was ours and has no `cluster.json` is an empty mount point, most likely:
    /// what went there would be gone the moment the disk is back. To look costs microseconds.
    fn still_there(&self, home: Home, state: &StateDirectory) -> Result<Home> {
        if home.is_claimed()? {
            return Ok(home);
        }
        let message = format!("{}/cluster.json was there and is gone", home.url());
        let state = state.folder().map(|folder| folder.display().to_string()).unwrap_or_default();
        Err(Error::new(ErrorKind::WrongPlace, message).hint(format!(
            "Mount the disk it is on; if the repository was emptied on purpose, remove {state}, \
             and the next push begins it anew."
        )))
    }

    /// Two stores may have a bucket of the same name.
    fn place(&self) -> String {
        let by_variable = || {
            let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
            names.into_iter().find_map(|name| std::env::var(name).ok())
        };
        let url = &self.repository.url;
        match self.app.settings.s3.endpoint.clone().or_else(by_variable) {
            Some(endpoint) if !is_directory(url) => format!("{url} at {endpoint}"),
            _ => url.clone(),
        }
    }

    fn home(&self, conditional_put: ConditionalPut) -> Result<Home> {
        let retries = Retries::Until(self.deadline);
        let repository = self.app.open(self.repository, retries, conditional_put)?;
        Ok(repository.home(self.origin.system_identifier))
    }

    /// Kept apart by cluster name, system identifier and data directory.
    fn state(&self) -> StateDirectory {
        let settings = &self.app.settings;
        let Origin { system_identifier, source, .. } = self.origin;
        let identity = format!("{} {system_identifier} {source}", settings.cluster);
        StateDirectory::open(settings.state_dir.as_deref(), Some(Path::new(source)), identity)
    }
}

/// A bucket may have been emptied since, and without `cluster.json` no absence can be proven: it is
/// written anew.
const CLAIM_LASTS: Duration = Duration::from_secs(60 * 60);

fn is_directory(url: &str) -> bool {
    matches!(Location::parse(url), Ok(Location::Directory(_)))
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

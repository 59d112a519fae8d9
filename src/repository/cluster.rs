//! `cluster.json`: written by the first push, and the proof that a place is the one it should be.

use std::fmt;

use crate::codec::Origin;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::WalFileName;
use crate::repository::Home;
use crate::storage::Body;

/// The name a user gives to a PostgreSQL cluster; it is a folder in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterName(String);

impl ClusterName {
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        let fits =
            (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain);
        if fits {
            return Ok(ClusterName(name));
        }
        Err(Error::new(ErrorKind::Usage, format!("{name:?} cannot be the name of a cluster"))
            .hint("Use 1 to 64 letters, digits, '.', '-' and '_', not starting with '.'."))
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What claiming a place has shown of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It refuses to overwrite.
    Guarded,
    /// It overwrites although told not to.
    Overwritten,
}

/// Of the repository as a whole.
const FORMAT: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Proof {
    walden: u32,
    cluster: String,
    origin: Origin,
}

impl Home {
    /// Makes sure that `cluster.json` stands here. Many may claim at once; the first one writes it.
    ///
    /// What seems to be the first is written a second time: a store that honours the condition then
    /// says "already there", and one that does not has shown it, at the price of a `cluster.json`
    /// that says the same.
    pub fn claim(&self, origin: &Origin) -> Result<Claim> {
        let proof =
            Proof { walden: FORMAT, cluster: self.cluster.to_string(), origin: origin.clone() };
        let json = serde_json::to_vec_pretty(&proof)
            .map_err(|e| Error::new(ErrorKind::Bug, "write cluster.json").source(e))?;
        let body = Body::new(json);
        for _ in 0..2 {
            match self.storage.put_new(&self.proof_key(), &body) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    return self.prove().map(|()| Claim::Guarded);
                }
                outcome => outcome.context(|| format!("claim {}", self.url()))?,
            }
        }
        Ok(Claim::Overwritten)
    }

    /// Whether anything was ever archived here. False proves nothing.
    pub fn is_claimed(&self) -> Result<bool> {
        match self.storage.head(&self.proof_key()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            there => there.and_then(|_| self.prove()).map(|()| true),
        }
    }

    /// Shows that this is the place: the store has a `cluster.json` of this very cluster. Without
    /// it, that an object is missing proves nothing: the mount may be empty, the prefix wrong, the
    /// bucket another.
    pub fn prove(&self) -> Result<()> {
        let key = self.proof_key();
        let wrong = |what: &str| {
            Error::new(ErrorKind::WrongPlace, format!("{}/{key} {what}", self.storage.url())).hint(
                "Is this the right repository and prefix, is it mounted, has this cluster ever \
                 archived here?",
            )
        };
        let json = match self.storage.get(&key) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(wrong("is not there")),
            outcome => outcome?,
        };
        let proof: Proof =
            serde_json::from_slice(&json).map_err(|e| wrong("cannot be read").source(e))?;
        if proof.walden > FORMAT {
            return Err(Error::new(
                ErrorKind::WrongPlace,
                format!("{}/{key} is of a format newer than this walden knows", self.storage.url()),
            )
            .hint("Use the walden that wrote it, or a newer one."));
        }
        if proof.origin.system_identifier != self.system_identifier {
            return Err(wrong("names another cluster").with_kind(ErrorKind::ForeignCluster));
        }
        Ok(())
    }

    /// Turns "no such object" into a proven absence, or into the reason why nothing is proven.
    pub(super) fn absent(&self, what: &WalFileName) -> Error {
        match self.is_there_after_all(what) {
            Ok(false) => Error::new(
                ErrorKind::Absent,
                format!("{what} is not archived in {}, where this cluster archives", self.url()),
            )
            .hint("To PostgreSQL this is the end of the archive."),
            Err(undecided) => undecided,
            Ok(true) => {
                let message = format!("{what} was not in {}, and a moment later is", self.url());
                Error::new(ErrorKind::Unreachable, message)
                    .hint("It was stored or mounted just now, or the store is of two minds.")
            }
        }
    }

    /// Once the place is proven it is asked again: the disk may have been mounted between the first
    /// question and the proof, and the file may have been stored.
    pub(super) fn is_there_after_all(&self, what: &WalFileName) -> Result<bool> {
        self.prove()?;
        match self.storage.head(&self.wal_key(what)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            found => found.map(|_| true),
        }
    }
}

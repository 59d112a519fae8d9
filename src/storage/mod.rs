//! Keys to bytes. Knows nothing of WAL; every backend keeps the contract in `contract`.

mod body;
mod location;
mod verb;
pub mod observe;
pub mod retry;
pub mod limit;
pub mod directory;
pub mod s3;
pub mod memory;
pub mod faulty;
#[doc(hidden)]
pub mod contract;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::host::state::StateDirectory;

pub use body::{Body, Part};
pub use location::Location;
pub use observe::Tally;
pub use verb::Verb;

/// How to talk to a store, whichever it is.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long one call may go on asking again after faults that may pass.
    pub retry_for: Duration,
    pub requests_in_flight_max: usize,
    pub s3: s3::Options,
    /// Where the calls are counted.
    pub tally: Arc<Tally>,
    /// What earlier processes on this host found out; without it, it is found out again.
    pub memory: Option<StateDirectory>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            retry_for: Duration::from_secs(60),
            requests_in_flight_max: 16,
            s3: s3::Options::default(),
            tally: Arc::default(),
            memory: None,
        }
    }
}

/// The one place that puts a store together. Opens nothing: the first call does.
///
/// No request begins after `deadline`, and none lasts beyond it.
pub fn open(
    location: &Location,
    options: &Options,
    deadline: Option<Deadline>,
) -> Result<Arc<dyn Storage>> {
    let backend: Arc<dyn Storage> = match location {
        Location::Directory(root) => {
            Arc::new(directory::Directory::new(root, options.memory.clone()))
        }
        Location::S3 { bucket, prefix } => {
            Arc::new(s3::S3::new(bucket, prefix.as_deref(), options.s3.clone(), deadline))
        }
    };
    let limit = limit::Limit::new(backend, options.requests_in_flight_max);
    let retry = retry::Retry::new(Arc::new(limit), options.retry_for, deadline);
    Ok(Arc::new(observe::Observe::new(Arc::new(retry), options.tally.clone())))
}

/// The name of an object: relative, `/`-separated, without empty, `.` or `..` parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Refuses what could climb out of the repository or mean two things in two stores.
    pub fn new(key: impl Into<String>) -> Result<Self> {
        let key = key.into();
        let is_safe = |part: &str| {
            let allowed =
                |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'+' | b':');
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed)
        };
        if key.len() <= 900 && key.split('/').all(is_safe) {
            return Ok(Key(key));
        }
        Err(Error::new(ErrorKind::Usage, format!("{key:?} cannot name an object"))
            .hint("Use letters, digits, '.', '-', '_', '+' and ':' only."))
    }

    /// What `name` is called in the folder that `self` names.
    pub fn join(&self, name: &str) -> Result<Key> {
        Key::new(format!("{self}/{name}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    pub key: Key,
    /// In bytes, as stored.
    pub size: u64,
    pub modified: jiff::Timestamp,
}

/// One level below a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by key.
    pub objects: Vec<ObjectInfo>,
    /// The last part of each folder's name, sorted, without `/`.
    pub folders: Vec<String>,
}

/// A place that keeps objects. All methods block; all may be called from many threads at once.
///
/// Kinds every backend uses: `NotFound`, `AlreadyExists`, `Unreachable`, `WrongPlace`,
/// `NotAllowed`, `Throttled`, `Full`, `Corrupt`.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Creates an object, durable and verified when this returns; `AlreadyExists` where one of that
    /// name is there, and that one is left as it was. Of many callers at once exactly one succeeds.
    fn put_new(&self, key: &Key, body: &Body) -> Result<()>;

    /// The whole object, or `NotFound`.
    fn get(&self, key: &Key) -> Result<Bytes>;

    /// The first `max` bytes of an object, all of it if it has no more, and how many it has; or
    /// `NotFound`. One request, so that what is small costs no more than by `get`, and what is
    /// large no more memory than `max`.
    fn get_start(&self, key: &Key, max: u64) -> Result<(Bytes, u64)>;

    /// The bytes of `range`, all of them, or `NotFound`; a range past the end is `Corrupt`.
    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes>;

    /// Size and time of an object, or `NotFound`.
    fn head(&self, key: &Key) -> Result<ObjectInfo>;

    /// What lies one level below `folder` (`None`: the root). Empty where there is nothing: no
    /// proof of anything.
    fn list(&self, folder: Option<&Key>) -> Result<Listing>;

    /// What lies below `folder` at any depth, sorted; only what comes after `after`, where given. A
    /// request for each thousand objects, however many folders they are in. Empty proves nothing.
    fn list_all(&self, folder: &Key, after: Option<&Key>) -> Result<Vec<ObjectInfo>>;

    /// Removes an object; to remove what is not there is a success.
    fn delete(&self, key: &Key) -> Result<()>;

    /// The place as a person writes it, without secrets.
    fn url(&self) -> String;
}

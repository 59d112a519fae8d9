//! The one error: a kind to branch on, a message to read, a hint to act on, and what caused it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub type Result<T> = std::result::Result<T, Error>;

/// What a caller may branch on; `cli::exit` gives each kind its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The words or the configuration make no sense.
    Usage,
    /// Proven absent: the store said "no such object" and showed that it is the right place.
    Absent,
    /// A store said "no such object", which proves nothing yet.
    NotFound,
    /// A store refused to create an object because one of that name is there.
    AlreadyExists,
    /// Refused before anything was changed.
    Refused,
    /// A check ran and found something wrong.
    FoundWrong,
    /// A check could not be run.
    CouldNotCheck,
    /// The source file is not valid WAL of its name.
    InvalidSource,
    /// Another file of this name and other content is archived.
    Conflict,
    /// WAL or a backup of another cluster.
    ForeignCluster,
    /// The store did not answer, or answered with a fault of its own.
    Unreachable,
    /// The store answers, but this bucket, mount or prefix is not there, or is not what it should
    /// be.
    WrongPlace,
    /// The store refused our credentials or our right to do this.
    NotAllowed,
    /// The store asks us to slow down.
    Throttled,
    /// No space left where we must write.
    Full,
    /// What was stored or read does not match its checksum.
    Corrupt,
    /// PostgreSQL did not answer, or refused.
    Server,
    /// This machine refused: a local file could not be read or written.
    Host,
    /// A bug in walden.
    Bug,
    /// Told to stop.
    Interrupted,
}

impl ErrorKind {
    /// Whether the same request may well succeed a little later.
    pub fn is_transient(self) -> bool {
        match self {
            ErrorKind::Unreachable | ErrorKind::Throttled | ErrorKind::Corrupt => true,
            ErrorKind::Usage
            | ErrorKind::Absent
            | ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::Refused
            | ErrorKind::FoundWrong
            | ErrorKind::CouldNotCheck
            | ErrorKind::InvalidSource
            | ErrorKind::Conflict
            | ErrorKind::ForeignCluster
            | ErrorKind::WrongPlace
            | ErrorKind::NotAllowed
            | ErrorKind::Full
            | ErrorKind::Server
            | ErrorKind::Host
            | ErrorKind::Bug
            | ErrorKind::Interrupted => false,
        }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Messages are lower case without a full stop; hints are sentences.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    source: Option<Source>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Error(Box::new(Inner { kind, message, hint: None, retry_after: None, source: None }))
    }

    /// What to do about it, as a sentence. The innermost hint wins: it knows most.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint.get_or_insert(hint.into());
        self
    }

    #[must_use]
    pub fn source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// How long the store asked us to wait.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Says what was being done: "verb noun" before the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message).into();
        self
    }

    /// The same story under another kind, where the caller knows better what it means.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The source, where it is of this type.
    pub fn cause<T: std::error::Error + 'static>(&self) -> Option<&T> {
        self.0.source.as_ref().and_then(|source| source.downcast_ref())
    }

    /// What, where, why and what to do, on one line: the PostgreSQL log gets exactly one per
    /// failure.
    pub fn one_line(&self) -> String {
        let mut line = self.to_string();
        if let Some(hint) = &self.0.hint {
            line.push_str(" (hint: ");
            line.push_str(hint.trim_end_matches('.'));
            line.push(')');
        }
        line.replace(['\n', '\r'], " ")
    }
}

/// The message and its causes, outermost first, without the hint.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut cause =
            self.0.source.as_ref().map(|source| source.as_ref() as &dyn std::error::Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// "verb noun" added where the caller knows what it was doing.
pub trait Context<T> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.context(doing()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Context, Error, ErrorKind, Result};

    #[test]
    fn one_line_says_what_where_why_and_what_to_do() {
        let cause = std::io::Error::other("connection reset\nby peer");
        let failed: Result<()> =
            Err(Error::new(ErrorKind::Unreachable, "no answer from http://store")
                .hint("Look at the network.")
                .source(cause));
        let error = failed.context(|| "push 000000010000000000000001").unwrap_err();
        assert_eq!(
            error.one_line(),
            "push 000000010000000000000001: no answer from http://store: connection reset by peer \
             (hint: Look at the network)"
        );
        assert_eq!(error.kind(), ErrorKind::Unreachable);
    }

    #[test]
    fn the_innermost_hint_wins() {
        let error = Error::new(ErrorKind::Full, "full").hint("Free space.").hint("Ask somebody.");
        assert_eq!(error.hint_text(), Some("Free space."));
    }
}

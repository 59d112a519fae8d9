//! The audit trail: what a command did is written into the repository when it ends.

use jiff::Timestamp;
use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::host::{self, clock, privileges};
use crate::repository::Home;
use crate::repository::audit::{AuditEntry, Outcome, Verb};

/// One deed, from its beginning.
#[derive(Debug, Clone)]
pub struct Deed {
    verb: Verb,
    began: Timestamp,
}

impl Deed {
    pub fn begin(verb: Verb) -> Deed {
        Deed { verb, began: clock::now() }
    }

    pub fn began(&self) -> Timestamp {
        self.began
    }

    /// A trail that cannot be written is a warning: the deed is done. A role that may only read has
    /// no trail, and hears of it with --verbose only.
    pub fn end(&self, home: &Home, outcome: Outcome, summary: &str, details: Value) {
        let entry = AuditEntry {
            walden: 1,
            verb: self.verb,
            began: self.began,
            ended: clock::now(),
            outcome,
            summary: summary.to_owned(),
            host: host::name(),
            os_user: privileges::own_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            details,
        };
        match home.put_audit(&entry) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotAllowed => {
                tracing::info!(%error, "this {} is not in the audit trail", self.verb);
            }
            Err(error) => tracing::warn!("this {} is not in the audit trail: {error}", self.verb),
        }
    }
}

/// What an error says of how a deed ended.
pub fn outcome_of(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::FoundWrong | ErrorKind::Corrupt => Outcome::FoundWrong,
        ErrorKind::CouldNotCheck => Outcome::CouldNotCheck,
        _ => Outcome::Failed,
    }
}

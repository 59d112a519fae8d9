//! What the server says when it refuses or warns.

use std::fmt;

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::ErrorFields;

use crate::error::{Error, ErrorKind};

/// An ErrorResponse or a NoticeResponse; the source of an `Error` of kind `Server`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerMessage {
    /// In English, whatever the server's `lc_messages`: ERROR, FATAL, PANIC, WARNING ...
    pub severity: String,
    /// Five letters or digits, as in the manual's appendix "PostgreSQL Error Codes".
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl ServerMessage {
    pub(in crate::postgres) fn parse(mut fields: ErrorFields<'_>) -> Self {
        let mut found = ServerMessage::default();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'S' if found.severity.is_empty() => found.severity = value,
                b'V' => found.severity = value,
                b'C' => found.sqlstate = value,
                b'M' => found.message = value,
                b'D' => found.detail = Some(value),
                b'H' => found.hint = Some(value),
                _ => {}
            }
        }
        found
    }

    /// The error that carries this, with the hint of its code.
    pub fn into_error(self) -> Error {
        let hint = self.advice();
        let error = Error::new(ErrorKind::Server, "PostgreSQL refused").source(self);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// The server's own hint knows most; for what DBAs meet daily it has none.
    fn advice(&self) -> Option<String> {
        if let Some(hint) = &self.hint {
            return Some(hint.clone());
        }
        let ours = match self.sqlstate.as_str() {
            "28P01" => {
                "The password is wrong or missing: set PGPASSFILE (~/.pgpass) or PGPASSWORD."
            }
            "28000" if self.message.contains("pg_hba.conf") => {
                "Add a line to pg_hba.conf for this user and host; a base backup needs one for the \
                 database \"replication\". Then reload."
            }
            "28000" => "Is PGUSER the right role, and may it log in?",
            "3D000" => "Set PGDATABASE to a database that exists, for example postgres.",
            "42501" => "The role lacks a right: a base backup needs the attribute REPLICATION.",
            "53300" => "Too many connections: raise max_wal_senders or max_connections.",
            "57P03" => "The server is starting up or shutting down: try again in a moment.",
            _ => return None,
        };
        Some(ours.to_owned())
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        write!(f, " [SQLSTATE {}]", self.sqlstate)
    }
}

impl std::error::Error for ServerMessage {}

/// The SQLSTATE of an error that a server gave.
pub fn sqlstate(error: &Error) -> Option<&str> {
    error.cause::<ServerMessage>().map(|message| message.sqlstate.as_str())
}

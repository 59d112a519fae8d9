//! What was found, before it is known what it costs.

use crate::catalog::inventory::Segment;
use crate::error::{Error, ErrorKind};
use crate::postgres::{SegmentName, TimelineId};
use crate::repository::BackupId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is missing, or is not what it should be.
    Damage,
    /// Worth knowing, and no harm.
    Note,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    pub severity: Severity,
    /// Its key.
    pub object: String,
    /// What is wrong, as the end of a sentence that begins with the object.
    pub what: String,
    pub cost: Cost,
    /// Where there is more to say than what follows from the cost.
    pub advice: Option<String>,
}

/// What cannot be used any more.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Cost {
    /// These segments, and how the first of them really is (`None`: not there).
    Wal(Vec<SegmentName>, Option<Segment>),
    Backup(BackupId),
    History(TimelineId),
    /// Nothing that recovery needs; this is what it costs.
    Said(String),
}

/// What could not be looked at, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unchecked {
    pub object: String,
    pub why: String,
}

/// Gathers both.
#[derive(Debug, Clone, Default)]
pub struct Notebook {
    pub problems: Vec<Problem>,
    pub unchecked: Vec<Unchecked>,
}

impl Problem {
    pub fn damage(object: impl ToString, what: impl Into<String>, cost: Cost) -> Problem {
        let (severity, object, what) = (Severity::Damage, object.to_string(), what.into());
        Problem { severity, object, what, cost, advice: None }
    }

    pub fn note(object: impl ToString, what: impl Into<String>, cost: &str) -> Problem {
        let cost = Cost::Said(cost.to_owned());
        Problem { severity: Severity::Note, ..Problem::damage(object, what, cost) }
    }

    #[must_use]
    pub fn advise(self, advice: impl Into<String>) -> Problem {
        Problem { advice: Some(advice.into()), ..self }
    }
}

impl Notebook {
    /// An error of an object is damage, one of the store is none: then nothing was looked at.
    pub fn failed(&mut self, object: impl ToString, error: &Error, cost: Cost) {
        match is_of_the_object(error.kind()) {
            true => self.problems.push(Problem::damage(object, said(error), cost)),
            false => self.skip(object, error),
        }
    }

    pub fn skip(&mut self, object: impl ToString, why: impl ToString) {
        self.unchecked.push(Unchecked { object: object.to_string(), why: why.to_string() });
    }

    pub fn damage(&mut self, object: impl ToString, what: impl Into<String>, cost: Cost) {
        self.problems.push(Problem::damage(object, what, cost));
    }
}

pub fn is_of_the_object(kind: ErrorKind) -> bool {
    use ErrorKind::{Absent, Corrupt, ForeignCluster, InvalidSource, NotFound};
    matches!(kind, NotFound | Absent | Corrupt | ForeignCluster | InvalidSource)
}

pub fn said(error: &Error) -> String {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Absent => "it is missing".to_owned(),
        _ => error.to_string(),
    }
}

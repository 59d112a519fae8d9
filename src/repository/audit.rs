//! Who did what, when and from where: `audit/<time>-<verb>.json`, each written once.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::repository::parallel::ask_all;
use crate::repository::{Home, layout};
use crate::storage::Body;

/// What is written down. The entry of a backup, restore, verification or drill.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AuditEntry {
    /// Of this shape: 1.
    pub walden: u32,
    pub verb: Verb,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub outcome: Outcome,
    /// One sentence for people.
    pub summary: String,
    pub host: String,
    pub os_user: String,
    /// walden's own version.
    pub version: String,
    /// The verb's own shape, see docs/format.md.
    #[serde(default)]
    pub details: Value,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    Backup,
    Restore,
    Verify,
    Drill,
    Extract,
    Expire,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    /// Something is damaged or missing, or did not come out as it should.
    FoundWrong,
    /// Not all of it could be looked at.
    CouldNotCheck,
    Failed,
}

impl Verb {
    const ALL: [Verb; 6] =
        [Verb::Backup, Verb::Restore, Verb::Verify, Verb::Drill, Verb::Extract, Verb::Expire];

    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Backup => "backup",
            Verb::Restore => "restore",
            Verb::Verify => "verify",
            Verb::Drill => "drill",
            Verb::Extract => "extract",
            Verb::Expire => "expire",
        }
    }

    pub fn parse(text: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.as_str() == text)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Home {
    /// Two entries of one verb and microsecond cannot both be written; the second one is an error.
    pub fn put_audit(&self, entry: &AuditEntry) -> Result<()> {
        let json = serde_json::to_vec_pretty(entry)
            .map_err(|e| Error::new(ErrorKind::Bug, "write the audit entry").source(e))?;
        self.put_once(&self.audit_key(entry.began, entry.verb), &Body::new(json))
    }

    /// The entries that began at `since` or later, of this verb where one is named, oldest first.
    /// What cannot be read is an error in its place.
    pub fn audit(
        &self,
        verb: Option<Verb>,
        since: Option<Timestamp>,
    ) -> Result<Vec<Result<AuditEntry>>> {
        let mut listed = self.storage.list(Some(&self.audits_key()))?.objects;
        listed.retain(|object| {
            layout::audited_by(&object.key).is_some_and(|(time, of)| {
                since.is_none_or(|since| time >= since) && verb.is_none_or(|verb| verb == of)
            })
        });
        ask_all(&listed, |object| {
            let json = match self.storage.get(&object.key) {
                Err(error) if !error.kind().is_transient() => return Ok(Err(error)),
                outcome => outcome?,
            };
            Ok(serde_json::from_slice(&json).map_err(|error| {
                Error::new(ErrorKind::Corrupt, format!("{} cannot be read", object.key))
                    .source(error)
                    .hint("It was written by a newer walden, or damaged.")
            }))
        })
        .context(|| "read the audit trail")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::postgres::SystemIdentifier;
    use crate::repository::audit::{AuditEntry, Outcome, Verb};
    use crate::repository::{ClusterName, Repository};
    use crate::storage::memory::Memory;
    use crate::storage::{Body, Storage as _};

    fn entry(began: &str, verb: Verb) -> AuditEntry {
        AuditEntry {
            walden: 1,
            verb,
            began: began.parse().unwrap(),
            ended: began.parse().unwrap(),
            outcome: Outcome::Done,
            summary: "all is well".to_owned(),
            host: "db1".to_owned(),
            os_user: "postgres".to_owned(),
            version: "0.1.0".to_owned(),
            details: serde_json::json!({ "n": 1 }),
        }
    }

    #[test]
    fn entries_come_back_by_verb_and_time_and_a_damaged_one_is_told_of() {
        let storage = Arc::new(Memory::new());
        let repository = Repository::new(storage.clone(), ClusterName::new("main").unwrap());
        let home = repository.home(SystemIdentifier(7));
        let first = entry("2026-11-21T10:15:30.000123Z", Verb::Verify);
        let second = entry("2026-11-22T10:15:30Z", Verb::Drill);
        home.put_audit(&first).unwrap();
        home.put_audit(&second).unwrap();
        let read = |verb, since: Option<&str>| -> Vec<AuditEntry> {
            let since = since.map(|since| since.parse().unwrap());
            home.audit(verb, since).unwrap().into_iter().map(Result::unwrap).collect()
        };
        assert_eq!(read(None, None), [first.clone(), second.clone()]);
        assert_eq!(read(Some(Verb::Verify), None), [first]);
        assert_eq!(read(None, Some("2026-11-22T00:00:00Z")), [second]);

        let third = entry("2026-11-23T10:15:30Z", Verb::Backup);
        storage.put_new(&home.audit_key(third.began, third.verb), &Body::new("{")).unwrap();
        let all = home.audit(None, None).unwrap();
        assert_eq!(all.len(), 3);
        assert!(all[2].is_err());
    }
}

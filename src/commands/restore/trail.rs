//! What the audit trail says of a restore.

use serde_json::{Value, json};

use crate::commands::audit::{Deed, outcome_of};
use crate::commands::restore::{Prepared, wait};
use crate::error::{Error, ErrorKind};
use crate::repository::audit::Outcome;

impl Prepared {
    /// `waited` is what became of the recovery, where somebody waited for it.
    pub fn record(&self, deed: &Deed, outcome: Result<Option<&wait::Outcome>, &Error>) {
        let what = format!("backup {} into {}", self.plan.backup.id, self.plan.directory.display());
        let target = match &self.plan.target.value {
            Some(value) => format!("{} {value}", self.plan.target.kind),
            None => self.plan.target.kind.to_owned(),
        };
        let (outcome, summary) = match outcome {
            Ok(None) => (Outcome::Done, format!("placed {what}, to recover to {target}")),
            Ok(Some(_)) => (Outcome::Done, format!("placed {what} and recovered to {target}")),
            Err(error) if is_away(error) => return,
            Err(error) => (outcome_of(error), format!("{what}, to {target}: {error}")),
        };
        deed.end(&self.home, outcome, &summary, self.details());
    }

    fn details(&self) -> Value {
        let plan = &self.plan;
        json!({
            "backup": plan.backup.id.as_str(),
            "directory": plan.directory,
            "target": plan.target,
            "timeline": plan.timeline,
            "last_commit": plan.last_commit.map(|commit| commit.time),
            "adopt": plan.adopt,
        })
    }
}

/// Then it would only be waited for once more.
fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Throttled)
}

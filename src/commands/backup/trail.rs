//! What the audit trail says of a backup.

use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::commands::audit::{Deed, outcome_of};
use crate::commands::backup::Report;
use crate::error::{Error, ErrorKind};
use crate::host::termination;
use crate::repository::audit::Outcome;
use crate::repository::{BackupId, Home};

pub fn record(deed: &Deed, home: &Home, report: &Report) {
    let outcome = if report.damaged > 0 { Outcome::FoundWrong } else { Outcome::Done };
    deed.end(home, outcome, &summary(report), details(report));
}

pub fn record_failure(deed: &Deed, home: &Home, error: &Error) {
    termination::stand_still_if_leaving();
    // A store that is away would be waited for once more.
    if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Throttled) {
        return;
    }
    // The trail is no beginning: what is not a home yet must not look like one.
    if home.is_claimed().unwrap_or(false) {
        deed.end(home, outcome_of(error), &error.to_string(), Value::Null);
    }
}

fn summary(report: &Report) -> String {
    let size = |bytes| ByteSize::b(bytes).display().iec().to_string();
    let damage = match report.damaged {
        0 => String::new(),
        pages => format!("; {pages} of its pages are damaged on the server itself"),
    };
    let (kind, id) = (report.kind, &report.id);
    format!("{kind} backup {id} of {}, {} stored{damage}", size(report.size), size(report.stored))
}

fn details(report: &Report) -> Value {
    json!({
        "id": report.id.as_str(),
        "type": report.kind,
        "parent": report.parent.as_ref().map(BackupId::as_str),
        "mode": report.mode,
        "server_version_num": report.server_version_num,
        "began": report.began,
        "ended": report.ended,
        "timeline": report.timeline,
        "start_lsn": report.start_lsn,
        "end_lsn": report.end_lsn,
        "size": report.size,
        "stored": report.stored,
        "damaged": report.damaged,
    })
}

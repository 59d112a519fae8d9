//! `push`: one WAL file from pg_wal to the repository.
//!
//! PostgreSQL recycles the file as soon as we exit 0, so we exit 0 only after every repository has
//! confirmed that it holds the very bytes we read: in this call, or ahead of it in an earlier one.

mod source;
mod timeline_end;
mod lost_record;
mod frames;
mod delivery;
mod look_ahead;
mod pace;
mod acknowledged;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::commands::App;
use crate::commands::archive::Caller;
use crate::commands::archive::push::acknowledged::Acknowledged;
use crate::commands::archive::push::delivery::Delivery;
use crate::commands::archive::push::look_ahead::LookAhead;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::postgres::WalFileName;

pub fn run(app: &App, path: &Path) -> Result<()> {
    app.settings.require_repositories()?;
    let deadline = Deadline::after(app.settings.push.deadline);
    let name = WalFileName::from_path(path)?;
    let caller = Caller::find(Some(path), app.settings.pgdata.as_deref())?;
    let delivery = Arc::new(Delivery::new(app.clone(), caller, deadline));
    let looks_ahead = app.settings.push.look_ahead != Some(0);
    let Some(acknowledged) = looks_ahead.then(|| Acknowledged::of(&delivery)).flatten() else {
        return push(&delivery, path, &name, || ()).map(|_| ());
    };
    if delivery.is_mounted() && acknowledged.confirms(&name, path) {
        tracing::info!(%name, "pushed ahead");
        return Ok(());
    }
    let ahead = LookAhead::new(&delivery, acknowledged, path, &name);
    let outcome = push(&delivery, path, &name, || ahead.begin());
    match &outcome {
        Ok(took) => ahead.finish(Some(*took)),
        Err(error) if is_its_own(error) => ahead.finish(None),
        Err(_) => {}
    }
    outcome.map(|_| ())
}

/// One file into every repository. Tells how long the repositories took.
fn push(
    delivery: &Delivery,
    path: &Path,
    name: &WalFileName,
    once_sealed: impl FnOnce(),
) -> Result<Duration> {
    let sealed = delivery.seal(path, name, frames::threads()).context(|| format!("push {name}"))?;
    once_sealed();
    let began = Instant::now();
    delivery.store(name, &sealed)?;
    sealed.tell(name);
    Ok(began.elapsed())
}

/// A fault of this file, which says nothing of the next ones: PostgreSQL asks for it again and
/// again, and for no other until it is gone.
fn is_its_own(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidSource
            | ErrorKind::Conflict
            | ErrorKind::ForeignCluster
            | ErrorKind::Corrupt
    )
}

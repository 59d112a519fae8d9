//! What things are called, saved beside the backup: names that WAL has numbers for only.

use crate::commands::backup::copy::Target;
use crate::commands::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::Names;
use crate::postgres::connection::ConnectionOptions;
use crate::repository::NamesFacts;

/// No backup fails over it: `walden find` then shows numbers.
pub fn save(
    target: &Target<'_>,
    options: &ConnectionOptions,
    progress: &Progress,
) -> Option<(Names, NamesFacts)> {
    progress.enter("reading names of tables");
    match read_and_put(target, options) {
        Ok((names, facts, notes)) => {
            if let Some(first) = notes.first() {
                let more = notes.len() - 1;
                let more = if more > 0 { format!(", and {more} more such") } else { String::new() };
                tracing::warn!(
                    "not all names of tables were saved: {first}{more} (hint: The role needs \
                     CONNECT on each database, and pg_hba.conf must let it in)"
                );
            }
            Some((names, facts))
        }
        Err(error) => {
            tracing::warn!(
                "names of tables were not saved, walden find will show numbers for what was \
                 dropped after this backup: {}",
                error.one_line()
            );
            None
        }
    }
}

fn read_and_put(
    target: &Target<'_>,
    options: &ConnectionOptions,
) -> Result<(Names, NamesFacts, Vec<String>)> {
    let (names, notes) = Names::read(options)?;
    let (ours, found) = (target.home.system_identifier(), names.system_identifier);
    if let Some(other) = found.filter(|found| *found != ours) {
        return Err(Error::new(
            ErrorKind::ForeignCluster,
            format!("SQL leads to cluster {other}, the replication connection to {ours}"),
        )
        .hint("Does a pooler or a list of hosts stand between?"));
    }
    let facts = target.home.put_names(target.id, &names, target.origin, target.compression)?;
    Ok((names, facts, notes))
}

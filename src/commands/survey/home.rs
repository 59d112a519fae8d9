//! Which cluster is meant, where several have used one name.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::SystemIdentifier;
use crate::repository::{BackupId, Home, Repository};

/// The cluster to restore: the one asked for, the one that has the backup asked for, or the only
/// one that has backups.
pub fn find_home(
    repository: &Repository,
    wanted: Option<SystemIdentifier>,
    backup: Option<&BackupId>,
) -> Result<Home> {
    let mut candidates = Vec::new();
    for home in homes(repository)? {
        let backups = home.backups()?;
        let fits = match (wanted, backup) {
            (Some(wanted), _) => home.system_identifier() == wanted,
            (None, Some(id)) => backups.contains(id),
            (None, None) => !backups.is_empty(),
        };
        if fits {
            candidates.push((home, backups.last().cloned()));
        }
    }
    match candidates.len() {
        1 => Ok(candidates.remove(0).0),
        0 => Err(refused(format!("no such backup is in {}", repository.url())).hint(
            "Take a backup with walden backup, or look at --backup, --system-identifier, \
                   --cluster.",
        )),
        _ => Err(several("several clusters have backups under this name", &candidates)),
    }
}

/// The cluster to look at, with backups or without: the one asked for, or the only one.
pub fn find_archive(repository: &Repository, wanted: Option<SystemIdentifier>) -> Result<Home> {
    let mut homes = homes(repository)?;
    if let Some(wanted) = wanted {
        let known: Vec<String> =
            homes.iter().map(|home| home.system_identifier().to_string()).collect();
        let fits = homes.into_iter().find(|home| home.system_identifier() == wanted);
        return fits.ok_or_else(|| {
            refused(format!("cluster {wanted} does not archive in {}", repository.url()))
                .hint(format!("Archived under this name: {}.", known.join(", ")))
        });
    }
    if homes.len() == 1 {
        return Ok(homes.remove(0));
    }
    let newest = |home: Home| home.backups().map(|backups| (home, backups.last().cloned()));
    let candidates = homes.into_iter().map(newest).collect::<Result<Vec<_>>>()?;
    Err(several("several clusters archive under this name", &candidates))
}

/// One at least.
fn homes(repository: &Repository) -> Result<Vec<Home>> {
    let homes = repository.homes()?;
    if homes.is_empty() {
        return Err(refused(format!(
            "nothing is archived in {} under this name",
            repository.url()
        ))
        .hint("Look at --repository and --cluster, and that the store is mounted."));
    }
    Ok(homes)
}

fn several(what: &str, candidates: &[(Home, Option<BackupId>)]) -> Error {
    let lines: Vec<String> = candidates
        .iter()
        .map(|(home, newest)| {
            let newest = newest.as_ref().map_or("none".to_owned(), BackupId::to_string);
            format!("--system-identifier {} (newest backup {newest})", home.system_identifier())
        })
        .collect();
    refused(format!("{what}; pg_upgrade starts a new one"))
        .hint(format!("Say which: {}.", lines.join(", ")))
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, message)
}

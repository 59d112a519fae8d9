//! What lies in the directory already: nothing, an unfinished restore, a data directory of this
//! cluster, or something that is not ours to touch.

use std::fs;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::{Pid, test_kill_process};

use crate::commands::restore::destination::{Destination, existing, refused};
use crate::commands::restore::marker::{Marker, UNFINISHED};
use crate::commands::restore::placement::{Link, OWN_TABLESPACES};
use crate::error::{Error, Result};
use crate::postgres::control_file::ControlFile;

/// What the files in place are to this restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Into {
    /// There are none.
    Empty,
    /// They are of the same restore, which was killed or failed.
    Unfinished,
    /// They are of the same cluster, and --delta says that they may be changed.
    Delta,
}

pub fn refuse_live_server(directory: &Path) -> Result<()> {
    let Ok(lock) = fs::read_to_string(directory.join("postmaster.pid")) else { return Ok(()) };
    // A single-user server writes its process id with a minus.
    let first = lock.lines().next().unwrap_or_default().trim().trim_start_matches('-');
    let Some(process) = first.parse().ok().and_then(Pid::from_raw) else { return Ok(()) };
    if test_kill_process(process) == Err(rustix::io::Errno::SRCH) {
        return Ok(());
    }
    Err(refused(format!(
        "a server runs in {}: postmaster.pid names process {first}, which lives",
        directory.display()
    ))
    .hint("Stop it with pg_ctl stop, or restore into another directory."))
}

/// What `directory` is to the restore that `ours` marks.
pub fn look(directory: &Path, ours: &Marker, delta: bool) -> Result<Into> {
    let Some(first) = first_entry(directory, "the directory")? else { return Ok(Into::Empty) };
    let shown = directory.display();
    let elsewhere = "Restore into an empty or new directory; move away what is there, you may need \
                     it.";
    let (found, cluster) = match Marker::read(directory)? {
        Some(marker) if marker.is_of(ours) => return Ok(Into::Unfinished),
        Some(Marker { backup, target, system_identifier, .. }) => {
            let found = format!("holds an unfinished restore of backup {backup} to {target}");
            (found, system_identifier)
        }
        None => {
            let control = directory.join("global/pg_control").exists();
            let control = control.then(|| ControlFile::read(directory)).transpose();
            let not_empty = format!("is not empty: it holds {first}");
            match control {
                Ok(Some(control)) => (not_empty, control.system_identifier),
                Ok(None) => {
                    let message = format!("the directory {shown} {not_empty}");
                    return Err(refused(message).hint(elsewhere));
                }
                Err(error) => {
                    let message = format!("the directory {shown} {not_empty}");
                    return Err(refused(message).source(error).hint(elsewhere));
                }
            }
        }
    };
    if cluster != ours.system_identifier {
        let message = format!("the directory {shown} {found}, of another cluster, {cluster}");
        return Err(refused(message).hint(elsewhere));
    }
    match delta {
        true => Ok(Into::Delta),
        false => Err(refused(format!("the directory {shown} {found}")).hint(
            "It is of this cluster: --delta keeps the files in it that are right, changes the \
             others, and removes all else. Or restore into an empty or new directory.",
        )),
    }
}

/// A tablespace's place that is not empty must belong to what lies in the data directory: a link in
/// it leads there, or an unfinished restore says so.
pub fn expect_own(link: &Link, directory: &Path, into: Into) -> Result<()> {
    let what = format!("the place of tablespace {}", link.from);
    let Some(first) = first_entry(&link.to, &what)? else { return Ok(()) };
    let linked = fs::read_link(directory.join(OWN_TABLESPACES).join(link.oid.to_string()));
    let is_linked = linked.is_ok_and(|to| to.canonicalize().is_ok_and(|to| to == link.to));
    let is_marked = || {
        let marker = Marker::read(directory).ok().flatten();
        marker.is_some_and(|marker| marker.tablespaces.contains(&link.to))
    };
    if into != Into::Empty && (is_linked || is_marked()) {
        return Ok(());
    }
    Err(refused(format!("{what} {} is not empty: it holds {first}", link.to.display())).hint(
        "Give it an empty or new directory, or with --delta the one that the data directory links \
         to; move away what is there, you may need it.",
    ))
}

/// WAL that lies there and nowhere else, as the server's archiver knows it, and that goes with the
/// rest.
pub fn lost_wal(directory: &Path) -> Option<String> {
    let status = fs::read_dir(directory.join("pg_wal/archive_status")).ok()?;
    let names = status.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let waiting = names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned));
    let mut waiting: Vec<String> = waiting.collect();
    waiting.sort();
    let (first, last) = waiting.first().zip(waiting.last())?;
    Some(format!(
        "{} WAL files in pg_wal were not archived, {first} to {last}: they will be lost. Copy them \
         first, or archive them with walden push.",
        waiting.len()
    ))
}

/// Links to tablespaces in what lies there that no tablespace of the backup goes to: what they lead
/// to is left alone, and named.
pub fn left_alone(destination: &Destination) -> Vec<String> {
    let folder = destination.directory.join(OWN_TABLESPACES);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let places = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let is_ours = |place: &Path| {
        let place = place.canonicalize().unwrap_or_else(|_| place.to_owned());
        destination.links.iter().any(|link| link.to == place)
    };
    let mut left: Vec<String> = places
        .filter(|place| !is_ours(place))
        .map(|place| format!("{} was a tablespace here: it is left as it is.", place.display()))
        .collect();
    left.sort();
    if let Ok(place) = fs::read_link(destination.directory.join("pg_wal")) {
        left.push(format!(
            "pg_wal was a link to {}: it becomes a directory, and what is there is left as it is.",
            place.display()
        ));
    }
    left
}

/// What lies in a directory, if anything; a look at whether we may write there.
pub fn first_entry(path: &Path, what: &str) -> Result<Option<String>> {
    let shown = path.display();
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return expect_writable(existing(path), path).map(|()| None);
        }
        Err(error) => {
            return Err(refused(format!("{what} {shown} cannot be used"))
                .source(error)
                .hint("Name a directory that is empty or not there yet, and that you may write."));
        }
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()).unwrap_or_default());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    match names.min_by_key(|name| name != UNFINISHED) {
        None => expect_writable(path, path).map(|()| None),
        first => Ok(first),
    }
}

fn expect_writable(folder: &Path, wanted: &Path) -> Result<()> {
    access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(
        |error: rustix::io::Errno| -> Error {
            refused(format!(
                "{} cannot be made: {} is not writable",
                wanted.display(),
                folder.display()
            ))
            .source(error)
            .hint("Run as the user PostgreSQL belongs to, and give that user the directory.")
        },
    )
}

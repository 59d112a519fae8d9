//! What a restore is about to do, as a value: printed before anything is changed, or all there is
//! with `--dry-run`.

use std::path::PathBuf;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::catalog::moment::reading;
use crate::catalog::recovery_plan::estimate::Estimate;
use crate::catalog::recovery_plan::{GivenUp, Place};
use crate::catalog::{Decision, Target};
use crate::commands::restore::Request;
use crate::commands::restore::chain::Chain;
use crate::commands::restore::check_wal::CheckedWal;
use crate::commands::restore::destination::Destination;
use crate::commands::restore::in_place::InPlace;
use crate::commands::restore::occupied::{self, Into};
use crate::commands::restore::placement::{Link, Placement};
use crate::postgres::wal::digest::TransactionEnd;
use crate::postgres::{Lsn, SystemIdentifier, TimelineId};
use crate::repository::{BackupId, Manifest};

/// The JSON shape of `walden restore --json`, version 1.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Plan {
    pub walden: u32,
    pub repository: String,
    pub system_identifier: SystemIdentifier,
    pub backup: Backup,
    pub wal: Wal,
    pub target: PlannedTarget,
    /// The record recovery stops at; `None` at the end of the WAL, or where it cannot be told.
    pub stop: Option<Place>,
    /// The last commit that the restored cluster will have.
    pub last_commit: Option<TransactionEnd>,
    /// Commits after it, which it will not have; `None`: it cannot be told.
    pub commits_after: Option<GivenUp>,
    /// The moment of the target, or else of the record recovery stops at.
    pub instants: Option<Instants>,
    pub estimate: Estimate,
    pub timeline: TimelineId,
    /// `1 until 0/A000198, 2`
    pub timeline_path: String,
    pub directory: PathBuf,
    /// Whom the files will belong to, where that is not who runs walden.
    pub owner: Option<String>,
    pub tablespaces: Vec<Link>,
    /// What lies in the directory already, by its names and lengths; `None`: nothing.
    pub in_place: Option<PlannedInPlace>,
    /// Databases whose files will be empty.
    pub databases_left_out: Vec<String>,
    /// Where configuration files from outside of the data directory go.
    pub configuration: Vec<PathBuf>,
    pub signal_file: String,
    /// The block in `postgresql.auto.conf`.
    pub settings: String,
    /// Whether the restored server will archive.
    pub adopt: bool,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, serde::Serialize)]
pub struct Backup {
    pub id: BackupId,
    pub began: Timestamp,
    pub ended: Timestamp,
    /// Raw bytes of all files.
    pub size: u64,
    /// Bytes to fetch, about, of the whole chain.
    pub stored: u64,
    /// The backups it is put together from, the full one first and itself last.
    pub chain: Vec<String>,
    pub files: usize,
    pub start_lsn: Lsn,
    pub end_lsn: Lsn,
    pub server_version_num: u32,
}

/// What of the files in the directory may be kept, before they are compared.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PlannedInPlace {
    pub why: Into,
    /// Files of the backup that are there, and the bytes of them that may be right.
    pub files: u64,
    pub bytes: u64,
    /// What does not belong there, and will be removed.
    pub removed_files: u64,
    pub removed_bytes: u64,
}

/// The unbroken WAL that is archived from the backup's start on.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Wal {
    pub first: String,
    pub last: String,
    /// Exclusive.
    pub end_lsn: Lsn,
    pub stored: Timestamp,
    /// The first segment that is missing or cannot be replayed, where later ones are there.
    pub gap: Option<String>,
    /// With --check-wal.
    pub checked: Option<CheckedWal>,
}

/// One moment, as it is read in several zones.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Instants {
    pub utc: Timestamp,
    /// In the zones of the server's `TimeZone` and `log_timezone` when the backup was taken.
    pub server: Vec<String>,
    /// In the zone of this host.
    pub here: String,
}

#[derive(Debug, Clone, serde::Serialize)]
pub struct PlannedTarget {
    pub kind: &'static str,
    /// Times in UTC.
    pub value: Option<String>,
    pub exclusive: bool,
    pub action: &'static str,
}

impl Plan {
    /// What was decided; `place` adds where it goes.
    pub fn new(
        request: &Request,
        chain: &Chain,
        placement: &Placement,
        decision: &Decision,
    ) -> Plan {
        let manifest = chain.newest();
        let stored = stored(&chain.manifests, placement);
        let (kind, value) = described(&request.wanted.target);
        let (run, segments) = (&decision.run, decision.segments.len() as u64);
        let moment = match request.wanted.target {
            Target::Time(time) => Some(time),
            _ => decision.stop.place.and_then(|place| place.time),
        };
        Plan {
            walden: 1,
            repository: String::new(),
            system_identifier: manifest.system_identifier(),
            backup: Backup {
                id: manifest.id.clone(),
                began: manifest.began,
                ended: manifest.ended,
                size: placement.files.iter().map(|file| file.size).sum(),
                stored,
                chain: decision.chain.iter().map(|link| link.id.clone()).collect(),
                files: manifest.file_count(),
                start_lsn: manifest.start_lsn,
                end_lsn: manifest.end_lsn,
                server_version_num: manifest.server_version_num,
            },
            wal: Wal {
                first: run.first.to_string(),
                last: run.last.to_string(),
                end_lsn: run.end,
                stored: run.stored,
                gap: run.gap.map(|gap| gap.segment.to_string()),
                checked: None,
            },
            target: PlannedTarget {
                kind,
                value,
                exclusive: request.wanted.exclusive,
                action: request.action().as_str(),
            },
            stop: decision.stop.place,
            last_commit: decision.last_commit,
            commits_after: decision.given_up,
            instants: moment.map(|moment| Instants::of(moment, manifest)),
            estimate: Estimate::new(stored, segments, manifest.wal_segment_size),
            timeline: decision.path.last(),
            timeline_path: decision.path.to_string(),
            directory: PathBuf::new(),
            owner: None,
            tablespaces: Vec::new(),
            in_place: None,
            databases_left_out: Vec::new(),
            configuration: Vec::new(),
            signal_file: String::new(),
            settings: String::new(),
            adopt: request.adopt,
            notes: decision.notes.clone(),
        }
    }

    pub fn place(
        &mut self,
        repository: String,
        destination: &Destination,
        signal_file: &str,
        settings: String,
    ) {
        self.repository = repository;
        self.directory = destination.directory.clone();
        self.owner = destination.owner.as_ref().map(|user| user.name.clone());
        self.tablespaces = destination.links.clone();
        self.signal_file = signal_file.to_owned();
        self.settings = settings;
    }

    pub fn describe_in_place(
        &mut self,
        destination: &Destination,
        found: Option<&InPlace>,
        placement: &Placement,
    ) {
        let Some(found) = found else { return };
        let (files, bytes) = found.there(placement);
        self.in_place = Some(PlannedInPlace {
            why: destination.into,
            files,
            bytes,
            removed_files: found.stranger_files,
            removed_bytes: found.stranger_bytes,
        });
        self.notes.extend(occupied::lost_wal(&destination.directory));
        self.notes.extend(occupied::left_alone(destination));
    }
}

/// About how many stored bytes hold what will be placed: of a backup whose packs are wanted in
/// part, that part of them.
fn stored(chain: &[Manifest], placement: &Placement) -> u64 {
    let mut wanted = vec![0u64; chain.len()];
    for piece in &placement.pieces {
        wanted[piece.source as usize] += piece.length;
    }
    let share = |(manifest, wanted): (&Manifest, u64)| {
        let all: u64 = manifest.files.iter().map(|file| file.size).sum();
        let stored = u128::from(manifest.stored()) * u128::from(wanted);
        u64::try_from(stored / u128::from(all.max(1))).unwrap_or(u64::MAX)
    };
    chain.iter().zip(wanted).map(share).sum()
}

impl Instants {
    fn of(utc: Timestamp, manifest: &Manifest) -> Instants {
        let mut names = vec![&manifest.time_zone, &manifest.log_time_zone];
        names.dedup();
        let zones = names.into_iter().flatten().filter_map(|name| TimeZone::get(name).ok());
        Instants {
            utc,
            server: zones.map(|zone| reading(utc, &zone)).collect(),
            here: reading(utc, &TimeZone::system()),
        }
    }
}

pub fn described(target: &Target) -> (&'static str, Option<String>) {
    match target {
        Target::Time(time) => ("time", Some(time.to_string())),
        Target::Lsn(lsn) => ("lsn", Some(lsn.to_string())),
        Target::Xid(xid) => ("xid", Some(xid.to_string())),
        Target::Name(name) => ("name", Some(name.clone())),
        Target::Immediate => ("immediate", None),
        Target::Latest => ("latest", None),
    }
}

#[cfg(test)]
mod tests {
    use super::Instants;
    use crate::commands::restore::samples::Sample;

    #[test]
    fn a_moment_is_read_in_the_zones_of_the_server_each_once() {
        let mut manifest = Sample::new(&[], &[]).manifest;
        let moment = "2026-11-21T10:15:30.5Z".parse().unwrap();
        let server = |manifest: &_| Instants::of(moment, manifest).server;
        assert!(server(&manifest).is_empty(), "a backup of before");
        manifest.time_zone = Some("Europe/Berlin".to_owned());
        manifest.log_time_zone = Some("Europe/Berlin".to_owned());
        assert_eq!(server(&manifest), ["2026-11-21 11:15:30.5+01:00 Europe/Berlin"]);
        manifest.log_time_zone = Some("UTC".to_owned());
        assert_eq!(server(&manifest)[1], "2026-11-21 10:15:30.5+00:00 UTC");
        manifest.log_time_zone = Some("<+03>-03".to_owned());
        assert_eq!(server(&manifest).len(), 1, "a zone that has no name is left out");
    }
}

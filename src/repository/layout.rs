//! Object keys: the only file that builds or parses one.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use crate::postgres::{SegmentName, TimelineId, WalFileName};
use crate::repository::audit::Verb;
use crate::repository::{BackupId, ClusterName, Home, Kept};
use crate::storage::Key;

/// `20261121T101530.000123Z`: sorts by time.
const AUDIT_TIME: &str = "%Y%m%dT%H%M%S.%6fZ";
const MANIFEST: &str = "manifest.json.zst";

/// `<cluster>`
pub fn cluster(name: &ClusterName) -> Key {
    key(name.to_string())
}

impl Home {
    /// `<cluster>/<system identifier>/cluster.json`: proof that this is the place.
    pub fn proof_key(&self) -> Key {
        self.key("cluster.json")
    }

    pub fn wal_key(&self, name: &WalFileName) -> Key {
        match name {
            WalFileName::Segment(segment) => {
                self.key(&format!("{}/{segment}.zst", log_folder(segment.timeline, segment.log)))
            }
            WalFileName::Partial(segment) | WalFileName::BackupHistory(segment, _) => {
                self.key(&format!("wal/{}/{name}.zst", segment.timeline.to_hex()))
            }
            WalFileName::History(_) => self.key(&format!("history/{name}.zst")),
        }
    }

    /// The folder of the segments of one log file (4 GiB of WAL).
    pub fn log_key(&self, timeline: TimelineId, log: u32) -> Key {
        self.key(&log_folder(timeline, log))
    }

    /// The folder of all log files of a timeline.
    pub fn timeline_key(&self, timeline: TimelineId) -> Key {
        self.key(&format!("wal/{}", timeline.to_hex()))
    }

    /// The folder of all WAL segments, timeline by timeline.
    pub fn all_wal_key(&self) -> Key {
        self.key("wal")
    }

    /// What is known of the segments of one log file, gathered; a cache.
    pub fn index_key(&self, timeline: TimelineId, log: u32) -> Key {
        let timeline = timeline.to_hex();
        self.key(&format!("index/{timeline}/{timeline}{log:08X}.json.zst"))
    }

    pub fn histories_key(&self) -> Key {
        self.key("history")
    }

    pub fn backups_key(&self) -> Key {
        self.key("backup")
    }

    pub fn manifest_key(&self, id: &BackupId) -> Key {
        self.key(&format!("backup/{id}/{MANIFEST}"))
    }

    /// The folder of what belongs to one backup.
    pub fn backup_key(&self, id: &BackupId) -> Key {
        self.key(&format!("backup/{id}"))
    }

    /// The folder of the backups that must not be removed.
    pub fn holds_key(&self) -> Key {
        self.key("hold")
    }

    /// The folder of what was done, by whom.
    pub fn audits_key(&self) -> Key {
        self.key("audit")
    }

    pub fn audit_key(&self, began: Timestamp, verb: Verb) -> Key {
        self.key(&format!("audit/{}-{verb}.json", began.strftime(AUDIT_TIME)))
    }

    /// The folder of the records of drills.
    pub fn drills_key(&self) -> Key {
        self.key("drill")
    }

    pub fn drill_key(&self, id: &BackupId) -> Key {
        self.key(&format!("drill/{id}.json"))
    }

    pub fn names_key(&self, id: &BackupId) -> Key {
        self.key(&format!("backup/{id}/names.json.zst"))
    }

    pub fn sums_key(&self, id: &BackupId) -> Key {
        self.key(&format!("backup/{id}/sums.zst"))
    }

    /// What the server is configured by, where that lies outside of its data directory.
    pub fn configuration_key(&self, id: &BackupId) -> Key {
        self.key(&format!("backup/{id}/configuration.tar.zst"))
    }

    pub fn pack_key(&self, id: &BackupId, number: u32) -> Key {
        self.key(&format!("backup/{id}/{}", pack_name(number)))
    }

    /// The folder of all that belongs to this cluster.
    pub fn root_key(&self) -> Key {
        key(format!("{}/{}", self.cluster, self.system_identifier))
    }

    /// What an object is, by its key: only if that is the very key it would have been given.
    pub(super) fn kept(&self, key: &Key) -> Option<Kept> {
        let rest = key.as_str().strip_prefix(self.root_key().as_str())?.strip_prefix('/')?;
        let (folder, file) = rest.split_once('/').unwrap_or(("", rest));
        let kept = match folder {
            "" => Some(Kept::Proof),
            "wal" | "history" => wal_file_of(key).map(Kept::Wal),
            "backup" => of_backup(file),
            "index" => index_of(key).map(|(timeline, log)| Kept::Index(timeline, log)),
            "hold" => held_by(key).map(Kept::Hold),
            "audit" => audited_by(key).map(|(time, verb)| Kept::Audit(time, verb)),
            "drill" => drilled_by(key).map(Kept::Drill),
            _ => None,
        };
        kept.filter(|kept| self.key_of(kept) == *key)
    }

    pub fn key_of(&self, kept: &Kept) -> Key {
        match kept {
            Kept::Proof => self.proof_key(),
            Kept::Wal(name) => self.wal_key(name),
            Kept::Manifest(id) => self.manifest_key(id),
            Kept::Pack(id, number) => self.pack_key(id, *number),
            Kept::Sums(id) => self.sums_key(id),
            Kept::Names(id) => self.names_key(id),
            Kept::Configuration(id) => self.configuration_key(id),
            Kept::Index(timeline, log) => self.index_key(*timeline, *log),
            Kept::Hold(id) => self.key(&format!("hold/{id}.json")),
            Kept::Audit(began, verb) => self.audit_key(*began, *verb),
            Kept::Drill(id) => self.drill_key(id),
        }
    }

    fn key(&self, rest: &str) -> Key {
        key(format!("{}/{}/{rest}", self.cluster, self.system_identifier))
    }
}

/// What the manifest of each backup is called in its folder.
pub fn manifest_name() -> &'static str {
    MANIFEST
}

/// `data-00000.tar.zst`; the digits grow past 99,999 packs (3 TiB).
pub fn pack_name(number: u32) -> String {
    format!("data-{number:05}.tar.zst")
}

/// The number of a pack, by what `pack_name` called it.
pub fn pack_of(key: &Key) -> Option<u32> {
    let (_, file) = key.as_str().rsplit_once('/')?;
    file.strip_prefix("data-")?.strip_suffix(".tar.zst")?.parse().ok()
}

/// The backup whose hold is `<id>.json`.
pub fn held_by(key: &Key) -> Option<BackupId> {
    let (_, file) = key.as_str().rsplit_once('/')?;
    file.strip_suffix(".json")?.parse().ok()
}

/// The drill whose record is `<id>.json`.
pub fn drilled_by(key: &Key) -> Option<BackupId> {
    held_by(key)
}

/// When what `<time>-<verb>.json` tells of began, and what it was.
pub fn audited_by(key: &Key) -> Option<(Timestamp, Verb)> {
    let (_, file) = key.as_str().rsplit_once('/')?;
    let (time, verb) = file.strip_suffix(".json")?.split_once('-')?;
    let time = civil::DateTime::strptime("%Y%m%dT%H%M%S.%fZ", time).ok()?;
    Some((time.to_zoned(TimeZone::UTC).ok()?.timestamp(), Verb::parse(verb)?))
}

/// The segment whose object is `<segment>.zst`.
pub fn segment_of(key: &Key) -> Option<SegmentName> {
    let (_, file) = key.as_str().rsplit_once('/')?;
    SegmentName::parse(file.strip_suffix(".zst")?)
}

/// The WAL file whose object is `<name>.zst`, of whatever kind.
fn wal_file_of(key: &Key) -> Option<WalFileName> {
    let (_, file) = key.as_str().rsplit_once('/')?;
    WalFileName::parse(file.strip_suffix(".zst")?).ok()
}

/// `<id>/<file>`
fn of_backup(rest: &str) -> Option<Kept> {
    let (id, file) = rest.split_once('/')?;
    let id: BackupId = id.parse().ok()?;
    match file {
        MANIFEST => Some(Kept::Manifest(id)),
        "sums.zst" => Some(Kept::Sums(id)),
        "names.json.zst" => Some(Kept::Names(id)),
        "configuration.tar.zst" => Some(Kept::Configuration(id)),
        _ => {
            let number = file.strip_prefix("data-")?.strip_suffix(".tar.zst")?.parse().ok()?;
            Some(Kept::Pack(id, number))
        }
    }
}

/// The log file whose index is `<timeline><log>.json.zst`.
fn index_of(key: &Key) -> Option<(TimelineId, u32)> {
    let (_, file) = key.as_str().rsplit_once('/')?;
    let name = file.strip_suffix(".json.zst")?;
    Some((TimelineId::from_hex(name.get(..8)?).ok()?, log_of(name)?))
}

/// The number of the log file whose folder is `<timeline><log>`.
pub fn log_of(folder: &str) -> Option<u32> {
    let digits = folder.get(8..16).filter(|_| folder.len() == 16)?;
    u32::from_str_radix(digits, 16).ok()
}

/// The timeline whose history is `<timeline>.history.zst`.
pub fn history_of(key: &Key) -> Option<TimelineId> {
    let (_, file) = key.as_str().rsplit_once('/')?;
    TimelineId::from_hex(file.strip_suffix(".history.zst")?).ok()
}

fn log_folder(timeline: TimelineId, log: u32) -> String {
    let timeline = timeline.to_hex();
    format!("wal/{timeline}/{timeline}{log:08X}")
}

/// Every part above is made of letters, digits, `.`, `-` and `_`, and is short.
fn key(text: String) -> Key {
    Key::new(text).expect("the parts of a key are checked where they are made")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::postgres::{SystemIdentifier, WalFileName};
    use crate::repository::{ClusterName, Repository};
    use crate::storage::memory::Memory;

    #[test]
    fn keys_are_those_of_the_format() {
        let repository =
            Repository::new(Arc::new(Memory::new()), ClusterName::new("main").unwrap());
        let home = repository.home(SystemIdentifier(7));
        for (name, key) in [
            (
                "000000010000000A000000FF",
                "main/7/wal/00000001/000000010000000A/000000010000000A000000FF.zst",
            ),
            (
                "000000010000000A000000FF.partial",
                "main/7/wal/00000001/000000010000000A000000FF.partial.zst",
            ),
            (
                "000000010000000A000000FF.00000028.backup",
                "main/7/wal/00000001/000000010000000A000000FF.00000028.backup.zst",
            ),
            ("00000002.history", "main/7/history/00000002.history.zst"),
        ] {
            assert_eq!(home.wal_key(&WalFileName::parse(name).unwrap()).as_str(), key);
        }
    }
}

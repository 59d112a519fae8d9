//! What a base backup copies of a data directory, and what the names of its files mean.
//!
//! The rules are those of `sendDir` and its lists `excludeDirContents` and `excludeFiles`
//! (backend/backup/basebackup.c); names of relation files are made by `GetRelationPath`
//! (common/relpath.c). Pure: names in, decisions out.

use crate::postgres::MajorVersion;

/// Their contents are of the running server only, or are made anew when it starts.
const EMPTIED: [&str; 7] = [
    "pg_stat_tmp",
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
];

/// Whole names of files that are never copied.
const EXCLUDED: [&str; 7] = [
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "postmaster.pid",
    "postmaster.opts",
];

/// And beginnings: temporary files and directories of queries, and a cache that is built anew.
const EXCLUDED_BEGINNINGS: [&str; 2] = ["pgsql_tmp", "pg_internal.init"];

/// A restore that has not ended leaves it; no server ever does.
const OURS: &str = "walden-restore.unfinished";

pub const WAL: &str = "pg_wal";
pub const TABLESPACES: &str = "pg_tblspc";
/// Copied by itself, last of all: a server never starts on a directory that lacks it.
pub const CONTROL_FILE: &str = "global/pg_control";

/// Pages of a relation in one file, and in any but the last one of its files.
pub const BLOCK_BYTES: usize = 8192;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    Main,
    /// Free space map.
    Free,
    /// Visibility map.
    Visibility,
    /// What an unlogged relation begins with after a crash.
    Init,
}

/// A file that holds pages of a relation: `16384`, `16384.1`, `16384_vm`, `16384_init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFileName {
    /// The relation's number in its directory, which need not be its oid.
    pub number: u32,
    pub fork: Fork,
    /// Which part of the fork, counted from 0: large forks have several files.
    pub segment: u32,
}

impl RelationFileName {
    /// As strict as `parse_filename_for_nontemp_relation` (backend/storage/file/reinit.c) since 17:
    /// what PostgreSQL would not have written is no relation's file.
    pub fn parse(name: &str) -> Option<Self> {
        let (rest, segment) = match name.split_once('.') {
            Some((rest, segment)) => (rest, number(segment)?),
            None => (name, 0),
        };
        let (digits, fork) = match rest.split_once('_') {
            Some((digits, "fsm")) => (digits, Fork::Free),
            Some((digits, "vm")) => (digits, Fork::Visibility),
            Some((digits, "init")) => (digits, Fork::Init),
            Some(_) => return None,
            None => (rest, Fork::Main),
        };
        let is_named = name.split_once('.').is_none() || segment > 0;
        let number = number(digits).filter(|number| *number > 0 && is_named)?;
        Some(RelationFileName { number, fork, segment })
    }
}

/// Decimal digits without leading zeros, as printed by `%u`.
fn number(digits: &str) -> Option<u32> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let has_leading_zero = digits.len() > 1 && digits.starts_with('0');
    digits.parse().ok().filter(|_| is_plain && !has_leading_zero)
}

/// A file of a temporary relation, `t3_16450`, `t3_16450_fsm.1`: `looks_like_temp_rel_name`
/// (backend/storage/file/fd.c).
pub fn is_temporary_relation(name: &str) -> bool {
    let Some((backend, rest)) = name.strip_prefix('t').and_then(|name| name.split_once('_')) else {
        return false;
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, segment) = match rest.split_once('.') {
        Some((rest, segment)) => (rest, Some(segment)),
        None => (rest, None),
    };
    let (digits, fork) = match rest.split_once('_') {
        Some((digits, fork)) => (digits, Some(fork)),
        None => (rest, None),
    };
    is_number(backend)
        && is_number(digits)
        && segment.is_none_or(is_number)
        && fork.is_none_or(|fork| matches!(fork, "fsm" | "vm" | "init"))
}

/// Whether nothing of this name is copied, wherever it lies.
pub fn is_excluded(name: &str) -> bool {
    EXCLUDED.contains(&name)
        || EXCLUDED_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || name == OURS
        || name == ".DS_Store"
}

/// Whether a directory of this name is copied without what is in it, wherever it lies; also where
/// it is a symbolic link.
pub fn is_emptied(name: &str) -> bool {
    EMPTIED.contains(&name)
}

/// The directories that a copy of `pg_wal` has, and nothing else: WAL comes from the archive.
pub fn directories_of_wal(major: MajorVersion) -> &'static [&'static str] {
    match major >= MajorVersion(17) {
        true => &["archive_status", "summaries"],
        false => &["archive_status"],
    }
}

/// The directory in a tablespace that belongs to this version and no other cluster's
/// (`TABLESPACE_VERSION_DIRECTORY`, common/relpath.h).
pub fn version_directory(major: MajorVersion, catalog_version: u32) -> String {
    format!("PG_{major}_{catalog_version}")
}

/// Where the relations of one database lie, or those of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationDirectory {
    /// By oid; 1663 is `base`, 1664 `global`.
    pub tablespace: u32,
    /// 0 for what belongs to all databases.
    pub database: u32,
}

impl RelationDirectory {
    const DEFAULT_TABLESPACE: u32 = 1663;
    const GLOBAL_TABLESPACE: u32 = 1664;

    /// By its path below the data directory: `global`, `base/5`,
    /// `pg_tblspc/16384/PG_17_202406281/5`.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let (tablespace, database) = match parts[..] {
            ["global"] => (Self::GLOBAL_TABLESPACE, 0),
            ["base", database] => (Self::DEFAULT_TABLESPACE, number(database)?),
            [TABLESPACES, tablespace, version, database] if version.starts_with("PG_") => {
                (number(tablespace)?, number(database)?)
            }
            _ => return None,
        };
        Some(RelationDirectory { tablespace, database })
    }

    /// Where a file lies, and what its name says, if it holds pages of a relation.
    pub fn of_file(path: &str) -> Option<(Self, RelationFileName)> {
        let (directory, name) = path.rsplit_once('/')?;
        Some((Self::parse(directory)?, RelationFileName::parse(name)?))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Fork, RelationDirectory, RelationFileName, is_emptied, is_excluded, is_temporary_relation,
    };

    #[test]
    fn files_of_relations_are_told_by_their_names() {
        let parsed = |name| RelationFileName::parse(name).map(|f| (f.number, f.fork, f.segment));
        assert_eq!(parsed("16384"), Some((16384, Fork::Main, 0)));
        assert_eq!(parsed("16384.12"), Some((16384, Fork::Main, 12)));
        assert_eq!(parsed("16384_fsm"), Some((16384, Fork::Free, 0)));
        assert_eq!(parsed("16384_vm.1"), Some((16384, Fork::Visibility, 1)));
        assert_eq!(parsed("4294967295_init"), Some((u32::MAX, Fork::Init, 0)));
        for other in [
            "",
            "0",
            "016384",
            "16384.",
            "16384.0",
            "16384.01",
            "16384_",
            "16384_main",
            "16384_vm.",
            "4294967296",
            "t3_16384",
            "PG_VERSION",
            "pg_filenode.map",
            "+5",
            "16384_fsm_vm",
            "1 ",
        ] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn files_of_temporary_relations_are_told_by_their_names() {
        for name in ["t3_16450", "t12_16450.1", "t3_16450_fsm", "t3_16450_vm.2", "t3_16450_init"] {
            assert!(is_temporary_relation(name), "{name}");
        }
        for name in ["3_16450", "t_16450", "t3_", "t3_x", "t3_16450_", "t3_16450.", "t3", "t3_1_x"]
        {
            assert!(!is_temporary_relation(name), "{name}");
        }
    }

    #[test]
    fn what_a_restored_server_must_not_find_is_left_out() {
        for name in [
            "postmaster.pid",
            "postmaster.opts",
            "backup_label",
            "tablespace_map",
            "backup_manifest",
            "pg_internal.init",
            "pg_internal.init.1234",
            "pgsql_tmp",
            "pgsql_tmp4711.0",
            "postgresql.auto.conf.tmp",
            "current_logfiles.tmp",
            "walden-restore.unfinished",
        ] {
            assert!(is_excluded(name), "{name}");
        }
        for name in [
            "postgresql.auto.conf",
            "current_logfiles",
            "backup_label.old",
            "tablespace_map.old",
            "pg_control",
            "standby.signal",
            "PG_VERSION",
            "pg_filenode.map",
        ] {
            assert!(!is_excluded(name), "{name}");
        }
        assert!(is_emptied("pg_replslot") && is_emptied("pg_subtrans"));
        assert!(!is_emptied("pg_wal") && !is_emptied("pg_xact") && !is_emptied("pg_twophase"));
    }

    #[test]
    fn relations_lie_in_three_kinds_of_directories() {
        let at = |path| RelationDirectory::parse(path).map(|d| (d.tablespace, d.database));
        assert_eq!(at("global"), Some((1664, 0)));
        assert_eq!(at("base/5"), Some((1663, 5)));
        assert_eq!(at("pg_tblspc/16384/PG_17_202406281/5"), Some((16384, 5)));
        for other in ["base", "base/pgsql_tmp", "pg_xact", "pg_tblspc/16384", "pg_tblspc/x/PG_1/5"]
        {
            assert_eq!(at(other), None, "{other}");
        }
        let (directory, file) = RelationDirectory::of_file("base/5/1259_fsm").unwrap();
        assert_eq!((directory.database, file.number, file.fork), (5, 1259, Fork::Free));
    }
}

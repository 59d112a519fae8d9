//! The manifest of a base backup: what it is, what is in it, and where each file lies in the packs.

use std::collections::BTreeMap;

use crate::codec::{self, Compression, Header, Kind, Origin, Sealer};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::incremental_file::{self, IncrementalHeader};
use crate::postgres::{Lsn, SegmentName, SystemIdentifier, TimelineId};
use crate::repository::backup_facts::wal_needed;
pub use crate::repository::configuration::ConfigurationFile;
pub use crate::repository::taken::Taken;
use crate::repository::{BackupFacts, BackupId};

/// Raw bytes of the tar stream in each pack but the last: pack `n` holds the stream from `n *
/// PACK_BYTES` on. Incompressible content stays well below the 64 MiB that an object may have.
pub const PACK_BYTES: u64 = 32 << 20;

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// Version of the manifest format.
    pub walden: u32,
    pub id: BackupId,
    /// The backup this one is the difference to; `None`: it is a full one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// How the files were read; `None` in manifests of before, which are all of `Mode::Stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    pub origin: Origin,
    /// As `server_version_num`, for example 170011.
    pub server_version_num: u32,
    /// In bytes.
    pub wal_segment_size: u32,
    /// The timeline the backup was taken on.
    pub timeline: TimelineId,
    /// Where replay must begin (the redo location of the starting checkpoint).
    pub start_lsn: Lsn,
    /// Replay must reach this to be consistent.
    pub end_lsn: Lsn,
    pub began: jiff::Timestamp,
    /// When the server said that the copy ended; a target before it cannot be reached from this
    /// backup.
    pub ended: jiff::Timestamp,
    pub from_standby: bool,
    /// `TimeZone` and `log_timezone` of the server: how its people read times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_time_zone: Option<String>,
    /// As in backup_label; `None` in manifests of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What its owner wanted noted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
    /// `None` in manifests of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
    /// Whether `names.json.zst` is beside it; `false` also in manifests of before, beside which it
    /// may be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names: bool,
    /// What is saved beside it of files outside of the data directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configuration: Vec<ConfigurationFile>,
    /// Pages that do not match their checksum, on the source already; empty where none was found or
    /// nobody looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged_pages: Vec<DamagedPage>,
    /// How many there are: more than are listed, where they are very many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub damaged: u64,
    pub tablespaces: Vec<Tablespace>,
    /// Raw bytes in each pack but the last.
    pub pack_bytes: u64,
    pub packs: Vec<Pack>,
    /// Raw bytes that each of the checksums in `sums.zst` is of; `None`: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_bytes: Option<u64>,
    /// In the order of the tar stream; `global/pg_control` and `backup_manifest` come last.
    pub files: Vec<FileEntry>,
}

/// How a backup reads the files of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// From the data directory, on the server's own host.
    Local,
    /// Over the replication protocol.
    Stream,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DamagedPage {
    /// Of the whole file, also where `files` has only a part of it.
    pub path: String,
    /// Counted from the beginning of this file.
    pub block: u32,
    /// For people: the checksum that stands in the page and the one it has.
    pub what: String,
    /// Whose page it is, `database.schema.name`, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tablespace {
    pub oid: u32,
    /// Where it was on the source.
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pack {
    /// Raw bytes.
    pub size: u64,
    /// Bytes as stored.
    pub stored: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileEntry {
    /// Relative to the data directory; a tablespace's files stand under `pg_tblspc/<oid>/`.
    pub path: String,
    #[serde(default, skip_serializing_if = "is_plain_file")]
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// In bytes; 0 for a directory.
    pub size: u64,
    /// Where the content begins in the tar stream.
    pub offset: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// Of a file in PostgreSQL's incremental format (`INCREMENTAL.<name>`): what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// Some blocks of a relation's file, as in the header of PostgreSQL's incremental file format
/// (`GetIncrementalFileSize` and `GetIncrementalHeaderSize` in basebackup_incremental.c).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Part {
    /// `truncation_block_length`: blocks below it that are not here are those of the parent; blocks
    /// from it on are there only where they are here.
    pub length: u32,
    /// Bytes before the first block's content.
    pub header: u32,
    /// Runs of blocks, rising: the first block and how many. Their contents follow each other.
    pub blocks: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    #[default]
    File,
    Directory,
}

impl FileEntry {
    /// The path of the file that this entry is, or is a part of.
    pub fn whole_path(&self) -> String {
        let (folder, name) = match self.path.rsplit_once('/') {
            Some((folder, name)) => (Some(folder), name),
            None => (None, self.path.as_str()),
        };
        let name = name
            .strip_prefix(incremental_file::PREFIX)
            .filter(|_| self.part.is_some())
            .unwrap_or(name);
        folder.map_or_else(|| name.to_owned(), |folder| format!("{folder}/{name}"))
    }
}

/// For keys that most manifests have no need of.
pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Part {
    /// As the header of the file says.
    pub fn of(header: &IncrementalHeader) -> Part {
        let mut blocks: Vec<(u32, u32)> = Vec::new();
        for block in &header.blocks {
            match blocks.last_mut() {
                Some((first, count)) if *first + *count == *block => *count += 1,
                _ => blocks.push((*block, 1)),
            }
        }
        let bytes = incremental_file::header_bytes(header.blocks.len());
        Part { length: header.length, header: bytes as u32, blocks }
    }

    /// What stands at the beginning of the file.
    pub fn incremental_header(&self) -> IncrementalHeader {
        let blocks = self.blocks.iter().flat_map(|(first, count)| *first..*first + *count);
        IncrementalHeader { length: self.length, blocks: blocks.collect() }
    }
}

fn is_plain_file(kind: &FileKind) -> bool {
    *kind == FileKind::File
}

impl Manifest {
    pub fn system_identifier(&self) -> SystemIdentifier {
        self.origin.system_identifier
    }

    /// Raw bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// How many files, without directories.
    pub fn file_count(&self) -> usize {
        self.files.iter().filter(|file| file.kind == FileKind::File).count()
    }

    /// Bytes as stored, packs only.
    pub fn stored(&self) -> u64 {
        self.packs.iter().map(|pack| pack.stored).sum()
    }

    /// The segments that replay needs to become consistent, first to last.
    pub fn wal_needed(&self) -> impl Iterator<Item = SegmentName> + use<> {
        wal_needed(self.timeline, self.start_lsn..self.end_lsn, self.wal_segment_size)
    }

    /// What lists and choices need to know of it.
    pub fn facts(&self) -> BackupFacts {
        BackupFacts {
            walden: self.walden,
            id: self.id.clone(),
            parent: self.parent.clone(),
            mode: self.mode,
            label: self.label.clone(),
            notes: self.notes.clone(),
            server_version_num: self.server_version_num,
            wal_segment_size: self.wal_segment_size,
            timeline: self.timeline,
            start_lsn: self.start_lsn,
            end_lsn: self.end_lsn,
            began: self.began,
            ended: self.ended,
            from_standby: self.from_standby,
            tablespaces: self.tablespaces.len(),
            size: self.size(),
            stored: self.stored(),
            files: self.file_count(),
            packs: self.packs.len(),
            damaged: self.damaged,
        }
    }

    pub fn seal(&self, compression: Compression) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self)
            .map_err(|e| Error::new(ErrorKind::Bug, "write manifest").source(e))?;
        let mut sealer = Sealer::new(compression, json.len() as u64)?;
        sealer.write(&json)?;
        let summary = serde_json::to_value(self.facts())
            .map_err(|e| Error::new(ErrorKind::Bug, "sum up manifest").source(e))?;
        sealer.finish(|content| {
            Header::new(Kind::Manifest, self.id.as_str(), content, self.origin.clone())
                .with_summary(summary)
        })
    }

    pub fn open(sealed: &[u8]) -> Result<Manifest> {
        let mut json = Vec::new();
        codec::open(sealed, |piece| {
            json.extend_from_slice(piece);
            Ok(())
        })?;
        let damaged = |what: &str| Error::new(ErrorKind::Corrupt, format!("manifest {what}"));
        let manifest: Manifest =
            serde_json::from_slice(&json).map_err(|e| damaged("is not of its shape").source(e))?;
        if manifest.walden > 1 {
            return Err(damaged("has a format newer than this walden knows")
                .hint("Use the walden that wrote it, or a newer one."));
        }
        if !manifest.wal_segment_size.is_power_of_two() {
            return Err(damaged("has an impossible size of WAL segments"));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
pub mod samples {
    use crate::codec::Origin;
    use crate::postgres::{Lsn, SystemIdentifier, TimelineId};
    use crate::repository::BackupId;
    use crate::repository::manifest::{FileEntry, FileKind, Manifest, PACK_BYTES, Pack};

    /// One second per `number` after the first.
    pub fn manifest(system_identifier: SystemIdentifier, number: u16) -> Manifest {
        let first: jiff::Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let began = first + jiff::SignedDuration::from_secs(i64::from(number));
        let origin = Origin {
            host: "db1".into(),
            source: "db1:5432".into(),
            system_identifier,
            time: began,
            version: "0.1.0".into(),
        };
        let file = |path: &str, kind, size| FileEntry {
            path: path.to_owned(),
            kind,
            mode: 0o600,
            size,
            offset: 512,
            modified: 1_700_000_000,
            part: None,
        };
        Manifest {
            walden: 1,
            id: BackupId::new(began, number),
            origin,
            server_version_num: 170_011,
            wal_segment_size: 1 << 20,
            timeline: TimelineId::new(1).unwrap(),
            start_lsn: Lsn(0x20_0028),
            end_lsn: Lsn(0x30_0100),
            began,
            ended: began + jiff::SignedDuration::from_millis(2500),
            from_standby: false,
            time_zone: None,
            log_time_zone: None,
            parent: None,
            mode: None,
            label: Some("before the upgrade".to_owned()),
            notes: [("ticket".to_owned(), "OPS-1".to_owned())].into(),
            taken: None,
            names: false,
            configuration: Vec::new(),
            damaged_pages: Vec::new(),
            damaged: 0,
            tablespaces: Vec::new(),
            pack_bytes: PACK_BYTES,
            packs: vec![Pack { size: 9000, stored: 3000 }],
            chunk_bytes: None,
            files: vec![
                file("base", FileKind::Directory, 0),
                file("base/1/1259", FileKind::File, 8192),
                file("PG_VERSION", FileKind::File, 3),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::postgres::incremental_file::IncrementalHeader;
    use crate::repository::manifest::Part;

    #[test]
    fn a_part_is_what_the_header_of_its_file_says() {
        let header = IncrementalHeader { length: 40, blocks: vec![0, 1, 2, 7, 9, 10] };
        let part = Part::of(&header);
        assert_eq!(part.blocks, [(0, 3), (7, 1), (9, 2)]);
        assert_eq!((part.length, part.header), (40, 8192));
        assert_eq!(part.incremental_header(), header);
        let none = Part::of(&IncrementalHeader { length: 5, blocks: Vec::new() });
        assert_eq!((none.header, none.blocks.len()), (12, 0));
    }
}

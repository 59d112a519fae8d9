//! The end of the stream, which only the end of the backup can tell: the label, the map of
//! tablespaces, `pg_control` and the manifest that PostgreSQL's own programs read.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::commands::backup::Copied;
use crate::commands::backup::basis::{Basis, Lineage};
use crate::commands::backup::local::frames::PackWriter;
use crate::commands::backup::local::pack::{Findings, Maker};
use crate::commands::backup::local::pages::Damage;
use crate::commands::backup::local::plan::{Content, Item, Plan};
use crate::commands::backup::local::read::Reader;
use crate::commands::backup::local::unlogged::seen_too_early;
use crate::commands::backup::local::walk::unreadable;
use crate::commands::backup::local::workers::{Uploads, pack_range};
use crate::commands::backup::source::Source;
use crate::error::Result;
use crate::host::clock;
use crate::postgres::backup_manifest::{ManifestWriter, WalRange};
use crate::postgres::control_file::ControlFile;
use crate::postgres::data_files::{CONTROL_FILE, TABLESPACES};
use crate::postgres::low_level_backup::{LowLevelBackup, Stopped};
use crate::postgres::replication::{BackupEnd, BackupStart};
use crate::postgres::{Lsn, MajorVersion, tar_header};
use crate::repository::manifest::{FileEntry, PACK_BYTES, Pack};

/// Two blocks of zeros end every archive.
const ARCHIVE_END_BYTES: u64 = 2 * tar_header::BLOCK_BYTES as u64;

/// How a backup ended.
pub struct Tail {
    stopped: Stopped,
    /// Entries of the plan that are in the stream and not in the backup: they were removed
    /// meanwhile, made after it began, or are of unlogged relations.
    left_out: BTreeSet<usize>,
}

impl Tail {
    /// Ends the backup and plans the rest of the stream. `linked` are the tablespaces whose files
    /// are in the plan.
    pub fn end(
        backup: LowLevelBackup<'_>,
        (source, reader, basis): (&Source, &Reader<'_>, &Basis),
        plan: &mut Plan,
        linked: &[u32],
        findings: &mut Findings,
    ) -> Result<Tail> {
        // After all files and before the end: on a standby it says how far replay must go.
        let control = ControlFile::read_bytes(reader.pgdata)?;
        let mode = file_mode(reader.pgdata)?;
        let mut left_out = seen_too_early(plan, reader.pgdata)?;
        left_out.extend(findings.gone());
        let stopped = backup.stop()?;
        let body = plan.entries().len();
        left_out.extend(of_new_tablespaces(plan, linked, &stopped)?);
        let modified = clock::now().as_second();
        let item = |path: &str, bytes: Vec<u8>| Item {
            path: path.to_owned(),
            mode,
            modified,
            size: bytes.len() as u64,
            content: Content::Bytes(bytes.into()),
        };
        plan.push(item("backup_label", basis.label(&stopped.label_file).into_bytes()));
        if !stopped.tablespace_map.is_empty() {
            plan.push(item("tablespace_map", stopped.tablespace_map.clone().into_bytes()));
        }
        plan.push(item(CONTROL_FILE, control));
        let mut crcs = findings.crcs(body);
        for entry in &plan.entries()[body..] {
            crcs.push(match &entry.content {
                Content::Bytes(bytes) => crc_fast::crc32_iscsi(bytes),
                _ => 0,
            });
        }
        let tail = Tail { stopped, left_out };
        let manifest = tail.backup_manifest(source, plan, &crcs);
        plan.push(item("backup_manifest", manifest));
        findings.expect_chunks(plan.chunks());
        Ok(tail)
    }

    /// As the server would write it.
    fn backup_manifest(&self, source: &Source, plan: &Plan, crcs: &[u32]) -> Vec<u8> {
        let major = MajorVersion::from_server_version_num(source.server_version_num);
        let mut writer = ManifestWriter::new(major, source.system_identifier);
        for (number, (entry, crc)) in plan.entries().iter().zip(crcs).enumerate() {
            if entry.content != Content::Directory && !self.left_out.contains(&number) {
                writer.file(entry.path.as_bytes(), entry.size, entry.modified, *crc);
            }
        }
        let Stopped { start_lsn, start_timeline, end_lsn, .. } = self.stopped;
        writer.finish(&[WalRange { timeline: start_timeline, start: start_lsn, end: end_lsn }])
    }

    pub fn end_lsn(&self) -> Lsn {
        self.stopped.end_lsn
    }

    pub fn copied(
        self,
        packs: Vec<Pack>,
        plan: Plan,
        findings: &Findings,
        damage: Damage,
    ) -> Result<Copied> {
        let size = plan.size();
        let mut files: Vec<FileEntry> = Vec::with_capacity(plan.entries().len());
        let mut sums = Vec::with_capacity(plan.chunks());
        for (number, entry) in plan.into_entries().enumerate() {
            if !self.left_out.contains(&number) {
                sums.extend(findings.sums_of(&entry));
                files.push(entry.into_manifest());
            }
        }
        let Stopped { start_lsn, start_timeline, end_lsn, end_timeline, .. } = self.stopped;
        let tablespaces = self.stopped.tablespaces()?;
        Ok(Copied {
            start: BackupStart { lsn: start_lsn, timeline: start_timeline, tablespaces, size },
            end: BackupEnd { lsn: end_lsn, timeline: end_timeline },
            files,
            sums,
            packs,
            damage,
            lineage: Lineage::default(),
        })
    }
}

/// Goes on with the pack that is open, to the end of the archive.
pub fn make(maker: &Maker<'_>, mut open: PackWriter, begun: u64, uploads: &Uploads) -> Result<()> {
    let end = maker.plan.end() + ARCHIVE_END_BYTES;
    let mut position = begun;
    while position < end {
        let number = u32::try_from(position / PACK_BYTES).unwrap_or(u32::MAX);
        let to = pack_range(number).end.min(end);
        maker.make(position..to, &mut open)?;
        uploads.send(number, open.take()?)?;
        position = to;
    }
    Ok(())
}

/// As the server's own files have it.
fn file_mode(pgdata: &Path) -> Result<u32> {
    let path = pgdata.join(CONTROL_FILE);
    let metadata = fs::metadata(&path).map_err(|error| unreadable(&path, error))?;
    Ok(metadata.mode() & 0o666)
}

/// A tablespace that came after the start is made by replay, which would trip over its files.
fn of_new_tablespaces(plan: &Plan, linked: &[u32], stopped: &Stopped) -> Result<BTreeSet<usize>> {
    let known: BTreeSet<u32> = stopped.tablespaces()?.iter().map(|space| space.oid).collect();
    let new: Vec<String> = linked
        .iter()
        .filter(|oid| !known.contains(oid))
        .map(|oid| format!("{TABLESPACES}/{oid}"))
        .collect();
    let is_of = |path: &str, space: &String| {
        path.strip_prefix(space.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let entries = plan.entries().iter().enumerate();
    let of_new = entries.filter(|(_, entry)| new.iter().any(|space| is_of(&entry.path, space)));
    Ok(of_new.map(|(number, _)| number).collect())
}

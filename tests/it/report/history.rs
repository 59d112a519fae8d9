//! Three months of a cluster, written straight into a directory as a repository would hold them:
//! daily backups in chains, WAL with digests, a failover, a recovery to a point in time, a gap, an
//! archiver that stood still, drills, verifications and who did it all.
//!
//! Objects have the sizes of real ones, but no content: their files are sparse.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use walden::codec::{Compression, Content, Header, Kind, Origin};
use walden::postgres::wal::Digest;
use walden::postgres::wal::digest::{self, TransactionEnd};
use walden::postgres::{Lsn, SegmentName, SystemIdentifier, TimelineId, WalFileName};
use walden::repository::manifest::{FileEntry, FileKind, Manifest, Mode, PACK_BYTES, Pack};
use walden::repository::{BackupId, ClusterName, Home, Repository};
use walden::storage::directory::Directory;

use super::evidence;

pub const SEGMENT_BYTES: u32 = 16 << 20;
const SYSTEM_IDENTIFIER: SystemIdentifier = SystemIdentifier(7_710_620_488_620_347_611);
const MIB: u64 = 1 << 20;

pub struct History {
    root: PathBuf,
    pub home: Home,
    pub now: Timestamp,
    pub start: Timestamp,
    /// In the order they were written.
    pub segments: Vec<Written>,
    pub backups: Vec<Backup>,
}

#[derive(Clone, Copy)]
pub struct Written {
    pub name: SegmentName,
    pub begun: Timestamp,
    pub ended: Timestamp,
    pub stored: Timestamp,
}

#[derive(Clone)]
pub struct Backup {
    pub id: BackupId,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub is_full: bool,
    pub stored: u64,
    pub size: u64,
}

/// Where a timeline begins: what it is, in which segment, after how much of it, from which parent.
struct Branch {
    timeline: u32,
    first: u64,
    fork: Option<(u32, Lsn)>,
}

impl History {
    /// `now` is when the last of it happened, give or take a few minutes.
    pub fn write(root: &Path, now: Timestamp, chance: &mut fastrand::Rng) -> History {
        let storage = Arc::new(Directory::new(root, None));
        let home = Repository::new(storage, ClusterName::new("shop").unwrap());
        let home = home.home(SYSTEM_IDENTIFIER);
        let start = now.to_zoned(TimeZone::UTC).start_of_day().unwrap().timestamp() - days(92);
        let root = root.to_owned();
        let mut history =
            History { root, home, now, start, segments: Vec::new(), backups: Vec::new() };
        history.home.claim(&origin(start)).unwrap();
        history.live(chance);
        evidence::write(&history, chance);
        history
    }

    fn live(&mut self, chance: &mut fastrand::Rng) {
        let (failed, dropped, mended) = (self.at(40, 10.3), self.at(65, 9.5), self.at(66, 12.0));
        let one = Branch { timeline: 1, first: 256, fork: None };
        let next = self.timeline(&one, (self.start, failed), chance);
        // A standby took over; what the primary had not archived is lost.
        let two = Branch { timeline: 2, first: next, fork: Some((1, lsn_in(next, 0x5028))) };
        self.timeline(&two, (failed, mended), chance);
        // A table was dropped, and a recovery to just before it took over a day later.
        let fork = self.segments.iter().rfind(|it| it.begun <= dropped).unwrap().name;
        let first = fork.start(SEGMENT_BYTES).0 / u64::from(SEGMENT_BYTES);
        let three = Branch { timeline: 3, first, fork: Some((2, lsn_in(first, 0x80_0028))) };
        self.timeline(&three, (mended, self.now - SignedDuration::from_mins(2)), chance);
        for (child, branch) in [(2, &two), (3, &three)] {
            let line = |(parent, lsn): (u32, Lsn)| format!("{parent}\t{lsn}\tno recovery target\n");
            let before = [&two, &three].into_iter().take(child - 1);
            let text: String = before.filter_map(|it| it.fork).map(line).collect();
            self.put_history(branch.timeline, &text);
        }
    }

    /// Writes the WAL of a timeline and takes its backups; gives the segment after the last.
    fn timeline(
        &mut self,
        branch: &Branch,
        (from, to): (Timestamp, Timestamp),
        chance: &mut fastrand::Rng,
    ) -> u64 {
        let (mut at, mut number) = (from, branch.first);
        let mut due = first_backup_after(from);
        let mut is_first = true;
        loop {
            let took = SignedDuration::from_secs(pace(at) * i64::from(chance.u8(60..140)) / 100);
            // The last one is cut short: archive_timeout.
            let ended = (at + took).min(to);
            if ended.duration_since(at) < SignedDuration::from_secs(30) {
                return number;
            }
            let fork = branch.fork.filter(|_| number == branch.first);
            let name = name_of(branch.timeline, number);
            let stored = self.stored(ended, chance);
            if !self.is_lost(at) {
                self.put_segment(&Written { name, begun: at, ended, stored }, fork, chance);
            }
            if at >= due {
                self.back_up((branch.timeline, number), (at, ended), is_first, chance);
                is_first = false;
                due += days(1);
            }
            at = ended;
            number += 1;
        }
    }

    /// Mostly a few seconds after it was full; not while archiving stood still.
    fn stored(&self, ended: Timestamp, chance: &mut fastrand::Rng) -> Timestamp {
        let stored = ended + SignedDuration::from_secs(i64::from(chance.u8(1..5)));
        for (day, from, to) in [(30, 9.0, 12.4), (75, 14.0, 14.9)] {
            if stored >= self.at(day, from) && stored < self.at(day, to) {
                return self.at(day, to);
            }
        }
        stored
    }

    /// Somebody tidied up.
    fn is_lost(&self, begun: Timestamp) -> bool {
        begun >= self.at(20, 11.0) && begun < self.at(20, 11.2)
    }

    /// So many days and hours after the beginning.
    pub fn at(&self, day: i64, hours: f64) -> Timestamp {
        self.start + days(day) + SignedDuration::from_secs((hours * 3600.0) as i64)
    }

    fn put_segment(
        &mut self,
        written: &Written,
        fork: Option<(u32, Lsn)>,
        chance: &mut fastrand::Rng,
    ) {
        let content = Content { size: u64::from(SEGMENT_BYTES), crc32: 0 };
        let origin = origin(written.ended);
        let mut header = Header::new(Kind::Segment, written.name.to_string(), content, origin);
        header.digest = Some(Box::new(self.digest(written, fork)));
        let path = self.path(self.home.wal_key(&WalFileName::Segment(written.name)).as_str());
        let size = MIB * 3 + u64::from(chance.u32(..4 << 20));
        put(&path, &header.to_frame(), size, written.stored);
        self.segments.push(*written);
    }

    fn digest(&self, written: &Written, fork: Option<(u32, Lsn)>) -> Digest {
        let start = written.name.start(SEGMENT_BYTES).0;
        let commit = |lsn: u64, xid: u32, time| TransactionEnd { lsn: Lsn(lsn), xid, time };
        let took = written.ended.duration_since(written.begun);
        let xid = (start >> 20) as u32 * 10;
        // A fork begins with its parent's last commits.
        let copied = fork.and_then(|(parent, _)| {
            let name = SegmentName { timeline: timeline(parent), ..written.name };
            self.segments.iter().find(|it| it.name == name)
        });
        let first = match (copied, fork) {
            (Some(copied), _) => commit(start + 0x100, xid, copied.begun),
            (None, Some((_, lsn))) => commit(lsn.0 + 0x100, xid, written.begun),
            (None, None) => {
                commit(start + 0x100, xid, written.begun + SignedDuration::from_secs(1))
            }
        };
        let last = commit(start + 0xF0_0000, xid + 9, written.begun + took * 9 / 10);
        Digest {
            version: digest::VERSION,
            segment_size: SEGMENT_BYTES,
            records: 90_000,
            commits: 40 * took.as_secs().max(1) as u64 / 10,
            first_record: Some(Lsn(start + 40)),
            end: Some(Lsn(start + u64::from(SEGMENT_BYTES))),
            first_commit: Some(first),
            last_commit: Some(last),
            latest_time: Some(last.time),
            ..Digest::default()
        }
    }

    fn back_up(
        &mut self,
        (timeline, number): (u32, u64),
        (began, ended): (Timestamp, Timestamp),
        is_first: bool,
        chance: &mut fastrand::Rng,
    ) {
        let is_sunday = began.to_zoned(TimeZone::UTC).weekday() == jiff::civil::Weekday::Sunday;
        let is_full = is_first || is_sunday;
        let age = began.duration_since(self.start).as_hours() as u64 / 24;
        let size = (48_000 + age * 210) * MIB;
        let stored = match is_full {
            true => size / 4,
            false => (350 + u64::from(chance.u32(..500))) * MIB,
        };
        let id = BackupId::new(began, chance.u16(..));
        let size = if is_full { size } else { stored * 3 };
        let parent = self.backups.last().map(|last| last.id.clone()).filter(|_| !is_full);
        let manifest = manifest(&id, parent, (timeline, number), (began, ended), (size, stored));
        self.home.publish(&manifest, Compression::default()).unwrap();
        let folder = self.path(self.home.backup_key(&id).as_str());
        for number in 0..manifest.packs.len() {
            let path = folder.join(format!("data-{number:05}.tar.zst"));
            put(&path, b"", manifest.packs[number].stored, ended);
        }
        set_time(&self.path(self.home.manifest_key(&id).as_str()), ended);
        self.backups.push(Backup { id, began, ended, is_full, stored, size });
    }

    fn put_history(&self, of: u32, text: &str) {
        let name = WalFileName::History(timeline(of));
        let content = Content::of(text.as_bytes());
        let header = Header::new(Kind::History, name.to_string(), content, origin(self.start));
        let mut object = header.to_frame();
        object.extend(zstd::stream::encode_all(text.as_bytes(), 1).unwrap());
        let path = self.path(self.home.wal_key(&name).as_str());
        put(&path, &object, object.len() as u64, self.at(if of == 2 { 40 } else { 66 }, 12.5));
    }

    pub fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }
}

pub fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

/// Seconds that a segment takes: more is written by day, and little on Sundays.
fn pace(at: Timestamp) -> i64 {
    let local = at.to_zoned(TimeZone::UTC);
    match (local.weekday(), local.hour()) {
        (jiff::civil::Weekday::Sunday | jiff::civil::Weekday::Saturday, _) => 560,
        (_, 7..=18) => 210,
        _ => 420,
    }
}

/// Two in the morning.
fn first_backup_after(from: Timestamp) -> Timestamp {
    let date = from.to_zoned(TimeZone::UTC).date();
    let night = date.at(2, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp();
    if night > from { night } else { night + days(1) }
}

fn manifest(
    id: &BackupId,
    parent: Option<BackupId>,
    (of, number): (u32, u64),
    (began, ended): (Timestamp, Timestamp),
    (size, stored): (u64, u64),
) -> Manifest {
    let file = FileEntry {
        path: "base/5/16384".to_owned(),
        kind: FileKind::File,
        mode: 0o600,
        size,
        offset: 512,
        modified: 0,
        part: None,
    };
    // As few packs as will do: they are only counted here.
    let pack = |_| Pack { size: size / 4, stored: stored / 4 };
    Manifest {
        walden: 1,
        id: id.clone(),
        origin: origin(began),
        server_version_num: if id.as_str() < "2026" || of == 1 { 170_005 } else { 170_006 },
        time_zone: None,
        log_time_zone: None,
        parent,
        mode: Some(Mode::Local),
        label: Some(format!("walden {id}")),
        notes: Default::default(),
        taken: None,
        names: false,
        configuration: Vec::new(),
        damaged_pages: Vec::new(),
        damaged: 0,
        chunk_bytes: None,
        wal_segment_size: SEGMENT_BYTES,
        timeline: timeline(of),
        start_lsn: lsn_in(number, 0x90_0028),
        end_lsn: lsn_in(number, 0xA0_0000),
        began,
        ended,
        from_standby: false,
        tablespaces: Vec::new(),
        pack_bytes: PACK_BYTES,
        packs: (0..4).map(pack).collect(),
        files: vec![file],
    }
}

pub fn origin(time: Timestamp) -> Origin {
    Origin {
        host: "db1".to_owned(),
        source: "/var/lib/postgresql/17/main".to_owned(),
        system_identifier: SYSTEM_IDENTIFIER,
        time,
        version: "0.1.0".to_owned(),
    }
}

fn name_of(of: u32, number: u64) -> SegmentName {
    SegmentName::containing(timeline(of), lsn_in(number, 0), SEGMENT_BYTES)
}

fn lsn_in(number: u64, offset: u64) -> Lsn {
    Lsn(number * u64::from(SEGMENT_BYTES) + offset)
}

pub fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// A file of `size`, of which only the beginning is there.
fn put(path: &Path, begin: &[u8], size: u64, time: Timestamp) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, begin).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(size.max(begin.len() as u64)).unwrap();
    file.set_modified(time.into()).unwrap();
}

pub fn set_time(path: &Path, time: Timestamp) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(time.into()).unwrap();
}

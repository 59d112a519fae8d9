//! Ways to damage the WAL of a repository, and what lies about it.

use serde_json::{Value, json};
use walden::postgres::SegmentName;

use super::expected::{Expected, damage, lost, note};
use super::landscape::{Landscape, before, object, start};
use crate::harness::saboteur::{Copy, Sealed, body_of, position};

pub type Deed = fn(&Landscape, &Copy) -> Expected;

pub const WAYS: &[(&str, Deed)] = &[
    ("a flipped byte in a segment", flipped),
    ("a flipped byte in a segment's header", flipped_header),
    ("a segment of 0 bytes", |l, copy| cut(l, copy, 0.0)),
    ("half a segment", |l, copy| cut(l, copy, 0.5)),
    ("two segments swapped", swapped),
    ("a backup's first segment lost", first_of_backup_lost),
    ("a backup's last segment lost", last_of_backup_lost),
    ("a segment between two backups lost", between_lost),
    ("the segment before the first backup lost", before_all_lost),
    ("the segment right before a backup lost", right_before_lost),
    ("the segment right after a backup lost", right_after_lost),
    ("the last segment before the fork lost", before_fork_lost),
    ("the first segment after the fork lost", after_fork_lost),
    ("another cluster's segment", foreign),
    ("another cluster's segment that claims to be ours", foreign_in_disguise),
    ("another segment's WAL under this name", of_another_name),
    ("a header with a later last commit", later_commit),
    ("a header with another size", wrong_size),
    ("a header with another CRC", wrong_crc),
    ("a record with a flipped byte, sealed again", forged_record),
    ("a segment that breaks off, sealed again", broken_off),
    ("a flipped byte in a partial segment", flipped_partial),
    ("a flipped byte in a backup history file", flipped_backup_history),
    ("a flipped byte in a history file", flipped_history),
    ("the history file lost", history_lost),
    ("a history that branches off earlier", history_of_before),
    ("a history that branches off a little later", history_of_a_little_after),
    ("a history of a timeline that never was", history_of_nobody),
    ("a flipped byte in cluster.json", flipped_proof),
    ("cluster.json lost", proof_lost),
];

/// Between the first and the second backup, with WAL around it.
pub fn between(landscape: &Landscape) -> SegmentName {
    landscape.segment(landscape.step_after(&landscape.full) + 1)
}

pub fn flipped(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = between(landscape);
    copy.flip_content(&object(segment));
    lost(landscape, segment)
}

pub fn flipped_header(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = between(landscape);
    copy.flip_header(&object(segment));
    lost(landscape, segment)
}

fn cut(landscape: &Landscape, copy: &Copy, part: f64) -> Expected {
    let segment = between(landscape);
    copy.cut(&object(segment), part);
    lost(landscape, segment)
}

fn swapped(landscape: &Landscape, copy: &Copy) -> Expected {
    let at = landscape.step_after(&landscape.full);
    let [one, other] = [landscape.segment(at), landscape.segment(at + 2)];
    copy.swap(&object(one), &object(other));
    lost(landscape, one).and(damage(&[&other.to_string()]))
}

fn remove(landscape: &Landscape, copy: &Copy, segment: SegmentName) -> Expected {
    copy.remove(&object(segment));
    lost(landscape, segment)
}

pub fn first_of_backup_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    remove(landscape, copy, landscape.full.first_wal)
}

fn last_of_backup_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    remove(landscape, copy, landscape.second.last_wal)
}

pub fn between_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    remove(landscape, copy, between(landscape))
}

/// Nothing could be recovered by it.
fn before_all_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = before(landscape.full.first_wal, 1);
    copy.remove(&object(segment));
    note(&[&segment.to_string()])
}

fn right_before_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    remove(landscape, copy, before(landscape.incremental.first_wal, 1))
}

fn right_after_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    remove(
        landscape,
        copy,
        before(landscape.full.last_wal, 0).next(super::landscape::SEGMENT_BYTES),
    )
}

/// The last one that was archived whole.
fn before_fork_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    let last = landscape.segment(landscape.last_of_first_timeline()).to_string();
    let folder = format!("wal/{}/{}", &last[..8], &last[..16]);
    let name = copy.names(&folder).pop().unwrap();
    remove(landscape, copy, SegmentName::parse(name.trim_end_matches(".zst")).unwrap())
}

fn first_after_fork(landscape: &Landscape, copy: &Copy) -> SegmentName {
    let any = landscape.second.first_wal.to_string();
    let folder = format!("wal/{}/{}", &any[..8], &any[..16]);
    let names = copy.names(&folder);
    SegmentName::parse(names[0].trim_end_matches(".zst")).unwrap()
}

fn after_fork_lost(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = first_after_fork(landscape, copy);
    remove(landscape, copy, segment)
}

/// `XLogLongPageHeaderData`: the system identifier comes after the first 24 bytes.
fn of_another_cluster(sealed: &mut Sealed) {
    let mut wal = std::mem::take(&mut sealed.content);
    wal[24] ^= 0x55;
    sealed.replace(wal);
}

fn foreign(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = between(landscape);
    copy.reseal(&object(segment), |sealed| {
        of_another_cluster(sealed);
        let identifier = u64::from_le_bytes(sealed.content[24..32].try_into().unwrap());
        sealed.header["origin"]["system_identifier"] = identifier.to_string().into();
    });
    lost(landscape, segment)
}

pub fn foreign_in_disguise(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = between(landscape);
    copy.reseal(&object(segment), of_another_cluster);
    lost(landscape, segment)
}

pub fn of_another_name(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = between(landscape);
    let other = Sealed::parse(&copy.read(&object(before(segment, 1))));
    copy.reseal(&object(segment), |sealed| sealed.replace(other.content));
    lost(landscape, segment)
}

/// The window would promise what is not there.
pub fn later_commit(landscape: &Landscape, copy: &Copy) -> Expected {
    let step = landscape.steps.last().unwrap();
    let later = step.time + jiff::SignedDuration::from_hours(1);
    copy.rewrite_header(&object(step.segment), |header| {
        assert_eq!(header["digest"]["last_commit"]["xid"], step.xid);
        header["digest"]["last_commit"]["time"] = json!(format!("{later:.6}"));
        header["digest"]["latest_time"] = json!(format!("{later:.6}"));
    });
    damage(&[&step.segment.to_string()])
}

fn wrong_size(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = between(landscape);
    copy.rewrite_header(&object(segment), |header| {
        header["size"] = Value::from(header["size"].as_u64().unwrap() / 2);
    });
    lost(landscape, segment)
}

fn wrong_crc(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = between(landscape);
    copy.rewrite_header(&object(segment), |header| header["crc32"] = json!("0badc0de"));
    lost(landscape, segment)
}

/// Nothing but the record's own CRC knows.
pub fn forged_record(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = between(landscape);
    copy.reseal(&object(segment), |sealed| {
        let mut wal = std::mem::take(&mut sealed.content);
        let at = position(&wal, b"waldenwaldenwalden").expect("what the step wrote");
        wal[at] ^= 1;
        sealed.replace(wal);
    });
    lost(landscape, segment)
}

/// The end of what was written is zeros, as of a segment archived before it was full.
fn broken_off(landscape: &Landscape, copy: &Copy) -> Expected {
    let segment = between(landscape);
    copy.reseal(&object(segment), |sealed| {
        let mut wal = std::mem::take(&mut sealed.content);
        let at = position(&wal, b"waldenwaldenwalden").expect("what the step wrote");
        wal[at / 8192 * 8192..].fill(0);
        sealed.replace(wal);
    });
    lost(landscape, segment)
}

fn flipped_partial(_: &Landscape, copy: &Copy) -> Expected {
    let names = copy.names("wal/00000001");
    let partial = names.iter().find(|name| name.ends_with(".partial.zst")).unwrap();
    copy.flip_content(&format!("wal/00000001/{partial}"));
    damage(&[partial.trim_end_matches(".zst")])
}

fn flipped_backup_history(_: &Landscape, copy: &Copy) -> Expected {
    let names = copy.names("wal/00000001");
    let history = names.iter().find(|name| name.ends_with(".backup.zst")).unwrap();
    copy.flip_content(&format!("wal/00000001/{history}"));
    damage(&[history.trim_end_matches(".zst")])
}

const HISTORY: &str = "history/00000002.history.zst";

fn flipped_history(_: &Landscape, copy: &Copy) -> Expected {
    copy.flip(HISTORY, |bytes| bytes.len() - 6);
    damage(&["00000002.history"]).says(&["timeline 2"])
}

pub fn history_lost(_: &Landscape, copy: &Copy) -> Expected {
    copy.remove(HISTORY);
    damage(&["00000002.history"]).says(&["timeline 2"])
}

/// `1\t0/A0000B8\tno recovery target specified`, with another LSN.
fn rewrite_history(copy: &Copy, change: impl FnOnce(u64) -> u64) {
    copy.reseal(HISTORY, |sealed| {
        let text = String::from_utf8(std::mem::take(&mut sealed.content)).unwrap();
        let (timeline, rest) = text.split_once('\t').unwrap();
        let (lsn, why) = rest.split_once('\t').unwrap();
        let lsn: walden::postgres::Lsn = lsn.parse().unwrap();
        let changed = walden::postgres::Lsn(change(lsn.0));
        sealed.replace(format!("{timeline}\t{changed}\t{why}").into_bytes());
    });
}

fn history_of_before(landscape: &Landscape, copy: &Copy) -> Expected {
    let last = landscape.segment(landscape.last_of_first_timeline());
    rewrite_history(copy, |_| start(before(last, 2)).0 + 0x100);
    let first = first_after_fork(landscape, copy);
    let missing = before(first, 1).to_string();
    damage(&["00000002.history", &first.to_string(), &missing])
        .also(&["00000002.history", "/00000002/"])
}

/// In the same segment, behind what the WAL says itself of the switch.
fn history_of_a_little_after(_: &Landscape, copy: &Copy) -> Expected {
    rewrite_history(copy, |lsn| lsn + 0x400);
    damage(&["00000002.history"]).says(&["timeline 2"])
}

fn history_of_nobody(_: &Landscape, copy: &Copy) -> Expected {
    let mut sealed = Sealed::parse(&copy.read(HISTORY));
    let mut text = String::from_utf8(sealed.content.clone()).unwrap();
    text += "3\t0/7F000000\tno recovery target specified\n";
    sealed.header["name"] = json!("00000004.history");
    sealed.replace(text.into_bytes());
    copy.write("history/00000004.history.zst", &sealed.to_bytes());
    damage(&["00000004.history", "00000003.history"]).says(&["timeline"])
}

fn flipped_proof(_: &Landscape, copy: &Copy) -> Expected {
    copy.flip("cluster.json", |bytes| position(bytes, b"\"walden\"").unwrap());
    damage(&["cluster.json"])
}

fn proof_lost(_: &Landscape, copy: &Copy) -> Expected {
    copy.remove("cluster.json");
    damage(&["cluster.json"])
}

/// So that the ways above spoil what they mean to.
#[test]
fn a_header_ends_where_it_says() {
    let sealed = Sealed { header: json!({"walden": 1}), content: b"content".to_vec() };
    let object = sealed.to_bytes();
    assert_eq!(&object[8..body_of(&object)], b"{\"walden\":1}");
    assert_eq!(Sealed::parse(&object).content, b"content");
}

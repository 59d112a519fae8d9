//! Every kind of harm on a repository in memory: found, named, and weighed.

use jiff::Timestamp;

use crate::catalog::loss::Stretch;
use crate::codec::{Header, Kind};
use crate::commands::verify::samples::{CLUSTER, Place, at, files, origin, written};
use crate::commands::verify::{Finding, Looked, Outcome, Request, Severity, conclude};
use crate::postgres::wal::Digest;
use crate::postgres::wal::samples::insert;
use crate::postgres::{SystemIdentifier, TimelineId, WalFileName};
use crate::repository::audit::{self, AuditEntry, Verb};
use crate::repository::{Home, Repository};
use crate::storage::{Body, Key, Storage as _};

pub fn damages(looked: &Looked) -> Vec<&Finding> {
    looked.verdicts.findings.iter().filter(|it| it.severity == Severity::Damage).collect()
}

/// The only damage, which is of this object.
#[track_caller]
pub fn only<'a>(looked: &'a Looked, object: &Key) -> &'a Finding {
    let damages = damages(looked);
    assert_eq!(damages.len(), 1, "{:#?}", looked.verdicts.findings);
    assert_eq!(damages[0].object, object.to_string());
    assert!(looked.unchecked.is_empty(), "{:?}", looked.unchecked);
    assert!(!damages[0].advice.is_empty());
    damages[0]
}

fn lost(from: (i64, i64), to: (i64, i64)) -> Vec<Stretch> {
    let timelines = vec![TimelineId::new(1).unwrap()];
    vec![Stretch { timelines, from: at(from.0, from.1), to: at(to.0, to.1) }]
}

/// To the second: of a minute there are two commits, a microsecond apart.
fn in_seconds(finding: &Finding) -> Vec<Stretch> {
    let second = |time: Timestamp| Timestamp::from_second(time.as_second()).unwrap();
    let round = |it: &Stretch| Stretch { from: second(it.from), to: second(it.to), ..it.clone() };
    finding.lost_times.iter().map(round).collect()
}

#[test]
fn a_sound_repository_has_no_findings_and_everything_in_it_was_read() {
    let place = Place::new();
    let shallow = place.look(false);
    assert!(
        shallow.verdicts.findings.is_empty() && shallow.unchecked.is_empty(),
        "{:#?}",
        shallow.verdicts.findings
    );
    assert_eq!(shallow.wal.read.len(), 0);
    let deep = place.look(true);
    assert!(
        deep.verdicts.findings.is_empty() && deep.unchecked.is_empty(),
        "{:#?}",
        deep.verdicts.findings
    );
    assert_eq!(deep.wal.read.len(), place.segments.len());
    assert!(deep.backups.checked.iter().all(|it| it.whole && it.sound && it.packs_read > 5));
    let request = Request { deep: true, ..Request::shallow() };
    let report = conclude::report(&deep, &request, at(0, 0));
    assert_eq!(report.outcome, Outcome::Sound);
    assert!(report.summary.starts_with("3 backups, 9 segments, "), "{}", report.summary);
    assert!(report.summary.ends_with(" read: sound"), "{}", report.summary);
    assert_eq!(report.timelines[0].segments_read, 9);
}

#[test]
fn a_segment_that_is_missing_or_damaged_costs_the_time_until_the_next_backup() {
    for deep in [false, true] {
        let place = Place::new();
        place.remove(&place.key(9));
        let looked = place.look(deep);
        let finding = only(&looked, &place.key(9));
        assert_eq!(finding.what, "it is missing");
        assert_eq!(in_seconds(finding), lost((8, 0), (10, 30)));
        assert!(finding.consequence.contains("recovery into 2000-01-01 00:08:00 to 00:10:30 UTC"));
    }
    let place = Place::new();
    place.flip(&place.key(9), 40);
    assert!(damages(&place.look(false)).is_empty(), "its header is whole");
    let looked = place.look(true);
    assert_eq!(in_seconds(only(&looked, &place.key(9))), lost((8, 0), (10, 30)));
    assert!(!looked.wal.read.contains(&place.segments[4].0));

    let place = Place::new();
    let sealed = place.storage.get(&place.key(9)).unwrap();
    place.replace(&place.key(9), sealed.slice(..9));
    assert!(only(&place.look(false), &place.key(9)).what.contains("header"));
}

#[test]
fn wal_older_than_every_backup_is_missed_by_nobody() {
    let place = Place::new();
    place.put_segment_of(4);
    place.remove(&place.key(5));
    let looked = place.look(true);
    assert!(damages(&looked).is_empty(), "{:#?}", looked.verdicts.findings);
    assert_eq!(looked.verdicts.findings[0].consequence, "none: no backup needs it");
    // What is there must be what it says all the same.
    let place = Place::new();
    place.flip(&place.key(5), 40);
    let looked = place.look(true);
    assert_eq!(only(&looked, &place.key(5)).consequence, "none: no backup needs it");
}

#[test]
fn segments_that_are_not_what_their_keys_say_are_told() {
    let place = Place::new();
    let (one, other) = (place.key(8), place.key(9));
    let (a, b) = (place.storage.get(&one).unwrap(), place.storage.get(&other).unwrap());
    place.replace(&one, b);
    place.replace(&other, a);
    let looked = place.look(false);
    let objects: Vec<&str> = damages(&looked).iter().map(|it| it.object.as_str()).collect();
    assert_eq!(objects, [one.as_str(), other.as_str()]);

    let place = Place::new();
    let (name, bytes) = &place.segments[3];
    let name = WalFileName::Segment(*name);
    let mut foreign = origin();
    foreign.system_identifier = SystemIdentifier(9);
    let of_another = |header: Header| Header { origin: foreign, ..header };
    place.put_wal(&name, bytes, Kind::Segment, of_another);
    assert!(only(&place.look(false), &place.key(8)).what.contains("cluster 9"));

    // The header is ours, the WAL is not.
    let place = Place::new();
    let mut bytes = place.segments[3].1.clone();
    bytes[24] ^= 1;
    place.put_segment(place.segments[3].0, &bytes, |digest| digest);
    assert!(damages(&place.look(false)).is_empty());
    assert!(only(&place.look(true), &place.key(8)).what.contains("its WAL is of cluster"));
}

#[test]
fn a_header_that_lies_is_found_by_reading_what_it_is_about() {
    let place = Place::new();
    let (name, bytes) = &place.segments[3];
    place.put_segment(*name, bytes, |digest| Digest { aborts: digest.aborts + 1, ..digest });
    assert!(damages(&place.look(false)).is_empty());
    let looked = place.look(true);
    let finding = only(&looked, &place.key(8));
    assert!(finding.what.contains("aborts: 1 is stored, 0 is true"), "{}", finding.what);
    assert!(finding.consequence.contains("walden decides by what its header says"));
    // One that cannot be true is told at once.
    place.put_segment(*name, bytes, |digest| Digest { segment_size: 1 << 24, ..digest });
    assert!(only(&place.look(false), &place.key(8)).what.contains("of a segment of 16777216"));
}

#[test]
fn a_record_that_is_not_valid_ends_recovery_there() {
    let place = Place::new();
    let mut bytes = place.segments[4].1.clone();
    bytes[600_000] ^= 1;
    place.put_segment(place.segments[4].0, &bytes, |digest| digest);
    for deep in [false, true] {
        let looked = place.look(deep);
        let finding = only(&looked, &place.key(9));
        assert!(finding.what.starts_with("the WAL at 0/"), "{}", finding.what);
        assert_eq!(in_seconds(finding), lost((9, 0), (10, 30)));
    }
}

#[test]
fn segments_of_another_history_do_not_join() {
    let place = Place::new();
    let mut other = written(13);
    other.record(&insert(1));
    let mut pen = crate::postgres::wal::samples::Pen::new(17);
    for _ in 0..9000 {
        pen.record(&insert(77));
    }
    while pen.segments().len() < 6 {
        pen.fill_with(&insert(78));
        pen.record(&insert(79));
        pen.record(&crate::postgres::wal::samples::restore_point(&"x".repeat(60), 5));
    }
    let (name, bytes) = &pen.segments()[4];
    place.put_segment(*name, bytes, |digest| digest);
    let looked = place.look(true);
    let damages = damages(&looked);
    assert!(!damages.is_empty());
    assert!(
        damages.iter().all(|it| it.what.starts_with("it does not go on where")),
        "{damages:#?}"
    );
    assert_eq!(damages[0].object, place.key(9).to_string());
}

#[test]
fn a_damaged_pack_costs_its_backup_and_those_that_rest_on_it() {
    let place = Place::new();
    let [full, child, last] = &place.backups[..] else { panic!("three") };
    let key = place.home.pack_key(&full.id, 2);
    place.flip(&key, 3000);
    assert!(damages(&place.look(false)).is_empty());
    let looked = place.look(true);
    let finding = only(&looked, &key);
    assert!(finding.what.contains("base/5/16384"), "{}", finding.what);
    assert_eq!(finding.lost_backups, [full.id.to_string(), child.id.to_string()]);
    assert_eq!(in_seconds(finding), lost((6, 30), (10, 30)));
    assert!(finding.consequence.contains("which rests on it"), "{}", finding.consequence);
    let sound: Vec<bool> = looked.backups.checked.iter().map(|it| it.sound).collect();
    assert_eq!(sound, [false, true, true]);

    let place = Place::new();
    let key = place.home.pack_key(&last.id, 0);
    place.remove(&key);
    for deep in [false, true] {
        let looked = place.look(deep);
        let finding = only(&looked, &key);
        assert_eq!(finding.what, "it is missing");
        assert!(finding.consequence.contains("still works from older backups"));
        assert!(finding.lost_times.is_empty());
    }
}

#[test]
fn what_all_damage_costs_together_is_said() {
    let place = Place::new();
    let [full, _, last] = &place.backups[..] else { panic!("three") };
    let (one, other) = (place.home.manifest_key(&full.id), place.home.manifest_key(&last.id));
    place.flip(&one, 3);
    place.flip(&other, 3);
    let looked = place.look(false);
    assert!(looked.verdicts.together.is_all);
    assert_eq!(looked.verdicts.together.backups.len(), 3);
    let says =
        damages(&looked).iter().all(|it| it.consequence.contains("nothing can be recovered"));
    assert!(says, "{:#?}", looked.verdicts.findings);
    assert!(looked.verdicts.consequence.unwrap().starts_with("nothing can be recovered any more"));
}

#[test]
fn what_a_backup_was_is_known_from_the_audit_trail() {
    let place = Place::new();
    let full = &place.backups[0];
    let entry = AuditEntry {
        walden: 1,
        verb: Verb::Backup,
        began: full.began,
        ended: full.ended,
        outcome: audit::Outcome::Done,
        summary: "a backup".to_owned(),
        host: "db1".to_owned(),
        os_user: "postgres".to_owned(),
        version: "0.1.0".to_owned(),
        details: serde_json::json!({
            "id": full.id,
            "server_version_num": full.server_version_num,
            "timeline": full.timeline,
            "start_lsn": full.start_lsn,
            "end_lsn": full.end_lsn,
        }),
    };
    place.home.put_audit(&entry).unwrap();
    let key = place.home.manifest_key(&full.id);
    place.remove(&key);
    let looked = place.look(false);
    let finding = only(&looked, &key);
    assert!(finding.what.contains("the audit trail says"), "{}", finding.what);
    assert_eq!(in_seconds(finding), lost((6, 30), (10, 30)));
    assert_eq!(finding.lost_backups.len(), 2, "its child as well: {finding:?}");
}

#[test]
fn packs_and_manifests_of_other_backups_are_told_by_their_headers() {
    let place = Place::new();
    let [full, _, last] = &place.backups[..] else { panic!("three") };
    let (one, other) = (place.home.pack_key(&full.id, 1), place.home.pack_key(&full.id, 2));
    let (a, b) = (place.storage.get(&one).unwrap(), place.storage.get(&other).unwrap());
    place.replace(&one, b);
    place.replace(&other, a);
    let looked = place.look(false);
    assert_eq!(damages(&looked).len(), 2, "{:#?}", looked.verdicts.findings);
    assert!(looked.verdicts.findings[0].what.contains("is not the one of its manifest"));

    let place = Place::new();
    let key = place.home.manifest_key(&last.id);
    place.replace(&key, place.storage.get(&place.home.manifest_key(&full.id)).unwrap());
    let looked = place.look(false);
    assert!(only(&looked, &key).what.contains(full.id.as_str()));

    // An older version of it: the packs were made by another run.
    let mut place = Place::new();
    let mut older = last.clone();
    older.origin.time = at(1, 0);
    older.origin.host = "old".into();
    let key = place.home.manifest_key(&older.id);
    place.remove(&key);
    place.home.publish(&older, Default::default()).unwrap();
    place.backups.pop();
    let looked = place.look(false);
    assert!(damages(&looked).len() > 5, "every pack, and the checksums");
}

#[test]
fn a_manifest_with_another_beginning_than_the_backup_itself_is_found() {
    let mut place = Place::new();
    let manifest = place.blank_at(11);
    place.store(manifest, &files(12), true);
    let key = place.home.manifest_key(&place.backups[3].id);
    let looked = place.look(true);
    assert!(only(&looked, &key).what.contains("begins at 0/C00028 of timeline 1"));
}

#[test]
fn content_is_held_against_the_servers_own_list_and_the_checksums_of_chunks() {
    let mut place = Place::new();
    let manifest = place.blank_at(11);
    place.store(manifest, &files(11), false);
    let key = place.home.backup_key(&place.backups[3].id);
    let looked = place.look(true);
    let damages = damages(&looked);
    assert!(damages.iter().all(|it| it.object == key.to_string()));
    assert!(damages.iter().any(|it| it.what == "base/5/16384 is not as the server listed it"));

    let place = Place::new();
    let id = &place.backups[2].id;
    let mut sums: Vec<u64> = Vec::new();
    for (path, bytes) in files(10) {
        let wrong = u64::from(path == "base/5/16384");
        let chunks = bytes.chunks(crate::repository::sums::CHUNK_BYTES);
        sums.extend(chunks.map(|chunk| crate::repository::sums::sum(chunk) ^ wrong));
    }
    sums.push(0);
    place.remove(&place.home.sums_key(id));
    place.home.put_sums(id, &sums, &origin(), Default::default()).unwrap();
    let looked = place.look(true);
    let key = place.home.backup_key(id).to_string();
    let what: Vec<&str> = self::damages(&looked).iter().map(|it| it.what.as_str()).collect();
    let expected = "base/5/16384 does not match its checksums from byte 0 on";
    assert!(what.contains(&expected), "{what:?}");
    assert!(self::damages(&looked).iter().all(|it| it.object == key));
}

#[test]
fn a_chain_without_its_parent_is_told_and_a_folder_without_a_manifest_is_a_note() {
    let place = Place::new();
    let [full, child, _] = &place.backups[..] else { panic!("three") };
    place.remove(&place.home.manifest_key(&full.id));
    let looked = place.look(true);
    let finding = only(&looked, &place.home.manifest_key(&child.id));
    assert!(finding.what.contains("is missing or cannot be read"), "{}", finding.what);
    assert_eq!(finding.lost_backups, [child.id.to_string()]);
    let note = looked.verdicts.findings.iter().find(|it| it.severity == Severity::Note).unwrap();
    assert_eq!(note.object, place.home.backup_key(&full.id).to_string());
    assert!(note.what.contains("no manifest"), "{}", note.what);
}

#[test]
fn what_lies_beside_a_backup_is_checked_for_what_it_is_worth() {
    let place = Place::new();
    let id = &place.backups[2].id;
    place.flip(&place.home.sums_key(id), 3);
    let looked = place.look(false);
    assert!(
        only(&looked, &place.home.sums_key(id)).consequence.contains("into a new one it works")
    );
    place.remove(&place.home.sums_key(id));
    let looked = place.look(false);
    assert_eq!(only(&looked, &place.home.sums_key(id)).what, "it is missing");
}

#[test]
fn histories_are_needed_and_must_not_contradict() {
    let place = Place::new();
    let key = place.home.wal_key(&WalFileName::History(TimelineId::new(2).unwrap()));
    place.put_history(2, "1\t0/700100\tno recovery target specified\n");
    assert!(damages(&place.look(true)).is_empty(), "a branch without WAL of its own");
    place.put_history(3, "1\t0/700100\tx\n2\t0/900000\ty\n");
    assert!(damages(&place.look(true)).is_empty());
    place.put_history(2, "1\t0/600100\tno recovery target specified\n");
    let looked = place.look(true);
    assert!(damages(&looked)[0].what.contains("another way to timeline 2"));
    place.remove(&key);
    let looked = place.look(true);
    let finding = only(&looked, &key);
    assert!(finding.what.contains("missing"), "{}", finding.what);
    assert!(finding.consequence.contains("no recovery finds the way to timeline 2"));
    place.put_history(2, "nonsense\n");
    assert!(only(&place.look(false), &key).what.contains("cannot read"));
}

#[test]
fn the_proof_of_the_place_must_be_there_and_of_this_cluster() {
    let place = Place::new();
    let key = place.home.proof_key();
    place.remove(&key);
    assert!(only(&place.look(false), &key).consequence.contains("exit 200"));
    let name = crate::repository::ClusterName::new("main").unwrap();
    let other: Home = Repository::new(place.storage.clone(), name).home(SystemIdentifier(9));
    let mut foreign = origin();
    foreign.system_identifier = SystemIdentifier(9);
    other.claim(&foreign).unwrap();
    place.replace(&key, place.storage.get(&other.proof_key()).unwrap());
    assert!(only(&place.look(false), &key).what.contains("another cluster"));
}

#[test]
fn strangers_are_notes() {
    let place = Place::new();
    let stray = Key::new(format!("main/{CLUSTER}/wal/00000001/notes.txt")).unwrap();
    place.storage.put_new(&stray, &Body::new("hello")).unwrap();
    let partial = WalFileName::Partial(place.segments[0].0);
    place.put_wal(&partial, &place.segments[0].1, Kind::Partial, |header| header);
    let looked = place.look(true);
    assert!(damages(&looked).is_empty(), "{:#?}", looked.verdicts.findings);
    let notes: Vec<&str> = looked.verdicts.findings.iter().map(|it| it.object.as_str()).collect();
    assert_eq!(notes.len(), 2);
    assert!(notes.contains(&stray.as_str()));
    place.flip(&place.home.wal_key(&partial), 40);
    assert!(only(&place.look(false), &place.home.wal_key(&partial)).consequence.contains("none"));
}

//! What the list says of backups that are whole, short of WAL, damaged or held.

use std::sync::Arc;

use crate::codec::{Compression, Header, Kind, Sealer};
use crate::commands::list::{Listed, Type, list, show};
use crate::error::ErrorKind;
use crate::postgres::{SystemIdentifier, TimelineId, WalFileName};
use crate::repository::manifest::samples::manifest;
use crate::repository::{BackupId, ClusterName, Home, Manifest, Repository};
use crate::storage::memory::Memory;
use crate::storage::{Body, Key, Storage as _};

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

fn repository() -> (Arc<Memory>, Repository, Home) {
    let storage = Arc::new(Memory::new());
    let repository = Repository::new(storage.clone(), ClusterName::new("main").unwrap());
    let home = repository.home(CLUSTER);
    (storage, repository, home)
}

/// The sample's backups need the segments 2 and 3.
fn publish(home: &Home, number: u16) -> Manifest {
    let manifest = manifest(home.system_identifier(), number);
    home.claim(&manifest.origin).unwrap();
    home.publish(&manifest, Compression::default()).unwrap();
    manifest
}

fn archive(home: &Home, name: &str) {
    let origin = manifest(home.system_identifier(), 0).origin;
    let sealer = Sealer::new(Compression::default(), 0).unwrap();
    let header = |content| Header::new(Kind::Segment, name, content, origin.clone());
    let sealed = Body::new(sealer.finish(header).unwrap());
    home.put_wal(&WalFileName::parse(name).unwrap(), &sealed, &origin).unwrap();
}

fn only(repository: &Repository) -> Listed {
    let mut report = list(repository).unwrap();
    assert_eq!(report.clusters.len(), 1);
    report.clusters.remove(0).backups.remove(0)
}

#[test]
fn a_backup_with_its_wal_is_usable_and_says_what_it_is() {
    let (_, repository, home) = repository();
    let manifest = publish(&home, 1);
    archive(&home, "000000010000000000000002");
    archive(&home, "000000010000000000000003");
    let listed = only(&repository);
    assert!(listed.usable && !listed.held, "{listed:?}");
    assert_eq!((listed.kind, listed.parent), (Some(Type::Full), None));
    assert_eq!((listed.size, listed.stored, listed.files), (Some(8195), Some(3000), Some(2)));
    assert_eq!(listed.duration_ms, Some(2500));
    assert_eq!(listed.first_wal.as_deref(), Some("000000010000000000000002"));
    assert_eq!(listed.last_wal.as_deref(), Some("000000010000000000000003"));
    assert_eq!((listed.id, listed.label), (manifest.id, manifest.label));
}

#[test]
fn one_whose_wal_or_history_is_missing_is_not_usable_and_says_which() {
    let (_, repository, home) = repository();
    publish(&home, 1);
    archive(&home, "000000010000000000000002");
    let listed = only(&repository);
    assert_eq!(listed.reason.as_deref(), Some("000000010000000000000003 is missing"));
    assert_eq!((listed.usable, listed.missing_wal.len()), (false, 1));

    let manifest = Manifest { timeline: TimelineId::new(2).unwrap(), ..manifest(CLUSTER, 2) };
    home.publish(&manifest, Compression::default()).unwrap();
    let on_two = list(&repository).unwrap().clusters.remove(0).backups.remove(1);
    assert_eq!(on_two.missing_wal[0], "00000002.history");
    assert_eq!(on_two.missing_wal.len(), 3);
    assert_eq!(on_two.reason.as_deref(), Some("00000002.history and 2 more are missing"));
}

#[test]
fn damaged_ones_are_listed_held_ones_marked_and_clusters_kept_apart() {
    let (storage, repository, home) = repository();
    let (first, second) = (publish(&home, 1), publish(&home, 2));
    publish(&repository.home(SystemIdentifier(8)), 3);
    let key = home.manifest_key(&first.id);
    storage.delete(&key).unwrap();
    storage.put_new(&key, &Body::new(&b"not a manifest"[..])).unwrap();
    let hold = Key::new(format!("main/7/hold/{}.json", second.id)).unwrap();
    storage.put_new(&hold, &Body::new(&b"{}"[..])).unwrap();

    let report = list(&repository).unwrap();

    let identifiers: Vec<_> = report.clusters.iter().map(|it| it.system_identifier).collect();
    assert_eq!(identifiers, [CLUSTER, SystemIdentifier(8)]);
    let [damaged, held] = &report.clusters[0].backups[..] else { panic!("{report:?}") };
    assert_eq!((&damaged.id, damaged.usable, damaged.size), (&first.id, false, None));
    assert!(damaged.reason.as_ref().unwrap().contains("cannot be read"), "{damaged:?}");
    assert!(held.held && !damaged.held);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["walden"], 1);
    let first = &json["clusters"][0]["backups"][0];
    assert_eq!((first["type"].is_null(), first["began"].is_null()), (true, true));
    assert_eq!(json["clusters"][0]["backups"][1]["type"], "full");
}

#[test]
fn nothing_under_this_name_is_refused_and_no_backup_yet_is_not() {
    let (_, repository, home) = repository();
    let error = list(&repository).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    archive(&home, "000000010000000000000002");
    home.claim(&manifest(CLUSTER, 1).origin).unwrap();
    assert!(list(&repository).unwrap().clusters[0].backups.is_empty());
    let id: BackupId = "20261121T101530Z-7F3A".parse().unwrap();
    let none = show(&repository, &id).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Refused);
    assert!(none.hint_text().unwrap().contains("walden backup"));
}

#[test]
fn another_name_is_told_which_ones_there_are() {
    let (storage, _, home) = repository();
    publish(&home, 1);
    let other = Repository::new(storage, ClusterName::new("mian").unwrap());
    let error = list(&other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.hint_text().unwrap().contains("--cluster main"), "{error:?}");
}

#[test]
fn one_in_detail_shows_packs_that_are_missing_or_of_another_size() {
    let (_, repository, home) = repository();
    let manifest = publish(&home, 1);
    archive(&home, "000000010000000000000002");
    archive(&home, "000000010000000000000003");
    let shown = || show(&repository, &manifest.id).unwrap().clusters.remove(0).backups.remove(0);
    let missing = shown();
    assert_eq!(missing.reason.as_deref(), Some("data-00000.tar.zst is missing"));
    assert!(!missing.usable);
    assert_eq!(missing.detail.unwrap().names, None);

    home.put_pack(&manifest.id, 0, &Body::new(vec![7; 2999])).unwrap();
    assert_eq!(shown().reason.as_deref(), Some("data-00000.tar.zst has 2999 bytes, not 3000"));

    let other: BackupId = "20261121T101530Z-7F3A".parse().unwrap();
    let error = show(&repository, &other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.hint_text().unwrap().contains(manifest.id.as_str()), "{error:?}");
}

/// The header has no checksum of its own.
#[test]
fn a_header_that_says_other_than_the_manifest_is_noticed_in_detail() {
    let (storage, repository, home) = repository();
    let manifest = publish(&home, 1);
    archive(&home, "000000010000000000000002");
    archive(&home, "000000010000000000000003");
    home.put_pack(&manifest.id, 0, &Body::new(vec![7; 3000])).unwrap();
    let usable = || show(&repository, &manifest.id).unwrap().clusters[0].backups[0].usable;
    assert!(usable());
    let key = home.manifest_key(&manifest.id);
    let sealed = storage.get(&key).unwrap().to_vec();
    let (from, to) = (b"\"end_lsn\":\"0/300100\"", b"\"end_lsn\":\"0/300101\"");
    let at = sealed.windows(from.len()).position(|window| window == from).unwrap();
    let flipped = [&sealed[..at], to, &sealed[at + to.len()..]].concat();
    storage.delete(&key).unwrap();
    storage.put_new(&key, &Body::new(flipped)).unwrap();
    assert!(!usable());
}

#[test]
fn many_backups_take_a_request_each_and_few_besides() {
    use crate::storage::Verb;
    use crate::storage::faulty::Faulty;
    let storage = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let repository = Repository::new(storage.clone(), ClusterName::new("main").unwrap());
    let home = repository.home(CLUSTER);
    for number in 0..200 {
        publish(&home, number);
    }
    let before = [Verb::Get, Verb::Head, Verb::List].map(|verb| storage.calls(verb));
    assert_eq!(list(&repository).unwrap().clusters[0].backups.len(), 200);
    let after = [Verb::Get, Verb::Head, Verb::List].map(|verb| storage.calls(verb));
    let asked: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(asked, [200, 0, 5], "clusters, backups, one log file, holds, audit");
}

//! Whole restores of a hand-made backup, without a server.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::catalog::{Target, TargetTimeline};
use crate::commands::restore::marker::UNFINISHED;
use crate::commands::restore::prepare;
use crate::commands::restore::samples::{Sample, content, pack, request};
use crate::error::ErrorKind;
use crate::host::privileges;

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("backup_label", b"START WAL LOCATION: 0/200028\n".to_vec()),
        ("base/", Vec::new()),
        ("base/1/", Vec::new()),
        ("base/1/1259", content(5000, 1)),
        ("base/1/empty", Vec::new()),
        ("base/1/2601", content(700, 2)),
        ("global/", Vec::new()),
        ("pg_tblspc/", Vec::new()),
        ("pg_wal/", Vec::new()),
        ("PG_VERSION", b"15\n".to_vec()),
        ("postgresql.auto.conf", b"work_mem = '8MB'\nprimary_conninfo = 'host=old'\n".to_vec()),
        ("postgresql.conf", b"".to_vec()),
        ("standby.signal", Vec::new()),
        ("postmaster.pid", b"1\n".to_vec()),
    ]
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn every_byte_comes_back_though_files_span_packs() {
    let sample = Sample::new(&files(), &[]);
    assert!(sample.manifest.packs.len() > 5, "the files span packs");
    let scratch = tempfile::tempdir().unwrap();
    let new = scratch.path().join("a/b/new");
    let prepared = prepare(&sample.repository, request(&new)).unwrap();
    assert!(!scratch.path().join("a").exists(), "planning changes nothing");
    prepared.carry_out(&|_| ()).unwrap();

    assert_eq!(fs::read(new.join("base/1/1259")).unwrap(), content(5000, 1));
    assert_eq!(fs::read(new.join("base/1/2601")).unwrap(), content(700, 2));
    assert_eq!(fs::read(new.join("base/1/empty")).unwrap(), b"");
    assert_eq!(fs::read(new.join("global/pg_control")).unwrap(), content(8192, 99));
    assert!(new.join("pg_wal/archive_status").is_dir());
    assert!(new.join("recovery.signal").is_file());
    for stale in ["standby.signal", "postmaster.pid", UNFINISHED] {
        assert!(!new.join(stale).exists(), "{stale}");
    }
    let auto_conf = fs::read_to_string(new.join("postgresql.auto.conf")).unwrap();
    assert!(auto_conf.starts_with("work_mem = '8MB'\n# walden restore: begin\n"), "{auto_conf}");
    assert!(auto_conf.contains("archive_mode = 'off'\n"), "{auto_conf}");
    assert!(!auto_conf.contains("host=old"), "{auto_conf}");

    assert_eq!(mode(&new), 0o700);
    assert_eq!(mode(&new.join("base/1/1259")), 0o600);
    assert_eq!(fs::metadata(new.join("base/1/1259")).unwrap().mtime(), 1_700_000_000);
    if privileges::is_root() {
        let nobody = privileges::user_named("nobody").unwrap().uid;
        for path in ["", "base/1/1259", "recovery.signal", "global/pg_control", "pg_wal"] {
            assert_eq!(fs::metadata(new.join(path)).unwrap().uid(), nobody, "{path}");
        }
    }
}

#[test]
fn a_damaged_pack_ends_in_corrupt_and_no_pg_control() {
    let flip = |mut object: Vec<u8>| {
        let middle = object.len() - 60;
        object[middle] ^= 1;
        object
    };
    let shorter = |_| pack(2, &[7; 10]);
    let another = |_| pack(1, &[7; 1000]);
    let damages: [&dyn Fn(Vec<u8>) -> Vec<u8>; 3] = [&flip, &shorter, &another];
    for damage in damages {
        let sample = Sample::new(&files(), &[]);
        sample.damage_pack(2, damage);
        let scratch = tempfile::tempdir().unwrap();
        let new = scratch.path().join("new");
        let prepared = prepare(&sample.repository, request(&new)).unwrap();
        let error = prepared.carry_out(&|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let id = sample.manifest.id.as_str();
        assert!(error.to_string().contains("pack 2") && error.to_string().contains(id), "{error}");
        assert!(!new.join("global/pg_control").exists());
        assert!(new.join(UNFINISHED).exists());

        let again = prepare(&sample.repository, request(&new)).unwrap();
        assert_eq!(again.carry_out(&|_| ()).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(!new.join("global/pg_control").exists());
    }
}

#[test]
fn a_missing_pack_is_damage_not_absence() {
    let sample = Sample::new(&files(), &[]);
    crate::storage::Storage::delete(
        &*sample.storage,
        &sample.home.pack_key(&sample.manifest.id, 4),
    )
    .unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let prepared = prepare(&sample.repository, request(&scratch.path().join("new"))).unwrap();
    assert_eq!(prepared.carry_out(&|_| ()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn tablespaces_go_where_they_were_told_and_are_linked_there() {
    let mut files = files();
    files.push(("pg_tblspc/16384/", Vec::new()));
    files.push(("pg_tblspc/16384/PG_15/", Vec::new()));
    files.push(("pg_tblspc/16384/PG_15/5/77", content(3000, 5)));
    files.push(("tablespace_map", b"16384 /mnt/fast\n".to_vec()));
    let sample = Sample::new(&files, &[(16_384, "/mnt/fast")]);
    let scratch = tempfile::tempdir().unwrap();
    let new = scratch.path().join("new");
    let mut request = request(&new);

    let error = prepare(&sample.repository, request.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.one_line().contains("--tablespace-map /mnt/fast=NEW"), "{error:?}");

    let place = scratch.path().join("spaces/fast");
    request.tablespace_map = vec![("/mnt/fast".into(), place.clone())];
    prepare(&sample.repository, request).unwrap().carry_out(&|_| ()).unwrap();
    assert_eq!(fs::read(place.join("PG_15/5/77")).unwrap(), content(3000, 5));
    let canonical = place.canonicalize().unwrap();
    assert_eq!(fs::read_link(new.join("pg_tblspc/16384")).unwrap(), canonical);
    let map = fs::read_to_string(new.join("tablespace_map")).unwrap();
    assert_eq!(map, format!("16384 {}\n", canonical.display()));
}

#[test]
fn a_manifest_that_leads_out_of_the_directory_is_damage() {
    for path in ["../evil", "/etc/evil", "base/../../evil"] {
        let sample = Sample::new(&[(path, b"evil".to_vec())], &[]);
        let scratch = tempfile::tempdir().unwrap();
        let error = prepare(&sample.repository, request(&scratch.path().join("new"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{path}");
    }
}

#[test]
fn a_manifest_that_lies_about_sizes_is_damage_and_costs_no_memory() {
    type Lie = fn(&mut crate::repository::Manifest);
    let lies: [Lie; 3] = [
        |manifest| manifest.packs[0].size = u64::MAX,
        |manifest| manifest.wal_segment_size = 0,
        |manifest| {
            let size = 2 << 20;
            let control = manifest.files.iter_mut().find(|file| file.path.ends_with("pg_control"));
            control.unwrap().size = size;
            manifest.pack_bytes = size;
            manifest.packs.iter_mut().for_each(|pack| pack.size = size);
        },
    ];
    for lie in lies {
        let sample = Sample::new(&files(), &[]);
        let key = sample.home.manifest_key(&sample.manifest.id);
        crate::storage::Storage::delete(&*sample.storage, &key).unwrap();
        let mut manifest = sample.manifest;
        lie(&mut manifest);
        sample.home.publish(&manifest, crate::codec::Compression::default()).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let new = scratch.path().join("new");
        let prepared = prepare(&sample.repository, request(&new));
        let error = prepared.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Refused));
        assert!(error.to_string().contains("manifest"), "{error}");
        assert!(!new.exists());
    }
}

#[test]
fn a_standby_follows_every_timeline_and_adopting_keeps_the_archiving() {
    let sample = Sample::new(&files(), &[]);
    let scratch = tempfile::tempdir().unwrap();
    let mut request = request(&scratch.path().join("new"));
    request.standby = true;
    request.adopt = true;
    let plan = prepare(&sample.repository, request.clone()).unwrap().plan;
    assert_eq!(plan.signal_file, "standby.signal");
    assert!(plan.settings.contains("recovery_target_timeline = 'latest'\n"), "{}", plan.settings);
    assert!(!plan.settings.contains("archive_mode"), "{}", plan.settings);

    request.wanted.timeline = TargetTimeline::Current;
    let plan = prepare(&sample.repository, request).unwrap().plan;
    assert!(plan.settings.contains("recovery_target_timeline = '1'\n"), "{}", plan.settings);
}

#[test]
fn what_the_repository_cannot_give_is_refused() {
    let sample = Sample::new(&files(), &[]);
    let scratch = tempfile::tempdir().unwrap();
    let mut early = request(&scratch.path().join("new"));
    early.wanted.target = Target::Time("2026-11-21T10:00:04Z".parse().unwrap());
    let error = prepare(&sample.repository, early).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.one_line().contains("--target-immediate --backup 2026"), "{error:?}");

    let other = crate::repository::ClusterName::new("other").unwrap();
    let elsewhere = crate::repository::Repository::new(sample.storage.clone(), other);
    let error = prepare(&elsewhere, request(&scratch.path().join("new"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

//! Chains and directories that are not empty: hand-made backups, restored without a server.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::commands::restore::extract;
use crate::commands::restore::marker::UNFINISHED;
use crate::commands::restore::samples::{Sample, content, request};
use crate::commands::restore::{Done, Request, prepare};
use crate::error::ErrorKind;
use crate::storage::Storage as _;

const BLOCK: usize = 8192;
const RELATION: &str = "base/5/16384";

fn block(seed: u8) -> Vec<u8> {
    content(BLOCK, seed)
}

/// A file of 40 blocks and others, then two differences to it.
fn chain() -> (Sample, Vec<u8>) {
    let full: Vec<u8> = (0..40).flat_map(|number| block(number as u8)).collect();
    let mut sample = Sample::new(
        &[
            ("backup_label", b"START WAL LOCATION: 0/200028\n".to_vec()),
            ("base/", Vec::new()),
            ("base/5/", Vec::new()),
            (RELATION, full.clone()),
            ("base/5/gone", content(100, 1)),
            ("PG_VERSION", b"15\n".to_vec()),
            ("postgresql.conf", b"".to_vec()),
            ("backup_manifest", b"{}".to_vec()),
        ],
        &[],
    );
    let files = |version: u8| {
        [
            ("base/", Vec::new()),
            ("base/5/", Vec::new()),
            ("base/5/16400", content(300_000, version)),
            ("PG_VERSION", b"15\n".to_vec()),
            ("postgresql.conf", b"".to_vec()),
            ("backup_manifest", b"{}".to_vec()),
        ]
    };
    let in_part = "base/5/INCREMENTAL.16384";
    let first = vec![(3, block(103)), (4, block(104)), (30, block(130)), (39, block(139))];
    sample.go_on(&files(1), &[(in_part, 40, first)]);
    // Cut to 38 blocks, and longer again without a page in between.
    let second = vec![(4, block(204)), (41, block(241))];
    sample.go_on(&files(2), &[(in_part, 38, second)]);
    let mut expected = full;
    expected.truncate(38 * BLOCK);
    expected.resize(42 * BLOCK, 0);
    for (number, seed) in [(3, 103), (4, 204), (30, 130), (41, 241)] {
        expected[number * BLOCK..(number + 1) * BLOCK].copy_from_slice(&block(seed));
    }
    (sample, expected)
}

fn restore(sample: &Sample, request: &Request) -> Done {
    let prepared = prepare(&sample.repository, request.clone()).unwrap();
    let told = AtomicU64::new(0);
    let progress = |bytes| {
        told.fetch_add(bytes, Ordering::Relaxed);
    };
    let done = prepared.carry_out(&progress).unwrap();
    assert_eq!(told.into_inner(), prepared.stream_bytes(), "progress ends where it should");
    done
}

/// Every file below, by its path, with its content; symbolic links by what they lead to.
fn tree(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            match fs::symlink_metadata(&path).unwrap().is_dir() {
                true => {
                    open.push(path);
                    found.insert(name + "/", Vec::new());
                }
                false => {
                    found.insert(name, fs::read(path).unwrap());
                }
            }
        }
    }
    found
}

#[test]
fn a_chain_is_put_together_in_place() {
    let (sample, expected) = chain();
    let scratch = tempfile::tempdir().unwrap();
    let new = scratch.path().join("new");
    restore(&sample, &request(&new));
    assert!(fs::read(new.join(RELATION)).unwrap() == expected);
    assert!(fs::read(new.join("base/5/16400")).unwrap() == content(300_000, 2));
    let label = fs::read_to_string(new.join("backup_label")).unwrap();
    assert_eq!(label, "START WAL LOCATION: 0/0\n");
    for gone in ["base/5/gone", "backup_manifest", "base/5/INCREMENTAL.16384", UNFINISHED] {
        assert!(!new.join(gone).exists(), "{gone}");
    }
    assert_eq!(fs::read(new.join("global/pg_control")).unwrap(), content(8192, 99));
}

#[test]
fn a_chain_that_is_not_whole_is_refused_before_anything_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let new = scratch.path().join("new");
    let refused = |sample: &Sample| {
        let mut request = request(&new);
        request.wanted.backup = Some(sample.manifest.id.to_string());
        let error = prepare(&sample.repository, request).unwrap_err();
        assert!(!new.exists());
        error
    };
    let (sample, _) = chain();
    let full = sample.home.backups().unwrap()[0].clone();
    sample.storage.delete(&sample.home.manifest_key(&full)).unwrap();
    let error = refused(&sample);
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains(full.as_str()), "{error}");

    // Another backup in the place of the parent.
    let (sample, _) = chain();
    let mut parent = sample.home.manifest(&sample.home.backups().unwrap()[1]).unwrap();
    sample.storage.delete(&sample.home.manifest_key(&parent.id)).unwrap();
    parent.start_lsn.0 -= 8;
    sample.home.publish(&parent, crate::codec::Compression::default()).unwrap();
    let error = refused(&sample);
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("is needed"), "{error}");
}

#[test]
fn whatever_lies_there_delta_makes_it_what_a_fresh_restore_is() {
    let (sample, _) = chain();
    let scratch = tempfile::tempdir().unwrap();
    let (fresh, new) = (scratch.path().join("fresh"), scratch.path().join("new"));
    restore(&sample, &request(&fresh));
    let expected = tree(&fresh);
    restore(&sample, &request(&new));

    let mut delta = request(&new);
    delta.delta = true;
    let control = |new: &Path| {
        let control = [7u64.to_le_bytes(), 9999u64.to_le_bytes()].concat();
        fs::write(new.join("global/pg_control"), control).unwrap();
    };
    control(&new);
    let nothing = restore(&sample, &delta);
    assert_eq!(tree(&new), expected);
    // Chunks of several backups have no checksum; the other relation's have.
    assert!(nothing.kept >= 300_000 && nothing.written < 400_000, "{nothing:?}");

    let outside = scratch.path().join("outside");
    fs::write(&outside, b"precious").unwrap();
    fs::create_dir(scratch.path().join("folder")).unwrap();
    fs::write(scratch.path().join("folder/file"), b"precious").unwrap();
    let write = |path: &str, bytes: &[u8]| fs::write(new.join(path), bytes).unwrap();
    let mischief: [&dyn Fn(); 8] = [
        &|| write("base/5/16400", &content(300_000, 9)),
        &|| write("base/5/16400", &[content(300_000, 2), vec![1; 500_000]].concat()),
        &|| write(RELATION, &[0xFF; 50 * BLOCK]),
        &|| fs::remove_file(new.join(RELATION)).unwrap(),
        &|| {
            fs::remove_file(new.join(RELATION)).unwrap();
            std::os::unix::fs::symlink(&outside, new.join(RELATION)).unwrap();
        },
        &|| {
            fs::remove_dir_all(new.join("base/5")).unwrap();
            let folder = scratch.path().join("folder");
            std::os::unix::fs::symlink(folder, new.join("base/5")).unwrap();
        },
        &|| {
            fs::remove_file(new.join("base/5/16400")).unwrap();
            fs::hard_link(&outside, new.join("base/5/16400")).unwrap();
        },
        &|| {
            fs::create_dir_all(new.join("base/7/deep")).unwrap();
            write("base/7/deep/file", b"stale");
            write("pg_wal/000000010000000000000099", b"stale");
            write("pg_wal/archive_status/000000010000000000000099.ready", b"");
            let plan = prepare(&sample.repository, delta.clone()).unwrap().plan;
            let lost = "1 WAL files in pg_wal were not archived, 000000010000000000000099 to";
            assert!(plan.notes.iter().any(|note| note.starts_with(lost)), "{:?}", plan.notes);
            write("postmaster.pid", b"4194305\n");
            write("standby.signal", b"");
            write("postgresql.auto.conf", b"work_mem = '1kB'\n");
            fs::remove_file(new.join("PG_VERSION")).unwrap();
            fs::create_dir(new.join("PG_VERSION")).unwrap();
        },
    ];
    for (number, change) in mischief.iter().enumerate() {
        control(&new);
        change();
        restore(&sample, &delta);
        assert!(tree(&new) == expected, "mischief {number}");
        assert_eq!(fs::read(&outside).unwrap(), b"precious", "mischief {number}");
        assert_eq!(fs::read(scratch.path().join("folder/file")).unwrap(), b"precious");
    }
}

#[test]
fn what_was_interrupted_goes_on_with_what_is_right() {
    let (sample, _) = chain();
    let scratch = tempfile::tempdir().unwrap();
    let (fresh, new) = (scratch.path().join("fresh"), scratch.path().join("new"));
    restore(&sample, &request(&fresh));
    // In the middle of what is placed, whatever the order of the packs.
    let last = sample.manifest.packs.len() as u32 - 20;
    let key = sample.home.pack_key(&sample.manifest.id, last);
    let kept = sample.storage.get(&key).unwrap();
    sample.storage.delete(&key).unwrap();
    let mut one_job = request(&new);
    one_job.jobs = 1;
    let prepared = prepare(&sample.repository, one_job.clone()).unwrap();
    let error = prepared.carry_out(&|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(!new.join("global/pg_control").exists() && new.join(UNFINISHED).exists());
    sample.storage.put_new(&key, &crate::storage::Body::new(kept)).unwrap();

    let prepared = prepare(&sample.repository, one_job).unwrap();
    let planned = prepared.plan.in_place.clone().unwrap();
    assert!(planned.files > 0, "{planned:?}");
    let done = prepared.carry_out(&|_| ()).unwrap();
    assert!(done.kept > 0, "{done:?}");
    assert_eq!(tree(&new), tree(&fresh));
}

#[test]
fn some_files_are_had_without_the_rest() {
    let (sample, expected) = chain();
    let scratch = tempfile::tempdir().unwrap();
    let request = extract::Request { jobs: 2, ..extract::Request::default() };
    let stream = |path: &str| {
        let mut bytes = Vec::new();
        extract::into_stream(&sample.repository, &request, path, &mut bytes).map(|_| bytes)
    };
    assert!(stream(RELATION).unwrap() == expected);
    assert_eq!(stream("./PG_VERSION").unwrap(), b"15\n");
    assert_eq!(stream("base/5/gone").unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(stream("base/5").unwrap_err().kind(), ErrorKind::Refused);

    let place = scratch.path().join("some");
    let only = |paths: &[&str]| {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        extract::into_directory(&sample.repository, &request, &paths, &place)
    };
    assert_eq!(only(&["base/6"]).unwrap_err().kind(), ErrorKind::Refused);
    assert!(!place.exists());
    let some = only(&["base/5/", "global/pg_control"]).unwrap();
    assert_eq!(some.files, 3);
    let found = tree(&place);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let control = "global/pg_control";
    assert_eq!(names, ["base/", "base/5/", RELATION, "base/5/16400", "global/", control]);
    assert!(found[RELATION] == expected);
    assert_eq!(only(&["base"]).unwrap_err().kind(), ErrorKind::Refused, "it is not empty");

    // What a whole file is made of is there though its parents are not.
    for id in &sample.home.backups().unwrap()[..2] {
        sample.storage.delete(&sample.home.manifest_key(id)).unwrap();
    }
    assert!(stream("base/5/16400").unwrap() == content(300_000, 2));
    assert_eq!(stream(RELATION).unwrap_err().kind(), ErrorKind::Refused);
}

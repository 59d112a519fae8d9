//! Refusals against real directories: each names what is wrong, and changes nothing.

use std::fs;
use std::path::Path;

use super::{Destination, examine, refuse_full};
use crate::catalog::recovery_plan::estimate::Estimate;
use crate::commands::restore::Request;
use crate::commands::restore::chain::Chain;
use crate::commands::restore::marker::{Marker, UNFINISHED};
use crate::commands::restore::occupied::Into;
use crate::commands::restore::placement::Placement;
use crate::commands::restore::samples::{Sample, content, request};
use crate::error::{ErrorKind, Result};
use crate::repository::manifest::Pack;

fn small() -> Estimate {
    Estimate::new(0, 1, 1 << 20)
}

fn examined(request: &Request) -> Result<Destination> {
    let sample = Sample::new(&[("PG_VERSION", content(3, 0))], &[(1, "/mnt/a"), (2, "/mnt/b")]);
    examine(request, &sample.manifest, "memory:")
}

fn mapped(directory: &Path, a: &Path, b: &Path) -> Request {
    let mut request = request(directory);
    request.tablespace_map = vec![("/mnt/a".into(), a.into()), ("/mnt/b".into(), b.into())];
    request
}

fn expect_refused(request: &Request, why: &str) {
    let error = examined(request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(why), "{why}: {error}");
    assert!(error.hint_text().is_some(), "{error}");
}

#[test]
fn a_directory_that_holds_anything_is_refused_and_an_empty_one_is_not() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    let (a, b) = (root.join("a"), root.join("b"));
    fs::create_dir(root.join("empty")).unwrap();
    assert!(examined(&mapped(&root.join("empty"), &a, &b)).is_ok());
    assert!(examined(&mapped(&root.join("new/deep"), &a, &b)).is_ok());

    fs::create_dir_all(root.join("full/lost+found")).unwrap();
    expect_refused(&mapped(&root.join("full"), &a, &b), "is not empty: it holds lost+found");
    expect_refused(&mapped(&root.join("empty"), &root.join("full"), &b), "the place of tablespace");
    fs::write(root.join("file"), "x").unwrap();
    expect_refused(&mapped(&root.join("file"), &a, &b), "cannot be used");
    expect_refused(&mapped(Path::new("/"), &a, &b), "is not empty");
}

#[test]
fn a_living_server_is_named_and_a_dead_one_is_only_a_full_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let (a, b) = (scratch.path().join("a"), scratch.path().join("b"));
    let new = scratch.path().join("new");
    fs::create_dir(&new).unwrap();
    let pid = new.join("postmaster.pid");
    fs::write(&pid, format!("{}\n/data\n", std::process::id())).unwrap();
    expect_refused(&mapped(&new, &a, &b), "a server runs in");
    // No process has this number: it is above the largest pid_max.
    fs::write(&pid, "4194305\n/data\n").unwrap();
    expect_refused(&mapped(&new, &a, &b), "is not empty");
}

#[test]
fn places_within_a_cluster_or_each_other_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    fs::create_dir(root.join("cluster")).unwrap();
    fs::write(root.join("cluster/PG_VERSION"), "15\n").unwrap();
    let (a, b) = (root.join("a"), root.join("b"));
    expect_refused(&mapped(&root.join("cluster/new"), &a, &b), "lies in the data directory");
    expect_refused(&mapped(&root.join("new"), &root.join("new/a"), &b), "overlap");
    expect_refused(&mapped(&root.join("new"), &a, &a), "overlap");
    std::os::unix::fs::symlink(root, root.join("alias")).unwrap();
    expect_refused(&mapped(&root.join("new"), &a, &root.join("alias/a")), "overlap");

    let sample = Sample::new(&[], &[]);
    let inside = request(&root.join("kept/new"));
    let error = examine(&inside, &sample.manifest, &format!("file://{}/kept", root.display()));
    assert!(error.unwrap_err().to_string().contains("lies in the repository"));
}

#[test]
fn every_tablespace_needs_a_place_and_unknown_ones_are_typos() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path();
    let mut partly = request(&root.join("new"));
    partly.tablespace_map = vec![("/mnt/a".into(), root.join("a"))];
    expect_refused(&partly, "no place is given for the tablespaces at /mnt/b");
    partly.tablespace_root = Some(root.join("spaces"));
    let links = examined(&partly).unwrap().links;
    let places: Vec<_> = links.iter().map(|link| link.to.clone()).collect();
    let base = root.canonicalize().unwrap();
    assert_eq!(places, [base.join("a"), base.join("spaces/2")]);
    partly.tablespace_map.push(("/mnt/c".into(), root.join("c")));
    expect_refused(&partly, "has no tablespace at /mnt/c");
}

#[test]
fn more_than_the_disk_holds_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let request = request(&scratch.path().join("new"));
    let check = |size: u64, estimate: &Estimate, disk_bytes: u64| {
        let mut manifest = Sample::new(&[("base", content(10, 0))], &[]).manifest;
        manifest.files[0].size = size;
        manifest.pack_bytes = 1 << 61;
        manifest.packs = vec![Pack { size: 1 << 61, stored: 1 }];
        let destination = examine(&request, &manifest, "memory:").unwrap();
        let chain = Chain { manifests: vec![manifest], label: None };
        let placement = Placement::new(&chain, &destination.directory, &[], &|_| false).unwrap();
        refuse_full(&placement, &destination, estimate, disk_bytes)
    };
    let error = check(1 << 60, &small(), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("not enough space: 1.0 EiB needed"), "{error}");
    assert!(error.one_line().contains("free on the file system of"), "{error}");
    assert!(check(1 << 60, &small(), 1 << 61).is_ok(), "what is overwritten counts");
    // The WAL that is kept while it is replayed counts, and no more of it than that.
    let free = rustix::fs::statvfs(scratch.path()).unwrap();
    let most = (free.f_bavail * free.f_frsize).saturating_sub(64 << 20);
    let long = Estimate::new(0, 1 << 30, 1 << 30);
    assert!(check(most, &long, 0).is_err());
    assert!(check(10, &long, 0).is_ok());
}

/// What `pg_control` of another cluster or of this one says is held against the backup's.
#[test]
fn delta_takes_a_directory_of_this_cluster_and_no_other() {
    let scratch = tempfile::tempdir().unwrap();
    let (new, a, b) = (scratch.path().join("new"), scratch.path().join("a"), scratch.path());
    let mut request = mapped(&new, &a, &b.join("b"));
    request.delta = true;
    assert_eq!(examined(&request).unwrap().into, Into::Empty, "nothing is there yet");
    fs::create_dir_all(new.join("global")).unwrap();
    fs::create_dir_all(new.join("pg_tblspc")).unwrap();
    expect_refused(&request, "is not empty: it holds ");
    let control = |identifier: u64| {
        let bytes = [identifier.to_le_bytes(), 9999u64.to_le_bytes()].concat();
        fs::write(new.join("global/pg_control"), bytes).unwrap();
    };
    control(8);
    expect_refused(&request, "of another cluster, 8");
    control(7);
    assert_eq!(examined(&request).unwrap().into, Into::Delta);
    request.delta = false;
    expect_refused(&request, "is not empty");
    request.delta = true;

    // A tablespace's place is taken only where the data directory links to it.
    fs::create_dir_all(a.join("PG_15")).unwrap();
    expect_refused(&request, "the place of tablespace /mnt/a");
    std::os::unix::fs::symlink(&a, new.join("pg_tblspc/1")).unwrap();
    assert_eq!(examined(&request).unwrap().into, Into::Delta);
    std::os::unix::fs::symlink(&a, new.join("pg_tblspc/9")).unwrap();
    let left = crate::commands::restore::occupied::left_alone(&examined(&request).unwrap());
    assert!(left.is_empty(), "{left:?}");
    fs::remove_file(new.join("pg_tblspc/9")).unwrap();
    std::os::unix::fs::symlink(b.join("c"), new.join("pg_tblspc/9")).unwrap();
    let left = crate::commands::restore::occupied::left_alone(&examined(&request).unwrap());
    assert!(left[0].contains("it is left as it is"), "{left:?}");
}

#[test]
fn an_unfinished_restore_is_gone_on_with_by_the_same_words_only() {
    let scratch = tempfile::tempdir().unwrap();
    let new = scratch.path().join("new");
    let sample = Sample::new(&[], &[]);
    let same = request(&new);
    fs::create_dir(&new).unwrap();
    Marker::new(&same, &sample.manifest).write(&new, None).unwrap();
    fs::write(new.join("PG_VERSION"), "15\n").unwrap();
    let examined = |request: &Request| examine(request, &sample.manifest, "memory:");
    assert_eq!(examined(&same).unwrap().into, Into::Unfinished);

    let mut other = same.clone();
    other.wanted.target = crate::catalog::Target::Immediate;
    let error = examined(&other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("holds an unfinished restore of backup 2026"), "{error}");
    assert!(error.one_line().contains("--delta"), "{error:?}");
    other.delta = true;
    assert_eq!(examined(&other).unwrap().into, Into::Delta);

    let mut foreign = sample.manifest.clone();
    foreign.origin.system_identifier = crate::postgres::SystemIdentifier(8);
    let error = examine(&other, &foreign, "memory:").unwrap_err();
    assert!(error.to_string().contains("of another cluster, 7"), "{error}");

    fs::write(new.join(UNFINISHED), "walden restore has not finished here.\n").unwrap();
    let error = examined(&other).unwrap_err();
    assert!(error.to_string().contains("unfinished restore of unknown content"), "{error}");
}

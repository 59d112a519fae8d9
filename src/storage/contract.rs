//! What every store must do, as tests: `run_all` panics where one does not.

#![allow(clippy::unwrap_used, reason = "tests, though of the library: every backend runs them")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::error::ErrorKind;
use crate::host::spill::Spill;
use crate::storage::{Body, Key, Part, Storage};

/// `make` gives a new, empty store each time.
pub fn run_all(make: &dyn Fn() -> Box<dyn Storage>) {
    run_all_but_races(make);
    of_many_creators_one_wins(&*make());
}

/// For stores that ignore conditions: they are looked at first, and two at once may both go on.
pub fn run_all_but_races(make: &dyn Fn() -> Box<dyn Storage>) {
    what_was_put_is_there(&*make());
    what_was_never_put_is_not_found(&*make());
    what_is_there_is_never_overwritten(&*make());
    ranges_are_exact(&*make());
    starts_tell_how_much_there_is(&*make());
    bodies_in_parts_and_files_are_stored_whole(&*make());
    odd_keys_are_kept_apart(&*make());
    sizes_from_nothing_to_5_mib(&*make());
    deleting_is_final_and_can_be_repeated(&*make());
    lists_show_one_level(&*make());
    lists_go_beyond_one_page(&*make());
    lists_at_any_depth_begin_where_they_are_told(&*make());
}

fn what_was_put_is_there(store: &dyn Storage) {
    let (name, body) = (key("main/7/cluster.json"), Body::new("content"));
    store.put_new(&name, &body).unwrap();
    assert_eq!(store.get(&name).unwrap(), body.to_bytes().unwrap());
    let info = store.head(&name).unwrap();
    assert_eq!((info.key, info.size), (name, 7));
    assert!(!store.url().is_empty());
}

fn what_was_never_put_is_not_found(store: &dyn Storage) {
    store.put_new(&key("folder/object"), &Body::new("x")).unwrap();
    are_not_found(store, &["nothing", "folder/nothing"]);
    assert_eq!(store.list(Some(&key("nowhere"))).unwrap(), Default::default());
}

/// Nor is anything below an object. Apart from the others: one server we test with keeps objects as
/// files and answers such a request with a fault of its own.
pub fn folders_are_no_objects(store: &dyn Storage) {
    store.put_new(&key("folder/object"), &Body::new("x")).unwrap();
    are_not_found(store, &["folder", "folder/object/below"]);
}

fn are_not_found(store: &dyn Storage, missing: &[&str]) {
    for missing in missing {
        let missing = key(missing);
        for (verb, kind) in [
            ("get", store.get(&missing).unwrap_err().kind()),
            ("get_start", store.get_start(&missing, 5).unwrap_err().kind()),
            ("get_range", store.get_range(&missing, 0..1).unwrap_err().kind()),
            ("head", store.head(&missing).unwrap_err().kind()),
        ] {
            assert_eq!(kind, ErrorKind::NotFound, "{verb} {missing}");
        }
    }
}

fn what_is_there_is_never_overwritten(store: &dyn Storage) {
    let name = key("a/b");
    store.put_new(&name, &Body::new("first")).unwrap();
    for again in ["second", "first"] {
        let error = store.put_new(&name, &Body::new(again)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert_eq!(store.get(&name).unwrap(), "first");
    }
}

fn of_many_creators_one_wins(store: &dyn Storage) {
    let bodies = [Body::new(vec![b'a'; 300_000]), Body::new(vec![b'b'; 300_001])];
    for round in 0..4 {
        let name = key(&format!("race/{round}/object"));
        let won = AtomicUsize::new(0);
        let winner = AtomicUsize::new(usize::MAX);
        std::thread::scope(|scope| {
            for creator in 0..8 {
                let (name, body, won, winner) = (&name, &bodies[creator % 2], &won, &winner);
                scope.spawn(move || match store.put_new(name, body) {
                    Ok(()) => {
                        won.fetch_add(1, Ordering::SeqCst);
                        winner.store(creator % 2, Ordering::SeqCst);
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
                });
            }
        });
        assert_eq!(won.into_inner(), 1, "exactly one wins");
        assert!(store.get(&name).unwrap() == bodies[winner.into_inner()].to_bytes().unwrap());
    }
}

fn ranges_are_exact(store: &dyn Storage) {
    let name = key("ranges");
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
    let bytes = Bytes::from(bytes);
    let size = bytes.len() as u64;
    store.put_new(&name, &Body::new(bytes.clone())).unwrap();
    for range in [0..1, 0..size, 1..2, 12_345..54_321, size - 1..size, 7..7, 0..0, size..size] {
        let expected = bytes.slice(range.start as usize..range.end as usize);
        assert!(store.get_range(&name, range.clone()).unwrap() == expected, "{range:?}");
    }
    for beyond in [0..size + 1, size - 1..size + 1, size..size + 1, size + 5..size + 9] {
        let error = store.get_range(&name, beyond.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{beyond:?}: {error}");
    }
}

fn starts_tell_how_much_there_is(store: &dyn Storage) {
    for size in [0, 1, 99_999, 100_000, 100_001] {
        let name = key(&format!("start/{size}"));
        let bytes: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        store.put_new(&name, &Body::new(bytes.clone())).unwrap();
        let (start, total) = store.get_start(&name, 100_000).unwrap();
        assert!(start == bytes[..bytes.len().min(100_000)], "{size}");
        assert_eq!(total, u64::from(size));
    }
}

fn odd_keys_are_kept_apart(store: &dyn Storage) {
    // Longer than any of ours; servers that keep objects as files have little more room.
    let long = format!("{}/{}", "d".repeat(50), "f".repeat(70));
    let names = ["a.b", "a-b", "a_b", "a+b", "a:b", "A.B", "a..b", "...", "-", "a/b", "0/0/0/0/0"];
    let names: Vec<Key> = names.into_iter().chain([long.as_str()]).map(key).collect();
    for name in &names {
        store.put_new(name, &Body::new(name.to_string())).unwrap();
    }
    for name in &names {
        assert_eq!(store.get(name).unwrap(), name.to_string());
        assert_eq!(store.head(name).unwrap().size, name.as_str().len() as u64);
    }
}

/// Twice, as a second attempt sends everything again.
fn bodies_in_parts_and_files_are_stored_whole(store: &dyn Storage) {
    let mut random = fastrand::Rng::with_seed(6);
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(3_300_000).collect();
    let spill = Spill::open(&[std::env::temp_dir()]).unwrap();
    let mut parts = vec![Part::new(b"header".to_vec())];
    for (number, piece) in bytes.chunks(1_100_000).enumerate() {
        let part = Part::new(piece.to_vec());
        parts.push(match number {
            1 => part,
            _ => part.moved_to(spill.file(), spill.add(piece).unwrap()),
        });
    }
    let body = Body::of(parts);
    let whole = [b"header", &bytes[..]].concat();
    for name in ["parts/one", "parts/two"] {
        store.put_new(&key(name), &body).unwrap();
        assert!(store.get(&key(name)).unwrap() == whole, "{name}");
    }
    let again = store.put_new(&key("parts/one"), &body).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
}

fn sizes_from_nothing_to_5_mib(store: &dyn Storage) {
    let mut random = fastrand::Rng::with_seed(5);
    for size in [0, 1, 65_536, 5 << 20] {
        let name = key(&format!("size/{size}"));
        let body =
            Body::new(std::iter::repeat_with(|| random.u8(..)).take(size).collect::<Vec<_>>());
        store.put_new(&name, &body).unwrap();
        assert!(store.get(&name).unwrap() == body.to_bytes().unwrap(), "{size}");
        assert_eq!(store.head(&name).unwrap().size, size as u64);
    }
    assert_eq!(store.get_range(&key("size/0"), 0..0).unwrap(), "");
    assert_eq!(
        store.get_range(&key("size/0"), 0..1).unwrap_err().kind(),
        ErrorKind::Corrupt,
        "a byte of nothing"
    );
}

fn deleting_is_final_and_can_be_repeated(store: &dyn Storage) {
    let (gone, kept) = (key("x/y/gone"), key("x/kept"));
    store.put_new(&gone, &Body::new("1")).unwrap();
    store.put_new(&kept, &Body::new("2")).unwrap();
    for _ in 0..2 {
        store.delete(&gone).unwrap();
        assert_eq!(store.get(&gone).unwrap_err().kind(), ErrorKind::NotFound);
    }
    store.delete(&key("never/was")).unwrap();
    let listing = store.list(Some(&key("x"))).unwrap();
    assert!(listing.folders.is_empty(), "a folder goes with its last object");
    assert_eq!(listing.objects.len(), 1);
    store.put_new(&gone, &Body::new("again")).unwrap();
    assert_eq!(store.get(&gone).unwrap(), "again");
}

fn lists_show_one_level(store: &dyn Storage) {
    let all = ["b", "a", "f/2", "f/1", "f/g/1", "f/g/h/1", "f/e/1", "fg/1", "f.1"];
    for name in all {
        store.put_new(&key(name), &Body::new(name)).unwrap();
    }
    let root = names(store, None);
    assert_eq!(root, (vec!["a".into(), "b".into(), "f.1".into()], vec!["f".into(), "fg".into()]));
    let folder = names(store, Some("f"));
    assert_eq!(folder, (vec!["f/1".into(), "f/2".into()], vec!["e".into(), "g".into()]));
    assert_eq!(names(store, Some("f/g")), (vec!["f/g/1".into()], vec!["h".into()]));
    let listing = store.list(Some(&key("f"))).unwrap();
    assert!(listing.objects.iter().all(|object| object.size == 3));
}

/// S3 lists at most 1,000 keys a page, folders included.
fn lists_go_beyond_one_page(store: &dyn Storage) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let name = match number {
                        0..1_050 => format!("many/{number:04}"),
                        1_050..1_060 => format!("many/{number}/object"),
                        _ => return,
                    };
                    store.put_new(&key(&name), &Body::new("x")).unwrap();
                }
            });
        }
    });
    let (objects, folders) = names(store, Some("many"));
    let expected: Vec<_> = (0..1_050).map(|number| format!("many/{number:04}")).collect();
    assert!(objects == expected, "{} objects, sorted", objects.len());
    let distinct: BTreeSet<_> = folders.iter().collect();
    assert_eq!((folders.len(), distinct.len()), (10, 10));
    assert_eq!(store.list_all(&key("many"), None).unwrap().len(), 1_060);
}

fn lists_at_any_depth_begin_where_they_are_told(store: &dyn Storage) {
    for name in ["a", "f/2", "f/1", "f/g/1", "f/g/h/1", "f/e/1", "fg/1", "f.1"] {
        store.put_new(&key(name), &Body::new(name)).unwrap();
    }
    let listed = |folder: &str, after: Option<&str>| {
        let objects = store.list_all(&key(folder), after.map(key).as_ref()).unwrap();
        objects.iter().map(|object| object.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed("f", None), ["f/1", "f/2", "f/e/1", "f/g/1", "f/g/h/1"]);
    assert_eq!(listed("f", Some("f/e")), ["f/e/1", "f/g/1", "f/g/h/1"]);
    assert_eq!(listed("f", Some("f/g/1")), ["f/g/h/1"]);
    assert_eq!(listed("f", Some("f/h")), [""; 0]);
    assert_eq!(listed("nowhere", None), [""; 0]);
}

fn names(store: &dyn Storage, folder: Option<&str>) -> (Vec<String>, Vec<String>) {
    let listing = store.list(folder.map(key).as_ref()).unwrap();
    (listing.objects.iter().map(|object| object.key.to_string()).collect(), listing.folders)
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

//! Parts of a repository: one backup, a sample, what an interrupted run has left; and what earlier
//! runs have seen.

use crate::commands::verify::Request;
use crate::commands::verify::memory::Done;
use crate::commands::verify::samples::{Place, at, noise};
use crate::commands::verify::tests::{damages, only};
use crate::postgres::TimelineId;
use crate::repository::manifest::Manifest;
use crate::repository::verification::{Verification, VerifiedBackup, VerifiedWal};

#[test]
fn wal_that_was_there_the_last_time_is_missed_at_the_end_as_well() {
    let place = Place::new();
    let name = |minute: usize| place.segments[minute - 5].0;
    let run = VerifiedWal { first: name(5), last: name(13), deep: true };
    let earlier = Verification { wal: vec![run], ..Verification::default() };
    let history = vec![(at(20, 0), earlier)];
    let looked = place.look_with(&Request::shallow(), history.clone(), None);
    assert!(looked.verdicts.findings.is_empty(), "{:#?}", looked.verdicts.findings);
    place.remove(&place.key(12));
    place.remove(&place.key(13));
    assert!(place.look(false).verdicts.findings.is_empty(), "nobody else can know");
    let looked = place.look_with(&Request::shallow(), history, None);
    let finding = only(&looked, &place.key(12));
    assert!(finding.what.contains("2000-01-01 00:20:00"), "{}", finding.what);
    assert!(finding.consequence.contains("2000-01-01 00:11:00"), "{}", finding.consequence);
}

#[test]
fn one_backup_or_one_timeline_can_be_looked_at_alone() {
    let place = Place::new();
    place.remove(&place.key(9));
    place.flip(&place.home.pack_key(&place.backups[2].id, 0), 900);
    let of = |index: usize| Request {
        deep: true,
        backup: Some(place.backups[index].id.clone()),
        ..Request::shallow()
    };
    let child = place.look_with(&of(1), Vec::new(), None);
    assert!(child.verdicts.findings.is_empty(), "{:#?}", child.verdicts.findings);
    assert_eq!((child.backups.checked.len(), child.timelines[0].segments), (2, 1));
    assert_eq!(damages(&place.look_with(&of(2), Vec::new(), None)).len(), 1);
    let timeline = TimelineId::new(1).ok();
    let request = Request { timeline, ..Request::shallow() };
    only(&place.look_with(&request, Vec::new(), None), &place.key(9));
}

#[test]
fn an_interrupted_run_reads_only_what_is_left() {
    let place = Place::new();
    let name = |minute: usize| place.segments[minute - 5].0;
    let before = Done {
        scope: String::new(),
        began: at(0, 0),
        packs: [(place.backups[0].id.clone(), 3), (place.backups[1].id.clone(), 7)].into(),
        segments: vec![(name(5), name(10))],
    };
    // What was read then is not read again, so it is not found.
    place.flip(&place.key(7), 40);
    place.flip(&place.home.pack_key(&place.backups[1].id, 6), 900);
    let request = Request { deep: true, ..Request::shallow() };
    let looked = place.look_with(&request, Vec::new(), Some(before.clone()));
    let manifest: &Manifest = &place.backups[1];
    assert_eq!(manifest.packs.len(), 7);
    assert!(looked.verdicts.findings.is_empty(), "{:#?}", looked.verdicts.findings);
    assert_eq!(looked.wal.read.len(), 9);
    assert!(looked.backups.checked.iter().all(|it| it.packs == it.packs_read));
    // A file that lies across where it stopped is read from its beginning.
    place.flip(&place.home.pack_key(&place.backups[0].id, 1), 900);
    let looked = place.look_with(&request, Vec::new(), Some(before));
    assert_eq!(damages(&looked).len(), 1);
}

#[test]
fn samples_of_packs_make_a_backup_whole_in_the_end() {
    let mut place = Place::new();
    let manifest = place.blank_at(11);
    place.store(manifest, &[("base/5/1", noise(400_000, 3))], true);
    let id = place.backups[3].id.clone();
    let packs = place.backups[3].packs.len() as u32;
    let read =
        VerifiedBackup { id: id.clone(), packs: vec![(0, packs - 2)], whole: false, sound: true };
    let earlier = Verification { deep: true, backups: vec![read], ..Verification::default() };
    let request =
        Request { deep: true, sample: 0.5, backup: Some(id.clone()), ..Request::shallow() };
    let history = vec![(at(60 * 24 * 365 * 40, 0), earlier)];
    let looked = place.look_with(&request, history, None);
    let checked = &looked.backups.checked[0];
    assert!(checked.packs_read < checked.packs, "{checked:?}");
    assert!(looked.backups.read[&id].contains(&(packs - 1)), "what was never read comes first");
    assert!(checked.whole && checked.sound, "{checked:?} {:#?}", looked.verdicts.findings);
}

//! Drills of damaged repositories: each fails, and says which object it is.

use serde_json::Value;

use super::landscape::{self, Landscape};
use super::wal_ways::{self, Deed, between};
use super::{backup_ways, in_threads};
use crate::harness::saboteur::Copy;
use crate::harness::{self, ANY_MAJOR, Output, Scratch};
use walden::postgres::MajorVersion;

/// What is rehearsed of a damaged repository.
struct Case {
    name: &'static str,
    deed: Deed,
    target: fn(&Landscape) -> Vec<String>,
    /// What the reasons name.
    object: fn(&Landscape) -> String,
}

const CASES: &[Case] = &[
    Case {
        name: "a segment on the way is missing",
        deed: wal_ways::between_lost,
        target: behind_the_damage,
        object: damaged_segment,
    },
    Case {
        name: "a segment on the way has a flipped byte",
        deed: wal_ways::flipped,
        target: behind_the_damage,
        object: damaged_segment,
    },
    Case {
        name: "a record on the way was changed and its segment sealed again",
        deed: wal_ways::forged_record,
        target: behind_the_damage,
        object: damaged_segment,
    },
    Case {
        name: "a segment on the way is of another cluster",
        deed: wal_ways::foreign_in_disguise,
        target: behind_the_damage,
        object: damaged_segment,
    },
    Case {
        name: "a segment on the way holds another's WAL",
        deed: wal_ways::of_another_name,
        target: behind_the_damage,
        object: damaged_segment,
    },
    Case {
        name: "the only backup before the target lacks its first segment",
        deed: wal_ways::first_of_backup_lost,
        target: before_the_second_backup,
        object: |landscape| landscape.full.first_wal.to_string(),
    },
    Case {
        name: "the history file is lost",
        deed: wal_ways::history_lost,
        target: |_| vec!["--latest".to_owned()],
        object: |_| "00000002.history".to_owned(),
    },
    Case {
        name: "the last commit is later by the header than it is",
        deed: wal_ways::later_commit,
        target: |_| vec!["--latest".to_owned()],
        object: |landscape| landscape.steps.last().unwrap().segment.to_string(),
    },
    Case {
        name: "a pack has a flipped byte",
        deed: backup_ways::flipped_pack,
        target: before_the_second_backup,
        object: |landscape| landscape.full.object(backup_ways::PACK),
    },
    Case {
        name: "a pack is missing",
        deed: backup_ways::pack_lost,
        target: before_the_second_backup,
        object: |landscape| landscape.full.object("data-00001.tar.zst"),
    },
    Case {
        name: "two packs were swapped",
        deed: backup_ways::swapped_packs,
        target: before_the_second_backup,
        object: |landscape| landscape.full.id.clone(),
    },
    Case {
        name: "a byte of a table was changed in a pack that is whole in itself",
        deed: backup_ways::forged_pack,
        target: before_the_second_backup,
        object: |_| "pg_tblspc/".to_owned(),
    },
    Case {
        name: "a manifest has a flipped byte",
        deed: backup_ways::flipped_manifest,
        target: before_the_second_backup,
        object: |landscape| landscape.full.id.clone(),
    },
    Case {
        name: "the parent of an incremental backup is gone",
        deed: backup_ways::parent_removed,
        target: |landscape| {
            vec!["--target-immediate".to_owned(), "--backup".to_owned(), incremental(landscape)]
        },
        object: |landscape| landscape.full.id.clone(),
    },
];

fn incremental(landscape: &Landscape) -> String {
    landscape.incremental.id.clone()
}

fn damaged_segment(landscape: &Landscape) -> String {
    between(landscape).to_string()
}

/// The commit after the one in the damaged segment.
fn behind_the_damage(landscape: &Landscape) -> Vec<String> {
    let step = &landscape.steps[landscape.step_after(&landscape.full) + 2];
    vec!["--target-time".to_owned(), format!("{:.6}", step.time)]
}

fn before_the_second_backup(landscape: &Landscape) -> Vec<String> {
    let step = &landscape.steps[landscape.step_after(&landscape.full)];
    vec!["--target-time".to_owned(), format!("{:.6}", step.time)]
}

#[test]
fn drills_of_damaged_repositories_fail_and_say_why() {
    let landscape = landscape::shared();
    let wanted = std::env::var("WALDEN_TEST_WAY").unwrap_or_default();
    let cases: Vec<&Case> = CASES.iter().filter(|case| case.name.contains(&wanted)).collect();
    let wrong = in_threads(&cases, |case| {
        let copy = landscape.copy();
        (case.deed)(&landscape, &copy);
        let place = Scratch::new();
        let output = drill(&copy, &place, ANY_MAJOR, &(case.target)(&landscape));
        let record = serde_json::from_str::<Value>(&output.stdout).unwrap_or_default();
        let reasons = record["reasons"].to_string();
        let is_right = output.code() == Some(5)
            && record["verdict"] == "failed"
            && reasons.contains(&(case.object)(&landscape));
        let left = std::fs::read_dir(place.path()).unwrap().count();
        (!is_right || left > 0).then(|| {
            let object = (case.object)(&landscape);
            format!("--- {}: {object}, {left} left\n{output}", case.name)
        })
    });
    let (count, of) = (wrong.len(), cases.len());
    assert!(wrong.is_empty(), "{count} of {of} cases:\n{}", wrong.join("\n"));
}

/// Nothing is passed that was not asked.
#[test]
fn what_cannot_be_rehearsed_is_not_passed() {
    let landscape = landscape::shared();
    let copy = landscape.copy();
    let place = Scratch::new();
    let latest = ["--latest".to_owned()];
    let other_major = drill(&copy, &place, MajorVersion(16), &latest);
    assert_eq!(other_major.code(), Some(6), "{other_major}");
    let healthy = drill(&copy, &place, ANY_MAJOR, &latest);
    assert_eq!(healthy.code(), Some(0), "{healthy}");
}

fn drill(copy: &Copy, place: &Scratch, major: MajorVersion, words: &[String]) -> Output {
    let drill = copy.walden().args(["drill", "--json", "--scratch"]).arg(place.path());
    drill.arg("--pg-bin").arg(harness::installation(major).bin).args(words).run()
}

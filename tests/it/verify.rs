//! `verify` on what real servers left: sound where nothing was touched, and where something was, it
//! is named with what it costs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use walden::postgres::MajorVersion;

use crate::harness::site::files_below;
use crate::harness::{Cluster, Scratch, Walden};

/// A full backup, one that rests on it, and WAL with a commit in every segment.
struct Kept {
    cluster: Cluster,
    repository: Scratch,
    backups: Vec<String>,
}

impl Kept {
    fn up(major: u16, mode: &str) -> Kept {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let builder = Cluster::builder(MajorVersion(major)).data_checksums().tablespace("space");
        let summarizes = if major >= 17 { builder.setting("summarize_wal", "on") } else { builder };
        let cluster = summarizes.archive_to(url, "main").start();
        cluster.sql("CREATE TABLE pair (n int, at timestamptz DEFAULT clock_timestamp())");
        cluster.archive_everything();
        let mut backups = Vec::new();
        for words in [&["--full"][..], &["--incremental"]] {
            let backup = cluster.walden().args(["backup", "--json", "--mode", mode]).args(words);
            let report: Value = serde_json::from_str(&backup.run().succeeds().stdout).unwrap();
            backups.push(report["id"].as_str().unwrap().to_owned());
            for n in 0..3 {
                cluster.sql(&format!("INSERT INTO pair VALUES ({n})"));
                cluster.archive_everything();
            }
        }
        Kept { cluster, repository, backups }
    }

    fn verify(&self, words: &[&str], code: i32) -> Value {
        let output = self.cluster.walden().args(["verify", "--json"]).args(words).run().exits(code);
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
    }
}

#[test]
fn what_nobody_touched_is_sound() {
    for (major, mode) in [(17, "stream"), (18, "local")] {
        let kept = Kept::up(major, mode);
        let report = kept.verify(&[], 0);
        assert_eq!(report["walden"], 1);
        assert_eq!((&report["outcome"], &report["deep"]), (&Value::from("sound"), &false.into()));
        assert_eq!(report["findings"], Value::Array(Vec::new()), "{report:#}");
        let report = kept.verify(&["--deep"], 0);
        assert_eq!(report["findings"], Value::Array(Vec::new()), "{report:#}");
        let backups = report["backups"].as_array().unwrap();
        let ids = backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned());
        // Those of one second are in no order.
        assert_eq!(ids.collect::<BTreeSet<_>>(), kept.backups.iter().cloned().collect());
        assert!(backups.iter().all(|backup| backup["whole"] == true && backup["sound"] == true));
        assert_eq!(report["segments"], report["segments_read"]);
        assert!(report["summary"].as_str().unwrap().ends_with("read: sound"), "{report:#}");
    }
}

/// One way to damage a repository, and what must be said of it.
struct Harm {
    name: &'static str,
    /// What it does to the home of the cluster; the file that the finding names.
    harm: fn(&Kept, &Path) -> PathBuf,
    needs_deep: bool,
    what: &'static str,
    consequence: &'static str,
}

const HARMS: &[Harm] = &[
    Harm {
        name: "a pack that is gone",
        harm: |kept, home| remove(&only(home, &format!("{}/data-00000", kept.backups[0]))),
        needs_deep: false,
        what: "missing",
        consequence: "cannot be restored, nor",
    },
    Harm {
        name: "a pack that was cut short",
        harm: |kept, home| cut(&only(home, &format!("{}/data-00000", kept.backups[1]))),
        needs_deep: false,
        what: "where its manifest says",
        consequence: "recovery to any time there was still works from older backups",
    },
    Harm {
        name: "a bit of a pack",
        harm: |kept, home| flip(&only(home, &format!("{}/data-00000", kept.backups[1])), 9000),
        needs_deep: true,
        what: "data-00000.tar.zst",
        consequence: "cannot be restored; recovery to any time",
    },
    Harm {
        name: "a manifest that is damaged",
        harm: |kept, home| flip(&only(home, &format!("{}/manifest", kept.backups[0])), 200),
        needs_deep: false,
        what: "open main/",
        consequence: "cannot be restored, nor",
    },
    Harm {
        name: "checksums of chunks that are gone",
        harm: |kept, home| remove(&only(home, &format!("{}/sums.zst", kept.backups[0]))),
        needs_deep: false,
        what: "missing",
        consequence: "into a new one it works",
    },
    Harm {
        name: "a segment that is gone",
        harm: |_, home| remove(&segments(home)[4]),
        needs_deep: false,
        what: "missing",
        consequence: "recovery into 20",
    },
    Harm {
        name: "a bit of a segment",
        harm: |_, home| flip(&segments(home)[4], 60),
        needs_deep: true,
        what: "open main/",
        consequence: "recovery into 20",
    },
    Harm {
        name: "two segments exchanged",
        harm: |_, home| {
            let segments = segments(home);
            let (one, other) = (fs::read(&segments[3]).unwrap(), fs::read(&segments[4]).unwrap());
            fs::write(&segments[3], other).unwrap();
            fs::write(&segments[4], one).unwrap();
            segments[3].clone()
        },
        needs_deep: false,
        what: "holds 0000000100000000",
        consequence: "recovery into 20",
    },
    Harm {
        name: "the proof of the place",
        harm: |_, home| remove(&home.join("cluster.json")),
        needs_deep: false,
        what: "is not there",
        consequence: "fetch does not say that a file is absent",
    },
];

#[test]
fn every_harm_is_named_with_what_it_costs() {
    let kept = Kept::up(17, "local");
    for Harm { name, harm, needs_deep, what, consequence } in HARMS {
        let copy = Scratch::new();
        let place = copy.path().join("copy");
        copy_tree(kept.repository.path(), &place);
        let harmed = harm(&kept, &place.join("main").join(kept.cluster.system_identifier()));
        let url = format!("file://{}", place.display());
        let verify = |words: &[&str], code: i32| {
            let walden = Walden::new().repository(&url).cluster("main");
            let output = walden.args(["verify", "--json"]).args(words).run().exits(code);
            serde_json::from_str::<Value>(&output.stdout).unwrap()
        };
        verify(&[], if *needs_deep { 0 } else { 5 });
        let report = verify(&["--deep"], 5);
        let key = harmed.strip_prefix(&place).unwrap().to_str().unwrap();
        let findings = report["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| {
            let says = |key: &str, text: &str| finding[key].as_str().unwrap().contains(text);
            finding["severity"] == "damage"
                && finding["object"] == key
                && (says("what", what) || says("object", what))
                && says("consequence", consequence)
        });
        assert!(found.is_some(), "{name}: {key}\n{report:#}");
        assert!(!found.unwrap()["advice"].as_str().unwrap().is_empty());
    }
}

#[test]
fn one_that_was_interrupted_goes_on_and_what_it_proved_is_known_to_list() {
    let kept = Kept::up(18, "local");
    let state = Scratch::new();
    let deep = || {
        let walden = kept.cluster.walden().env("WALDEN_STATE_DIR", state.path());
        walden.args(["verify", "--json", "--deep"])
    };
    let verified = || {
        let output = kept.cluster.walden().args(["list", "--json"]).run().succeeds();
        let list: Value = serde_json::from_str(&output.stdout).unwrap();
        let backups = list["clusters"][0]["backups"].as_array().unwrap().clone();
        backups.iter().map(|backup| backup["verified"].is_string()).collect::<Vec<_>>()
    };
    assert_eq!(verified(), [false, false]);
    // However long it takes to begin: one of them is told to stop in the middle.
    let mut patience = Duration::from_millis(500);
    let report = loop {
        let mut running = deep().args(["--max-rate", "100KiB"]).spawn();
        thread::sleep(patience);
        running.terminate();
        running.wait().exits(75);
        let output = deep().run().exits(0);
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        if report["resumed"].is_string() {
            break report;
        }
        patience *= 2;
        assert!(patience < Duration::from_secs(20), "{report:#}");
    };
    assert_eq!(report["outcome"], "sound", "{report:#}");
    assert_eq!(report["segments"], report["segments_read"]);
    assert!(report["read_bytes"].as_u64().unwrap() > 1_000_000, "{report:#}");
    assert_eq!(verified(), [true, true]);
    let again: Value = serde_json::from_str(&deep().run().exits(0).stdout).unwrap();
    assert!(again["resumed"].is_null(), "the other run was the end of it");
}

/// The one file below `folder` whose path has this in it.
fn only(folder: &Path, part: &str) -> PathBuf {
    let mut files = files_below(folder);
    files.retain(|file| file.to_string_lossy().contains(part));
    assert_eq!(files.len(), 1, "{part}: {files:?}");
    files.remove(0)
}

fn segments(home: &Path) -> Vec<PathBuf> {
    let mut files = files_below(&home.join("wal"));
    files.retain(|file| file.file_name().unwrap().len() == 28);
    files.sort();
    files
}

fn remove(path: &Path) -> PathBuf {
    fs::remove_file(path).unwrap();
    path.to_owned()
}

fn cut(path: &Path) -> PathBuf {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    path.to_owned()
}

fn flip(path: &Path, from_end: usize) -> PathBuf {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    path.to_owned()
}

fn copy_tree(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

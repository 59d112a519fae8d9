//! `verify` on what real servers left: sound where nothing was touched, and where something was, it
//! is named with what it costs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use walden::postgres::MajorVersion;

use crate::harness::site::files_below;
use crate::harness::{Cluster, Scratch};

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

    fn home(&self) -> PathBuf {
        self.repository.path().join("main").join(self.cluster.system_identifier())
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
        let ids: Vec<&str> = backups.iter().map(|backup| backup["id"].as_str().unwrap()).collect();
        assert_eq!(ids, kept.backups);
        assert!(backups.iter().all(|backup| backup["whole"] == true && backup["sound"] == true));
        assert_eq!(report["segments"], report["segments_read"]);
        assert!(report["summary"].as_str().unwrap().ends_with("read: sound"), "{report:#}");
    }
}

/// Files below `folder` whose path has this in it.
fn with(folder: &Path, part: &str) -> Vec<PathBuf> {
    let mut files = files_below(folder);
    files.retain(|file| file.to_string_lossy().contains(part));
    files.sort();
    assert!(!files.is_empty(), "{part}");
    files
}

fn flip(path: &Path, from_end: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

//! An index that is damaged: a cache, which nothing depends on.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::healthy::by_hand;
use crate::harness::Site;
use crate::harness::saboteur::Sealed;
use crate::harness::site::{SYSTEM_IDENTIFIER, files_below};

/// A repository whose log file of timeline 2 is closed, with its index.
fn indexed() -> (Site, std::path::PathBuf) {
    let site = Site::new();
    for name in by_hand(&site) {
        let file = fs::File::options().write(true).open(site.object(&name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    }
    site.walden().arg("window").run().succeeds();
    let home = site.repository_directory().join(format!("main/{SYSTEM_IDENTIFIER}/index"));
    let index = files_below(&home).pop().expect("an index");
    (site, index)
}

#[test]
fn an_index_that_is_damaged_or_lies_is_found_and_costs_nothing_but_time() {
    for way in ["flipped", "lying"] {
        let (site, index) = indexed();
        let mut object = fs::read(&index).unwrap();
        if way == "flipped" {
            let at = object.len() - 40;
            object[at] ^= 0x10;
        } else {
            let mut sealed = Sealed::parse(&object);
            sealed.edit_json(|json| json["segments"][1]["digest"]["records"] = Value::from(1));
            object = sealed.to_bytes();
        }
        fs::write(&index, object).unwrap();

        let output = site.walden().args(["verify", "--json", "--deep"]).run();

        let report: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let findings = report["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = index.file_name().unwrap().to_str().unwrap();
        let is_named = |finding: &&Value| {
            finding["object"].as_str().is_some_and(|object| object.contains(name))
        };
        let found = findings.iter().find(is_named);
        let found = found.unwrap_or_else(|| panic!("{way}: nothing of {name}\n{output}"));
        let (code, severity) = if way == "lying" { (5, "damage") } else { (0, "note") };
        assert_eq!((output.code(), &found["severity"]), (Some(code), &severity.into()), "{way}");
        assert_eq!(found["lost_times"], Value::Array(vec![]), "{way}: {found}");
        assert!(found["consequence"].as_str().is_some_and(|text| !text.is_empty()), "{found}");
    }
}

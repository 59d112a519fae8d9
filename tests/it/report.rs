//! `report` of a synthetic history, in a real browser: its figures are those of `--json`, it is
//! readable at every width, light and dark, and asks nobody for anything.

mod browser;
mod evidence;
mod history;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jiff::Timestamp;
use serde_json::Value;

use crate::harness::{Scratch, Walden};
use browser::{Pages, look};
use history::History;

const PROBE: &str = include_str!("report/probe.html");

/// A repository that all tests here look at.
struct Told {
    scratch: Scratch,
}

fn told() -> &'static Told {
    static TOLD: OnceLock<Told> = OnceLock::new();
    TOLD.get_or_init(|| {
        let scratch = Scratch::new();
        let root = scratch.directory("repository");
        History::write(&root, Timestamp::now(), &mut fastrand::Rng::with_seed(7));
        Told { scratch }
    })
}

impl Told {
    fn walden(&self) -> Walden {
        let url = format!("file://{}", self.scratch.join("repository").display());
        let walden = Walden::new().repository(url).cluster("shop");
        walden.env("WALDEN_OBJECTIVES_RTO", "15min").env("WALDEN_OBJECTIVES_RPO", "15min")
    }

    fn page(&self) -> String {
        self.walden().args(["report", "--output", "-"]).run().succeeds().stdout
    }

    fn json(&self) -> Value {
        let output = self.walden().args(["report", "--json"]).run().succeeds();
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"))
    }
}

/// Where pictures go that a person wants to look at.
fn wanted_pictures() -> Option<PathBuf> {
    std::env::var_os("WALDEN_TEST_REPORT_PICTURES").map(PathBuf::from)
}

#[test]
fn the_page_is_written_for_a_look() {
    let Some(folder) = wanted_pictures() else { return };
    let told = told();
    std::fs::write(folder.join("report.html"), told.page()).unwrap();
    std::fs::write(folder.join("report.json"), format!("{:#}", told.json())).unwrap();
    let _ = (PROBE, Path::new("/"), look as fn(&str, &[String]) -> _, Pages::serve as fn(_) -> _);
}

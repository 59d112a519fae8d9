//! `report` of a synthetic history, in a real browser: its figures are those of `--json`, it is
//! readable at every width, light and dark, and asks nobody for anything.

mod browser;
mod evidence;
mod history;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;
use serde_json::Value;

use crate::harness::{self, ANY_MAJOR, Cluster, Scratch, Walden};
use browser::{Pages, Seen, can_be_had, look};
use history::History;

/// Where pages and pictures are left for people to look at, and for docs/images.
const PICTURES: &str = "WALDEN_TEST_REPORT_PICTURES";

/// A repository that all tests here look at, and what the report says of it.
struct Told {
    scratch: Scratch,
    page: String,
    json: Value,
}

/// Gone with the last test that looks at it.
fn told() -> Arc<Told> {
    static TOLD: Mutex<Weak<Told>> = Mutex::new(Weak::new());
    let mut kept = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(told) = kept.upgrade() {
        return told;
    }
    let scratch = Scratch::new();
    let root = scratch.directory("repository");
    History::write(&root, Timestamp::now(), &mut fastrand::Rng::with_seed(7));
    let place = scratch.directory("page").join("report.html");
    let json = report(&scratch).arg("--json").arg("--output").arg(&place).run().succeeds();
    let json = serde_json::from_str(&json.stdout).unwrap();
    let told = Arc::new(Told { page: fs::read_to_string(place).unwrap(), scratch, json });
    *kept = Arc::downgrade(&told);
    told
}

fn report(scratch: &Scratch) -> Walden {
    let url = format!("file://{}", scratch.join("repository").display());
    let walden = Walden::new().repository(url).cluster("shop").arg("report");
    walden.env("WALDEN_OBJECTIVES_RTO", "15min").env("WALDEN_OBJECTIVES_RPO", "15min")
}

/// What the probe measured in the browser.
#[track_caller]
fn probe(told: &Told, flags: &[&str]) -> (Value, Seen, Vec<String>) {
    let pages = Pages::serve(vec![
        ("/report.html", told.page.clone()),
        ("/probe.html", include_str!("report/probe.html").to_owned()),
    ]);
    let mut all = vec!["--dump-dom".to_owned(), "--window-size=1400,2000".to_owned()];
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let seen = look(&format!("{}/probe.html", pages.url), &all);
    let answer = seen.stdout.split("answer:").nth(1).and_then(|it| it.split(":end").next());
    let answer = answer.unwrap_or_else(|| panic!("{}\n{}", seen.stdout, seen.stderr));
    let answer = unescape(answer);
    let answer = serde_json::from_str(&answer).unwrap_or_else(|why| panic!("{why}\n{answer}"));
    (answer, seen, pages.asked())
}

/// The probe writes what is not plain ASCII as `%xx`, and `%` too.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits: Vec<u8> = rest.by_ref().take(2).collect();
            let digits = String::from_utf8(digits).unwrap();
            bytes.push(u8::from_str_radix(&digits, 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_figure_of_the_page_is_that_of_the_json() {
    let told = told();
    let (answer, ..) = probe(&told, &[]);
    let json = &told.json;
    let figures = answer["figures"].as_array().unwrap();
    for figure in figures {
        let [at, value, words] = [0, 1, 2].map(|n| figure[n].as_str().unwrap());
        let value: Value = serde_json::from_str(value).unwrap();
        let there = json.pointer(at).unwrap_or(&Value::Null);
        assert_eq!(*there, value, "{at}, shown as {words:?}");
        assert!(!words.trim().is_empty(), "{at}");
    }
    // All that is told day by day, every backup, drill, verification and deed is among them.
    let has = |at: &str| figures.iter().any(|figure| figure[0] == at);
    let lists = ["/wal/days", "/storage/days", "/backups/list", "/drills", "/verification/runs"];
    for list in lists.into_iter().chain(["/audit", "/window/timelines", "/statements", "/versions"])
    {
        let length = json.pointer(list).unwrap().as_array().unwrap().len();
        assert!(length > 1, "{list}");
        for n in 0..length {
            let begin = format!("{list}/{n}/");
            let is_there = figures.iter().any(|it| it[0].as_str().unwrap().starts_with(&begin));
            assert!(is_there, "{begin}");
        }
    }
    assert!(has("/wal/stored_bytes") && has("/storage/bytes") && has("/verdict/headline"));
}

#[test]
fn it_is_readable_on_a_phone_and_on_a_desk_and_asks_nobody_for_anything() {
    if !can_be_had() {
        return;
    }
    let told = told();
    for (flags, is_dark) in [(&[][..], false), (&["--blink-settings=preferredColorScheme=0"], true)]
    {
        let (answer, seen, asked) = probe(&told, flags);
        assert!(seen.console().is_empty(), "{:?}", seen.console());
        let of_page = ["/report.html".to_owned(), "/report.html".to_owned()];
        let asked: Vec<_> = asked.into_iter().filter(|path| path != "/probe.html").collect();
        assert_eq!(asked, of_page, "one for each width");
        for size in answer["sizes"].as_array().unwrap() {
            let number = |key: &str| size[key].as_f64().unwrap();
            assert_eq!(size["dark"], is_dark, "{size:#}");
            assert_eq!(size["scrolls"], size["width"], "it is too wide: {size:#}");
            assert_eq!(size["wide"], Value::Array(vec![]), "{size:#}");
            assert_eq!(size["overlaps"], Value::Array(vec![]), "{size:#}");
            assert_eq!(size["resources"], Value::Array(vec![]), "{size:#}");
            assert_eq!(number("pictures"), 6.0, "{size:#}");
            let contrast = size["worst"][0].as_f64().unwrap();
            assert!(contrast >= 4.5, "WCAG asks for 4.5: {size:#}");
            assert!(size["small"][0].as_f64().unwrap() >= 10.0, "{size:#}");
        }
    }
}

#[test]
fn the_history_is_told_as_it_happened() {
    let told = told();
    let json = &told.json;
    let text = |at: &str| json.pointer(at).unwrap_or(&Value::Null).to_string();
    assert_eq!(text("/verdict/answer"), "\"recoverable\"", "{:#}", json["verdict"]);
    assert_eq!(text("/window/current"), "3");
    let lanes = json["window"]["lanes"].as_array().unwrap();
    assert_eq!(lanes.len(), 3);
    // Two forks, one gap that both descendants have behind them.
    assert_eq!(lanes[0]["gaps"].as_array().unwrap().len(), 1, "{:#}", lanes[0]);
    assert_eq!(lanes[0]["windows"].as_array().unwrap().len(), 2);
    assert!(lanes[1]["gaps"].as_array().unwrap().is_empty());
    assert!(lanes[2]["forked"].as_str() < lanes[1]["ends"].as_str(), "back in time");
    // The archiver stood still for 3 hours 24 minutes on one day, for 54 minutes on another.
    assert_eq!(text("/recovery/point/days_missed"), "2");
    let worst = json["recovery"]["point"]["max_ms"].as_u64().unwrap();
    assert!((12_240_000..12_240_000 + 20 * 60_000).contains(&worst), "{worst}");
    assert_eq!(text("/recovery/time/drills_missed"), "1");
    assert_eq!(json["drills"].as_array().unwrap().len(), 13);
    assert_eq!(json["retention"]["held"].as_array().unwrap().len(), 1);
    assert!(json["retention"]["unneeded_segments"].as_u64().unwrap() > 0);
    assert_eq!(text("/retention/expires"), "false");
    let sum = |list: &str, key: &str| -> u64 {
        let items = json.pointer(list).unwrap().as_array().unwrap();
        items.iter().map(|item| item[key].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("/storage/kinds", "bytes"), json["storage"]["bytes"].as_u64().unwrap());
    let days = json["storage"]["days"].as_array().unwrap();
    assert_eq!(days.last().unwrap()["bytes"], json["storage"]["bytes"]);
    for of in ["backups", "wal"] {
        let whole = &json["verification"][of];
        let shares = format!("/verification/{of}/shares");
        assert_eq!(sum(&shares, "bytes"), whole["bytes"].as_u64().unwrap());
        assert_eq!(sum(&shares, "count"), whole["count"].as_u64().unwrap());
    }
    let encryption = &json["statements"][5];
    assert_eq!(encryption["shown"], "no", "{encryption:#}");
}

#[test]
fn it_prints_on_paper() {
    if !can_be_had() {
        return;
    }
    let told = told();
    let pages = Pages::serve(vec![("/report.html", told.page.clone())]);
    let paper = told.scratch.join("report.pdf");
    let flags =
        [format!("--print-to-pdf={}", paper.display()), "--no-pdf-header-footer".to_owned()];
    let seen = look(&format!("{}/report.html", pages.url), &flags);
    assert!(seen.console().is_empty(), "{:?}", seen.console());
    let pdf = fs::read(&paper).unwrap();
    assert!(pdf.starts_with(b"%PDF"));
    let found = pdf.windows(11).filter(|bytes| bytes == b"/Type /Page").count();
    // With everything unfolded: a drill alone is half a page.
    assert!(found > 10, "{found} pages");
    if let Some(folder) = wanted_pictures() {
        fs::copy(&paper, folder.join("report.pdf")).unwrap();
    }
}

fn wanted_pictures() -> Option<PathBuf> {
    std::env::var_os(PICTURES).map(PathBuf::from)
}

/// What docs/images shows; left behind where the variable says.
#[test]
fn pictures_of_it_can_be_taken() {
    if !can_be_had() {
        return;
    }
    let told = told();
    let folder = wanted_pictures().unwrap_or_else(|| told.scratch.directory("pictures"));
    fs::write(folder.join("report.html"), &told.page).unwrap();
    fs::write(folder.join("report.json"), format!("{:#}", told.json)).unwrap();
    let pages = Pages::serve(vec![("/report.html", told.page.clone())]);
    for (name, size, flags) in [
        ("report-desktop-light", "1280,2100", &[][..]),
        ("report-desktop-dark", "1280,2100", &["--blink-settings=preferredColorScheme=0"]),
        ("report-phone-light", "360,2600", &[]),
        ("report-phone-dark", "360,2600", &["--blink-settings=preferredColorScheme=0"]),
    ]
    .into_iter()
    .take(if wanted_pictures().is_some() { 4 } else { 1 })
    {
        let picture = folder.join(format!("{name}.png"));
        let mut all: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        all.push(format!("--window-size={size}"));
        all.push(format!("--screenshot={}", picture.display()));
        look(&format!("{}/report.html", pages.url), &all);
        let picture = fs::read(&picture).unwrap();
        let width = u32::from_be_bytes(picture[16..20].try_into().unwrap());
        assert_eq!(Some(width.to_string().as_str()), size.split(',').next());
    }
}

#[test]
fn a_young_cluster_is_told_of_as_it_is_and_its_trail_begins() {
    let repository = Scratch::new();
    let url = format!("file://{}", repository.path().display());
    let cluster = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    cluster.archive_everything();
    let place = cluster.scratch().join("young.html");
    let report = || -> Value {
        let walden = cluster.walden().args(["report", "--json", "--output"]).arg(&place);
        let output = walden.run().succeeds();
        assert!(fs::read_to_string(&place).unwrap().contains("</html>"));
        serde_json::from_str(&output.stdout).unwrap()
    };
    assert_eq!(report()["verdict"]["answer"], "not-recoverable");
    cluster.walden().arg("backup").run().succeeds();
    cluster.archive_everything();
    let backed_up = report();
    assert_eq!(backed_up["verdict"]["answer"], "unproven", "{:#}", backed_up["verdict"]);
    let deed = &backed_up["audit"][0];
    assert_eq!([&deed["verb"], &deed["outcome"]], ["backup", "done"], "{deed:#}");
    let id = backed_up["backups"]["list"][0]["id"].as_str().unwrap();
    assert!(deed["summary"].as_str().unwrap().contains(id), "{deed:#}");

    let new = cluster.scratch().join("new");
    let restore = || cluster.walden().arg("restore").arg(&new).arg("--target-latest");
    restore().arg("--dry-run").run().succeeds();
    // Who may only read restores all the same, and leaves no trace.
    let home = repository.path().join("main").join(cluster.system_identifier());
    let may = |folder: &Path, mode| {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    };
    may(&home.join("audit"), 0o555);
    let output = restore().run().succeeds();
    assert!(!output.stderr.contains("audit"), "{output}");
    may(&home.join("audit"), 0o755);
    assert_eq!(report()["audit"].as_array().unwrap().len(), 1);
    fs::remove_dir_all(&new).unwrap();
    restore().run().succeeds();
    let restored = report();
    let deed = &restored["audit"][1];
    assert_eq!([&deed["verb"], &deed["outcome"]], ["restore", "done"], "{deed:#}");
    // A backup that fails is written down too: its WAL does not come.
    cluster.sql("ALTER SYSTEM SET archive_command = '/bin/false'");
    cluster.sql("SELECT pg_reload_conf()");
    let failing = cluster.walden().args(["backup", "--no-archive-check", "--wal-timeout", "1s"]);
    assert_ne!(failing.run().code(), Some(0));
    let deed = &report()["audit"][2];
    assert_eq!([&deed["verb"], &deed["outcome"]], ["backup", "failed"], "{deed:#}");
}

#[test]
fn a_drill_that_failed_puts_it_at_risk_until_another_passes() {
    let (repository, drills) = (Scratch::new(), Scratch::new());
    let url = format!("file://{}", repository.path().display());
    let cluster = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    cluster.walden().arg("backup").run().succeeds();
    cluster.sql("CREATE TABLE t (n int)");
    cluster.archive_everything();
    let verdict = || -> (Value, Value) {
        let place = cluster.scratch().join("report.html");
        let output = cluster.walden().args(["report", "--json", "--output"]).arg(&place).run();
        let mut report: Value = serde_json::from_str(&output.succeeds().stdout).unwrap();
        let mut verdict = report["verdict"].take();
        let reasons = verdict["reasons"].as_array_mut().unwrap();
        let of_drill = reasons.iter_mut().find(|reason| reason["kind"] == "drill").unwrap();
        let state = of_drill["state"].take();
        (verdict["answer"].take(), state)
    };
    let drill = |words: &[&str]| {
        let drill = cluster.walden().arg("drill").args(words).arg("--scratch").arg(drills.path());
        drill.arg("--pg-bin").arg(harness::installation(cluster.major()).bin).run()
    };
    assert_eq!(verdict(), ("unproven".into(), "attention".into()));
    let late = cluster.value("SELECT now()::text");
    drill(&["--target-time", &late]).exits(5);
    assert_eq!(verdict(), ("at-risk".into(), "bad".into()));
    drill(&["--latest"]).succeeds();
    assert_eq!(verdict(), ("unproven".into(), "good".into()), "nothing was verified yet");
}

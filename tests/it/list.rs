//! `list` on what real servers left: the table and the JSON say what the backup's own report said.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use walden::postgres::MajorVersion;

use crate::harness::{Cluster, Scratch, Site, Walden};

struct Backed {
    cluster: Cluster,
    repository: Scratch,
    /// What `backup --json` said.
    reports: Vec<Value>,
}

impl Backed {
    fn up(major: MajorVersion, backups: usize) -> Backed {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let builder = Cluster::builder(major).tablespace("space").archive_to(url, "main");
        let cluster = builder.start();
        let backup = || {
            cluster.archive_everything();
            let output = cluster.walden().args(["backup", "--json"]).run().succeeds();
            serde_json::from_str(&output.stdout).unwrap()
        };
        let reports = std::iter::repeat_with(backup).take(backups).collect();
        Backed { cluster, repository, reports }
    }

    fn list(&self) -> Walden {
        self.cluster.walden().arg("list")
    }

    fn place(&self) -> PathBuf {
        self.repository.path().join("main").join(self.cluster.system_identifier())
    }
}

fn json(list: Walden) -> Value {
    let output = list.arg("--json").run().succeeds();
    assert!(output.stdout.starts_with("{\n  \"walden\": 1,"), "{output}");
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn it_says_what_each_backup_said_of_itself() {
    for major in [MajorVersion(15), MajorVersion(18)] {
        let backed = Backed::up(major, 2);

        let listed = json(backed.list());

        let clusters = listed["clusters"].as_array().unwrap();
        assert_eq!(clusters.len(), 1);
        assert_eq!(clusters[0]["system_identifier"], backed.cluster.system_identifier());
        let backups = clusters[0]["backups"].as_array().unwrap();
        assert_eq!(backups.len(), 2);
        for (backup, report) in backups.iter().zip(&backed.reports) {
            for key in [
                "id",
                "began",
                "ended",
                "size",
                "stored",
                "files",
                "timeline",
                "start_lsn",
                "end_lsn",
                "first_wal",
                "last_wal",
                "server_version_num",
                "from_standby",
            ] {
                assert_eq!(backup[key], report[key], "{key}");
            }
            assert_eq!((&backup["type"], &backup["parent"]), (&"full".into(), &Value::Null));
            assert_eq!((&backup["usable"], &backup["reason"]), (&true.into(), &Value::Null));
            assert_eq!((&backup["held"], &backup["verified"]), (&false.into(), &Value::Null));
            assert_eq!(backup["missing_wal"], Value::Array(Vec::new()));
            assert!(backup["label"].as_str().unwrap().contains(backup["id"].as_str().unwrap()));
        }
        let ids: Vec<&str> = backups.iter().map(|backup| backup["id"].as_str().unwrap()).collect();
        let text = backed.list().run().succeeds();
        let place = |id: &str| text.stdout.find(id).unwrap_or_else(|| panic!("{text}"));
        assert!(place(ids[0]) < place(ids[1]), "oldest first: {text}");
        let text = text.stdout_has("USABLE").stdout_has("MiB").stdout_has("+00");
        assert!(!text.stdout.contains("not usable"), "{text}");
        assert_eq!(backed.list().arg("--quiet").run().succeeds().stdout, ids.join("\n") + "\n");
    }
}

#[test]
fn one_in_detail_shows_tablespaces_packs_and_names() {
    let backed = Backed::up(MajorVersion(18), 1);
    let report = &backed.reports[0];
    let id = report["id"].as_str().unwrap();

    let shown = json(backed.list().arg(id));

    let backup = &shown["clusters"][0]["backups"][0];
    assert_eq!(backup["tablespaces"], report["tablespaces"]);
    assert_eq!(backup["tablespaces"].as_array().unwrap().len(), 1);
    assert_eq!(backup["names"], report["names"]);
    assert_eq!(backup["usable"], true);
    let packs = backup["packs"].as_u64().unwrap();
    assert!(packs >= 1);
    assert_eq!(backup["origin"]["system_identifier"], backed.cluster.system_identifier());
    let text = backed.list().args(["--backup", id]).run().succeeds();
    let path = backed.cluster.tablespace("space");
    text.stdout_has(path.to_str().unwrap()).stdout_has("relations in 2 databases");

    fs::remove_file(backed.place().join(format!("backup/{id}/data-00000.tar.zst"))).unwrap();
    let short = backed.list().arg(id).run().succeeds();
    short.stdout_has("no: data-00000.tar.zst is missing");

    backed.list().arg("20200101T000000Z-0000").run().exits(4).stderr_has(id);
    backed.list().arg("yesterday").run().exits(2).stderr_has("yesterday");
}

#[test]
fn what_cannot_be_used_is_listed_with_its_reason() {
    let backed = Backed::up(MajorVersion(15), 3);
    let id = |at: usize| backed.reports[at]["id"].as_str().unwrap();
    let needed = backed.reports[1]["first_wal"].as_str().unwrap();
    let log = format!("wal/00000001/{}/{needed}.zst", &needed[..16]);
    fs::remove_file(backed.place().join(log)).unwrap();
    let manifest = backed.place().join(format!("backup/{}/manifest.json.zst", id(2)));
    fs::write(manifest, "rubbish").unwrap();
    let hold = backed.place().join("hold");
    fs::create_dir(&hold).unwrap();
    fs::write(hold.join(format!("{}.json", id(0))), "{}").unwrap();
    // Begun and never published: no backup.
    fs::create_dir(backed.place().join("backup/20200101T000000Z-0000")).unwrap();
    fs::write(backed.place().join("backup/20200101T000000Z-0000/data-00000.tar.zst"), "").unwrap();

    let listed = json(backed.list());

    let backups = listed["clusters"][0]["backups"].as_array().unwrap();
    assert_eq!(backups.len(), 3);
    let of = |at: usize| backups.iter().find(|backup| backup["id"] == id(at)).unwrap();
    assert_eq!((&of(0)["usable"], &of(0)["held"]), (&true.into(), &true.into()));
    assert_eq!((&of(1)["usable"], &of(1)["held"]), (&false.into(), &false.into()));
    assert_eq!(of(1)["missing_wal"], Value::from(vec![needed]));
    assert_eq!(of(1)["reason"], format!("{needed} is missing"));
    assert_eq!((&of(2)["usable"], &of(2)["size"]), (&false.into(), &Value::Null));
    assert!(of(2)["reason"].as_str().unwrap().contains("cannot be read"));
    let text = backed.list().run().succeeds();
    text.stdout_has(&format!("{} is not usable: {needed} is missing", id(1))).stdout_has(id(2));
}

#[test]
fn no_backup_yet_is_an_answer_and_no_archive_of_this_name_is_none() {
    let site = Site::new();
    site.segment("000000010000000000000001", 1);
    site.push("000000010000000000000001").run().succeeds();
    site.walden().arg("list").run().succeeds().stdout_has("no backup yet");
    let listed = json(site.walden().arg("list"));
    assert_eq!(listed["clusters"][0]["backups"], Value::Array(Vec::new()));

    let elsewhere =
        Walden::new().repository(format!("file://{}", site.repository_directory().display()));
    let elsewhere = elsewhere.env("WALDEN_STATE_DIR", site.scratch().join("state")).arg("list");
    elsewhere.clone().cluster("mian").run().exits(4).stderr_has("--cluster main");
    let empty = Scratch::new();
    let nothing = Walden::new().repository(format!("file://{}", empty.path().display()));
    nothing.cluster("main").arg("list").run().exits(4).stderr_has("nothing is archived");
    let gone = Walden::new().repository(format!("file://{}/gone", empty.path().display()));
    gone.cluster("main").arg("list").run().exits(20);
}

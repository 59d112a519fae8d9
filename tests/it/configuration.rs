//! The configuration as people meet it: samples that work, complete docs, failures in one line.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use walden::config::keys::{CONFIG_VARIABLE, KEYS, Key};
use walden::config::{Overrides, Settings};

use crate::harness::{ANY_MAJOR, Cluster, Scratch, Walden, every_major};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file under `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("list the samples");
    let entries = entries.map(|entry| entry.expect("list the samples").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[track_caller]
fn resolve(toml: &str) -> Settings {
    let scratch = Scratch::new();
    let file = scratch.join("walden.toml");
    fs::write(&file, toml).expect("write a configuration");
    let overrides = Overrides { config: Some(file), ..Overrides::default() };
    let settings = Settings::resolve_from(&overrides, std::iter::empty(), Path::new("/nowhere"));
    settings.unwrap_or_else(|error| panic!("{}\n{toml}", error.one_line()))
}

/// `#key = value` becomes `key = value`; comments in words stay.
fn uncommented(toml: &str) -> String {
    let lines = toml.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_sample_is_understood_by_who_reads_it() {
    let mut seen = 0;
    for path in files(&root().join("pg-config")) {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => drop(resolve(&text)),
            Some("json") => is_a_policy(&text),
            Some("service" | "timer") => is_a_unit(&text),
            // Read by PostgreSQL itself in other tests here, or by people.
            _ if ["archive.conf", "recovery.conf.sample", "roles.sql"].contains(&name.as_str()) => {
            }
            _ if ["pg_hba.conf.sample", "README.md"].contains(&name.as_str()) => {}
            _ => panic!("nobody checks {}", path.display()),
        }
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} samples");
}

#[track_caller]
fn is_a_policy(text: &str) {
    let policy: serde_json::Value = serde_json::from_str(text).expect("a policy is JSON");
    assert_eq!(policy["Version"], "2012-10-17");
    for statement in policy["Statement"].as_array().expect("a list") {
        assert_eq!(statement["Effect"], "Allow");
        let resource = statement["Resource"].as_str().expect("one resource");
        assert!(resource.starts_with("arn:aws:s3:::BUCKET"), "{resource}");
        let on_objects = resource.ends_with("/PREFIX/*");
        let actions = statement["Action"].to_string();
        assert_eq!(on_objects, !actions.contains("ListBucket"), "{actions} on {resource}");
        assert!(!actions.contains('*'), "{actions}");
    }
}

/// Sections and `Name=value` lines.
#[track_caller]
fn is_a_unit(text: &str) {
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let is_section = line.starts_with('[') && line.ends_with(']');
        assert!(is_section || line.contains('='), "{line}");
    }
}

#[test]
fn only_maintenance_may_delete_and_a_restore_may_not_write() {
    let allows = |file: &str, action: &str| text(&format!("pg-config/iam/{file}")).contains(action);
    assert!(allows("maintenance.json", "s3:DeleteObject"));
    for file in ["push.json", "restore.json"] {
        assert!(!allows(file, "Delete"));
        assert!(allows(file, "s3:GetObject") && allows(file, "s3:ListBucket"));
    }
    assert!(allows("push.json", "s3:PutObject") && !allows("restore.json", "PutObject"));
}

#[test]
fn the_full_sample_works_with_every_key_uncommented() {
    let sample = text("pg-config/walden.full.toml");
    resolve(&sample);
    let full = uncommented(&sample);
    let settings = resolve(&full);
    for (path, origin) in settings.origins() {
        assert!(origin.to_string().contains("line "), "walden.full.toml does not set {path}");
    }
}

#[test]
fn the_full_sample_shows_each_default_or_the_example() {
    let full = text("pg-config/walden.full.toml");
    for key in KEYS {
        let value = key.default.unwrap_or(key.example);
        let name = key.path.rsplit('.').next().unwrap();
        let lines = [format!("#{name} = {value}\n"), format!("#{name} = \"{value}\"\n")];
        assert!(lines.iter().any(|line| full.contains(line)), "not there: {}", lines[1]);
        let by_default = key.default.map_or("unset by default".into(), |d| format!("default {d}"));
        let comment = format!("# {}; {by_default}.\n", key.variable());
        assert!(full.contains(&comment), "not there: {comment}");
    }
}

#[test]
fn the_documentation_has_every_key_as_the_program_knows_it() {
    let page = text("docs/configuration.md");
    let row = |key: &Key| {
        let default = key.default.map_or("unset".to_owned(), |default| format!("`{default}`"));
        let (path, variable, kind) = (key.path, key.variable(), key.kind.name());
        format!("| `{path}` | `{variable}` | {kind} | {default} | {} |\n", key.meaning)
    };
    let missing: String = KEYS.iter().map(row).filter(|row| !page.contains(row)).collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks\n{missing}");
    assert_eq!(page.matches("| `WALDEN_").count(), KEYS.len(), "a row of no key");
    assert!(page.contains(CONFIG_VARIABLE));
}

#[test]
fn the_exit_codes_of_the_documentation_are_those_of_the_help() {
    let page = text("docs/exit-codes.md");
    for code in [0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 20, 21, 22, 23, 30, 70, 75, 200] {
        assert!(page.contains(&format!("\n| {code} | ")), "docs/exit-codes.md lacks {code}");
    }
    let help = Walden::new().args(["fetch", "--help"]).run().succeeds();
    help.stdout_has("200  undecided").stdout_has("1  proven absent");
}

#[test]
fn postgresql_of_every_version_takes_the_archive_settings_and_the_role() {
    for major in every_major() {
        let mut builder = Cluster::builder(major);
        for (name, value) in settings_of(&text("pg-config/archive.conf")) {
            builder = builder.setting(&name, &value);
        }
        let cluster = builder.start();
        assert_eq!(cluster.value("SHOW archive_command"), "walden push \"%p\"");
        assert_eq!(cluster.value("SHOW archive_mode"), "on");
        cluster.sql(&text("pg-config/roles.sql"));
        let role = "SELECT rolreplication, rolsuper, rolcreaterole, rolcreatedb, rolcanlogin \
                    FROM pg_roles WHERE rolname = 'walden_backup'";
        let row = cluster.sql(role).remove(0);
        let row: Vec<_> = row.into_iter().map(Option::unwrap_or_default).collect();
        assert_eq!(row, ["t", "f", "f", "f", "t"]);
        cluster.sql("SET ROLE walden_backup; SELECT * FROM pg_stat_archiver");
        assert!(cluster.try_sql("SET ROLE walden_backup; CREATE TABLE public.x (n int)").is_err());
    }
}

/// The least privileges suffice: by password, over a socket that trusts nobody, and what it made
/// can be restored.
#[test]
fn a_backup_succeeds_with_the_rights_of_the_sample_role() {
    let scratch = Scratch::new();
    let url = format!("file://{}", scratch.directory("repository").display());
    let mut cluster = Cluster::builder(ANY_MAJOR).archive_to(url, "main").start();
    cluster.sql(&text("pg-config/roles.sql"));
    cluster.sql("ALTER ROLE walden_backup PASSWORD 'secret'");
    let rules = "local all postgres trust\n\
                 local replication,all walden_backup scram-sha-256\n";
    fs::write(cluster.pgdata().join("pg_hba.conf"), rules).unwrap();
    cluster.reload();
    let pass_file = scratch.join("pgpass");
    fs::write(&pass_file, "*:*:*:walden_backup:secret\n").unwrap();
    fs::set_permissions(&pass_file, fs::Permissions::from_mode(0o600)).unwrap();
    scratch.give("pgpass");

    let backup = || cluster.walden().arg("backup").env("PGUSER", "walden_backup");
    let refused = backup().env("PGPASSWORD", "wrong").run();
    assert_eq!(refused.code(), Some(6), "{refused}");
    for mode in ["stream", "local"] {
        let output = backup().args(["--mode", mode]).env("PGPASSFILE", &pass_file).run().succeeds();
        assert_eq!(output.stderr, "", "{output}");
        output.stdout_has("relations in 2 databases");
    }
    let restored = scratch.join("restored");
    let restore = cluster.walden().arg("restore").arg(&restored).arg("--target-immediate");
    restore.run().succeeds();
}

#[test]
fn postgresql_takes_the_recovery_settings() {
    let mut builder = Cluster::builder(ANY_MAJOR);
    for (name, value) in settings_of(&text("pg-config/recovery.conf.sample")) {
        builder = builder.setting(&name, &value);
    }
    let cluster = builder.start();
    assert_eq!(cluster.value("SHOW restore_command"), "walden fetch \"%f\" \"%p\"");
    assert_eq!(cluster.value("SHOW recovery_target_action"), "pause");
}

fn settings_of(conf: &str) -> Vec<(String, String)> {
    let lines = conf.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn a_broken_configuration_is_one_line_to_postgresql_and_two_to_people() {
    let scratch = Scratch::new();
    let file = scratch.join("walden.toml");
    fs::write(&file, "cluster = 'a'\n[pusch]\ndeadline = '1s'\n").unwrap();
    let walden = Walden::new().arg("--config").arg(&file).current_dir(scratch.path());
    let complaint = "line 2: unknown key \"pusch\"";
    let push = walden.clone().args(["push", "pg_wal/x"]).run().exits(2);
    push.complains_in_one_line().stderr_has(complaint);
    let fetch = walden.clone().args(["fetch", "x", "pg_wal/RECOVERYXLOG"]);
    fetch.run().exits(200).complains_in_one_line().stderr_has(complaint);
    fs::write(scratch.join("standby.signal"), "").unwrap();
    fetch.run().exits(3).complains_in_one_line();
    let backup = walden.clone().arg("backup").run().exits(2).stderr_has(complaint);
    assert!(backup.stderr.contains("\nhint: "), "{backup}");
}

#[test]
fn wrong_words_never_make_postgresql_promote() {
    let scratch = Scratch::new();
    let walden = || Walden::new().current_dir(scratch.path());
    for words in [
        vec!["fetch"],
        vec!["fetch", "000000010000000000000001"],
        vec!["fetch", "--fast", "000000010000000000000001", "pg_wal/RECOVERYXLOG"],
        vec!["--confg", "x", "fetch", "000000010000000000000001", "pg_wal/RECOVERYXLOG"],
        vec!["fetsh", "000000010000000000000001", "pg_wal/RECOVERYXLOG"],
        vec!["00000002.history", "pg_wal/RECOVERYHISTORY"],
        vec!["fetch", "no-wal-name", "pg_wal/RECOVERYXLOG"],
    ] {
        walden().args(words).run().exits(200).complains_in_one_line();
    }
    for words in [vec!["push"], vec!["push", "--fast", "x"], vec!["push", "x", "y"]] {
        walden().args(words).run().exits(2).complains_in_one_line();
    }
    walden().arg("bakcup").run().exits(2).stderr_has("backup");
}

#[test]
fn an_unknown_variable_is_refused_and_a_test_variable_is_not() {
    let output = Walden::new().env("WALDEN_REPOSITORY_ULR", "s3://x").arg("backup").run().exits(2);
    output
        .stderr_has("WALDEN_REPOSITORY_ULR")
        .stderr_has("hint: Did you mean WALDEN_REPOSITORY_URL");
    Walden::new().env("WALDEN_TEST_X", "1").arg("--version").run().succeeds();
}

//! How settings resolve, as a whole.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::codec::Compression;
use crate::config::keys::KEYS;
use crate::config::{Checkpoint, OnInvalid, Origin, Overrides, Settings};
use crate::error::{ErrorKind, Result};
use crate::storage::s3::ConditionalPut;

const NO_FILE: &str = "/nowhere/walden.toml";

fn resolve(overrides: &Overrides, variables: &[(&str, &str)], file: &Path) -> Result<Settings> {
    let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    Settings::resolve_from(overrides, variables.iter().map(pair), file)
}

fn with_variables(variables: &[(&str, &str)]) -> Result<Settings> {
    resolve(&Overrides::default(), variables, Path::new(NO_FILE))
}

#[test]
fn without_a_word_the_defaults_hold() {
    let settings = with_variables(&[]).unwrap();
    assert_eq!(settings.cluster.to_string(), "main");
    assert_eq!(settings.pgdata, None);
    assert_eq!(settings.state_dir, None);
    assert!(settings.repositories.is_empty());
    assert_eq!(settings.compression, Compression { level: 1 });
    assert_eq!(settings.push.deadline, Duration::from_secs(120));
    assert_eq!(settings.push.look_ahead, None);
    assert_eq!(settings.push.look_ahead_deadline, Duration::from_secs(2));
    assert_eq!(settings.push.on_invalid, OnInvalid::Refuse);
    assert_eq!(settings.fetch.retry_for, Duration::from_secs(300));
    assert_eq!(settings.backup.checkpoint, Checkpoint::Fast);
    assert_eq!(settings.backup.wal_timeout, Duration::from_secs(600));
    assert_eq!(settings.backup.archive_check, Duration::from_secs(60));
    assert_eq!(settings.s3.request_timeout, Duration::from_secs(60));
    assert_eq!(settings.s3.connect_timeout, Duration::from_secs(5));
    assert_eq!(settings.s3.conditional_put, ConditionalPut::Auto);
    assert!(settings.config_file.is_none());
    assert!(settings.origins().iter().all(|(_, origin)| *origin == Origin::Default));
    let error = settings.require_repositories().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.one_line().contains("WALDEN_REPOSITORY_URL"));
}

#[test]
fn every_key_of_the_table_changes_the_settings() {
    let plain = format!("{:?}", with_variables(&[]).unwrap());
    let without_origins = |debug: &str| debug.split("origins:").next().unwrap().to_owned();
    for key in KEYS {
        let variable = key.variable();
        let mut variables = vec![(variable.as_str(), key.example)];
        if key.path == "s3.kms_key_id" {
            variables.push(("WALDEN_S3_SSE", "aws:kms"));
        }
        let settings = with_variables(&variables).unwrap();
        let debug = format!("{settings:?}");
        assert_ne!(without_origins(&debug), without_origins(&plain), "{} does nothing", key.path);
        if let Some(default) = key.default {
            let settings = with_variables(&[(&variable, default)]).unwrap();
            let debug = format!("{settings:?}");
            assert_eq!(without_origins(&debug), without_origins(&plain), "{}", key.path);
        }
    }
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("walden.toml");
    let text = "cluster = 'file'\npgdata = '/file'\n[backup]\njobs = 2\nmax_rate = '1MiB'\n\
                [repository]\nurl = 'file:///file'\n";
    std::fs::write(&file, text).unwrap();
    let overrides = Overrides {
        config: Some(file.clone()),
        repository: Some("file:///flag".to_owned()),
        ..Overrides::default()
    };
    let variables = [
        ("WALDEN_CLUSTER", "variable"),
        ("WALDEN_REPOSITORY_URL", "file:///variable"),
        ("WALDEN_CONFIG", "/nowhere/else.toml"),
        ("WALDEN_PGDATA", "/variable"),
    ];
    let settings = resolve(&overrides, &variables, Path::new(NO_FILE)).unwrap();
    assert_eq!(settings.repositories[0].url, "file:///flag");
    assert_eq!(settings.repositories.len(), 1);
    assert_eq!(settings.cluster.to_string(), "variable");
    assert_eq!(settings.pgdata.as_deref(), Some(Path::new("/variable")));
    assert_eq!(settings.backup.jobs, NonZeroUsize::new(2));
    assert_eq!(settings.backup.max_rate, Some(1 << 20));
    assert_eq!(settings.config_file.as_ref(), Some(&file));
    let origin =
        |path| settings.origins().iter().find(|(key, _)| *key == path).unwrap().1.to_string();
    assert_eq!(origin("repository.url"), "--repository");
    assert_eq!(origin("cluster"), "WALDEN_CLUSTER");
    assert_eq!(origin("backup.jobs"), format!("{}, line 4", file.display()));
    assert_eq!(origin("restore.jobs"), "default");
}

#[test]
fn what_is_carried_resolves_to_the_same_in_another_process() {
    let overrides = Overrides {
        repository: Some("s3://bucket".to_owned()),
        pgdata: Some("/data".into()),
        ..Overrides::default()
    };
    let variables = [("WALDEN_S3_ENDPOINT", "http://store:9000")];
    let settings = resolve(&overrides, &variables, Path::new(NO_FILE)).unwrap();
    let carried = settings.carried().to_vec();
    let names: Vec<&str> = carried.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["WALDEN_REPOSITORY_URL", "WALDEN_S3_ENDPOINT"]);
    let carried = carried.into_iter().map(|(name, value)| (OsString::from(name), value));
    let again = Settings::resolve_from(&Overrides::default(), carried, Path::new(NO_FILE)).unwrap();
    assert_eq!(again.repositories, settings.repositories);
    assert_eq!(again.s3, settings.s3);
}

#[test]
fn a_relative_path_is_taken_from_a_flag_only() {
    let overrides = Overrides { pgdata: Some(PathBuf::from("data")), ..Overrides::default() };
    let settings = resolve(&overrides, &[], Path::new(NO_FILE)).unwrap();
    assert_eq!(settings.pgdata, Some(std::env::current_dir().unwrap().join("data")));
    let error = with_variables(&[("WALDEN_PGDATA", "data")]).unwrap_err();
    assert!(error.one_line().contains("pgdata (WALDEN_PGDATA): \"data\" is not an absolute path"));
}

#[test]
fn secrets_are_refused_where_they_do_not_belong_and_never_printed() {
    for name in ["WALDEN_REPOSITORY_URL", "WALDEN_S3_ENDPOINT"] {
        let error = with_variables(&[(name, "https://key:hunter2@store/")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(!format!("{error:?} {}", error.one_line()).contains("hunter2"));
        assert!(error.one_line().contains(name), "{}", error.one_line());
    }
}

#[test]
fn nonsense_is_a_usage_error_with_a_hint() {
    let nonsense = [
        ("WALDEN_CLUSTER", "../etc"),
        ("WALDEN_PUSH_DEADLINE", "0s"),
        ("WALDEN_S3_REQUEST_TIMEOUT", "0s"),
        ("WALDEN_S3_ENDPOINT", "store:9000"),
        ("WALDEN_S3_KMS_KEY_ID", "alias/x"),
        ("WALDEN_S3_SSE", "rot13"),
        ("WALDEN_BACKUP_JOBS", "0"),
        ("WALDEN_BACKUP_MAX_RATE", "1B"),
        ("WALDEN_COMPRESSION_LEVEL", "22"),
        ("WALDEN_CONFIG", "/nowhere/walden.toml"),
    ];
    for (name, value) in nonsense {
        let error = with_variables(&[(name, value)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{name}");
        assert!(error.hint_text().is_some(), "{name}");
        assert!(error.one_line().contains(name), "{}", error.one_line());
    }
}

#[test]
fn two_repositories_in_one_place_are_one_too_many() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("walden.toml");
    let write = |second: &str| {
        let text = format!("[[repository]]\nurl = 'file:///a'\n[[repository]]\nurl = '{second}'\n");
        std::fs::write(&file, text).unwrap();
        resolve(&Overrides::default(), &[], &file)
    };
    assert_eq!(write("file:///b").unwrap().require_repositories().unwrap().len(), 2);
    assert!(write("file:///a").unwrap_err().one_line().contains("line 4"));
}

//! How pgBackRest is configured.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::peers::{Home, Place};
use super::store;

pub const STANZA: &str = "bench";

/// Writes its configuration and creates the stanza, which a user does once.
pub fn prepare(home: &Home) -> Result<(), String> {
    let [log, lock, spool] = ["log", "lock", "spool"].map(|name| home.directory(name));
    let mut text = format!(
        "[global]\ncompress-type=zst\ncompress-level=1\nlog-level-file=off\nlog-path={}\n\
         lock-path={}\nspool-path={}\n",
        log.display(),
        lock.display(),
        spool.display(),
    );
    match &home.place {
        Place::Directory => writeln!(text, "repo1-path={}", home.repository().display()),
        Place::Bucket { store, prefix } => {
            let (key, secret, region) = (store::ACCESS_KEY, store::SECRET_KEY, store::REGION);
            let port = store.https.port();
            writeln!(
                text,
                "repo1-type=s3\nrepo1-path=/{prefix}\nrepo1-s3-bucket={}\nrepo1-s3-key={key}\n\
                 repo1-s3-key-secret={secret}\nrepo1-s3-region={region}\nrepo1-s3-uri-style=path\n\
                 repo1-s3-endpoint=127.0.0.1\nrepo1-storage-host=127.0.0.1\n\
                 repo1-storage-port={port}\nrepo1-storage-verify-tls=n",
                store::BUCKET,
            )
        }
    }
    .expect("write to a string");
    writeln!(text, "[{STANZA}]\npg1-path={}", home.pgdata.display()).expect("write to a string");
    fs::write(configuration(home), text).expect("write its configuration");
    let create = home.call().program(["pgbackrest"]).arg(option(home));
    create.arg(format!("--stanza={STANZA}")).arg("--no-online").arg("stanza-create").time()?;
    Ok(())
}

/// As every call begins.
pub fn words(home: &Home) -> [String; 3] {
    ["pgbackrest".to_owned(), option(home), format!("--stanza={STANZA}")]
}

/// Four processes behind the one that PostgreSQL calls.
pub const ASYNC: [&str; 2] = ["--archive-async", "--process-max=4"];

fn option(home: &Home) -> String {
    format!("--config={}", configuration(home).display())
}

fn configuration(home: &Home) -> PathBuf {
    home.root.join("pgbackrest.conf")
}

//! Who takes part, and how each is called. What is not installed is left out, with a line that says
//! so; docs/performance.md says how each is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use super::pgbackrest;
use super::scratch;
use super::stopwatch::{Call, is_installed};
use super::store::{self, Store};

/// Where a contender keeps WAL.
#[derive(Clone)]
pub enum Place {
    /// Below the home; synced.
    Directory,
    Bucket {
        store: Rc<Store>,
        prefix: String,
    },
}

/// What one contender has for itself: a data directory to archive from, and a repository.
pub struct Home {
    pub root: PathBuf,
    pub pgdata: PathBuf,
    pub place: Place,
}

impl Home {
    /// A data directory as far as an archiver looks at it.
    pub fn new(root: PathBuf, control_file: &Path, place: Place) -> Home {
        let pgdata = root.join("data");
        scratch::directory(pgdata.join("pg_wal/archive_status"));
        scratch::directory(pgdata.join("global"));
        scratch::directory(root.join("repository"));
        fs::copy(control_file, pgdata.join("global/pg_control")).expect("copy pg_control");
        fs::write(pgdata.join("PG_VERSION"), "15\n").expect("write PG_VERSION");
        Home { root, pgdata, place }
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        scratch::directory(self.root.join(name))
    }

    pub fn repository(&self) -> PathBuf {
        self.root.join("repository")
    }

    /// In the data directory, as PostgreSQL calls.
    pub fn call(&self) -> Call {
        Call::within(&self.pgdata)
    }

    /// As if PostgreSQL had just finished this segment: its path from the data directory.
    pub fn finish_segment(&self, segment: &Path) -> String {
        let name = segment.file_name().and_then(|name| name.to_str()).expect("a name");
        let path = format!("pg_wal/{name}");
        let own = self.pgdata.join(&path);
        if !own.exists() {
            fs::hard_link(segment, own).expect("link a segment");
        }
        path
    }

    /// And waits for somebody to archive it.
    pub fn mark_ready(&self, name: &str) {
        let status = self.pgdata.join("pg_wal/archive_status");
        fs::write(status.join(format!("{name}.ready")), "").expect("write a status file");
    }

    /// As PostgreSQL does after the call succeeded.
    pub fn mark_done(&self, name: &str) {
        let status = self.pgdata.join("pg_wal/archive_status");
        // One of the contenders does so itself.
        fs::remove_file(status.join(format!("{name}.ready"))).ok();
    }

    /// What is kept by now.
    pub fn stored_bytes(&self) -> u64 {
        match &self.place {
            Place::Directory => scratch::bytes_below(&self.repository()),
            Place::Bucket { store, prefix } => store.bytes(prefix),
        }
    }
}

/// One way to archive.
#[derive(Clone, Copy)]
pub struct Contender {
    pub name: &'static str,
    /// What must be installed; ours is not asked for.
    pub needs: Option<&'static str>,
    pub prepare: fn(&Home) -> Result<(), String>,
    /// Archives this path, relative to the data directory.
    pub push: fn(&Home, &str) -> Call,
}

const NOTHING: fn(&Home) -> Result<(), String> = |_| Ok(());

pub const WALDEN: Contender =
    Contender { name: "`walden push`", needs: None, prepare: NOTHING, push: walden_push };
pub const CP: Contender =
    Contender { name: "`cp`, `sync FILE`", needs: Some("cp"), prepare: NOTHING, push: cp };
/// No archiver: it puts the plain file there.
pub const LINK: Contender = Contender {
    name: "`ln`",
    needs: None,
    prepare: NOTHING,
    push: |home, path| home.call().program(["ln", path]).arg(home.repository()),
};
pub const ZSTD: Contender = Contender {
    name: "`zstd -1 --check`, `sync FILE`",
    needs: Some("zstd"),
    prepare: NOTHING,
    push: zstd,
};
pub const PGBACKREST: Contender = Contender {
    name: "pgBackRest, zst 1",
    needs: Some("pgbackrest"),
    prepare: pgbackrest::prepare,
    push: |home, path| home.call().program(pgbackrest::words(home)).arg("archive-push").arg(path),
};
pub const PGBACKREST_ASYNC: Contender = Contender {
    name: "pgBackRest async, 4 processes, zst 1",
    needs: Some("pgbackrest"),
    prepare: pgbackrest::prepare,
    push: |home, path| {
        let call = home.call().program(pgbackrest::words(home));
        pgbackrest::ASYNC.iter().fold(call, Call::arg).arg("archive-push").arg(path)
    },
};
pub const WALRUS: Contender = Contender {
    name: "wal-rus, zstd 1",
    needs: Some("walrus"),
    prepare: NOTHING,
    push: |home, path| walrus(home).program(["walrus", "wal-push", path]),
};
pub const BARMAN: Contender = Contender {
    name: "`barman-cloud-wal-archive`, uncompressed",
    needs: Some("barman-cloud-wal-archive"),
    prepare: NOTHING,
    push: barman,
};
pub const AWS: Contender = Contender {
    name: "`aws s3 cp`, uncompressed",
    needs: Some("aws"),
    prepare: NOTHING,
    push: aws,
};

/// No archiver: what the line and the store take for one request.
pub const CURL: Contender = Contender {
    name: "`curl -T`, compressed before",
    needs: Some("curl"),
    prepare: NOTHING,
    push: curl,
};

/// Those of them that are installed.
pub fn present(contenders: &[Contender]) -> Vec<Contender> {
    let is_here = |contender: &&Contender| {
        let missing = contender.needs.filter(|program| !is_installed(program));
        if let Some(program) = missing {
            println!("({}: `{program}` is not installed; left out.)\n", contender.name);
        }
        missing.is_none()
    };
    contenders.iter().filter(is_here).copied().collect()
}

/// The binary measured, where the server's user can execute it too: a copy in this directory.
pub fn binary(directory: &Path) -> PathBuf {
    let copy = directory.join("walden");
    if !copy.exists() {
        fs::copy(measured(), &copy).expect("copy the binary");
    }
    copy
}

/// That of this build, or the one that `BENCH_WALDEN` names.
fn measured() -> PathBuf {
    let named = std::env::var_os("BENCH_WALDEN");
    named.map_or_else(|| env!("CARGO_BIN_EXE_walden").into(), PathBuf::from)
}

/// walden with its settings for this home, and no words yet.
pub fn walden(home: &Home) -> Call {
    walden_at(home, &measured())
}

pub fn walden_at(home: &Home, binary: &Path) -> Call {
    let call = home.call().env("WALDEN_STATE_DIR", home.root.join("state"));
    let call = match &home.place {
        Place::Directory => call.env("WALDEN_REPOSITORY_URL", home.repository()),
        Place::Bucket { store, prefix } => with_keys(call)
            .env("WALDEN_REPOSITORY_URL", format!("s3://{}/{prefix}", store::BUCKET))
            .env("WALDEN_S3_ENDPOINT", store.endpoint()),
    };
    call.program([binary])
}

/// Whether the binary measured knows `push.look_ahead`.
pub fn looks_ahead(home: &Home) -> bool {
    walden(home)
        .env("WALDEN_PUSH_LOOK_AHEAD", "1")
        .arg("push")
        .arg("none")
        .time()
        .is_err_and(|why| !why.contains("WALDEN_PUSH_LOOK_AHEAD"))
}

fn walden_push(home: &Home, path: &str) -> Call {
    walden(home).arg("push").arg(path)
}

fn cp(home: &Home, path: &str) -> Call {
    let copy = home.repository().join(path.trim_start_matches("pg_wal/"));
    home.call().program(["cp", path]).arg(&copy).program(["sync"]).arg(&copy)
}

fn zstd(home: &Home, path: &str) -> Call {
    let copy = home.repository().join(path.trim_start_matches("pg_wal/")).with_extension("zst");
    let zstd = home.call().program(["zstd", "-q", "-1", "--check", path, "-o"]).arg(&copy);
    zstd.program(["sync"]).arg(&copy)
}

/// wal-rus with its settings, without a program.
pub fn walrus(home: &Home) -> Call {
    let call = home.call().env("WALG_COMPRESSION_METHOD", "zstd").env("PGDATA", &home.pgdata);
    let call = call.env("WALG_COMPRESSION_LEVEL", "1");
    match &home.place {
        Place::Directory => call.env("WALG_FILE_PREFIX", home.repository()),
        Place::Bucket { store, prefix } => with_keys(call)
            .env("WALG_S3_PREFIX", format!("s3://{}/{prefix}", store::BUCKET))
            .env("AWS_ENDPOINT", store.endpoint())
            .env("AWS_S3_FORCE_PATH_STYLE", "true"),
    }
}

fn barman(home: &Home, path: &str) -> Call {
    let (url, endpoint) = bucket(home);
    let call = with_keys(home.call()).program(["barman-cloud-wal-archive", "--endpoint-url"]);
    call.arg(endpoint).arg(url).arg("bench").arg(path)
}

fn aws(home: &Home, path: &str) -> Call {
    let (url, endpoint) = bucket(home);
    let call = with_keys(home.call()).program(["aws", "--endpoint-url"]).arg(endpoint);
    let call = ["s3", "cp", "--only-show-errors"].iter().fold(call, Call::arg);
    call.arg(path).arg(format!("{url}/{}", path.trim_start_matches("pg_wal/")))
}

fn curl(home: &Home, path: &str) -> Call {
    let (_, endpoint) = bucket(home);
    let Place::Bucket { prefix, .. } = &home.place else { unreachable!("it has a bucket") };
    let name = path.trim_start_matches("pg_wal/");
    let compressed = home.root.join(name);
    let mut zstd = Command::new("zstd");
    zstd.args(["-q", "-f", "-1", "--check"]).arg(home.pgdata.join(path)).arg("-o").arg(&compressed);
    assert!(zstd.status().is_ok_and(|status| status.success()), "compress {path}");
    let url = format!("{endpoint}/{}/{prefix}/{name}", store::BUCKET);
    let keys = format!("{}:{}", store::ACCESS_KEY, store::SECRET_KEY);
    let signature = format!("aws:amz:{}:s3", store::REGION);
    home.call()
        .program(["curl", "-s", "-S", "-f", "--aws-sigv4", &signature, "--user", &keys])
        .arg("-H")
        .arg("x-amz-content-sha256: UNSIGNED-PAYLOAD")
        .arg("-T")
        .arg(compressed)
        .arg(url)
}

fn bucket(home: &Home) -> (String, String) {
    let Place::Bucket { store, prefix } = &home.place else {
        unreachable!("it knows S3 only");
    };
    (format!("s3://{}/{prefix}", store::BUCKET), store.endpoint())
}

fn with_keys(call: Call) -> Call {
    call.env("AWS_ACCESS_KEY_ID", store::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", store::SECRET_KEY)
        .env("AWS_REGION", store::REGION)
        .env("AWS_DEFAULT_REGION", store::REGION)
}

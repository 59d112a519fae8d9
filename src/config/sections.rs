//! The tables of the configuration, as what they mean.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::precedence::Merged;
use crate::config::values::Unfit;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::s3::{self, ConditionalPut};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositorySettings {
    /// Without credentials: one that holds some is refused.
    pub url: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushSettings {
    pub deadline: Duration,
    /// How many files may be on their way beside the one asked for; `None`: by processors.
    pub look_ahead: Option<usize>,
    /// How long to go on with them once that one is done.
    pub look_ahead_deadline: Duration,
    pub on_invalid: OnInvalid,
}

/// What becomes of a segment that holds WAL which is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    Refuse,
    /// Stored with a mark.
    Archive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchSettings {
    pub retry_for: Duration,
    /// 0: nothing is fetched ahead.
    pub prefetch_bytes_max: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSettings {
    pub mode: BackupMode,
    pub checkpoint: Checkpoint,
    pub wal_timeout: Duration,
    pub archive_check: Duration,
    /// Where neither --incremental nor --full is said.
    pub incremental: bool,
    /// `None`: the full backup of a chain may be as old as it is.
    pub full_every: Option<Duration>,
    pub chain_max: usize,
    /// `None`: one per processor.
    pub jobs: Option<NonZeroUsize>,
    /// In bytes a second; `None`: no limit.
    pub max_rate: Option<u64>,
    /// `None`: the priority it was started with.
    pub nice: Option<u8>,
}

/// How a backup reads the server's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupMode {
    /// From its data directory.
    Local,
    /// Over the replication protocol.
    Stream,
    /// From its data directory, where that is here.
    Auto,
}

/// The checkpoint a backup begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    Fast,
    Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreSettings {
    /// `None`: one per processor, at most 8.
    pub jobs: Option<NonZeroUsize>,
    /// In bytes a second; `None`: no limit.
    pub max_rate: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VerifySettings {
    /// How much of the content is read, 1.0 for all.
    pub sample: f64,
    /// `None`: one per processor.
    pub jobs: Option<NonZeroUsize>,
    /// In bytes a second; `None`: no limit.
    pub max_rate: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillSettings {
    /// `None`: `state_dir`, else /var/tmp.
    pub directory: Option<PathBuf>,
    /// For shared buffers, in bytes.
    pub memory: u64,
    pub nice: u8,
    pub timeout: Duration,
}

/// What the owner of the cluster wants to be able to rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectiveSettings {
    /// How long a recovery may take.
    pub rto: Option<Duration>,
    /// For how long at most a commit may be nowhere but on its server.
    pub rpo: Option<Duration>,
}

impl RepositorySettings {
    pub(super) fn all(merged: &Merged) -> Result<Vec<Self>> {
        let mut all: Vec<RepositorySettings> = Vec::new();
        for (url, origin) in merged.urls("repository.url")? {
            let wrong = if url.is_empty() {
                "is empty"
            } else if all.iter().any(|other| other.url == url) {
                "names the same place as another"
            } else {
                all.push(RepositorySettings { url });
                continue;
            };
            return Err(Error::new(ErrorKind::Usage, format!("repository.url ({origin}) {wrong}"))
                .hint("Write one URL for each place, like s3://bucket/prefix."));
        }
        Ok(all)
    }
}

/// The s3:// repositories' options. Credentials are not among them: they come by the cloud's own
/// chain.
pub(super) fn s3(merged: &Merged) -> Result<s3::Options> {
    let options = s3::Options {
        endpoint: merged.url("s3.endpoint")?,
        region: merged.text("s3.region")?,
        path_style: merged.switch("s3.path_style")?,
        storage_class: merged.text("s3.storage_class")?,
        sse: merged.choice("s3.sse")?.map(str::to_owned),
        kms_key_id: merged.text("s3.kms_key_id")?,
        ca_file: merged.path("s3.ca_file")?,
        request_timeout: positive(merged, "s3.request_timeout")?,
        connect_timeout: positive(merged, "s3.connect_timeout")?,
        conditional_put: match merged.choice("s3.conditional_put")? {
            Some("yes") => ConditionalPut::Yes,
            Some("no") => ConditionalPut::No,
            _ => ConditionalPut::Auto,
        },
        credentials: None,
    };
    let is_http = |url: &String| url.starts_with("http://") || url.starts_with("https://");
    if options.endpoint.as_ref().is_some_and(|url| !is_http(url)) {
        let write = "Write it like \"https://s3.example.org\".".to_owned();
        let wrong = "is neither an http:// nor an https:// URL".to_owned();
        return Err(merged.refuse("s3.endpoint", Unfit { wrong, write }));
    }
    let by_kms = options.sse.as_deref().is_some_and(|sse| sse.starts_with("aws:kms"));
    if options.kms_key_id.is_some() && !by_kms {
        let write = "Set s3.sse to \"aws:kms\", or drop the key.".to_owned();
        let wrong = "the key would not be used".to_owned();
        return Err(merged.refuse("s3.kms_key_id", Unfit { wrong, write }));
    }
    Ok(options)
}

impl PushSettings {
    pub(super) fn interpret(merged: &Merged) -> Result<Self> {
        let look_ahead = merged.number("push.look_ahead")?;
        Ok(PushSettings {
            deadline: positive(merged, "push.deadline")?,
            look_ahead: look_ahead.and_then(|files| usize::try_from(files).ok()),
            look_ahead_deadline: merged.span("push.look_ahead_deadline")?,
            on_invalid: match merged.choice("push.on_invalid")? {
                Some("archive") => OnInvalid::Archive,
                _ => OnInvalid::Refuse,
            },
        })
    }
}

impl FetchSettings {
    pub(super) fn interpret(merged: &Merged) -> Result<Self> {
        Ok(FetchSettings {
            retry_for: merged.span("fetch.retry_for")?,
            prefetch_bytes_max: merged.size("fetch.prefetch_bytes_max")?.unwrap_or_default(),
        })
    }
}

impl BackupSettings {
    pub(super) fn interpret(merged: &Merged) -> Result<Self> {
        Ok(BackupSettings {
            mode: match merged.choice("backup.mode")? {
                Some("local") => BackupMode::Local,
                Some("stream") => BackupMode::Stream,
                _ => BackupMode::Auto,
            },
            checkpoint: match merged.choice("backup.checkpoint")? {
                Some("spread") => Checkpoint::Spread,
                _ => Checkpoint::Fast,
            },
            wal_timeout: merged.span("backup.wal_timeout")?,
            archive_check: merged.span("backup.archive_check")?,
            incremental: merged.switch("backup.incremental")?.unwrap_or_default(),
            full_every: Some(merged.span("backup.full_every")?).filter(|span| !span.is_zero()),
            chain_max: usize::try_from(merged.number("backup.chain_max")?.unwrap_or(30))
                .unwrap_or(usize::MAX),
            jobs: jobs(merged, "backup.jobs")?,
            max_rate: merged.size("backup.max_rate")?,
            nice: merged.number("backup.nice")?.and_then(|nice| u8::try_from(nice).ok()),
        })
    }
}

impl RestoreSettings {
    pub(super) fn interpret(merged: &Merged) -> Result<Self> {
        Ok(RestoreSettings {
            jobs: jobs(merged, "restore.jobs")?,
            max_rate: merged.size("restore.max_rate")?,
        })
    }
}

impl VerifySettings {
    pub(super) fn interpret(merged: &Merged) -> Result<Self> {
        Ok(VerifySettings {
            sample: merged.share("verify.sample")?.unwrap_or(1.0),
            jobs: jobs(merged, "verify.jobs")?,
            max_rate: merged.size("verify.max_rate")?,
        })
    }
}

impl DrillSettings {
    pub(super) fn interpret(merged: &Merged) -> Result<Self> {
        Ok(DrillSettings {
            directory: merged.path("drill.directory")?,
            memory: merged.size("drill.memory")?.unwrap_or(128 << 20),
            nice: merged.number("drill.nice")?.and_then(|n| u8::try_from(n).ok()).unwrap_or(10),
            timeout: positive(merged, "drill.timeout")?,
        })
    }
}

impl ObjectiveSettings {
    pub(super) fn interpret(merged: &Merged) -> Result<Self> {
        let span = |path| merged.span(path).map(|span| Some(span).filter(|span| !span.is_zero()));
        Ok(ObjectiveSettings { rto: span("objectives.rto")?, rpo: span("objectives.rpo")? })
    }
}

fn jobs(merged: &Merged, path: &'static str) -> Result<Option<NonZeroUsize>> {
    let jobs = merged.number(path)?;
    Ok(jobs.and_then(|jobs| usize::try_from(jobs).ok()).and_then(NonZeroUsize::new))
}

/// A time-out of zero would fail everything, which nobody means.
pub(super) fn positive(merged: &Merged, path: &'static str) -> Result<Duration> {
    let span = merged.span(path)?;
    if span.is_zero() {
        let write = "Write the time that is allowed, like \"30s\".".to_owned();
        return Err(
            merged.refuse(path, Unfit { wrong: "nothing is done in no time".into(), write })
        );
    }
    Ok(span)
}

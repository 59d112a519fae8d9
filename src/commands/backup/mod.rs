//! Takes a base backup: begin, copy, end, wait for its WAL, publish; last of all the manifest.
//!
//! Until the manifest is there, nothing is a backup: whatever fails or is interrupted leaves packs
//! that nobody reads.

mod session;
mod source;
mod archiver;
mod basis;
mod local;
mod stream;
mod copy;
mod tar_frames;
mod halt;
mod names;
mod configuration;
mod facts;
mod damage;
mod finish;
mod report;
mod trail;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::codec::{Compression, Origin};
use crate::commands::audit::Deed;
use crate::commands::{App, Retries};
use crate::config;
use crate::error::{Context, Result};
use crate::host::{self, clock, termination};
use crate::postgres::connection::ConnectionOptions;
use crate::postgres::replication::{BackupEnd, BackupStart};
use crate::repository::audit::Verb;
use crate::repository::manifest::{FileEntry, Pack};
use crate::repository::{BackupId, Home, Manifest, NamesFacts, Repository};

use basis::{Basis, Lineage};
use copy::Target;
use facts::Took;
use local::Damage;
use session::Session;
use source::Source;

pub use crate::commands::progress::Progress;
pub use basis::Incremental;
pub use report::Report;

/// A store that is away for so long is away.
const STORE_PATIENCE: Duration = Duration::from_secs(300);

const TOLD_WHILE_PUBLISHING: &str = "walden: backup: told to stop while it published (hint: walden \
                                     list says whether the backup is there.)";

#[derive(Debug, Clone)]
pub struct Request {
    /// To the server, of its SQL side: the replication connection is derived from it.
    pub connection: ConnectionOptions,
    pub mode: config::BackupMode,
    /// The data directory, where it is named.
    pub pgdata: Option<PathBuf>,
    /// `None`: "walden" and the backup's id.
    pub label: Option<String>,
    /// What its owner wants noted, as `taken::notes` lets it pass.
    pub notes: BTreeMap<String, String>,
    pub checkpoint: config::Checkpoint,
    /// In bytes a second.
    pub max_rate: Option<u64>,
    /// Threads that compress; `None`: one per processor.
    pub jobs: Option<NonZeroUsize>,
    pub wal_timeout: Duration,
    /// `None`: no look at the archiver.
    pub archive_check: Option<Duration>,
    pub compression: Compression,
    pub incremental: Incremental,
}

pub fn run(app: &App, request: &Request, progress: &Progress) -> Result<Report> {
    let repository = app.repository(Retries::PerCall(STORE_PATIENCE))?;
    take(&repository, request, progress)
}

/// The same into any repository.
pub fn take(repository: &Repository, request: &Request, progress: &Progress) -> Result<Report> {
    let (deed, clock) = (Deed::begin(Verb::Backup), Instant::now());
    progress.enter("connecting to PostgreSQL");
    let (session, source) = Session::open(request)?;
    let home = repository.home(source.system_identifier);
    basis::refuse_unknown_parent(&home, &request.incremental)?;
    let copied = copy(&home, (session, &source), request, (progress, clock));
    let published = copied.and_then(|copied| {
        let Unpublished { manifest, names, lineage } = copied;
        progress.enter("publishing the backup");
        let _step = termination::last_step(TOLD_WHILE_PUBLISHING);
        home.publish(&manifest, request.compression)
            .context(|| format!("publish backup {}", manifest.id))?;
        let report = report::report(repository, &manifest, names, lineage, clock.elapsed());
        trail::record(&deed, &home, &report);
        Ok(report)
    });
    published.inspect_err(|error| trail::record_failure(&deed, &home, error))
}

/// All but the manifest is in the repository, with the WAL that it needs.
struct Unpublished {
    manifest: Manifest,
    names: Option<NamesFacts>,
    lineage: Lineage,
}

fn copy(
    home: &Home,
    (mut session, source): (Session, &Source),
    request: &Request,
    (progress, clock): (&Progress, Instant),
) -> Result<Unpublished> {
    let ahead = archiver::check(session.connection(), source, home, request)?;
    let began = server_time(ahead);
    let id = BackupId::new(began, fastrand::u16(..));
    let origin = Origin {
        host: host::name(),
        source: session.connection().place().to_owned(),
        system_identifier: source.system_identifier,
        time: began,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let target = Target {
        home,
        id: &id,
        origin: &origin,
        compression: request.compression,
        jobs: jobs(request),
    };
    let basis = basis::find(home, source, request, &mut session)?;
    let wanted = Wanted { request, basis };
    let copied = session.copy(source, &target, wanted, progress)?;
    let copy = progress.under_way_for();
    finish::refuse_timeline_switch(&copied.start, &copied.end)?;
    let ended = server_time(ahead);
    let history = session.history(copied.start.timeline);
    let mode = session.mode();
    drop(session);

    let level = request.compression;
    home.put_sums(&id, &copied.sums, &origin, level).context(|| "store the checksums of chunks")?;
    let label = label(request, &id);
    let lineage = copied.lineage.clone();
    let mut manifest = report::manifest(source, &target, copied, (began, ended), (mode, label));
    let options = &request.connection;
    let names = names::save(&target, options, progress);
    let (names, saved) = names.map_or((None, None), |(names, facts)| (Some(names), Some(facts)));
    damage::tell(&mut manifest, names.as_ref());
    manifest.names = names.is_some();
    drop(names);
    manifest.configuration = configuration::save(&target, options, mode, progress);
    finish::wait_for_wal(home, &manifest, request.wal_timeout, options, progress)?;
    finish::provide_history(&target, manifest.timeline, history)?;
    let took = Took { copy, whole: clock.elapsed() };
    facts::add(&mut manifest, source, &target, request, took);
    Ok(Unpublished { manifest, names: saved, lineage })
}

/// Commits carry times of the server's clock, and so do targets.
fn server_time(ahead: jiff::SignedDuration) -> jiff::Timestamp {
    let now = clock::now();
    let time = now.checked_add(ahead).unwrap_or(now);
    time.round(jiff::Unit::Millisecond).unwrap_or(time)
}

fn label(request: &Request, id: &BackupId) -> String {
    request.label.clone().unwrap_or_else(|| format!("walden {id}"))
}

fn jobs(request: &Request) -> usize {
    let processors = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    request.jobs.map_or_else(processors, NonZeroUsize::get)
}

/// What is to be copied.
pub struct Wanted<'w> {
    request: &'w Request,
    basis: Basis,
}

/// What the copy brought.
pub struct Copied {
    start: BackupStart,
    end: BackupEnd,
    files: Vec<FileEntry>,
    sums: Vec<u64>,
    packs: Vec<Pack>,
    lineage: Lineage,
    /// Pages that the source itself has damaged, where they were looked at.
    damage: Damage,
}

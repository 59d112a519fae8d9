//! A backup of files that are read here, on the server's own host, by all cores: begin, plan, copy,
//! end, then what only the end can tell.

mod server;
mod walk;
mod plan;
mod small_files;
mod since;
mod changes;
mod workers;
mod pack;
mod frames;
mod read;
mod seams;
mod pages;
mod unlogged;
mod tail;

use std::thread;

use crate::commands::backup::archiver::Watch;
use crate::commands::backup::basis::Basis;
use crate::commands::backup::copy::Target;
use crate::commands::backup::halt::{Halt, others_stopped};
use crate::commands::backup::source::Source;
use crate::commands::backup::{Copied, Request, Wanted, label};
use crate::commands::progress::Progress;
use crate::config;
use crate::error::Result;
use crate::host::bandwidth::Bandwidth;
use crate::postgres::low_level_backup::LowLevelBackup;
use crate::postgres::page::BLOCKS_PER_FILE;
use crate::postgres::replication::{BackupStart, Checkpoint};

use pack::{Findings, Maker};
use pages::PageCheck;
use plan::Plan;
use read::Reader;
use seams::Seams;
use since::{PagesOf, Since};
use tail::Tail;
use walk::{Ground, Walked};
use workers::{make_all, uploading};

pub use pages::Damage;
pub use server::LocalServer;

/// Copies what the server's data directory holds.
pub fn copy(
    server: &mut LocalServer,
    source: &Source,
    target: &Target<'_>,
    Wanted { request, basis }: Wanted<'_>,
    progress: &Progress,
) -> Result<Copied> {
    progress.enter("waiting for the server's checkpoint");
    let rules = server.page_rules()?;
    let basis = server.accept(basis)?;
    let LocalServer { connection, pgdata } = server;
    let label = label(request, target.id);
    let _cancel = connection.cancel_when_told()?;
    let mut backup = LowLevelBackup::start(connection, &label, checkpoint(request))?;
    let basis = server::accept_place(basis, source, &mut backup)?;
    let catalog_version = server::expect_its_files(pgdata, &backup)?;

    let halt = Halt::new(|| {});
    let bandwidth = Bandwidth::new(request.max_rate);
    let reader = Reader { pgdata, bandwidth: &bandwidth, progress, halt: &halt };
    let ground = Ground::new(pgdata, source, catalog_version, target.jobs);
    let start = started(&backup);
    let watch = Watch::of(source, target, request, &start);

    let copied = thread::scope(|scope| {
        if let Some(watch) = &watch {
            scope.spawn(|| watch.run(&halt));
        }
        let copied = copy_files(backup, (source, &basis), (target, &ground), &reader, rules);
        copied.map_err(|error| {
            halt.fail(error);
            others_stopped()
        })
    });
    match halt.error() {
        Some(error) => Err(error),
        None => copied,
    }
}

fn copy_files(
    mut backup: LowLevelBackup<'_>,
    (source, basis): (&Source, &Basis),
    (target, ground): (&Target<'_>, &Ground<'_>),
    reader: &Reader<'_>,
    rules: Option<server::BlocksPerFile>,
) -> Result<Copied> {
    let (halt, progress) = (reader.halt, reader.progress);
    let Walked { items, linked } = items(ground, basis, rules.is_some(), reader)?;
    let mut plan = Plan::new(items);
    progress.expect(progress.done() + plan.size());
    progress.enter("copying");
    let pages = PageCheck::new(rules.map(|blocks| blocks.since(backup.start_lsn)));
    let (mut findings, seams) = (Findings::default(), Seams::default());
    findings.expect_chunks(plan.chunks());
    let (tail, packs) = uploading(target, halt, |uploads| {
        let (shared, found) = (&plan, &findings);
        let maker = Maker { plan: shared, reader, pages: &pages, seams: &seams, findings: found };
        let open = make_all(&maker, target, halt, uploads, || backup.is_alive())?;
        progress.enter("ending the backup");
        let position = plan.end();
        let tail = Tail::end(backup, (source, reader, basis), &mut plan, &linked, &mut findings)?;
        let maker =
            Maker { plan: &plan, reader, pages: &pages, seams: &seams, findings: &findings };
        tail::make(&maker, open, position, uploads)?;
        Ok(tail)
    })?;
    let damage = pages.finish(tail.end_lsn());
    let copied = tail.copied(packs, plan, &findings, damage)?;
    Ok(Copied { lineage: basis.lineage(), ..copied })
}

/// Everything there is to copy, or what has changed of it.
fn items(
    ground: &Ground<'_>,
    basis: &Basis,
    have_checksums: bool,
    reader: &Reader<'_>,
) -> Result<Walked> {
    reader.progress.enter("looking at the files");
    let Walked { items, linked } = walk::walk(ground)?;
    let items = small_files::read(ground.pgdata, items)?;
    let Basis::Parent(parent) = basis else { return Ok(Walked { items, linked }) };
    reader.progress.enter("looking for what has changed");
    let pages = PagesOf { have_checksums, in_file: BLOCKS_PER_FILE };
    let since = Since::new(parent, &items, pages);
    Ok(Walked { items: changes::thin_out(items, &since, reader, ground.jobs)?, linked })
}

fn checkpoint(request: &Request) -> Checkpoint {
    match request.checkpoint {
        config::Checkpoint::Fast => Checkpoint::Fast,
        config::Checkpoint::Spread => Checkpoint::Spread,
    }
}

/// As far as it is known before the end.
fn started(backup: &LowLevelBackup<'_>) -> BackupStart {
    BackupStart {
        lsn: backup.start_lsn,
        timeline: backup.timeline,
        tablespaces: Vec::new(),
        size: 0,
    }
}

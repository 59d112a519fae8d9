//! A backup of files that are read here, on the server's own host, by all cores: begin, plan, copy,
//! end, then what only the end can tell.

mod server;
mod walk;
mod plan;
mod small_files;
mod workers;
mod pack;
mod frames;
mod read;
mod seams;
mod pages;
mod tail;

use std::thread;

use crate::commands::backup::archiver::Watch;
use crate::commands::backup::copy::Target;
use crate::commands::backup::halt::Halt;
use crate::commands::backup::source::Source;
use crate::commands::backup::{Copied, Request, label};
use crate::commands::progress::Progress;
use crate::config;
use crate::error::Result;
use crate::host::bandwidth::Bandwidth;
use crate::postgres::low_level_backup::LowLevelBackup;
use crate::postgres::replication::{BackupStart, Checkpoint};

use pack::{Findings, Maker};
use pages::PageCheck;
use plan::Plan;
use read::Reader;
use seams::Seams;
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
    request: &Request,
    progress: &Progress,
) -> Result<Copied> {
    progress.enter("waiting for the server's checkpoint");
    let rules = server.page_rules()?;
    let LocalServer { connection, pgdata } = server;
    let label = label(request, target.id);
    let _cancel = connection.cancel_when_told()?;
    let mut backup = LowLevelBackup::start(connection, &label, checkpoint(request))?;
    let catalog_version = server::expect_its_files(pgdata, &backup)?;

    progress.enter("looking at the files");
    let ground = Ground::new(pgdata, source, catalog_version, target.jobs);
    let Walked { items, linked } = walk::walk(&ground)?;
    let mut plan = Plan::new(small_files::read(pgdata, items)?);
    progress.expect(plan.size());
    progress.enter("copying");
    let halt = Halt::new(|| {});
    let bandwidth = Bandwidth::new(request.max_rate);
    let reader = Reader { pgdata, bandwidth: &bandwidth, progress, halt: &halt };
    let pages = PageCheck::new(rules.map(|blocks| blocks.since(backup.start_lsn)));
    let (mut findings, seams) = (Findings::default(), Seams::default());
    findings.expect_chunks(plan.chunks());
    let start = started(&backup, &plan);
    let watch = Watch::of(source, target, request, &start);

    let copied = thread::scope(|scope| {
        if let Some(watch) = &watch {
            scope.spawn(|| watch.run(&halt));
        }
        uploading(target, &halt, |uploads| {
            let (shared, found) = (&plan, &findings);
            let maker = Maker {
                plan: shared,
                reader: &reader,
                pages: &pages,
                seams: &seams,
                findings: found,
            };
            let open = make_all(&maker, target, &halt, uploads, || backup.is_alive())?;
            progress.enter("ending the backup");
            let position = plan.end();
            let tail = Tail::end(backup, (pgdata, source), &mut plan, &linked, &mut findings)?;
            let maker = Maker {
                plan: &plan,
                reader: &reader,
                pages: &pages,
                seams: &seams,
                findings: &findings,
            };
            tail::make(&maker, open, position, uploads)?;
            Ok(tail)
        })
    });
    let (tail, packs) = copied?;
    if let Some(error) = halt.error() {
        return Err(error);
    }
    tail.copied(packs, &plan, &findings, pages.finish())
}

fn checkpoint(request: &Request) -> Checkpoint {
    match request.checkpoint {
        config::Checkpoint::Fast => Checkpoint::Fast,
        config::Checkpoint::Spread => Checkpoint::Spread,
    }
}

/// As far as it is known before the end.
fn started(backup: &LowLevelBackup<'_>, plan: &Plan) -> BackupStart {
    BackupStart {
        lsn: backup.start_lsn,
        timeline: backup.timeline,
        tablespaces: Vec::new(),
        size: plan.size(),
    }
}

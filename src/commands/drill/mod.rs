//! `drill`: a rehearsed recovery: into a private place, asked questions, measured, written down,
//! cleaned up.

mod point;
mod scratch;
mod processes;
pub mod guard;
pub mod sweep;
mod isolation;
mod moments;
mod stages;
pub mod recovered;
mod superuser;
mod ended;
mod objectives;
mod failure;
mod record;
mod rehearsal;
mod dump;
pub mod checks;
pub mod extract;

use std::path::PathBuf;
use std::time::Duration;

use crate::catalog::TargetTimeline;
use crate::commands::audit::Deed;
use crate::commands::progress::Progress;
use crate::commands::{App, Retries, survey};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::host::priority;
use crate::postgres::SystemIdentifier;
use crate::repository::audit::Verb;
use crate::repository::drill_record::{DrillRecord, Verdict};
use crate::repository::{BackupId, Home, Repository};

pub use point::Wish;
pub use recovered::Recovered;

use checks::Answers;
use rehearsal::{Purpose, Rehearsal};

/// What a drill is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    pub wish: Wish,
    pub exclusive: bool,
    pub timeline: TargetTimeline,
    pub backup: Option<String>,
    pub system_identifier: Option<SystemIdentifier>,
    /// Where its directory is made; absolute, and there.
    pub root: PathBuf,
    /// Whom the server runs as, where root drills.
    pub owner: Option<String>,
    /// PostgreSQL's programs.
    pub bin: Option<PathBuf>,
    /// Programs of another minor version than the source's are refused.
    pub same_minor: bool,
    /// Libraries that may be preloaded.
    pub preload: Vec<String>,
    /// For the server's shared buffers, in bytes.
    pub memory: u64,
    pub nice: u8,
    /// In bytes fetched in a second.
    pub max_rate: Option<u64>,
    pub jobs: usize,
    pub timeout: Duration,
    /// The server is left running, for people to look at.
    pub keep: bool,
    /// This program.
    pub program: PathBuf,
}

/// What is asked of the recovered server; the record is that of the drill before.
pub type Ask<'a> = &'a dyn Fn(&Recovered, Option<&DrillRecord>) -> Answers;

/// A store that is away for a moment is waited for.
const RETRY_FOR: Duration = Duration::from_secs(120);
const HINT: &str = "A drill that was not carried out proves nothing: run it again once this is \
                    mended.";

/// Recovers, asks, measures, cleans up and writes it down. An error: nothing could be written down;
/// everything else, whatever came out, is in the record.
pub fn run(app: &App, request: &Request, ask: Ask<'_>, progress: &Progress) -> Result<DrillRecord> {
    priority::lower(request.nice);
    let deed = Deed::begin(Verb::Drill);
    let deadline = Deadline::after(request.timeout);
    let (repository, home) = find(app, request).map_err(not_begun)?;
    let id = BackupId::new(deed.began(), fastrand::u16(..));
    let record = record::begin(&home, &repository, id, &deed);
    let purpose = Purpose::Evidence;
    let mut rehearsal = Rehearsal { app, request, purpose, repository, home, deadline, record };
    progress.enter("choosing");
    rehearsal.carry_out(ask, progress);
    let Rehearsal { home, mut record, .. } = rehearsal;
    record::conclude(&mut record);
    write_down(&home, &record)?;
    deed.end(&home, record::outcome(&record), &record::summary(&record), record::details(&record));
    Ok(record)
}

fn find(app: &App, request: &Request) -> Result<(Repository, Home)> {
    let repository = app.repository(Retries::PerCall(RETRY_FOR.min(request.timeout)))?;
    let backup = request.backup.as_deref().map(str::parse).transpose()?;
    let asked = request.system_identifier;
    let home = match survey::find_home(&repository, asked, backup.as_ref()) {
        // A cluster that archives and has no backup cannot be recovered: that is an answer.
        Err(error) if error.kind() == ErrorKind::Refused && backup.is_none() => {
            survey::find_archive(&repository, asked).map_err(|_| error)?
        }
        found => found?,
    };
    Ok((repository, home))
}

/// Words that make no sense stay what they are; all else leaves the question open.
fn not_begun(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Usage | ErrorKind::Interrupted | ErrorKind::Bug => error,
        _ => error.with_kind(ErrorKind::CouldNotCheck).hint(HINT),
    }
}

/// Without its evidence a drill is worth nothing.
fn write_down(home: &Home, record: &DrillRecord) -> Result<()> {
    let written = home.put_drill(record).context(|| {
        let outcome = match record.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Incomplete => "was not completed",
        };
        format!("drill {} {outcome}, and its record cannot be written", record.id)
    });
    written.map_err(|error| {
        error
            .with_kind(ErrorKind::CouldNotCheck)
            .hint("Let walden write below drill/ in the repository, and run the drill again.")
    })
}

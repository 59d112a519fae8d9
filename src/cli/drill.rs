//! `walden drill`: flags to a request, the record to words; `text` has them.

mod checks;
mod extract;
mod text;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

use crate::catalog::{Target, TargetTimeline};
use crate::cli::exit;
use crate::cli::progress::shown;
use crate::cli::restore::{Point, jobs, own_program};
use crate::commands::App;
use crate::commands::drill::{self, Request, Wish, guard, sweep};
use crate::commands::progress::Progress;
use crate::commands::restore::destination::absolute;
use crate::config::values;
use crate::error::{Error, ErrorKind, Result};
use crate::host::{termination, watchdog};
use crate::postgres::SystemIdentifier;
use crate::repository::drill_record::{DrillRecord, Verdict};

/// Where drills go when nobody says otherwise: what is there is expected to be large, and lasts.
const ROOM: &str = "/var/tmp";
/// What may still be under way when the time is over: a pack, a query, the cleaning up.
const GRACE: Duration = Duration::from_secs(120);
const MEMORY_MIN: u64 = 16 << 20;
const TOLD_TO_STOP: &str = "walden: drill: told to stop (hint: What it made is removed, and \
                            nothing was written down; run it again.)";

/// Rehearses a recovery: into a private directory, with a server that nobody can reach, up to a
/// commit that is known; asks it questions, measures, writes down what came of it, and removes all
/// of it.
///
/// Without a target a commit is drawn by lot from what can be recovered of the newest timeline: so
/// that a timer rehearses another one each time. What the drill has found is written into the
/// repository, as drill/<id>.json.
///
/// It can run beside the live server: it connects to nothing, archives nothing, and what it
/// restores stays in its own directory, tablespaces included.
#[derive(Debug, clap::Args)]
pub struct Drill {
    /// A commit drawn by lot; this is what is done if no target is said.
    #[arg(long, conflicts_with_all = ["latest", "Point", "extract"], help_heading = TARGET)]
    random: bool,
    /// Draws the same commit again, as long as the repository is the same.
    #[arg(long, value_name = "N", conflicts_with_all = ["latest", "Point", "extract"],
          help_heading = TARGET)]
    seed: Option<u32>,
    /// The end of the archived WAL, as --target-latest.
    #[arg(long, conflicts_with = "Point", help_heading = TARGET)]
    latest: bool,
    #[command(flatten)]
    point: Point,
    /// Which branch to follow: latest, current (the backup's own) or a number.
    #[arg(long, visible_alias = "timeline", value_name = "TIMELINE", default_value = "latest",
          help_heading = TARGET)]
    target_timeline: TargetTimeline,
    /// Stop just before the target instead of just after it (time, LSN and transaction).
    #[arg(long, requires = "Point", help_heading = TARGET)]
    target_exclusive: bool,
    /// This backup instead of the newest that fits.
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// The cluster, where several have backups under one name.
    #[arg(long, value_name = "NUMBER")]
    system_identifier: Option<SystemIdentifier>,
    /// Where the drill makes its directory, of the size of the cluster.
    #[arg(long, value_name = "DIR", help_heading = HOST)]
    scratch: Option<PathBuf>,
    /// Whom the server runs as, where root drills; else postgres, or nobody.
    #[arg(long, value_name = "USER", help_heading = HOST)]
    owner: Option<String>,
    /// PostgreSQL's programs.
    #[arg(long, value_name = "DIR", help_heading = HOST)]
    pg_bin: Option<PathBuf>,
    /// Refuse programs of another minor version than the source's; else it is a note.
    #[arg(long, help_heading = HOST)]
    same_minor: bool,
    /// Libraries the server may preload, though they may do what they like; none if not said.
    #[arg(long, value_name = "LIBRARY", value_delimiter = ',', help_heading = HOST)]
    allow_preload: Vec<String>,
    /// Shared buffers of the server.
    #[arg(long, value_name = "SIZE", help_heading = HOST)]
    memory: Option<ByteSize>,
    /// A lower priority for processor and disk, up to 19.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=19),
          help_heading = HOST)]
    nice: Option<u8>,
    /// The most that is fetched in a second.
    #[arg(long, value_name = "SIZE", help_heading = HOST)]
    max_rate: Option<ByteSize>,
    /// Packs fetched at the same time; each holds up to 64 MiB.
    #[arg(long, value_name = "N", help_heading = HOST)]
    jobs: Option<NonZeroUsize>,
    /// How long it may take: 45min, 2h.
    #[arg(long, value_name = "SPAN", value_parser = span, help_heading = HOST)]
    timeout: Option<Duration>,
    #[command(flatten)]
    checks: checks::Checks,
    #[command(flatten)]
    extract: extract::Extract,
    /// Leave the server running, and say how to connect to it and how to remove it.
    #[arg(long, conflicts_with = "extract")]
    keep: bool,
    /// Only remove what earlier drills left behind or kept.
    #[arg(long, conflicts_with_all = ["keep", "random", "seed", "latest", "Point"])]
    sweep: bool,
}

const TARGET: &str = "Recovery target";
const HOST: &str = "This host";

/// Waits for a drill to end, and cleans up where it did not; the drill starts it by itself.
#[derive(Debug, clap::Args)]
pub struct DrillGuard {
    directory: PathBuf,
}

impl DrillGuard {
    pub fn run(self) -> Result<()> {
        guard::refuse_other(&self.directory)?;
        guard::stand(&self.directory)
    }
}

impl Drill {
    pub fn run(self, app: &App) -> Result<()> {
        let output = app.settings.output;
        if self.sweep {
            let swept = sweep::sweep(&root(self.scratch.as_deref(), app)?, true);
            print!("{}", text::swept(&swept));
            return Ok(());
        }
        if self.extract.is_asked() {
            return self.bring_back(app);
        }
        let wanted = self.checks.wanted(self.pg_bin.clone())?;
        let request = self.request(app)?;
        watch(&request);
        let progress = Progress::default();
        let ask = |server: &drill::Recovered, previous: Option<&DrillRecord>| {
            drill::checks::ask(server, &wanted, previous)
        };
        let record = shown(&progress, output, || drill::run(app, &request, &ask, &progress))?;
        match output.json {
            true => println!("{}", text::json(&record)?),
            false => print!("{}", text::record(&record)),
        }
        conclude(&record)
    }

    fn request(self, app: &App) -> Result<Request> {
        let settings = &app.settings.drill;
        let memory = self.memory.map_or(settings.memory, |size| size.as_u64());
        if memory < MEMORY_MIN {
            return Err(Error::new(ErrorKind::Usage, "no server runs on so little memory")
                .hint("Give it --memory 16MiB at least."));
        }
        let jobs = jobs(self.jobs, app);
        Ok(Request {
            root: root(self.scratch.as_deref(), app)?,
            exclusive: self.target_exclusive,
            timeline: self.target_timeline,
            wish: match (self.latest, self.point.is_said()) {
                (true, _) => Wish::Target(Target::Latest),
                (false, true) => Wish::Target(self.point.target()?),
                (false, false) => {
                    Wish::Random { seed: self.seed.unwrap_or_else(|| fastrand::u32(..)) }
                }
            },
            backup: self.backup,
            system_identifier: self.system_identifier,
            owner: self.owner,
            bin: self.pg_bin,
            same_minor: self.same_minor,
            preload: self.allow_preload,
            memory,
            nice: self.nice.unwrap_or(settings.nice),
            max_rate: self.max_rate.map(|rate| rate.as_u64()),
            jobs,
            timeout: self.timeout.unwrap_or(settings.timeout),
            keep: self.keep,
            program: own_program()?,
        })
    }
}

/// However it goes, it ends, and cleans up.
fn watch(request: &Request) {
    termination::exit_when_told(exit::code(ErrorKind::Interrupted), TOLD_TO_STOP);
    let limit = request.timeout + GRACE;
    watchdog::start(limit, exit::code(ErrorKind::CouldNotCheck), move || {
        let seconds = limit.as_secs();
        format!("walden: drill: no outcome after {seconds} s (hint: Is a disk or a mount stuck?)")
    });
}

/// It must be there: a missing one is most likely a disk that is not mounted.
fn root(asked: Option<&Path>, app: &App) -> Result<PathBuf> {
    let configured = app.settings.drill.directory.as_deref();
    let state = app.settings.state_dir.as_deref().filter(|state| state.is_dir());
    let root = absolute(asked.or(configured).or(state).unwrap_or(Path::new(ROOM)))?;
    if root.is_dir() {
        return Ok(root);
    }
    Err(Error::new(ErrorKind::CouldNotCheck, format!("{} is no directory", root.display()))
        .hint("Make it, or mount its disk, or name another by --scratch DIR."))
}

/// The verdict is the exit code.
fn conclude(record: &DrillRecord) -> Result<()> {
    let reason = || record.reasons.first().cloned().unwrap_or_default();
    let reason = reason().trim_end_matches('.').to_owned();
    match record.verdict {
        Verdict::Passed => Ok(()),
        Verdict::Failed => {
            Err(Error::new(ErrorKind::FoundWrong, format!("drill {} failed: {reason}", record.id)))
        }
        Verdict::Incomplete => Err(Error::new(
            ErrorKind::CouldNotCheck,
            format!("drill {} was not completed: {reason}", record.id),
        )),
    }
}

fn span(text: &str) -> std::result::Result<Duration, String> {
    match values::span(text) {
        Ok(span) if span.is_zero() => Err("nothing is done in no time".to_owned()),
        Ok(span) => Ok(span),
        Err(unfit) => Err(format!("{} {}", unfit.wrong, unfit.write)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::Drill;

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        drill: Drill,
    }

    fn parse(words: &[&str]) -> Result<Drill, clap::Error> {
        Words::try_parse_from([&["drill"], words].concat()).map(|words| words.drill)
    }

    #[test]
    fn one_point_is_rehearsed() {
        for words in [
            &["--latest", "--random"][..],
            &["--latest", "--target-xid", "745"],
            &["--random", "--target-latest"],
            &["--seed", "7", "--target-immediate"],
            &["--target-exclusive"],
            &["--sweep", "--keep"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        for words in [&[][..], &["--random", "--seed", "7"], &["--seed", "7"], &["--latest"]] {
            assert!(!parse(words).unwrap().point.is_said(), "{words:?}");
        }
        let exclusive = parse(&["--target-lsn", "0/1", "--target-exclusive"]).unwrap();
        assert!(exclusive.point.is_said());
    }

    #[test]
    fn a_span_has_a_unit_and_libraries_are_a_list() {
        assert!(parse(&["--timeout", "0s"]).is_err());
        assert!(parse(&["--timeout", "90"]).is_err());
        let drill = parse(&["--timeout", "90s", "--allow-preload", "a,b"]).unwrap();
        assert_eq!(drill.timeout.unwrap().as_secs(), 90);
        assert_eq!(drill.allow_preload, ["a", "b"]);
    }
}

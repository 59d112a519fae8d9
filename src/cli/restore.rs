//! `walden restore`: flags to a request, progress to a bar; `text` has the words.

mod extract;
mod text;

use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::tz::TimeZone;

use crate::catalog::{Target, TargetAction, TargetTimeline, Wanted, Zones};
use crate::cli::exit;
use crate::cli::progress::shown;
use crate::commands::audit::Deed;
use crate::commands::progress::Progress;
use crate::commands::restore::wait;
use crate::commands::restore::{self, Done, Prepared, Request, recovery};
use crate::commands::{App, Retries};
use crate::config::Output;
use crate::error::{Error, ErrorKind, Result};
use crate::host::{clock, processors, termination};
use crate::postgres::SystemIdentifier;
use crate::postgres::installation::Installation;
use crate::repository::audit::Verb;

/// Each job holds a pack of up to 64 MiB; more of them would not make a disk faster.
const JOBS_UNASKED_MAX: usize = 8;
/// A restore that failed begins anew: a store that is away for a moment is waited for.
const RETRY_FOR: Duration = Duration::from_secs(120);

/// Places a backup and writes the recovery settings for a target.
///
/// The newest backup that ended before the target is chosen. The plan is printed before anything
/// is changed; --dry-run stops there. The directory must be empty or not there yet, or hold this
/// cluster, with --delta. What was interrupted goes on when the same command is run again.
///
/// There is no default target: say exactly one of --target-time, --target-lsn, --target-xid,
/// --target-name, --target-immediate and --target-latest.
///
/// Once the target is reached the server pauses, as PostgreSQL's own default is: look first, then
/// let it go with `SELECT pg_wal_replay_resume()`, or say --target-action promote. With
/// --target-latest it is promoted at the end of the archived WAL.
///
/// The restored server does not archive (archive_mode = off), so that it never writes into the
/// archive of the one it was made from; --adopt lets it take over.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// The new data directory; with --file the new file, or - for standard output.
    directory: PathBuf,
    #[command(flatten)]
    point: Point,
    /// Which branch to follow: latest, current (the backup's own) or a number.
    #[arg(long, value_name = "TIMELINE", default_value = "latest", help_heading = TARGET)]
    target_timeline: TargetTimeline,
    /// What the server does at the target: pause (if not said), promote or shutdown.
    #[arg(long, value_name = "ACTION", help_heading = TARGET)]
    target_action: Option<TargetAction>,
    /// Stop just before the target instead of just after it (time, LSN and transaction).
    #[arg(long, help_heading = TARGET)]
    target_exclusive: bool,
    /// This backup instead of the newest that fits.
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// The cluster, where several have backups under one name.
    #[arg(long, value_name = "NUMBER")]
    system_identifier: Option<SystemIdentifier>,
    /// Make a standby, which goes on following the archive.
    #[arg(long)]
    standby: bool,
    /// Let the restored server archive, in the place of the one it was made from.
    #[arg(long)]
    adopt: bool,
    /// Where a tablespace goes; repeat it for each. The old place must be named as such: OLD=OLD.
    #[arg(long, value_name = "OLD=NEW", value_parser = tablespace)]
    tablespace_map: Vec<(PathBuf, PathBuf)>,
    /// Where all other tablespaces go, each into a directory named by its oid.
    #[arg(long, value_name = "DIR")]
    tablespace_root: Option<PathBuf>,
    /// Whom the files shall belong to, where root restores; else the owner of the parent directory,
    /// else postgres.
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Fetch and read all WAL that will be replayed before anything is changed.
    #[arg(long)]
    check_wal: bool,
    /// Into a directory that holds this cluster: files in it that are right are kept, the others
    /// are changed, and all else in it is removed.
    #[arg(long)]
    delta: bool,
    /// Only this database, by name; repeat it for more. template0, template1 and postgres come too;
    /// the files of all others are left empty: drop them afterwards.
    #[arg(long, value_name = "NAME")]
    include_database: Vec<String>,
    #[command(flatten)]
    some: extract::Files,
    /// Bring the configuration files that the cluster keeps outside of its data directory, as
    /// Debian's do in /etc/postgresql: below this directory, or with / where they were. Files that
    /// are there stay.
    #[arg(long, value_name = "DIR")]
    configuration: Option<PathBuf>,
    /// The most that is fetched in a second.
    #[arg(long, value_name = "SIZE")]
    max_rate: Option<ByteSize>,
    /// Print the plan and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Start the server and wait until its recovery has ended. It listens on a socket in the
    /// directory only, and is left running.
    #[arg(long)]
    wait: bool,
    /// PostgreSQL's programs, for --wait.
    #[arg(long, value_name = "DIR", requires = "wait")]
    pg_bin: Option<PathBuf>,
    /// Packs fetched at the same time; each holds up to 64 MiB.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

const TOLD_TO_STOP: &str = "walden: restore: told to stop (hint: Run the same command again: it \
                            goes on with what is there. A server that was started goes on.)";
const TARGET: &str = "Recovery target";

/// The targets that PostgreSQL knows.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct Point {
    /// After the last commit at or before this time. A zone is needed: 2026-11-21T10:15:30Z,
    /// "2026-11-21 12:15:30+02", "2026-11-21 11:15:30 Europe/Berlin", "yesterday 21:00 UTC"; or
    /// how long ago: -15m, -2h30m, -1d.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = TARGET)]
    target_time: Option<String>,
    /// After the record that begins here, such as 16/B374D848.
    #[arg(long, value_name = "LSN", help_heading = TARGET)]
    target_lsn: Option<String>,
    /// After this transaction's commit.
    #[arg(long, value_name = "XID", help_heading = TARGET)]
    target_xid: Option<String>,
    /// At this restore point (pg_create_restore_point).
    #[arg(long, value_name = "NAME", help_heading = TARGET)]
    target_name: Option<String>,
    /// As soon as the backup is consistent.
    #[arg(long, help_heading = TARGET)]
    target_immediate: bool,
    /// At the end of the archived WAL.
    #[arg(long, help_heading = TARGET)]
    target_latest: bool,
}

impl Restore {
    pub fn run(self, app: &App) -> Result<()> {
        if self.some.is_asked() {
            return self.extract(app);
        }
        let output = app.settings.output;
        let (dry_run, wait, pg_bin) = (self.dry_run, self.wait, self.pg_bin.clone());
        let checks_wal = self.check_wal;
        let request = self.request(app)?;
        let repository = app.repository(Retries::PerCall(RETRY_FOR))?;
        let mut prepared = restore::prepare(&repository, request)?;
        let installation = match wait && !dry_run {
            true => Some(wait::find_server(&prepared, pg_bin.as_deref())?),
            false => None,
        };
        if checks_wal {
            check_wal(&mut prepared, output.quiet || output.json)?;
        }
        if !output.json {
            print!("{}", text::plan_text(&prepared.plan, &TimeZone::system()));
        }
        let (mut outcome, mut done) = (None, None);
        if !dry_run {
            termination::exit_when_told(exit::code(ErrorKind::Interrupted), TOLD_TO_STOP);
            let deed = Deed::begin(Verb::Restore);
            let deeds = carry_out(&prepared, installation.as_ref(), output);
            prepared.record(&deed, deeds.as_ref().map(|(_, outcome)| outcome.as_ref()));
            let (placed, recovered) = deeds?;
            (done, outcome) = (Some(placed), recovered);
        }
        match (output.json, outcome) {
            (true, outcome) => {
                let json = text::json(&prepared.plan, done.as_ref(), outcome.as_ref())?;
                println!("{json}");
            }
            (false, Some(outcome)) => print!("{}", text::outcome_text(&prepared, &outcome)),
            (false, None) => print!("{}", text::next_step(&prepared.plan, done.as_ref())),
        }
        Ok(())
    }

    fn jobs(&self, app: &App) -> usize {
        jobs(self.jobs, app)
    }

    fn request(self, app: &App) -> Result<Request> {
        let program = own_program()?;
        let settings = &app.settings;
        let jobs = self.jobs(app);
        Ok(Request {
            fetch_call: recovery::fetch_call(
                &program,
                settings.config_file.as_deref(),
                settings.carried(),
            )?,
            pg_bin: self.pg_bin,
            directory: self.directory,
            wanted: Wanted {
                target: self.point.target()?,
                exclusive: self.target_exclusive,
                timeline: self.target_timeline,
                backup: self.backup,
            },
            action: self.target_action,
            standby: self.standby,
            adopt: self.adopt,
            tablespace_map: self.tablespace_map,
            tablespace_root: self.tablespace_root,
            owner: self.owner,
            system_identifier: self.system_identifier,
            configuration: self.configuration,
            max_rate: self.max_rate.map(|rate| rate.as_u64()).or(settings.restore.max_rate),
            deadline: None,
            delta: self.delta,
            include_databases: self.include_database,
            jobs,
        })
    }
}

/// How many packs are fetched at the same time.
pub fn jobs(asked: Option<NonZeroUsize>, app: &App) -> usize {
    let asked = asked.or(app.settings.restore.jobs);
    asked.map_or_else(|| processors().min(JOBS_UNASKED_MAX), NonZeroUsize::get)
}

/// The path of this program, for those who call it.
pub fn own_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| {
        Error::new(ErrorKind::Host, "cannot tell where walden lies")
            .source(error)
            .hint("Start it by its full path.")
    })
}

impl Point {
    pub fn is_said(&self) -> bool {
        let texts = [&self.target_time, &self.target_lsn, &self.target_xid, &self.target_name];
        texts.iter().any(|text| text.is_some()) || self.target_immediate || self.target_latest
    }

    pub fn target(self) -> Result<Target> {
        if let Some(time) = &self.target_time {
            let zones = Zones { known: jiff::tz::db(), local: TimeZone::system() };
            return Target::time(time, &zones, clock::now());
        }
        if let Some(lsn) = &self.target_lsn {
            return lsn.parse().map(Target::Lsn);
        }
        if let Some(xid) = &self.target_xid {
            return Target::xid(xid);
        }
        if let Some(name) = &self.target_name {
            return Target::name(name);
        }
        match (self.target_immediate, self.target_latest) {
            (true, _) => Ok(Target::Immediate),
            (_, true) => Ok(Target::Latest),
            _ => Err(Error::new(
                ErrorKind::Refused,
                "no recovery target: there is no safe default",
            )
            .hint(
                "Say one of --target-time TIME, --target-lsn LSN, --target-xid XID, --target-name \
                 NAME, --target-immediate (the backup alone) or --target-latest (all that is \
                 archived).",
            )),
        }
    }
}

fn tablespace(text: &str) -> std::result::Result<(PathBuf, PathBuf), String> {
    match text.split_once('=') {
        Some((old, new)) if old.starts_with('/') && new.starts_with('/') => {
            Ok((old.trim_end_matches('/').into(), new.into()))
        }
        _ => Err("write it as /old/directory=/new/directory".to_owned()),
    }
}

fn check_wal(prepared: &mut Prepared, silent: bool) -> Result<()> {
    let segments = prepared.decision.segments.len() as u64;
    let bar = bar(silent, segments, "{bar:30} {pos} of {len} segments read, {eta} left");
    let outcome = prepared.check_wal(&|segments| bar.inc(segments));
    bar.finish_and_clear();
    outcome
}

fn bar(silent: bool, length: u64, shape: &str) -> ProgressBar {
    let bar = match silent || !std::io::stderr().is_terminal() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(length),
    };
    if let Ok(style) = ProgressStyle::with_template(shape) {
        bar.set_style(style);
    }
    bar
}

fn carry_out(
    prepared: &Prepared,
    installation: Option<&Installation>,
    output: Output,
) -> Result<(Done, Option<wait::Outcome>)> {
    let done = place(prepared, output)?;
    let Some(installation) = installation else { return Ok((done, None)) };
    let spinner = spinner(output.quiet || output.json);
    let watch = |file: &str| spinner.set_message(format!("replaying {file}"));
    let outcome = wait::wait(prepared, installation, &watch)?;
    spinner.finish_and_clear();
    Ok((done, Some(outcome)))
}

fn place(prepared: &Prepared, output: Output) -> Result<Done> {
    let progress = Progress::default();
    progress.enter("restoring");
    progress.expect(prepared.stream_bytes());
    shown(&progress, output, || prepared.carry_out(&|bytes| progress.add(bytes)))
}

fn spinner(silent: bool) -> ProgressBar {
    match silent || !std::io::stderr().is_terminal() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new_spinner(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{Restore, tablespace};
    use crate::error::ErrorKind;

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        restore: Restore,
    }

    fn parse(words: &[&str]) -> Result<Restore, clap::Error> {
        Words::try_parse_from([&["restore", "/new"], words].concat()).map(|words| words.restore)
    }

    #[test]
    fn no_target_is_refused_with_the_choices() {
        let error = parse(&[]).unwrap().point.target().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.one_line().contains("--target-immediate"), "{error:?}");
    }

    #[test]
    fn two_targets_are_a_usage_error() {
        let error = parse(&["--target-latest", "--target-xid", "745"]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict);
    }

    #[test]
    fn tablespaces_are_mapped_by_absolute_paths() {
        assert_eq!(tablespace("/a/=/b").unwrap(), ("/a".into(), "/b".into()));
        assert!(tablespace("a=/b").is_err() && tablespace("/a").is_err());
        let both = parse(&["--tablespace-map", "/a=/b", "--tablespace-map", "/c=/d"]).unwrap();
        assert_eq!(both.tablespace_map.len(), 2);
    }
}

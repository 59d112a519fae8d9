//! `walden verify`: flags to a request, the report to text or JSON, what was found to an exit code.

mod text;

use std::io::Write as _;
use std::num::NonZeroUsize;

use bytesize::ByteSize;

use jiff::tz::TimeZone;

use crate::catalog::Zones;
use crate::catalog::moment::moment_for;
use crate::cli::exit;
use crate::cli::progress::shown;
use crate::commands::App;
use crate::commands::verify::{self, Outcome, Progress, Report, Request};
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::host::{clock, termination};
use crate::postgres::{SystemIdentifier, TimelineId};
use crate::repository::BackupId;

/// Proves what the repository holds: every backup, every WAL segment, and that they fit together.
///
/// Names, sizes and headers of everything are looked at. With --deep every byte is read: packs
/// against their checksums and against the server's own list of files, WAL record by record. What
/// is wrong is told with what it costs and what to do.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Reads every byte.
    #[arg(long)]
    deep: bool,
    /// With --deep, reads this part only: what was read longest ago, so that all has its turn.
    #[arg(long, value_name = "PERCENT", value_parser = share, requires = "deep")]
    sample: Option<f64>,
    /// With --deep, reads only what was stored since: a time with its zone, or as -1d how long ago.
    #[arg(long, value_name = "TIME", requires = "deep", allow_hyphen_values = true)]
    since: Option<String>,
    /// This backup only: with those it rests on and the WAL it needs.
    #[arg(long, value_name = "ID", conflicts_with = "timeline")]
    backup: Option<BackupId>,
    /// Only what a recovery to this timeline may read.
    #[arg(long, value_name = "NUMBER", value_parser = timeline)]
    timeline: Option<TimelineId>,
    /// How many threads read and check.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// The most that is read in a second.
    #[arg(long, value_name = "SIZE")]
    max_rate: Option<ByteSize>,
    /// The cluster, where several archive under one name.
    #[arg(long, value_name = "NUMBER")]
    system_identifier: Option<SystemIdentifier>,
}

impl Verify {
    pub fn run(self, app: &App) -> Result<()> {
        termination::exit_when_told(
            exit::code(ErrorKind::Interrupted),
            "walden: verify: told to stop; run it again, and it goes on from there",
        );
        let output = app.settings.output;
        let request = self.request(app)?;
        let progress = Progress::default();
        let outcome = shown(&progress, output, || verify::run(app, &request, &progress));
        termination::stand_still_if_leaving();
        let report = outcome?;
        let text = match output.json {
            true => serde_json::to_string_pretty(&report)
                .map(|json| json + "\n")
                .map_err(|error| Error::new(ErrorKind::Bug, "write the report").source(error))?,
            false => text::of(&report, output.quiet),
        };
        // Whoever reads may have closed its end: what was found is in the exit code, too.
        let _ = std::io::stdout().write_all(text.as_bytes());
        judge(&report)
    }

    fn request(self, app: &App) -> Result<Request> {
        let settings = &app.settings.verify;
        let zone = TimeZone::system();
        let zones = Zones { known: jiff::tz::db(), local: zone };
        let since = self.since.map(|it| moment_for("--since", &it, &zones, clock::now()));
        Ok(Request {
            deep: self.deep,
            sample: self.sample.unwrap_or(settings.sample),
            backup: self.backup,
            timeline: self.timeline,
            since: since.transpose()?,
            system_identifier: self.system_identifier,
            jobs: self.jobs.or(settings.jobs),
            max_rate: self.max_rate.map(|rate| rate.as_u64()).or(settings.max_rate),
        })
    }
}

fn judge(report: &Report) -> Result<()> {
    let (kind, hint) = match report.outcome {
        Outcome::Sound => return Ok(()),
        Outcome::Damage => (ErrorKind::FoundWrong, "Each finding says what to do."),
        Outcome::Unchecked => {
            (ErrorKind::CouldNotCheck, "Look at the store and at what this role may read.")
        }
    };
    Err(Error::new(kind, report.summary.clone()).hint(hint))
}

fn share(text: &str) -> std::result::Result<f64, String> {
    config::share(text).map_err(|unfit| format!("it {}: {}", unfit.wrong, unfit.write))
}

fn timeline(text: &str) -> std::result::Result<TimelineId, String> {
    let number = text.parse::<u32>().ok().and_then(|number| TimelineId::new(number).ok());
    number.ok_or_else(|| "write it as a number, from 1 on".to_owned())
}

//! `walden verify`: flags to a request, the report to text or JSON, what was found to an exit code.

mod text;

use std::io::Write as _;
use std::num::NonZeroUsize;

use bytesize::ByteSize;

use crate::cli::exit;
use crate::cli::progress::shown;
use crate::commands::App;
use crate::commands::verify::{self, Outcome, Progress, Report, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::host::termination;
use crate::postgres::SystemIdentifier;

/// Proves what the repository holds: every backup, every WAL segment, and that they fit together.
///
/// Names, sizes and headers of everything are looked at. With --deep every byte is read: packs
/// against their checksums and against the server's own list of files, WAL record by record. What is
/// wrong is told with what it costs and what to do.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Reads every byte.
    #[arg(long)]
    deep: bool,
    /// How many threads read.
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
            "walden: verify: told to stop",
        );
        let output = app.settings.output;
        let request = self.request();
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

    fn request(self) -> Request {
        Request {
            deep: self.deep,
            system_identifier: self.system_identifier,
            jobs: self.jobs,
            max_rate: self.max_rate.map(|rate| rate.as_u64()),
        }
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

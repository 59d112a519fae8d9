//! `walden report`: flags to a request; the page is in `page`.

mod page;
mod chart;
mod pictures;
mod sections;
mod figures;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::catalog::moment::{Zones, moment_for};
use crate::commands::App;
use crate::commands::report::{self, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::host::atomic_file::PendingFile;
use crate::host::clock;
use crate::postgres::SystemIdentifier;

const UNNAMED: &str = "walden-report.html";

/// Makes one page of evidence: is this cluster recoverable, and what shows it?
///
/// A single HTML file without scripts and external parts, for a browser, a mail or a printer.
/// Reads the repository only; run on the server's host it also tells how much is not archived.
#[derive(Debug, clap::Args)]
pub struct Report {
    /// Where the page goes: walden-report.html, if not said; - is standard output. With --json no
    /// page is written, unless this says where.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How far back drills, verifications, deeds and what is told day by day reach: 90d, 12w, or a
    /// moment, as for walden find.
    #[arg(long, value_name = "SPAN", default_value = "90d", allow_hyphen_values = true)]
    since: String,
    /// The cluster, where several archive under one name.
    #[arg(long, value_name = "NUMBER")]
    system_identifier: Option<SystemIdentifier>,
}

impl Report {
    pub fn run(self, app: &App) -> Result<()> {
        let since = since(&self.since, clock::now())?;
        let output = app.settings.output;
        let place = match (self.output, output.json) {
            (Some(place), true) if place == Path::new("-") => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "--json and the page cannot share stdout",
                )
                .hint("Say --output FILE, or leave one of them out."));
            }
            (None, false) => Some(PathBuf::from(UNNAMED)),
            (place, _) => place,
        };
        let request = Request { system_identifier: self.system_identifier, since };
        let report = report::run(app, request)?;
        // Whoever reads may have closed its end: nothing is lost by that.
        let say = |text: &str| {
            let _ = std::io::stdout().write_all(text.as_bytes());
        };
        match place {
            Some(place) if place == Path::new("-") => say(&page::page(&report)?),
            Some(place) => {
                write(&place, page::page(&report)?.as_bytes())?;
                if !output.quiet && !output.json {
                    say(&format!("{}\n{}\n", report.verdict.headline, place.display()));
                }
            }
            None => {}
        }
        if output.json {
            let json = serde_json::to_string_pretty(&report)
                .map_err(|error| Error::new(ErrorKind::Bug, "write the report").source(error))?;
            say(&(json + "\n"));
        }
        Ok(())
    }
}

/// `90d` as well as what `walden find` understands.
fn since(text: &str, now: Timestamp) -> Result<Timestamp> {
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let span = text.trim().parse::<jiff::Span>().and_then(|span| span.to_duration(days));
    let since = match span {
        Ok(span) if span > SignedDuration::ZERO => now.checked_sub(span).ok(),
        _ => {
            let zones = Zones { known: jiff::tz::db(), local: TimeZone::system() };
            Some(moment_for("--since", text, &zones, now)?)
        }
    };
    since.filter(|since| *since <= now).ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("--since {text} is no time in the past"))
            .hint("Write how far back to go, like 90d or 2w, or a moment.")
    })
}

/// A reader of the old page sees it whole, or the new one whole.
fn write(path: &Path, page: &[u8]) -> Result<()> {
    let written = PendingFile::create(path, 0o644).and_then(|mut file| {
        file.write(page)?;
        file.hand_over()
    });
    written.map_err(|error| {
        Error::new(ErrorKind::Host, format!("cannot write {}", path.display()))
            .source(error)
            .hint("Say where the page shall go by --output; - is standard output.")
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::since;
    use crate::error::ErrorKind;

    #[test]
    fn since_is_a_span_or_a_moment_of_the_past() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let read = |text| since(text, now).map(|time| time.to_string());
        assert_eq!(read("90d").unwrap(), "2026-08-24T12:00:00Z");
        assert_eq!(read("2w").unwrap(), "2026-11-08T12:00:00Z");
        assert_eq!(read("-2h").unwrap(), "2026-11-22T10:00:00Z");
        assert_eq!(read("2026-01-01T00:00:00Z").unwrap(), "2026-01-01T00:00:00Z");
        assert_eq!(read("2027-01-01T00:00:00Z").unwrap_err().kind(), ErrorKind::Usage);
        assert!(read("a while").is_err());
    }
}

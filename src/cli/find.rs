//! `walden find`: flags to a request; `text` has the words.

mod text;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::catalog::events::Pattern;
use crate::catalog::moment::{Zones, moment_for};
use crate::catalog::{Target, TargetTimeline};
use crate::commands::find::{self, Around, Kinds, Request};
use crate::commands::{App, Retries};
use crate::config::{DEFAULT_PATH, Origin};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock;
use crate::postgres::SystemIdentifier;
use crate::postgres::connection::ConnectionOptions;

/// A search can be started anew.
const RETRY_FOR: Duration = Duration::from_secs(60);
const WITHIN: SignedDuration = SignedDuration::from_mins(1);

/// Finds where in the WAL something happened, and says how to restore to just before it.
///
/// Tables dropped, truncated or emptied by a mass DELETE, databases dropped, restore points. It
/// reads what push learned of each segment, and a segment itself only where that is not enough.
/// Names are those saved with the backups, and the server's where it can be reached.
#[derive(Debug, clap::Args)]
pub struct Find {
    /// Only these tables: schema.table or database.schema.table, in the case PostgreSQL stores;
    /// * and ? stand for any characters.
    #[arg(value_name = "TABLE")]
    tables: Vec<Pattern>,
    /// What was dropped: tables, and whatever else has a name; databases.
    #[arg(long, help_heading = KINDS)]
    dropped: bool,
    /// Tables emptied by TRUNCATE.
    #[arg(long, help_heading = KINDS)]
    truncated: bool,
    /// Many rows deleted from a table by one transaction.
    #[arg(long, help_heading = KINDS)]
    deleted: bool,
    /// Made by pg_create_restore_point.
    #[arg(long, help_heading = KINDS)]
    restore_points: bool,
    /// How many rows are many.
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = KINDS,
          value_parser = clap::value_parser!(u64).range(1..))]
    min_rows: u64,
    /// The transaction of this id, whatever it did.
    #[arg(long, value_name = "XID", conflicts_with = "around")]
    xid: Option<String>,
    /// Every transaction that ended around this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    around: Option<String>,
    /// How far around: 30s, 5m. One minute if not said.
    #[arg(long, value_name = "SPAN", requires = "around", value_parser = span)]
    within: Option<SignedDuration>,
    /// Nothing earlier. A zone is needed: 2026-11-21T10:15:30Z, "2026-11-21 11:15 Europe/Berlin",
    /// -2h, "yesterday 21:00 UTC".
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Nothing later.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Which branch to search, with those it descends from: latest or a number.
    #[arg(long, value_name = "TIMELINE", default_value = "latest")]
    timeline: TargetTimeline,
    /// The cluster, where several archive under one name.
    #[arg(long, value_name = "NUMBER")]
    system_identifier: Option<SystemIdentifier>,
    /// The server that may know names, as for psql; wins over libpq's variables.
    #[arg(short, long, value_name = "CONNINFO")]
    dbname: Option<String>,
}

const KINDS: &str = "What to find (all of it, if nothing is said)";

impl Find {
    pub fn run(self, app: &App) -> Result<()> {
        let output = app.settings.output;
        let request = self.request(app)?;
        let repository = app.repository(Retries::PerCall(RETRY_FOR))?;
        let report = find::run(&repository, &request)?;
        let text = match output.json {
            true => serde_json::to_string_pretty(&report)
                .map_err(|error| Error::new(ErrorKind::Bug, "write the report").source(error))?,
            false => text::report(&report, &request, &TimeZone::system()),
        };
        // A pager that was closed is no failure.
        let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
        Ok(())
    }

    fn request(self, app: &App) -> Result<Request> {
        let now = clock::now();
        let time = |flag: &str, text: &Option<String>| read_time(flag, text.as_deref(), now);
        let (since, until) = (time("--since", &self.since)?, time("--until", &self.until)?);
        if let (Some(since), Some(until)) = (since, until)
            && until < since
        {
            return Err(Error::new(ErrorKind::Usage, "--until is before --since")
                .hint(format!("They are read as {since} and {until}.")));
        }
        let within = self.within.unwrap_or(WITHIN);
        let around = time("--around", &self.around)?.map(|time| Around { time, within });
        let xid = self.xid.as_deref().map(lower_half_of_xid).transpose()?;
        let server = match &self.dbname {
            Some(conninfo) => Some(ConnectionOptions::from_conninfo(conninfo)?),
            None => ConnectionOptions::from_environment().ok(),
        };
        Ok(Request {
            kinds: self.kinds(),
            rows_min: self.min_rows,
            xid,
            since,
            until,
            around,
            flags: flags(app, self.system_identifier),
            tables: self.tables,
            timeline: self.timeline,
            system_identifier: self.system_identifier,
            server,
        })
    }

    fn kinds(&self) -> Kinds {
        let said = Kinds {
            dropped: self.dropped,
            truncated: self.truncated,
            deleted: self.deleted,
            restore_points: self.restore_points,
        };
        if said == Kinds::NONE { Kinds::ALL } else { said }
    }
}

fn read_time(flag: &str, text: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>> {
    let zones = Zones { known: jiff::tz::db(), local: TimeZone::system() };
    text.map(|text| moment_for(flag, text, &zones, now)).transpose()
}

/// WAL holds no more of a transaction's id.
fn lower_half_of_xid(text: &str) -> Result<u32> {
    match Target::xid(text)? {
        Target::Xid(xid) => Ok(xid as u32),
        _ => Err(Error::new(ErrorKind::Bug, "a transaction id that is none")),
    }
}

/// What makes a restore line find the same cluster from the same shell: what was said by flags.
/// The environment and the configuration file are there again.
fn flags(app: &App, system_identifier: Option<SystemIdentifier>) -> Vec<String> {
    let settings = &app.settings;
    let mut flags = Vec::new();
    for (_, origin) in settings.origins() {
        let Origin::Flag(flag) = origin else { continue };
        let value = match *flag {
            "--cluster" => Some(settings.cluster.to_string()),
            "--repository" => settings.repositories.first().map(|one| one.url.clone()),
            _ => None,
        };
        flags.extend(value.into_iter().flat_map(|value| [(*flag).to_owned(), value]));
    }
    let is_usual = |file: &PathBuf| file.as_os_str() == DEFAULT_PATH;
    if let Some(file) = settings.config_file.as_ref().filter(|file| !is_usual(file)) {
        flags.extend(["--config".to_owned(), file.display().to_string()]);
    }
    if let Some(number) = system_identifier {
        flags.extend(["--system-identifier".to_owned(), number.to_string()]);
    }
    flags
}

fn span(text: &str) -> std::result::Result<SignedDuration, String> {
    let span: SignedDuration =
        text.parse().map_err(|_| "write it like 30s, 5m or 1h".to_owned())?;
    if span.is_negative() { Err("it cannot be negative".to_owned()) } else { Ok(span) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{Find, lower_half_of_xid};
    use crate::commands::find::Kinds;

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        find: Find,
    }

    fn parse(words: &[&str]) -> Result<Find, clap::Error> {
        Words::try_parse_from([&["find"], words].concat()).map(|words| words.find)
    }

    #[test]
    fn without_a_kind_all_are_looked_for() {
        assert_eq!(parse(&[]).unwrap().kinds(), Kinds::ALL);
        let one = parse(&["--dropped", "public.*"]).unwrap();
        assert_eq!(one.kinds(), Kinds { dropped: true, ..Kinds::NONE });
        assert_eq!(one.tables.len(), 1);
    }

    #[test]
    fn times_may_be_relative_and_what_makes_no_sense_is_refused() {
        assert_eq!(parse(&["--since", "-2h"]).unwrap().since.as_deref(), Some("-2h"));
        let within = parse(&["--around", "-5m", "--within", "30s"]).unwrap().within;
        assert_eq!(within.unwrap().as_secs(), 30);
        for words in [
            &["--within", "5m"][..],
            &["--around", "now", "--within", "-5m"],
            &["--xid", "745", "--around", "now"],
            &["--min-rows", "0"],
            &[""],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn of_an_id_with_its_epoch_the_lower_half_counts() {
        assert_eq!(lower_half_of_xid("4294968041").unwrap(), 745);
        assert!(lower_half_of_xid("2").is_err());
    }
}

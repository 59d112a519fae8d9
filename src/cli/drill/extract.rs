//! `walden drill --extract`: one table as it was.

use std::path::PathBuf;

use crate::cli::drill::{Drill, watch};
use crate::cli::progress::shown;
use crate::commands::App;
use crate::commands::drill::extract::{
    self, Content, Destination, NewPlace, Report, Request, TableName, To,
};
use crate::commands::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::ConnectionOptions;

const EXTRACT: &str = "Extraction of tables instead of a rehearsal";

#[derive(Debug, clap::Args)]
pub struct Extract {
    /// Bring back this table as it was: orders, sales.orders, shop.sales.orders, quoted as in SQL,
    /// with * and ?; several if more are named. The point must be said: --target-time and its like.
    #[arg(long, value_name = "TABLE", num_args = 1.., help_heading = EXTRACT)]
    extract: Vec<TableName>,
    /// Into a file that is not there yet: .sql, .csv (rows only), anything else for pg_restore; or
    /// into a directory, a file for each table.
    #[arg(long, value_name = "PATH", requires = "extract", conflicts_with = "into",
          help_heading = EXTRACT)]
    to_file: Option<PathBuf>,
    /// Straight into this database, given as for psql: postgresql://host/db, "host=… dbname=…", or
    /// nothing, for PGHOST, PGDATABASE and their like. All or nothing, and nothing is overwritten.
    #[arg(long, value_name = "CONNINFO", num_args = 0..=1, default_missing_value = "",
          requires = "extract", help_heading = EXTRACT)]
    into: Option<String>,
    /// Under this name instead of its own, without foreign keys and triggers.
    #[arg(long, value_name = "NAME", requires = "into", help_heading = EXTRACT)]
    into_table: Option<String>,
    /// In this schema instead of their own, without foreign keys and triggers; it is made where it
    /// is not there.
    #[arg(long, value_name = "NAME", requires = "into", help_heading = EXTRACT)]
    into_schema: Option<String>,
    /// Rows only: with --into, into tables that are there and empty.
    #[arg(long, requires = "extract", help_heading = EXTRACT)]
    data_only: bool,
    /// Into tables that have rows, too.
    #[arg(long, requires = "data_only", requires = "into", help_heading = EXTRACT)]
    append: bool,
    /// Whoever brings the tables back owns them; privileges are left away.
    #[arg(long, requires = "extract", help_heading = EXTRACT)]
    no_owner: bool,
}

impl Drill {
    /// A point has to be said: any other would be as good as a wrong one.
    pub fn bring_back(self, app: &App) -> Result<()> {
        let output = app.settings.output;
        if !self.latest && !self.point.is_said() {
            return self.point.target().map(|_| ());
        }
        let request = self.extract.request(self.checks.database(), self.pg_bin.clone())?;
        let drill = self.request(app)?;
        let prepared = extract::prepare(request)?;
        watch(&drill);
        let progress = Progress::default();
        let work = || extract::run(app, &drill, &prepared, &progress);
        let report = shown(&progress, output, work)?;
        match output.json {
            true => println!("{}", json(&report)?),
            false => print!("{}", text(&report)),
        }
        Ok(())
    }
}

fn json(report: &Report) -> Result<String> {
    serde_json::to_string_pretty(report)
        .map_err(|error| Error::new(ErrorKind::Bug, "write the report").source(error))
}

impl Extract {
    pub fn is_asked(&self) -> bool {
        !self.extract.is_empty()
    }

    pub fn request(&self, database: Option<&str>, bin: Option<PathBuf>) -> Result<Request> {
        Ok(Request {
            tables: self.extract.clone(),
            database: database.map(str::to_owned),
            content: match self.data_only {
                true => Content::DataOnly,
                false => Content::SchemaAndData,
            },
            no_owner: self.no_owner,
            bin,
            to: self.to()?,
        })
    }

    fn to(&self) -> Result<To> {
        match (&self.to_file, &self.into) {
            (Some(path), _) => Ok(To::Files(path.clone())),
            (None, Some(conninfo)) => Ok(To::Database(Box::new(Destination {
                options: ConnectionOptions::from_conninfo(conninfo)?,
                place: NewPlace { schema: self.into_schema.clone(), name: self.into_table.clone() },
                append: self.append,
            }))),
            (None, None) => Err(Error::new(ErrorKind::Usage, "where to is not said")
                .hint("Say --to-file FILE, or --into 'postgresql://host/db' for a live database.")),
        }
    }
}

/// What a person reads when it is done.
fn text(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for table in &report.tables {
        let rows = match table.rows {
            1 => "1 row".to_owned(),
            rows => format!("{rows} rows"),
        };
        let _ = writeln!(text, "{} as of then: {rows}, in {}", table.from, table.into);
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let seconds = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let _ = writeln!(
        text,
        "from {} to {}: {} for the recovery, {} for the tables; everything else is gone again",
        report.database,
        report.into,
        seconds(report.recovery_ms),
        seconds(report.extraction_ms)
    );
    text
}

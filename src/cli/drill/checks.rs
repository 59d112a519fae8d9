//! What a drill asks, as flags.

use std::path::PathBuf;
use std::time::Duration;

use crate::catalog::events::Pattern;
use crate::commands::drill::checks::{Checksums, CountRows, DumpSchema, Wanted, questions};
use crate::config::values;
use crate::error::Result;

const QUESTIONS: &str = "What is asked of the recovered server";

#[derive(Debug, clap::Args)]
pub struct Checks {
    /// SQL statements that must hold: each returns at least one row, whose first column is not
    /// false and not NULL, or is as a comment says: `SELECT count(*) FROM orders; -- expect >=
    /// 1000`. Repeat it for more files.
    #[arg(long, value_name = "FILE", help_heading = QUESTIONS)]
    sql: Vec<PathBuf>,
    /// Where the statements are run that no `-- database: NAME` stands before; postgres if not
    /// said.
    #[arg(long, value_name = "NAME", help_heading = QUESTIONS)]
    database: Option<String>,
    /// How long one of these statements may take; longer is a failure.
    #[arg(long, value_name = "TIME", default_value = "5min", value_parser = span,
          help_heading = QUESTIONS)]
    sql_timeout: Duration,
    /// Count the rows of these tables only, such as public.* or shop.public.orders; repeat it for
    /// more. If not said, the rows of all tables are counted.
    #[arg(long, value_name = "TABLE", help_heading = QUESTIONS)]
    count: Vec<Pattern>,
    /// Count no rows.
    #[arg(long, conflicts_with_all = ["count", "max_loss"], help_heading = QUESTIONS)]
    no_count: bool,
    /// Fail where a table is gone since the drill before, or has lost more of its rows than this.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100),
          help_heading = QUESTIONS)]
    max_loss: Option<u8>,
    /// Read every page of every table and index and compare it with its checksum. If not said, this
    /// is done where the cluster has checksums; a cluster without them then leaves nothing open.
    #[arg(long, help_heading = QUESTIONS)]
    checksums: bool,
    /// Compare no page with its checksum.
    #[arg(long, conflicts_with = "checksums", help_heading = QUESTIONS)]
    no_checksums: bool,
    /// Check every b-tree index against its table, and every table's structure, by PostgreSQL's
    /// extension amcheck.
    #[arg(long, help_heading = QUESTIONS)]
    amcheck: bool,
    /// Compare the schema of every database, as pg_dump writes it, with that of the drill before.
    #[arg(long, help_heading = QUESTIONS)]
    schema: bool,
    /// And keep it there, a file for each database.
    #[arg(long, value_name = "DIR", help_heading = QUESTIONS)]
    schema_to: Option<PathBuf>,
}

impl Checks {
    /// Reads the SQL files: what is wrong with them is said before anything is restored.
    pub fn wanted(&self, bin: Option<PathBuf>) -> Result<Wanted> {
        let mut asked = Vec::new();
        for file in &self.sql {
            asked.extend(questions::read(file)?);
        }
        let dump = || DumpSchema { directory: self.schema_to.clone(), bin };
        let count = || CountRows { of: self.count.clone(), loss_max: self.max_loss };
        Ok(Wanted {
            questions: asked,
            database: self.database.clone(),
            question_timeout: self.sql_timeout,
            rows: (!self.no_count).then(count),
            checksums: match (self.checksums, self.no_checksums) {
                (true, _) => Checksums::Yes,
                (false, true) => Checksums::No,
                (false, false) => Checksums::WhereThereAre,
            },
            amcheck: self.amcheck,
            schema: (self.schema || self.schema_to.is_some()).then(dump),
        })
    }

    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }
}

fn span(text: &str) -> std::result::Result<Duration, String> {
    values::span(text).map_err(|unfit| format!("{} {}", unfit.wrong, unfit.write))
}

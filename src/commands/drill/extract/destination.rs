//! The live database that gets the tables: looked at before anything is restored, changed in one
//! transaction, and nothing in it ever overwritten.

use crate::commands::drill::extract::Content;
use crate::commands::drill::extract::names::{TableName, literal, quoted_name, quoted_pair};
use crate::commands::drill::extract::staging::NewPlace;
use crate::commands::drill::extract::tables::{Table, shown};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::connection::{Connection, ConnectionOptions};

/// Where to, and how.
#[derive(Debug, Clone)]
pub struct Destination {
    /// As `psql` would connect, by `--into` and libpq's variables.
    pub options: ConnectionOptions,
    pub place: NewPlace,
    /// Into a table that has rows already.
    pub append: bool,
}

/// An index takes as long as it takes; a machine that is gone is noticed.
const SESSION: &str = "\
    SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
    SET intervalstyle = postgres; SET extra_float_digits = 3; SET row_security = off; \
    SET lock_timeout = '60s'";

impl Destination {
    pub fn connect(&self) -> Result<Connection> {
        let options = self.options.clone().read_timeout(None).application_name("walden extract");
        let mut connection = Connection::connect(&options)?;
        connection.query(SESSION).context(|| "prepare the session")?;
        // A queue for a lock would hold up everybody behind us, but so would giving up late.
        if connection.server_version_num()? >= 170_000 {
            connection.query("SET transaction_timeout = 0")?;
        }
        Ok(connection)
    }

    /// Before an hour is spent on a restore: does it answer, may it be written to, and is the place
    /// free, as far as the names tell? Its database and how it is reached.
    pub fn look(&self, wanted: &[TableName], content: Content) -> Result<(String, String)> {
        let mut connection = self.connect()?;
        let row = connection.query("SELECT current_database(), pg_is_in_recovery()")?;
        let mut row = row.into_iter().next().unwrap_or_default().into_iter().flatten();
        let database = row.next().unwrap_or_default();
        if row.next().as_deref() == Some("t") {
            return Err(refused(format!("{} is a standby", connection.place()))
                .hint("Name its primary by --into."));
        }
        for (schema, name) in wanted.iter().filter_map(TableName::exact) {
            let schema = self.place.schema.clone().unwrap_or(schema);
            let name = self.place.name.clone().unwrap_or(name);
            self.expect_room(&mut connection, &schema, &name, content)?;
        }
        Ok((database, connection.place().to_owned()))
    }

    /// Creates what must be there: without `--data-only` the table must not be, with it it must.
    pub fn expect_room(
        &self,
        connection: &mut Connection,
        schema: &str,
        name: &str,
        content: Content,
    ) -> Result<()> {
        let (sql, shown) = (quoted_pair(schema, name), shown(schema, name));
        let exists = format!("SELECT to_regclass({}) IS NOT NULL", literal(&sql));
        let exists = connection.value(&exists)?.as_deref() == Some("t");
        match (content, exists) {
            (Content::SchemaAndData, false) => Ok(()),
            (Content::SchemaAndData, true) => {
                Err(refused(format!("{shown} is there already at {}", connection.place())).hint(
                    "Nothing is overwritten: say --into-schema walden_restored or --into-table \
                     NAME, or --data-only for its rows.",
                ))
            }
            (Content::DataOnly, false) => {
                Err(refused(format!("there is no {shown} at {}", connection.place()))
                    .hint("Leave --data-only away: then it is made."))
            }
            (Content::DataOnly, true) => self.expect_empty(connection, &sql, &shown),
        }
    }

    fn expect_empty(&self, connection: &mut Connection, sql: &str, shown: &str) -> Result<()> {
        let is_empty = format!("SELECT NOT EXISTS (SELECT 1 FROM {sql})");
        if self.append || connection.value(&is_empty)?.as_deref() == Some("t") {
            return Ok(());
        }
        Err(refused(format!("{shown} has rows already at {}", connection.place())).hint(
            "Say --append to add to them, or --into-schema walden_restored to compare first.",
        ))
    }

    pub fn make_schema(&self, connection: &mut Connection, schema: &str) -> Result<()> {
        let exists = format!("SELECT 1 FROM pg_namespace WHERE nspname = {}", literal(schema));
        if connection.value(&exists)?.is_none() {
            connection.query(&format!("CREATE SCHEMA {}", quoted_name(schema)))?;
        }
        Ok(())
    }

    /// The rows of the past must find their columns.
    pub fn expect_columns(&self, connection: &mut Connection, table: &Table) -> Result<()> {
        let (schema, name) = self.place.of(table);
        let sql = quoted_pair(&schema, &name);
        let list = format!(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass({}) AND attnum > 0 \
             AND NOT attisdropped AND attgenerated = ''",
            literal(&sql)
        );
        let there = connection.query(&list)?;
        let there: Vec<&str> = there.iter().filter_map(|row| row.first()?.as_deref()).collect();
        let missing = table.columns.iter().filter(|column| !there.contains(&column.as_str()));
        let missing: Vec<&str> = missing.map(String::as_str).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(refused(format!(
            "{} has no column {} any more",
            shown(&schema, &name),
            missing.join(", ")
        ))
        .hint("Say --into-schema walden_restored, and copy what you need from there."))
    }
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::Refused, what)
}

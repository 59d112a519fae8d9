//! From the recovered server straight into the live one: what pg_dump says of the tables, the rows
//! by COPY from one connection to the other, and all of it in one transaction.
//!
//! Rows go as text: in the binary format arrays and composite types carry the numbers of their
//! types, which differ from cluster to cluster.

use crate::commands::drill::Recovered;
use crate::commands::drill::checks::statements;
use crate::commands::drill::dump::Dump;
use crate::commands::drill::extract::destination::Destination;
use crate::commands::drill::extract::names::{literal, quoted_name, quoted_pair};
use crate::commands::drill::extract::report::TableBack;
use crate::commands::drill::extract::staging;
use crate::commands::drill::extract::tables::{Table, shown};
use crate::commands::drill::extract::{Content, Request};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::termination;
use crate::postgres::connection::Connection;

const TOLD_TO_STOP: &str = "walden: extract: told to stop while the live database was committing \
                            (hint: Look there whether the tables have come.)";

/// Of one side.
struct Source<'s> {
    connection: Connection,
    database: &'s str,
    /// `None`: only rows are wanted.
    dump: Option<Dump<'s>>,
}

/// `tables` as they were; what became of each. `progress` is told of bytes.
pub fn carry_over(
    server: &Recovered,
    (database, tables): (&str, &[Table]),
    request: &Request,
    destination: &Destination,
    progress: &dyn Fn(u64),
) -> Result<Vec<TableBack>> {
    let mut source = Source {
        connection: source_session(server, database)?,
        database,
        dump: match request.content {
            Content::SchemaAndData => Some(Dump::find(server, request.bin.as_deref())?),
            Content::DataOnly => None,
        },
    };
    let mut live = destination.connect()?;
    let _told = live.cancel_when_told()?;
    live.query("BEGIN")?;
    for table in tables {
        let (schema, name) = destination.place.of(table);
        destination.expect_room(&mut live, &schema, &name, request.content)?;
        match request.content {
            Content::SchemaAndData => destination.make_schema(&mut live, &schema)?,
            Content::DataOnly => destination.expect_columns(&mut live, table)?,
        }
    }
    let staged = match request.content {
        Content::SchemaAndData => {
            staging::stage(&mut source.connection, tables, &destination.place)?
        }
        Content::DataOnly => tables.to_vec(),
    };
    source.define(&mut live, "pre-data", &staged, request)?;
    let (mut back, mut made) = (Vec::new(), Vec::new());
    for (table, staged) in tables.iter().zip(&staged) {
        let (schema, name) = destination.place.of(table);
        let into = quoted_pair(&schema, &name);
        let (rows, bytes) = source
            .copy(&mut live, staged, &into, progress)
            .context(|| format!("copy the rows of {}", table.shown()))?;
        let (from, shown) = (table.shown(), shown(&schema, &name));
        back.push(TableBack { from, into: shown, rows, bytes: Some(bytes) });
        made.push(into);
    }
    if source.dump.is_some() {
        source.set_sequences(&mut live, &staged)?;
    }
    source.define(&mut live, "post-data", &staged, request)?;
    commit(&mut live)?;
    for table in &made {
        // A plan without statistics would be a poor welcome; without them it is all there.
        if let Err(error) = live.query(&format!("ANALYZE {table}")) {
            tracing::info!("ANALYZE {table}: {error}");
        }
    }
    Ok(back)
}

/// Told to stop, it is let through: else nobody would know whether it came about.
fn commit(live: &mut Connection) -> Result<()> {
    let _last = termination::last_step(TOLD_TO_STOP);
    live.query("COMMIT").context(|| "commit").map(|_| ())
}

pub fn source_session(server: &Recovered, database: &str) -> Result<Connection> {
    let mut connection = server.connect(database)?;
    connection.query(staging::SESSION)?;
    connection.query("SET intervalstyle = postgres; SET extra_float_digits = 3")?;
    Ok(connection)
}

impl Source<'_> {
    /// Runs what pg_dump says of a section: the tables themselves before the rows, indexes,
    /// constraints and what else there is after them.
    fn define(
        &self,
        live: &mut Connection,
        section: &str,
        staged: &[Table],
        request: &Request,
    ) -> Result<()> {
        let Some(dump) = &self.dump else { return Ok(()) };
        let mut text = Vec::new();
        let mut arguments = table_arguments(staged);
        arguments.push(format!("--section={section}"));
        arguments.extend(owner_arguments(request));
        dump.run(self.database, arguments, &mut |bytes| {
            text.extend_from_slice(bytes);
            Ok(())
        })?;
        let script = without_psql(&String::from_utf8_lossy(&text));
        let knows_transaction_timeout = live.server_version_num()? >= 170_000;
        for statement in statements::split(&script)?.statements {
            let sql = &statement.text;
            if !knows_transaction_timeout && sql.starts_with("SET transaction_timeout") {
                continue;
            }
            let shown = || sql.split_whitespace().collect::<Vec<_>>().join(" ");
            live.query(sql).map_err(advised).context(shown)?;
        }
        Ok(())
    }

    /// How many rows and bytes; as many rows must arrive as leave.
    fn copy(
        &mut self,
        live: &mut Connection,
        staged: &Table,
        into: &str,
        progress: &dyn Fn(u64),
    ) -> Result<(u64, u64)> {
        let columns: Vec<String> = staged.columns.iter().map(|name| quoted_name(name)).collect();
        let columns = match columns.is_empty() {
            true => String::new(),
            false => format!(" ({})", columns.join(", ")),
        };
        let from = copy_source(staged, &columns);
        // Made in this very transaction: nobody can see it, so that its rows need no vacuum.
        let freeze = match self.dump.is_some() && !staged.is_partitioned {
            true => " (FREEZE)",
            false => "",
        };
        let mut sink = live.copy_in(&format!("COPY {into}{columns} FROM STDIN{freeze}"))?;
        let mut bytes = 0;
        let left = self.connection.copy_out(&format!("COPY {from} TO STDOUT"), &mut |piece| {
            bytes += piece.len() as u64;
            progress(piece.len() as u64);
            sink.write(piece)
        })?;
        let arrived = sink.finish().map_err(advised)?;
        if left != arrived {
            return Err(Error::new(
                ErrorKind::FoundWrong,
                format!("{left} rows were read, {arrived} arrived in {into}"),
            )
            .hint("A trigger or a rule of the live table takes rows away; nothing was changed."));
        }
        Ok((arrived, bytes))
    }

    /// What hands out the next numbers goes on where it was.
    fn set_sequences(&mut self, live: &mut Connection, staged: &[Table]) -> Result<()> {
        let oids: Vec<String> = staged
            .iter()
            .flat_map(|table| &table.members)
            .map(|member| member.oid.to_string())
            .collect();
        let owned = format!(
            "SELECT n.nspname, c.relname FROM pg_depend d JOIN pg_class c ON c.oid = d.objid \
                 JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass \
                 AND d.deptype IN ('a', 'i') AND c.relkind = 'S' AND d.refobjid IN ({})",
            oids.join(",")
        );
        for row in self.connection.query(&owned)? {
            let [Some(schema), Some(name)] = &row[..] else { continue };
            let sequence = quoted_pair(schema, name);
            let state =
                self.connection.query(&format!("SELECT last_value, is_called FROM {sequence}"))?;
            let Some([Some(value), Some(called)]) = state.first().map(Vec::as_slice) else {
                continue;
            };
            let sequence = literal(&sequence);
            live.query(&format!("SELECT pg_catalog.setval({sequence}, {value}, '{called}')"))?;
        }
        Ok(())
    }
}

/// A partitioned table has its rows in its partitions; of a table that others inherit from only its
/// own are meant.
pub fn copy_source(table: &Table, columns: &str) -> String {
    let sql = table.sql();
    match table.is_partitioned {
        true => {
            let list = columns.trim().trim_start_matches('(').trim_end_matches(')');
            format!("(SELECT {list} FROM {sql})")
        }
        false => format!("{sql}{columns}"),
    }
}

/// For pg_dump: in quotes nothing is a pattern.
pub fn table_arguments(staged: &[Table]) -> Vec<String> {
    let members = staged.iter().flat_map(|table| &table.members);
    members.map(|member| format!("--table={}", quoted_pair(&member.schema, &member.name))).collect()
}

pub fn owner_arguments(request: &Request) -> Vec<String> {
    let mut arguments = vec!["--no-publications".to_owned(), "--no-subscriptions".to_owned()];
    if request.no_owner {
        arguments.extend(["--no-owner".to_owned(), "--no-privileges".to_owned()]);
    }
    arguments
}

/// Newer minor versions write two lines for psql alone around what is SQL.
fn without_psql(script: &str) -> String {
    let is_sql =
        |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
    script.split_inclusive('\n').filter(is_sql).collect()
}

/// What usually stands in the way, and what helps.
fn advised(error: Error) -> Error {
    use crate::postgres::connection::sqlstate;
    let hint = match sqlstate(&error) {
        Some("42501") => "The role may not do that: take another one, or say --no-owner.",
        Some("42704") => "Roles, types and the like must be there: say --no-owner for roles.",
        Some("42883" | "42P01") => {
            "The table needs what is not there any more: say --into-schema walden_restored, which \
             leaves foreign keys and triggers away."
        }
        Some("23503") => {
            "Rows refer to rows that are gone: say --into-schema walden_restored, which has no \
             foreign keys."
        }
        Some("23505") => "Rows are there already: extract into a schema of its own, and compare.",
        Some("55P03") => "Another session has locked the table; try again.",
        _ => return error,
    };
    error.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::{copy_source, table_arguments, without_psql};
    use crate::commands::drill::extract::tables::{Member, Table};

    #[test]
    fn copies_and_dumps_name_each_table_in_quotes() {
        let own = Member { oid: 7, schema: "s".to_owned(), name: "t*".to_owned() };
        let part = Member { oid: 8, schema: "s".to_owned(), name: "t1".to_owned() };
        let table = Table {
            oid: 7,
            schema: "s".to_owned(),
            name: "t*".to_owned(),
            is_partitioned: true,
            members: vec![own, part],
            columns: vec!["a".to_owned(), "b".to_owned()],
        };
        assert_eq!(
            copy_source(&table, " (\"a\", \"b\")"),
            "(SELECT \"a\", \"b\" FROM \"s\".\"t*\")"
        );
        let plain = Table { is_partitioned: false, ..table.clone() };
        assert_eq!(copy_source(&plain, " (\"a\")"), "\"s\".\"t*\" (\"a\")");
        assert_eq!(table_arguments(&[table]), ["--table=\"s\".\"t*\"", "--table=\"s\".\"t1\""]);
    }

    #[test]
    fn lines_for_psql_are_left_out() {
        let script = "\\restrict abc\nSELECT 1;\n\\unrestrict abc\n";
        assert_eq!(without_psql(script), "SELECT 1;\n");
    }
}

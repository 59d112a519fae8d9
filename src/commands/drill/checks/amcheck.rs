//! Every index and every table by PostgreSQL's own extension amcheck, as pg_amcheck does: b-trees
//! with a look at every row of their table, tables with what they keep in TOAST.

use std::time::Instant;

use crate::commands::drill::Recovered;
use crate::commands::drill::checks::sharing::{Relation, ask_of_each};
use crate::commands::drill::checks::{Answer, listed, speaks_of_damage, timed};
use crate::error::{Error, Result};
use crate::postgres::connection::{Connection, sqlstate};
use crate::repository::drill_record::{Check, Verdict};

/// The extension in a schema of its own, which is gone afterwards.
const SCHEMA: &str = "walden_drill_amcheck";
const KIND: &str = "amcheck";
const LISTED_MAX: usize = 20;
/// Each page may have several; the first ones tell enough.
const COMPLAINTS_MAX: usize = 3;

/// The large ones first. What is being built, and what belongs to a session, is nobody's.
const RELATIONS: &str = "\
    SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind \
    FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid \
        LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam \
    WHERE c.relpersistence <> 't' AND (\
        c.relkind = 'i' AND a.amname = 'btree' AND i.indisvalid AND i.indisready \
        OR c.relkind IN ('r', 'm', 't') AND a.amname = 'heap' \
        OR c.relkind = 'S') \
    ORDER BY pg_relation_size(c.oid) DESC";

/// One answer for each database that takes connections, templates too.
pub fn check(server: &Recovered) -> Vec<Check> {
    let databases = match databases(server) {
        Ok(databases) => databases,
        Err(error) => return vec![timed(KIND, "every database", || Answer::of_error(&error))],
    };
    databases
        .iter()
        .map(|database| timed(KIND, database, || check_database(server, database)))
        .collect()
}

fn databases(server: &Recovered) -> Result<Vec<String>> {
    let rows = server.connect("template1")?.query(
        "SELECT datname FROM pg_catalog.pg_database \
         WHERE datallowconn AND datconnlimit <> -2 ORDER BY datname",
    )?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

fn check_database(server: &Recovered, database: &str) -> Answer {
    let look = || -> Result<Answer> {
        let mut connection = server.connect(database)?;
        let extension = match Extension::enter(&mut connection) {
            Ok(extension) => extension,
            Err(error) => {
                return Ok(Answer::incomplete(format!(
                    "the extension amcheck cannot be used here (packages have it in \
                     postgresql-contrib): {error}"
                )));
            }
        };
        let relations = relations(&mut connection, database)?;
        let answer = check_relations(server, &extension, &relations);
        extension.leave(&mut connection)?;
        Ok(answer)
    };
    look().unwrap_or_else(|error| Answer::of_error(&error))
}

struct Extension {
    /// Quoted.
    schema: String,
    is_ours: bool,
    knows_uniqueness: bool,
}

impl Extension {
    fn enter(connection: &mut Connection) -> Result<Extension> {
        let installed = "SELECT quote_ident(n.nspname) FROM pg_catalog.pg_extension e \
            JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
        let (schema, is_ours) = match connection.value(installed)? {
            // As old as the cluster may be; what it lacks is added.
            Some(schema) => {
                connection.query("ALTER EXTENSION amcheck UPDATE")?;
                (schema, false)
            }
            None => {
                connection.query(&format!(
                    "BEGIN; CREATE SCHEMA {SCHEMA}; \
                     CREATE EXTENSION amcheck SCHEMA {SCHEMA}; COMMIT"
                ))?;
                (SCHEMA.to_owned(), true)
            }
        };
        let version = "SELECT string_to_array(extversion, '.')::int[] >= '{1,4}' \
            FROM pg_catalog.pg_extension WHERE extname = 'amcheck'";
        let knows_uniqueness = connection.value(version)?.as_deref() == Some("t");
        Ok(Extension { schema, is_ours, knows_uniqueness })
    }

    fn leave(self, connection: &mut Connection) -> Result<()> {
        if self.is_ours {
            connection.query(&format!("DROP SCHEMA {} CASCADE", self.schema))?;
        }
        Ok(())
    }

    fn question(&self, relation: &Relation) -> String {
        let (schema, oid) = (&self.schema, relation.oid);
        match relation.kind.as_str() {
            "i" => {
                let unique = if self.knows_uniqueness { ", checkunique => true" } else { "" };
                format!("SELECT {schema}.bt_index_check({oid}::regclass, true{unique})")
            }
            kind => format!(
                "SELECT blkno, offnum, attnum, msg FROM {schema}.verify_heapam({oid}::regclass, \
                 check_toast => {})",
                matches!(kind, "r" | "m")
            ),
        }
    }
}

fn relations(connection: &mut Connection, database: &str) -> Result<Vec<Relation>> {
    let mut found = Vec::new();
    connection.each_row(RELATIONS, &mut |row| {
        if let [Some(oid), Some(name), Some(kind)] = &row[..] {
            found.push(Relation {
                database: database.to_owned(),
                oid: oid.parse().unwrap_or_default(),
                name: name.clone(),
                kind: kind.clone(),
            });
        }
    })?;
    Ok(found)
}

fn check_relations(server: &Recovered, extension: &Extension, relations: &[Relation]) -> Answer {
    let began = Instant::now();
    let all: Vec<&Relation> = relations.iter().collect();
    let checked = ask_of_each(server, &all, "", |connection, relation| {
        complaints(connection, &extension.question(relation))
    });
    let (mut damaged, mut unchecked) = (Vec::new(), Vec::new());
    for (relation, outcome) in relations.iter().zip(checked) {
        match outcome {
            Ok(complaints) if complaints.is_empty() => {}
            Ok(complaints) => {
                damaged.push(format!("{}: {}", relation.name, listed(&complaints, COMPLAINTS_MAX)));
            }
            Err(error) if is_finding(&error) => damaged.push(format!("{}: {error}", relation.name)),
            Err(error) => unchecked.push(format!("{}: {error}", relation.name)),
        }
    }
    let indexes = relations.iter().filter(|relation| relation.kind == "i").count();
    let others = relations.len() - indexes;
    tracing::debug!(seconds = began.elapsed().as_secs(), "amcheck has read {indexes} indexes");
    answer(&damaged, &unchecked, format!("{indexes} b-tree indexes and {others} tables"))
}

fn answer(damaged: &[String], unchecked: &[String], all: String) -> Answer {
    let verdict = match (damaged.is_empty(), unchecked.is_empty()) {
        (false, _) => Verdict::Failed,
        (true, false) => Verdict::Incomplete,
        (true, true) => return Answer::passed(format!("{all} are sound")),
    };
    let mut parts = vec![format!("of {all}")];
    if !damaged.is_empty() {
        parts.push(format!("{} are damaged: {}", damaged.len(), listed(damaged, LISTED_MAX)));
    }
    if !unchecked.is_empty() {
        let listed = listed(unchecked, LISTED_MAX);
        parts.push(format!("{} could not be checked: {listed}", unchecked.len()));
    }
    Answer { verdict, words: parts.join("; ") }
}

/// What verify_heapam says; bt_index_check ends in an error instead.
fn complaints(connection: &mut Connection, question: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    connection.each_row(question, &mut |row| {
        if let [block, _, _, Some(complaint)] = &row[..] {
            let block = block.as_deref().unwrap_or("?");
            found.push(format!("block {block}: {complaint}"));
        }
    })?;
    Ok(found)
}

/// A table whose columns cannot be read is no less damaged than an index out of order.
fn is_finding(error: &Error) -> bool {
    speaks_of_damage(error) || matches!(sqlstate(error), Some("22P02" | "22021"))
}

#[cfg(test)]
mod tests {
    use super::{Extension, answer};
    use crate::commands::drill::checks::sharing::Relation;
    use crate::repository::drill_record::Verdict;

    #[test]
    fn what_was_not_checked_is_never_sound() {
        let list = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let verdict = |damaged: &[&str], unchecked: &[&str]| {
            answer(&list(damaged), &list(unchecked), "2 tables".to_owned()).verdict
        };
        assert_eq!(verdict(&[], &[]), Verdict::Passed);
        assert_eq!(verdict(&[], &["t: too long"]), Verdict::Incomplete);
        assert_eq!(verdict(&["t_pkey: out of order"], &["t: too long"]), Verdict::Failed);
    }

    #[test]
    fn each_kind_is_asked_in_its_own_way() {
        let extension =
            Extension { schema: "s".to_owned(), is_ours: true, knows_uniqueness: false };
        let of = |kind: &str| {
            let (database, name) = ("d".to_owned(), "t".to_owned());
            extension.question(&Relation { database, oid: 7, name, kind: kind.to_owned() })
        };
        assert_eq!(of("i"), "SELECT s.bt_index_check(7::regclass, true)");
        assert!(of("r").ends_with("s.verify_heapam(7::regclass, check_toast => true)"));
        assert!(of("S").ends_with("check_toast => false)"));
    }
}

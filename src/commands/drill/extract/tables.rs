//! The tables that are meant, found in the recovered server.

use crate::commands::drill::Recovered;
use crate::commands::drill::extract::names::{TableName, literal, quoted_pair};
use crate::config::suggest;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::Connection;
use crate::postgres::names::Identifier;

/// An ordinary table or a partitioned one, with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub is_partitioned: bool,
    /// Itself, and its partitions down to the last.
    pub members: Vec<Member>,
    /// Those that are stored, in their order: the generated ones come by themselves.
    pub columns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub oid: u32,
    pub schema: String,
    pub name: String,
}

impl Table {
    pub fn sql(&self) -> String {
        quoted_pair(&self.schema, &self.name)
    }

    /// For people: in quotes where it needs them.
    pub fn shown(&self) -> String {
        shown(&self.schema, &self.name)
    }
}

const RELATIONS: &str = "\
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispartition \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' \
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
    ORDER BY 2, 3";

#[derive(Debug)]
struct Relation {
    oid: u32,
    schema: String,
    name: String,
    kind: String,
    is_partition: bool,
}

/// The database they are in: the one that is named, the likely one, or the only one there was.
pub fn database(server: &Recovered, likely: Option<&str>, is_named: bool) -> Result<String> {
    let all = server.databases()?;
    let list = || all.join(", ");
    let is_there = |name: &&str| all.iter().any(|database| database == name);
    match likely.filter(|name| is_named || is_there(name)) {
        Some(named) if all.iter().any(|database| database == named) => Ok(named.to_owned()),
        Some(named) => Err(Error::new(
            ErrorKind::Refused,
            format!("there was no database {named} at that time"),
        )
        .hint(format!("There were: {}.", list()))),
        None => {
            let others: Vec<&String> = all.iter().filter(|name| *name != "postgres").collect();
            match others[..] {
                [] => Ok("postgres".to_owned()),
                [one] => Ok(one.clone()),
                _ => Err(Error::new(ErrorKind::Refused, "which database is meant is not clear")
                    .hint(format!("Say --database NAME; there were: {}.", list()))),
            }
        }
    }
}

/// What was prepared and not yet committed at that time is not there, but holds its locks.
pub fn end_prepared(connection: &mut Connection) -> Result<Option<String>> {
    let open = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1";
    let open = connection.query(open)?;
    let open: Vec<String> =
        open.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    for gid in &open {
        connection.query(&format!("ROLLBACK PREPARED {}", literal(gid)))?;
    }
    let names = open.join(", ");
    Ok((!open.is_empty()).then(|| {
        format!("Prepared and not committed at that time, so not part of what came back: {names}.")
    }))
}

pub fn find(connection: &mut Connection, wanted: &[TableName]) -> Result<Vec<Table>> {
    let known = relations(connection)?;
    let mut chosen: Vec<&Relation> = Vec::new();
    for name in wanted {
        for relation in meant(name, &known)? {
            if !chosen.iter().any(|one| one.oid == relation.oid) {
                chosen.push(relation);
            }
        }
    }
    let mut tables = Vec::new();
    for relation in chosen {
        tables.push(described(connection, relation)?);
    }
    // A partition comes with its whole.
    let wholes = tables.clone();
    tables.retain(|table| {
        let is_part = |whole: &Table| {
            whole.oid != table.oid && whole.members.iter().any(|member| member.oid == table.oid)
        };
        !wholes.iter().any(is_part)
    });
    Ok(tables)
}

fn relations(connection: &mut Connection) -> Result<Vec<Relation>> {
    let mut known = Vec::new();
    connection.each_row(RELATIONS, &mut |row| {
        if let [Some(oid), Some(schema), Some(name), Some(kind), Some(is_partition)] = &row[..] {
            known.push(Relation {
                oid: oid.parse().unwrap_or_default(),
                schema: schema.clone(),
                name: name.clone(),
                kind: kind.clone(),
                is_partition: is_partition == "t",
            });
        }
    })?;
    Ok(known)
}

fn meant<'k>(wanted: &TableName, known: &'k [Relation]) -> Result<Vec<&'k Relation>> {
    let fitting = known.iter().filter(|one| wanted.fits(&one.schema, &one.name));
    let (tables, others): (Vec<_>, Vec<_>) =
        fitting.partition(|one| matches!(one.kind.as_str(), "r" | "p"));
    let refused = |what: String| Error::new(ErrorKind::Refused, what);
    let full = |one: &Relation| quoted_or_plain(one);
    if tables.is_empty() {
        if let Some(other) = others.first() {
            let kind = match other.kind.as_str() {
                "v" => "a view",
                "m" => "a materialized view",
                "f" => "a foreign table",
                _ => "a sequence",
            };
            return Err(refused(format!("{} is {kind}, not a table", full(other)))
                .hint("Rows are extracted from tables: name those that it is made of."));
        }
        return Err(
            refused(format!("there was no table {wanted} at that time")).hint(near(wanted, known))
        );
    }
    if tables.len() > 1 && !wanted.is_pattern() {
        let all: Vec<String> = tables.iter().map(|one| full(one)).collect();
        return Err(
            refused(format!("{wanted} may mean {}", all.join(", "))).hint("Name the schema too.")
        );
    }
    // Of a partitioned table the whole is meant, unless a part was named.
    let is_part = |one: &&Relation| one.is_partition && wanted.is_pattern();
    let wholes: Vec<&Relation> = tables.iter().copied().filter(|one| !is_part(one)).collect();
    Ok(if wholes.is_empty() { tables } else { wholes })
}

fn near(wanted: &TableName, known: &[Relation]) -> String {
    let tables = known.iter().filter(|one| matches!(one.kind.as_str(), "r" | "p"));
    let names: Vec<(String, &Relation)> = tables
        .flat_map(|one| [(format!("{}.{}", one.schema, one.name), one), (one.name.clone(), one)])
        .collect();
    let plain: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    let found = suggest::nearest(&wanted.plain(), &plain);
    let relation = found.and_then(|found| names.iter().find(|(name, _)| name == found));
    match relation {
        Some((_, relation)) => format!("Did you mean {}?", quoted_or_plain(relation)),
        None => "Is it another database, or was it made later? walden find knows.".to_owned(),
    }
}

fn quoted_or_plain(relation: &Relation) -> String {
    shown(&relation.schema, &relation.name)
}

pub fn shown(schema: &str, name: &str) -> String {
    format!("{}.{}", Identifier(schema), Identifier(name))
}

fn described(connection: &mut Connection, relation: &Relation) -> Result<Table> {
    let oid = relation.oid;
    let own = Member { oid, schema: relation.schema.clone(), name: relation.name.clone() };
    let mut members = vec![own];
    if relation.kind == "p" {
        let partitions = format!(
            "SELECT c.oid, n.nspname, c.relname, c.relkind \
             FROM pg_partition_tree({oid}) t JOIN pg_class c ON c.oid = t.relid \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.level > 0 ORDER BY t.level, 2, 3"
        );
        let mut foreign = None;
        connection.each_row(&partitions, &mut |row| {
            if let [Some(oid), Some(schema), Some(name), Some(kind)] = &row[..] {
                if kind == "f" {
                    foreign.get_or_insert_with(|| format!("{schema}.{name}"));
                }
                let oid = oid.parse().unwrap_or_default();
                members.push(Member { oid, schema: schema.clone(), name: name.clone() });
            }
        })?;
        if let Some(foreign) = foreign {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{foreign} is a foreign table, whose rows are on another server"),
            )
            .hint("Name the partitions that are tables."));
        }
    }
    let columns = format!(
        "SELECT attname FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 \
         AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
    );
    let columns = connection.query(&columns)?;
    Ok(Table {
        oid,
        schema: relation.schema.clone(),
        name: relation.name.clone(),
        is_partitioned: relation.kind == "p",
        members,
        columns: columns.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Relation, meant};
    use crate::error::ErrorKind;

    fn known() -> Vec<Relation> {
        let all = [
            ("public", "orders", "r", false),
            ("old", "orders", "r", false),
            ("public", "events", "p", false),
            ("public", "events_1", "r", true),
            ("public", "totals", "v", false),
        ];
        let mut known = Vec::new();
        for (number, (schema, name, kind, is_partition)) in all.into_iter().enumerate() {
            let (schema, name, kind) = (schema.to_owned(), name.to_owned(), kind.to_owned());
            known.push(Relation { oid: number as u32, schema, name, kind, is_partition });
        }
        known
    }

    #[test]
    fn one_table_is_meant_or_it_is_said_why_not() {
        let known = known();
        let find = |text: &str| meant(&text.parse().unwrap(), &known);
        let oids = |text: &str| -> Vec<u32> { find(text).unwrap().iter().map(|r| r.oid).collect() };
        assert_eq!(oids("old.orders"), [1]);
        assert_eq!(oids("*.orders"), [0, 1]);
        assert_eq!(oids("event*"), [2], "partitions come with their whole");
        assert_eq!(oids("events_1"), [3], "unless one is named");
        assert_eq!(oids("events_*"), [3]);
        for (text, what, hint) in [
            ("orders", "may mean public.orders, old.orders", "schema"),
            ("totals", "public.totals is a view", "tables"),
            ("ordesr", "no table ordesr", "orders?"),
            ("public.evnets", "no table public.evnets", "public.events?"),
        ] {
            let error = find(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains(what), "{error}");
            assert!(error.hint_text().unwrap().contains(hint), "{:?}", error.hint_text());
        }
    }
}

//! In the recovered server, which is thrown away, the tables get the names they are to have, so
//! that pg_dump writes those and nobody has to rewrite SQL.

use crate::commands::drill::extract::names::{literal, quoted_name, quoted_pair};
use crate::commands::drill::extract::tables::{Member, Table};
use crate::error::{Context, Result};
use crate::postgres::connection::Connection;

/// Bytes of a name, as PostgreSQL is built everywhere (`NAMEDATALEN`).
const NAME_BYTES_MAX: usize = 63;

/// What a table is to be called where it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPlace {
    pub schema: Option<String>,
    /// Of the only table.
    pub name: Option<String>,
}

impl NewPlace {
    /// Beside the table as it is now.
    pub fn is_other(&self) -> bool {
        self.schema.is_some() || self.name.is_some()
    }

    /// Schema and name that a table gets.
    pub fn of(&self, table: &Table) -> (String, String) {
        let schema = self.schema.clone().unwrap_or_else(|| table.schema.clone());
        (schema, self.name.clone().unwrap_or_else(|| table.name.clone()))
    }
}

/// Without triggers of events, and without a look at who refers to what: of the scratch server
/// nothing is left but the dump.
pub const SESSION: &str = "SET session_replication_role = replica; SET client_min_messages = error";

/// The tables as they are called from now on. Beside the live table there is no place for foreign
/// keys, which would bind it to rows of today, nor for triggers.
pub fn stage(
    connection: &mut Connection,
    tables: &[Table],
    place: &NewPlace,
) -> Result<Vec<Table>> {
    if !place.is_other() {
        return Ok(tables.to_vec());
    }
    connection.query("BEGIN")?;
    if let Some(schema) = &place.schema {
        make_room(connection, schema, tables)?;
    }
    let mut staged = Vec::new();
    for table in tables {
        let moved = stage_one(connection, table, place);
        staged.push(moved.context(|| format!("prepare {}", table.shown()))?);
    }
    connection.query("COMMIT")?;
    Ok(staged)
}

/// An earlier extraction may be part of the past: what has the name now stands aside.
fn make_room(connection: &mut Connection, schema: &str, tables: &[Table]) -> Result<()> {
    let exists = format!("SELECT 1 FROM pg_namespace WHERE nspname = {}", literal(schema));
    if connection.value(&exists)?.is_some() && tables.iter().all(|table| table.schema != schema) {
        let aside = format!("walden_aside_{:08x}", fastrand::u32(..));
        let rename =
            format!("ALTER SCHEMA {} RENAME TO {}", quoted_name(schema), quoted_name(&aside));
        connection.query(&rename)?;
    }
    connection.query(&format!("CREATE SCHEMA IF NOT EXISTS {}", quoted_name(schema)))?;
    Ok(())
}

fn stage_one(connection: &mut Connection, table: &Table, place: &NewPlace) -> Result<Table> {
    leave_parents(connection, table)?;
    for member in &table.members {
        drop_all(connection, member)?;
    }
    let mut staged = table.clone();
    if let Some(name) = &place.name {
        rename_dependents(connection, table, name)?;
        for member in &mut staged.members {
            let is_itself = member.oid == table.oid;
            let to =
                if is_itself { name.clone() } else { renamed(&member.name, &table.name, name) };
            let sql = quoted_pair(&member.schema, &member.name);
            connection.query(&format!("ALTER TABLE {sql} RENAME TO {}", quoted_name(&to)))?;
            member.name = to;
        }
        staged.name.clone_from(name);
    }
    if let Some(schema) = &place.schema {
        for member in &mut staged.members {
            if member.schema != *schema {
                let sql = quoted_pair(&member.schema, &member.name);
                let to = quoted_name(schema);
                connection.query(&format!("ALTER TABLE {sql} SET SCHEMA {to}"))?;
                member.schema.clone_from(schema);
            }
        }
        staged.schema.clone_from(schema);
    }
    Ok(staged)
}

/// Else it would be part of the live table that it was part of then.
fn leave_parents(connection: &mut Connection, table: &Table) -> Result<()> {
    let parents = format!(
        "SELECT n.nspname, p.relname, c.relispartition FROM pg_inherits i \
             JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent \
             JOIN pg_namespace n ON n.oid = p.relnamespace WHERE i.inhrelid = {}",
        table.oid
    );
    for row in connection.query(&parents)? {
        let [Some(schema), Some(name), Some(is_partition)] = &row[..] else { continue };
        let (parent, table) = (quoted_pair(schema, name), table.sql());
        connection.query(&match is_partition == "t" {
            true => format!("ALTER TABLE {parent} DETACH PARTITION {table}"),
            false => format!("ALTER TABLE {table} NO INHERIT {parent}"),
        })?;
    }
    Ok(())
}

fn drop_all(connection: &mut Connection, member: &Member) -> Result<()> {
    let oid = member.oid;
    let sql = quoted_pair(&member.schema, &member.name);
    for (list, what) in [
        (
            format!(
                "SELECT conname FROM pg_constraint WHERE conrelid = {oid} AND contype = 'f' \
                 AND conparentid = 0"
            ),
            "CONSTRAINT",
        ),
        (
            format!(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = {oid} AND NOT tgisinternal \
                 AND tgparentid = 0"
            ),
            "TRIGGER",
        ),
    ] {
        for row in connection.query(&list)? {
            let Some(name) = row.into_iter().next().flatten() else { continue };
            let name = quoted_name(&name);
            connection.query(&match what {
                "TRIGGER" => format!("DROP TRIGGER {name} ON {sql}"),
                _ => format!("ALTER TABLE {sql} DROP CONSTRAINT {name}"),
            })?;
        }
    }
    Ok(())
}

/// In the same schema, indexes, partitions, sequences and statistics of the live table have their
/// names.
fn rename_dependents(connection: &mut Connection, table: &Table, new: &str) -> Result<()> {
    let oids: Vec<String> = table.members.iter().map(|member| member.oid.to_string()).collect();
    let oids = oids.join(",");
    let list = format!(
        "SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'INDEX' END, n.nspname, c.relname \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN ( \
             SELECT indexrelid FROM pg_index WHERE indrelid IN ({oids}) \
             UNION ALL SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass \
                 AND refclassid = 'pg_class'::regclass AND refobjid IN ({oids}) \
                 AND deptype IN ('a', 'i') AND objid IN ( \
                     SELECT oid FROM pg_class WHERE relkind = 'S')) \
         UNION ALL SELECT 'STATISTICS', n.nspname, s.stxname FROM pg_statistic_ext s \
             JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid IN ({oids})"
    );
    for row in connection.query(&list)? {
        let [Some(what), Some(schema), Some(name)] = &row[..] else { continue };
        let to = quoted_name(&renamed(name, &table.name, new));
        let from = quoted_pair(schema, name);
        connection.query(&format!("ALTER {what} {from} RENAME TO {to}"))?;
    }
    Ok(())
}

/// `orders_pkey` of `orders` becomes `was_pkey` of `was`; what is called otherwise gets the new
/// name in front.
fn renamed(dependent: &str, old: &str, new: &str) -> String {
    let rest = dependent.strip_prefix(old).map(|rest| rest.trim_start_matches('_'));
    let whole = format!("{new}_{}", rest.unwrap_or(dependent));
    if whole.len() <= NAME_BYTES_MAX {
        return whole;
    }
    // Two long names may begin alike: the end is a number that tells them apart.
    let mark = format!("_{:08x}", crc32fast::hash(whole.as_bytes()));
    let mut end = NAME_BYTES_MAX - mark.len();
    while !whole.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{mark}", &whole[..end])
}

#[cfg(test)]
mod tests {
    use super::{NAME_BYTES_MAX, renamed};

    #[test]
    fn what_belongs_to_a_table_is_renamed_with_it() {
        assert_eq!(renamed("orders_pkey", "orders", "was"), "was_pkey");
        assert_eq!(renamed("by_customer", "orders", "was"), "was_by_customer");
        let long = "ä".repeat(31);
        let (one, other) = (format!("{long}a"), format!("{long}b"));
        let (one, other) = (renamed(&one, "orders", "was"), renamed(&other, "orders", "was"));
        assert!(one.len() <= NAME_BYTES_MAX && one.starts_with("was_ä") && one != other, "{one}");
    }
}

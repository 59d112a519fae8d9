//! What one should know of tables that come back without what stood around them.

use crate::commands::drill::extract::tables::Table;
use crate::commands::drill::extract::{Content, Request, To};
use crate::error::Result;
use crate::postgres::connection::Connection;

const LISTED_MAX: usize = 10;
const LARGE_OBJECTS: &str = "Large objects do not come along, should these columns name any";

pub fn of(connection: &mut Connection, tables: &[Table], request: &Request) -> Result<Vec<String>> {
    let oids: Vec<String> = tables
        .iter()
        .flat_map(|table| &table.members)
        .map(|member| member.oid.to_string())
        .collect();
    let oids = oids.join(",");
    let mut notes = Vec::new();
    add(connection, &naming_large_objects(&oids), LARGE_OBJECTS, &mut notes)?;
    let To::Database(destination) = &request.to else { return Ok(notes) };
    if request.content == Content::DataOnly {
        notes.push("Sequences of the live table stand where they stood.".to_owned());
        return Ok(notes);
    }
    if destination.place.is_other() {
        let own = format!(
            "SELECT 1 FROM pg_constraint WHERE conrelid IN ({oids}) AND contype = 'f' \
             UNION ALL SELECT 1 FROM pg_trigger WHERE tgrelid IN ({oids}) AND NOT tgisinternal"
        );
        if !connection.query(&own)?.is_empty() {
            notes.push("Foreign keys and triggers were left away: it is a copy to look at.".into());
        }
        return Ok(notes);
    }
    let pointing = format!(
        "SELECT quote_ident(conname) || ' of ' || conrelid::regclass FROM pg_constraint \
         WHERE confrelid IN ({oids}) AND conrelid NOT IN ({oids}) AND contype = 'f' \
             AND conparentid = 0 ORDER BY 1"
    );
    add(
        connection,
        &pointing,
        "Foreign keys of other tables that referred to it are not made",
        &mut notes,
    )?;
    let views = format!(
        "SELECT DISTINCT r.ev_class::regclass::text FROM pg_depend d \
             JOIN pg_rewrite r ON r.oid = d.objid WHERE d.classid = 'pg_rewrite'::regclass \
             AND d.refclassid = 'pg_class'::regclass AND d.refobjid IN ({oids}) \
             AND r.ev_class NOT IN ({oids}) ORDER BY 1"
    );
    add(connection, &views, "Views on it are not made", &mut notes)?;
    Ok(notes)
}

/// Columns that may name one, where there are any. They are of type `oid`, or of a domain over it,
/// such as `lo` of the extension of that name.
fn naming_large_objects(oids: &str) -> String {
    format!(
        "SELECT attrelid::regclass || '.' || quote_ident(attname) FROM pg_attribute \
         JOIN pg_type t ON t.oid = atttypid WHERE attrelid IN ({oids}) AND attnum > 0 \
             AND 'oid'::regtype IN (t.oid, t.typbasetype) \
             AND EXISTS (SELECT FROM pg_largeobject_metadata) ORDER BY 1"
    )
}

fn add(connection: &mut Connection, sql: &str, what: &str, notes: &mut Vec<String>) -> Result<()> {
    let rows = connection.query(sql)?;
    let names: Vec<String> =
        rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let more = match names.len().saturating_sub(LISTED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let listed = names.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join(", ");
    notes.push(format!("{what}: {listed}{more}."));
    Ok(())
}

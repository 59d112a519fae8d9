//! The names from a running server: one ordinary connection to each database, one at a time.
//!
//! Reading must never hurt. It is read only, gives up rather than wait for a lock, holds no lock
//! and no snapshot for longer than one small question, and ends in bounded time. Nothing is set for
//! longer than a transaction, in case a pooler gives the session to others.

use std::time::Duration;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock::{self, Deadline};
use crate::postgres::connection::{Connection, ConnectionOptions, sqlstate};
use crate::postgres::names::relations::{Builder, Relations, Row};
use crate::postgres::names::{Database, Names, Persistence, RelationKind, SHARED};

/// For all databases together: the names are a help, not a need.
const TIME_MAX: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(10);
/// Relations in one answer, so that neither side holds many.
const PAGE: usize = 5000;

/// By the indexes of the catalogs: else the time would grow with the square of the relations.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; \
    SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL statement_timeout = '10s'; \
    SET LOCAL lock_timeout = '2s'; SET LOCAL jit = off; SET LOCAL enable_seqscan = off; \
    SET LOCAL enable_sort = off";

impl Names {
    /// Of the server now, and in sentences what could not be had of them.
    pub fn read(options: &ConnectionOptions) -> Result<(Names, Vec<String>)> {
        let deadline = Deadline::after(TIME_MAX);
        let (mut names, mut found) = introduce(&patient(options))?;
        found.sort_by_key(|database| database.oid);
        let (mut shared, mut notes) = (None, Vec::new());
        for found in found {
            let Found { oid, name, .. } = &found;
            let (oid, name) = (*oid, name.as_str().into());
            let read = match (found.is_open, deadline.has_passed()) {
                (false, _) => Err("it allows no connections".to_owned()),
                (true, true) => Err(format!("reading took more than {} s", TIME_MAX.as_secs())),
                (true, false) => read(&found, options, &deadline).map_err(|e| e.to_string()),
            };
            let database = match read {
                Ok((own, of_all)) => {
                    shared.get_or_insert(of_all);
                    Database { oid, name, unread: None, relations: own }
                }
                Err(why) => {
                    if found.is_open {
                        notes.push(format!("the relations of {} are not known: {why}", found.name));
                    }
                    let (unread, relations) = (Some(why.into()), Relations::default());
                    Database { oid, name, unread, relations }
                }
            };
            names.databases.push(database);
        }
        if let Some(relations) = shared {
            let database = Database { oid: SHARED, name: "".into(), unread: None, relations };
            names.databases.insert(0, database);
        }
        Ok((names, notes))
    }
}

fn patient(options: &ConnectionOptions) -> ConnectionOptions {
    options.clone().connect_timeout(PATIENCE).read_timeout(Some(2 * PATIENCE)).sql()
}

/// A row of `pg_database`.
struct Found {
    oid: u32,
    name: String,
    /// Its default tablespace.
    tablespace: u32,
    is_open: bool,
}

/// Who the server is and which databases it has.
fn introduce(options: &ConnectionOptions) -> Result<(Names, Vec<Found>)> {
    // -2 is what an interrupted DROP DATABASE leaves behind.
    const DATABASES: &str = "SELECT oid, datname, dattablespace, \
        datallowconn AND datconnlimit <> -2 AND datname <> 'template0' FROM pg_database";
    const MOMENT: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
        ELSE pg_current_wal_insert_lsn() END";
    let mut connection = connect(options)?;
    connection.query(BEGIN)?;
    let moment = row::<2>(connection.query(MOMENT)?.into_iter().next())?;
    let [time, lsn] = moment;
    let time = time.and_then(|time| time.parse().ok());
    let time = time.and_then(|time| jiff::Timestamp::from_microsecond(time).ok());
    let found = connection.query(DATABASES)?.into_iter().map(|found| {
        let [oid, name, tablespace, is_open] = row(Some(found))?;
        Ok(Found {
            oid: number(oid)?,
            name: name.unwrap_or_default(),
            tablespace: number(tablespace)?,
            is_open: is_open.as_deref() == Some("t"),
        })
    });
    let found = found.collect::<Result<Vec<Found>>>()?;
    // Last: where a role may not ask, the transaction ends.
    let identifier = connection.value("SELECT system_identifier FROM pg_control_system()");
    let names = Names {
        system_identifier: identifier.ok().flatten().and_then(|text| text.parse().ok()),
        time: time.unwrap_or_else(clock::now),
        lsn: lsn.and_then(|lsn| lsn.parse().ok()),
        databases: Vec::new(),
    };
    Ok((names, found))
}

/// To the database named, or to `postgres`, or, as PostgreSQL's own programs do, to `template1`.
fn connect(options: &ConnectionOptions) -> Result<Connection> {
    Connection::connect(options).or_else(|error| match sqlstate(&error) {
        Some("3D000" | "28000" | "42501" | "55000" | "53300") => {
            let other = options.clone().dbname("template1");
            Connection::connect(&other).map_err(|_| error)
        }
        _ => Err(error),
    })
}

/// Its own relations, and those of all databases.
fn read(
    found: &Found,
    options: &ConnectionOptions,
    deadline: &Deadline,
) -> Result<(Relations, Relations)> {
    let mut connection = Connection::connect(&patient(options).dbname(&found.name))?;
    let (mut own, mut shared) = (Builder::default(), Builder::default());
    let mut last = 0;
    while let Some(next) = read_page(&mut connection, found, last, [&mut own, &mut shared])
        .context(|| "read pg_class")?
    {
        last = next;
        if deadline.has_passed() {
            return Err(Error::new(
                ErrorKind::Server,
                format!("reading took more than {} s", TIME_MAX.as_secs()),
            ));
        }
    }
    Ok((own.finish()?, shared.finish()?))
}

/// The oid to go on after; `None` at the end.
///
/// Files of mapped catalogs are asked for one by one, those of all others stand in the row: asking
/// for each would fill the server's caches.
fn read_page(
    connection: &mut Connection,
    found: &Found,
    last: u32,
    [own, shared]: [&mut Builder; 2],
) -> Result<Option<u32>> {
    connection.query(BEGIN)?;
    let rows = connection.query(&format!(
        "SELECT c.oid, (SELECT n.nspname FROM pg_namespace n WHERE n.oid = c.relnamespace), \
            c.relname, c.relkind, c.relpersistence, c.relisshared, \
            CASE WHEN c.relfilenode = 0 AND c.relkind IN ('r', 'i', 't', 'S', 'm') \
                THEN pg_relation_filenode(c.oid) ELSE c.relfilenode END, \
            c.reltablespace, c.reltoastrelid, CASE \
                WHEN c.relkind IN ('i', 'I') THEN \
                    (SELECT i.indrelid FROM pg_index i WHERE i.indexrelid = c.oid) \
                WHEN c.relkind = 'S' THEN \
                    (SELECT d.refobjid FROM pg_depend d \
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
                        AND d.objsubid = 0 AND d.refclassid = 'pg_class'::regclass \
                        AND d.deptype IN ('a', 'i') LIMIT 1) END, \
            c.reltuples \
        FROM pg_class c WHERE c.oid > {last}::oid ORDER BY c.oid LIMIT {PAGE}"
    ))?;
    connection.query("COMMIT")?;
    let (count, mut next) = (rows.len(), last);
    for columns in rows {
        let [oid, schema, name, kind, persistence, is_shared, file, space, toast, parent, rows] =
            row(Some(columns))?;
        let [oid, file, space, toast, parent] = [oid, file, space, toast, parent].map(number);
        let (oid, toast) = (oid?, toast?);
        let builder = if is_shared.as_deref() == Some("t") { &mut *shared } else { &mut *own };
        let space = space?;
        builder.push(Row {
            oid,
            schema: schema.as_deref().unwrap_or_default(),
            name: name.as_deref().unwrap_or_default(),
            number: file?,
            tablespace: if space == 0 { found.tablespace } else { space },
            parent: parent?,
            rows: rows.and_then(|rows| rows.parse().ok()).map_or(-1.0, f32::round),
            kind: RelationKind::from_relkind(&kind.unwrap_or_default()),
            persistence: persistence_of(persistence.as_deref()),
        })?;
        if toast != 0 {
            builder.note_toast(toast, oid);
        }
        next = oid;
    }
    Ok((count == PAGE).then_some(next))
}

fn persistence_of(letter: Option<&str>) -> Persistence {
    match letter {
        Some("t") => Persistence::Temporary,
        Some("u") => Persistence::Unlogged,
        _ => Persistence::Permanent,
    }
}

type Columns<const N: usize> = [Option<String>; N];

fn row<const N: usize>(row: Option<Vec<Option<String>>>) -> Result<Columns<N>> {
    let columns = row.and_then(|row| <Columns<N>>::try_from(row).ok());
    columns.ok_or_else(|| nonsense("a row of another shape"))
}

/// 0 for NULL, as in the catalogs themselves.
fn number(column: Option<String>) -> Result<u32> {
    let text = column.unwrap_or_else(|| "0".to_owned());
    text.parse().map_err(|_| nonsense(&format!("{text:?}, where a number should be")))
}

fn nonsense(what: &str) -> Error {
    Error::new(ErrorKind::Server, format!("the server's catalog says {what}"))
        .hint("Is this a server of PostgreSQL's own making? Report it with its version.")
}

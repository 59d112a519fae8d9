//! `drill --extract`: one table as it was, from a recovered server into a file or a live database.

pub mod names;
mod tables;
mod staging;
mod destination;
mod transfer;
mod files;
pub mod report;
mod notes;
mod run;

use std::path::PathBuf;

use crate::commands::drill::Recovered;
use crate::error::{Context, Error, ErrorKind, Result};

pub use destination::Destination;
pub use files::Place;
pub use names::TableName;
pub use report::{Report, TableBack};
pub use run::run;
pub use staging::NewPlace;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub tables: Vec<TableName>,
    /// Where no table names one: that of the destination, else the only one there was.
    pub database: Option<String>,
    pub content: Content,
    /// Whoever brings them back owns them.
    pub no_owner: bool,
    /// Where pg_dump may be.
    pub bin: Option<PathBuf>,
    pub to: To,
}

#[derive(Debug, Clone)]
pub enum To {
    Files(PathBuf),
    Database(Box<Destination>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    SchemaAndData,
    DataOnly,
}

impl Content {
    pub fn as_str(self) -> &'static str {
        match self {
            Content::SchemaAndData => "schema-and-data",
            Content::DataOnly => "data-only",
        }
    }
}

/// A request that makes sense, with a destination that takes it.
#[derive(Debug)]
pub struct Prepared {
    request: Request,
    /// Which database it is most likely about; `None`: that is not known yet.
    pub database: Option<String>,
    /// Whether that was said.
    is_named: bool,
    /// In words.
    pub into: String,
    to: Ready,
}

#[derive(Debug)]
enum Ready {
    Files(Place),
    Database(Box<Destination>),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub database: String,
    pub tables: Vec<TableBack>,
    pub notes: Vec<String>,
}

/// Refuses what is known to be impossible before an hour is spent on a restore.
pub fn prepare(request: Request) -> Result<Prepared> {
    let mut named: Vec<&String> =
        request.tables.iter().filter_map(|name| name.database.as_ref()).collect();
    named.extend(&request.database);
    named.dedup();
    if named.len() > 1 {
        return Err(Error::new(ErrorKind::Usage, "the tables are of several databases")
            .hint("Extract from one database at a time."));
    }
    let named = named.first().map(|name| (*name).clone());
    let is_named = named.is_some();
    let (into, to, there) = match &request.to {
        To::Files(path) => {
            let place = Place::examine(path, &request.tables)?;
            (place.path().display().to_string(), Ready::Files(place), None)
        }
        To::Database(destination) => {
            if destination.place.name.is_some() && request.tables.len() != 1 {
                return Err(one_name(ErrorKind::Usage));
            }
            let (database, server) = destination
                .look(&request.tables, request.content)
                .context(|| "look at the destination")?;
            let ready = Ready::Database(destination.clone());
            (format!("{server}/{database}"), ready, Some(database))
        }
    };
    // The one that was lost is most likely of the same name.
    Ok(Prepared { database: named.or(there), is_named, into, to, request })
}

fn one_name(kind: ErrorKind) -> Error {
    Error::new(kind, "a new name is for one table").hint("Say --into-schema NAME for several.")
}

impl Prepared {
    /// Whether rows alone are not enough.
    fn needs_dump(&self) -> bool {
        match &self.to {
            Ready::Database(_) => self.request.content == Content::SchemaAndData,
            Ready::Files(place) => place.needs_dump(),
        }
    }

    pub fn content(&self) -> Content {
        self.request.content
    }

    /// Finds the tables in the recovered server and brings them where they are wanted. `progress`
    /// is told of bytes.
    pub fn bring_back(&self, server: &Recovered, progress: &dyn Fn(u64)) -> Result<Outcome> {
        let request = &self.request;
        let database = tables::database(server, self.database.as_deref(), self.is_named)?;
        let mut connection = server.connect(&database)?;
        let open = tables::end_prepared(&mut connection)?;
        let found = tables::find(&mut connection, &request.tables)?;
        let mut notes = notes::of(&mut connection, &found, request)?;
        notes.extend(open);
        drop(connection);
        let what = (database.as_str(), found.as_slice());
        let tables = match &self.to {
            Ready::Database(destination)
                if destination.place.name.is_some() && found.len() != 1 =>
            {
                return Err(one_name(ErrorKind::Refused));
            }
            Ready::Database(destination) => {
                transfer::carry_over(server, what, request, destination, progress)?
            }
            Ready::Files(place) => files::write(server, what, request, place, progress)?,
        };
        Ok(Outcome { database, tables, notes })
    }

    fn tables_in_words(&self) -> String {
        let names = self.request.tables.iter().map(ToString::to_string);
        names.collect::<Vec<_>>().join(", ")
    }
}

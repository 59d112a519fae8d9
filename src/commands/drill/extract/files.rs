//! Into files: an archive for pg_restore, SQL, or CSV, by the ending of the name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::commands::drill::Recovered;
use crate::commands::drill::dump::Dump;
use crate::commands::drill::extract::names::{TableName, quoted_name};
use crate::commands::drill::extract::report::TableBack;
use crate::commands::drill::extract::tables::Table;
use crate::commands::drill::extract::transfer::{
    copy_source, owner_arguments, source_session, table_arguments,
};
use crate::commands::drill::extract::{Content, Request};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::atomic_file::PendingFile;

/// Rows of a table are nobody else's.
const MODE: u32 = 0o600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// For pg_restore.
    Archive,
    Sql,
    Csv,
}

/// Where the tables go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    /// An archive for each table.
    Directory(PathBuf),
}

impl Place {
    /// A directory is one that is there, or ends in a slash. Refused where something would be
    /// overwritten, as far as the names tell.
    pub fn examine(path: &Path, wanted: &[TableName]) -> Result<Place> {
        let is_directory = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        if is_directory {
            return Ok(Place::Directory(path.to_owned()));
        }
        refuse_existing(path)?;
        let is_csv = format_of(path) == Format::Csv;
        if is_csv && (wanted.len() != 1 || wanted[0].is_pattern()) {
            return Err(Error::new(ErrorKind::Usage, "a CSV file holds one table")
                .hint("Name one table, or a file that ends in .dump or .sql."));
        }
        Ok(Place::File(path.to_owned()))
    }

    pub fn needs_dump(&self) -> bool {
        match self {
            Place::File(path) => format_of(path) != Format::Csv,
            Place::Directory(_) => true,
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            Place::File(path) | Place::Directory(path) => path,
        }
    }
}

pub fn write(
    server: &Recovered,
    (database, tables): (&str, &[Table]),
    request: &Request,
    place: &Place,
    progress: &dyn Fn(u64),
) -> Result<Vec<TableBack>> {
    let work = Work { server, database, request, progress };
    match place {
        Place::File(path) => work.file(path, tables),
        Place::Directory(folder) => {
            fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
            let mut back = Vec::new();
            for table in tables {
                let name = format!("{}.{}.dump", table.schema, table.name).replace('/', "%2F");
                back.extend(work.file(&folder.join(name), std::slice::from_ref(table))?);
            }
            Ok(back)
        }
    }
}

struct Work<'w> {
    server: &'w Recovered,
    database: &'w str,
    request: &'w Request,
    progress: &'w dyn Fn(u64),
}

impl Work<'_> {
    fn file(&self, path: &Path, tables: &[Table]) -> Result<Vec<TableBack>> {
        refuse_existing(path)?;
        let mut file = PendingFile::create(path, MODE).map_err(|error| failed(path, error))?;
        let mut take = |bytes: &[u8]| {
            (self.progress)(bytes.len() as u64);
            file.write(bytes).map_err(|error| failed(path, error))
        };
        let back = match (format_of(path), tables) {
            (Format::Csv, [table]) => self.csv(path, table, &mut take)?,
            (Format::Csv, _) => {
                return Err(Error::new(ErrorKind::Refused, "a CSV file holds one table")
                    .hint("Name one table, or a file that ends in .dump or .sql."));
            }
            (format, _) => self.dump(path, tables, format, &mut take)?,
        };
        file.publish_new().map_err(|error| failed(path, error))?;
        Ok(back)
    }

    fn csv(
        &self,
        path: &Path,
        table: &Table,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Vec<TableBack>> {
        let mut connection = source_session(self.server, self.database)?;
        let columns: Vec<String> = table.columns.iter().map(|name| quoted_name(name)).collect();
        let from = copy_source(table, &format!(" ({})", columns.join(", ")));
        let mut bytes = 0;
        let sql = format!("COPY {from} TO STDOUT (FORMAT csv, HEADER)");
        let rows = connection.copy_out(&sql, &mut |piece| {
            bytes += piece.len() as u64;
            take(piece)
        });
        let rows = rows.context(|| format!("copy the rows of {}", table.shown()))?;
        let into = path.display().to_string();
        Ok(vec![TableBack { from: table.shown(), into, rows, bytes: Some(bytes) }])
    }

    /// pg_dump does not say how many rows it has written: nobody else writes there, so they can be
    /// counted.
    fn dump(
        &self,
        path: &Path,
        tables: &[Table],
        format: Format,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Vec<TableBack>> {
        let dump = Dump::find(self.server, self.request.bin.as_deref())?;
        let mut arguments = table_arguments(tables);
        arguments.extend(owner_arguments(self.request));
        arguments.push(
            match format {
                Format::Archive => "--format=custom",
                Format::Sql | Format::Csv => "--format=plain",
            }
            .to_owned(),
        );
        if self.request.content == Content::DataOnly {
            arguments.push("--data-only".to_owned());
        }
        dump.run(self.database, arguments, take)?;
        let mut connection = source_session(self.server, self.database)?;
        let mut back = Vec::new();
        for table in tables {
            let only = if table.is_partitioned { "" } else { "ONLY " };
            let rows = connection.value(&format!("SELECT count(*) FROM {only}{}", table.sql()))?;
            let rows = rows.and_then(|rows| rows.parse().ok()).unwrap_or_default();
            let into = path.display().to_string();
            back.push(TableBack { from: table.shown(), into, rows, bytes: None });
        }
        Ok(back)
    }
}

fn format_of(path: &Path) -> Format {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some(ending) if ending.eq_ignore_ascii_case("csv") => Format::Csv,
        Some(ending) if ending.eq_ignore_ascii_case("sql") => Format::Sql,
        _ => Format::Archive,
    }
}

fn refuse_existing(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(_) => {
            Err(Error::new(ErrorKind::Refused, format!("{} is there already", path.display()))
                .hint("Nothing is overwritten: name another file."))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path, error)),
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        io::ErrorKind::AlreadyExists => ErrorKind::Refused,
        _ => ErrorKind::Host,
    };
    Error::new(kind, format!("write {}", path.display()))
        .hint("Look at the directory's permissions and at the disk.")
        .source(error)
}

#[cfg(test)]
mod tests {
    use super::Place;
    use crate::error::ErrorKind;

    #[test]
    fn nothing_is_overwritten_and_csv_holds_one_table() {
        let scratch = tempfile::tempdir().unwrap();
        let one = ["orders".parse().unwrap()];
        let both = ["orders".parse().unwrap(), "items".parse().unwrap()];
        let look = |path: &std::path::Path, wanted: &[_]| Place::examine(path, wanted);
        let folder = look(scratch.path(), &both).unwrap();
        assert_eq!(folder, Place::Directory(scratch.path().to_owned()));
        let new = scratch.path().join("new/");
        assert!(matches!(look(&new, &one).unwrap(), Place::Directory(_)));
        let csv = scratch.path().join("orders.CSV");
        assert!(matches!(look(&csv, &one).unwrap(), Place::File(_)));
        assert_eq!(look(&csv, &both).unwrap_err().kind(), ErrorKind::Usage);
        std::fs::write(&csv, "").unwrap();
        assert_eq!(look(&csv, &one).unwrap_err().kind(), ErrorKind::Refused);
    }
}

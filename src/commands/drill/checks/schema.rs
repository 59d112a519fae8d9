//! The definitions of all that is in each database, as pg_dump writes them, beside those of the
//! drill before.

use std::fs::{self, File};
use std::hash::Hasher as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use crate::commands::drill::Recovered;
use crate::commands::drill::checks::{Answer, DumpSchema, timed};
use crate::commands::drill::dump::Dump;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::drill_record::{Check, DrillRecord};

const KIND: &str = "schema";
const MARK: &str = "XXH3 ";

/// One answer for each database.
pub fn check(
    server: &Recovered,
    wanted: &DumpSchema,
    previous: Option<&DrillRecord>,
) -> Vec<Check> {
    let dump = Dump::find(server, wanted.bin.as_deref());
    let databases = dump.and_then(|dump| Ok((server.databases()?, dump)));
    let (databases, dump) = match databases {
        Ok(found) => found,
        Err(error) => {
            return vec![timed(KIND, "every database", || Answer::incomplete(error.to_string()))];
        }
    };
    let ask = |database: &String| {
        let before = previous.and_then(|record| sum_in(record, database));
        let answer = look(&dump, database, wanted.directory.as_deref(), before);
        answer.unwrap_or_else(|error| Answer::incomplete(error.to_string()))
    };
    databases.iter().map(|database| timed(KIND, database, || ask(database))).collect()
}

fn look(
    dump: &Dump<'_>,
    database: &str,
    directory: Option<&Path>,
    before: Option<&str>,
) -> Result<Answer> {
    let mut lines = Lines::default();
    let mut file = directory.map(|directory| KeptDump::create(directory, database)).transpose()?;
    dump.run(database, ["--schema-only"], &mut |bytes| {
        lines.take(bytes);
        file.as_mut().map_or(Ok(()), |file| file.write(bytes))
    })?;
    let kept = file.map(KeptDump::finish).transpose()?;
    let kept = kept.map(|path| format!(", in {}", path.display())).unwrap_or_default();
    let (count, sum) = lines.finish();
    let compared = match before {
        None => String::new(),
        Some(before) if before == sum => ", the same as in the drill before".to_owned(),
        Some(before) => format!(", changed since the drill before ({before})"),
    };
    Ok(Answer::passed(format!("{count} lines, {MARK}{sum}{compared}{kept}")))
}

/// The checksum that a record has of a database.
fn sum_in<'r>(record: &'r DrillRecord, database: &str) -> Option<&'r str> {
    let check = record.checks.iter().find(|one| one.kind == KIND && one.what == database)?;
    let (_, rest) = check.answer.split_once(MARK)?;
    rest.get(..16)
}

/// Counts lines and sums them up, but for those that say which program wrote them and when.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    count: u64,
    sum: XxHash3_64,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let incidental = [&b"-- Dumped "[..], b"\\restrict ", b"\\unrestrict "];
        let is_incidental = incidental.iter().any(|begin| self.begun.starts_with(begin));
        if !is_incidental && !self.begun.is_empty() {
            self.sum.write(&self.begun);
            self.count += 1;
        }
        self.begun.clear();
    }

    fn finish(mut self) -> (u64, String) {
        self.end_line();
        (self.count, format!("{:016x}", self.sum.finish()))
    }
}

struct KeptDump {
    path: PathBuf,
    file: File,
}

impl KeptDump {
    fn create(directory: &Path, database: &str) -> Result<KeptDump> {
        // No name of a database leads out of the directory.
        let name = database.replace('%', "%25").replace('/', "%2F");
        let path = directory.join(format!("{name}.sql"));
        let made = fs::create_dir_all(directory).and_then(|()| File::create(&path));
        let file = made.map_err(|error| failed(&path, error))?;
        Ok(KeptDump { path, file })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| failed(&self.path, error))
    }

    fn finish(self) -> Result<PathBuf> {
        self.file.sync_all().map_err(|error| failed(&self.path, error))?;
        Ok(self.path)
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Host, format!("write {}", path.display()))
        .hint("Look at the directory's permissions and at the disk.")
        .source(error)
}

#[cfg(test)]
mod tests {
    use super::Lines;

    fn sum(pieces: &[&str]) -> (u64, String) {
        let mut lines = Lines::default();
        pieces.iter().for_each(|piece| lines.take(piece.as_bytes()));
        lines.finish()
    }

    #[test]
    fn who_wrote_a_dump_does_not_count_and_all_else_does() {
        let one =
            sum(&["-- Dumped by pg_dump version 15.1\n\\restrict abc\nCREATE TA", "BLE t;\nx"]);
        let same = sum(&["-- Dumped by pg_dump version 17.1\nCREATE TABLE t;\n", "x"]);
        assert_eq!(one, same);
        assert_eq!(one.0, 2);
        assert_ne!(one.1, sum(&["CREATE TABLE u;\nx"]).1);
    }
}

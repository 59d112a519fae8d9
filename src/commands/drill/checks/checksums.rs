//! Every page of every relation against its checksum, while the server runs.
//!
//! The server runs on, so that the drill's other questions can be asked and it can be kept; nobody
//! else writes to it. After a checkpoint the files are what replay made of them. A page that looks
//! damaged may just be written: it is read again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::commands::drill::Recovered;
use crate::commands::drill::checks::{Answer, Checksums, listed};
use crate::error::{Error, ErrorKind, Result};
use crate::host;
use crate::postgres::connection::Connection;
use crate::postgres::data_files::{RelationDirectory, TABLESPACES};
use crate::postgres::page::{self, PAGE_BYTES, Page};

const CHUNK_BYTES: usize = 128 * PAGE_BYTES;
const ATTEMPTS_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);
/// Beyond so many, waiting for each page would take for ever.
const PATIENT_WITH: usize = 100;
const LISTED_MAX: usize = 20;

/// A server that does not answer is asked, so that its silence is told.
pub fn is_asked(server: &Recovered, wanted: Checksums) -> bool {
    match wanted {
        Checksums::No => false,
        Checksums::Yes => true,
        Checksums::WhereThereAre => {
            let connection = server.connect("template1");
            connection.and_then(|mut connection| has_checksums(&mut connection)).unwrap_or(true)
        }
    }
}

fn has_checksums(connection: &mut Connection) -> Result<bool> {
    Ok(connection.value("SHOW data_checksums")?.as_deref() == Some("on"))
}

pub fn check(server: &Recovered) -> Answer {
    let look = || -> Result<Answer> {
        let mut connection = server.connect("template1")?;
        if !has_checksums(&mut connection)? {
            return Ok(Answer::incomplete(
                "the cluster has no data checksums: nothing can be compared (pg_checksums --enable \
                 turns them on)",
            ));
        }
        let Some(blocks_per_file) = blocks_per_file(&mut connection)? else {
            return Ok(Answer::incomplete("the cluster's pages are not of 8 KiB"));
        };
        connection.query("CHECKPOINT")?;
        let files = relation_files(server.pgdata())?;
        Ok(Pass { blocks_per_file, ..Pass::default() }.over(&files))
    };
    look().unwrap_or_else(|error| Answer::of_error(&error))
}

/// Of 1 GiB if nobody built it otherwise; `None` where pages have another size than ours.
fn blocks_per_file(connection: &mut Connection) -> Result<Option<u32>> {
    let rows = connection.query(
        "SELECT setting FROM pg_settings \
         WHERE name IN ('block_size', 'segment_size') ORDER BY name",
    )?;
    let mut numbers = rows.iter().map(|row| row.first()?.as_ref()?.parse::<u32>().ok());
    let block_bytes = numbers.next().flatten();
    let is_ours = block_bytes.and_then(|bytes| usize::try_from(bytes).ok()) == Some(PAGE_BYTES);
    Ok(numbers.next().flatten().filter(|_| is_ours))
}

struct RelationFile {
    path: PathBuf,
    /// Below the data directory.
    name: String,
    segment: u32,
    length: u64,
}

/// The longest first, so that all cores are busy to the end.
fn relation_files(pgdata: &Path) -> Result<Vec<RelationFile>> {
    let mut found = Vec::new();
    let mut open = vec!["global".to_owned(), "base".to_owned(), TABLESPACES.to_owned()];
    while let Some(folder) = open.pop() {
        let failed =
            |error: io::Error| Error::new(ErrorKind::Host, format!("read {folder}")).source(error);
        let entries = match fs::read_dir(pgdata.join(&folder)) {
            // Dropped meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            // Through the links of tablespaces.
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            if metadata.is_dir() {
                open.push(name);
            } else if let Some((_, file)) = RelationDirectory::of_file(&name) {
                let (segment, length) = (file.segment, metadata.len());
                found.push(RelationFile { path: entry.path(), name, segment, length });
            }
        }
    }
    found.sort_by_key(|file| std::cmp::Reverse(file.length));
    Ok(found)
}

/// One way through all files.
#[derive(Default)]
struct Pass {
    blocks_per_file: u32,
    pages: AtomicU64,
    damaged: Mutex<Vec<String>>,
    unread: Mutex<Vec<String>>,
}

impl Pass {
    fn over(self, files: &[RelationFile]) -> Answer {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.read(file) {
                    // Dropped meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => note(&self.unread, format!("{}: {error}", file.name)),
                    Ok(()) => {}
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..host::processors() {
                scope.spawn(work);
            }
            work();
        });
        let taken = |list: Mutex<Vec<String>>| {
            let mut list = list.into_inner().unwrap_or_else(PoisonError::into_inner);
            list.sort();
            list
        };
        let (damaged, unread) = (taken(self.damaged), taken(self.unread));
        let pages = self.pages.into_inner();
        let read = format!("{pages} pages in {} files", files.len());
        match (damaged.is_empty(), unread.is_empty()) {
            (false, _) => Answer::failed(format!(
                "{} of {read} are damaged: {}",
                damaged.len(),
                listed(&damaged, LISTED_MAX)
            )),
            (true, false) => {
                Answer::incomplete(format!("cannot be read: {}", listed(&unread, LISTED_MAX)))
            }
            (true, true) => Answer::passed(format!("{read}, each as its checksum says")),
        }
    }

    fn read(&self, file: &RelationFile) -> io::Result<()> {
        let open = File::open(&file.path)?;
        let first_block = file.segment.saturating_mul(self.blocks_per_file);
        let mut buffer =
            vec![0; CHUNK_BYTES.min(file.length as usize).next_multiple_of(PAGE_BYTES)];
        let mut at = 0;
        while at < file.length {
            let length = read_up_to(&open, &mut buffer, at)?;
            let (pages, rest) = buffer[..length].as_chunks::<PAGE_BYTES>();
            for (number, page) in pages.iter().enumerate() {
                let in_file = (at / PAGE_BYTES as u64) as u32 + number as u32;
                if page::check(page, first_block.wrapping_add(in_file)).is_err() {
                    self.read_again(&open, file, in_file)?;
                }
            }
            self.pages.fetch_add(pages.len() as u64, Ordering::Relaxed);
            if !rest.is_empty() {
                self.read_again(&open, file, (at / PAGE_BYTES as u64) as u32 + pages.len() as u32)?;
            }
            if length < buffer.len() {
                return Ok(());
            }
            at += length as u64;
        }
        Ok(())
    }

    /// Its write may be under way; what stays damaged is.
    fn read_again(&self, open: &File, file: &RelationFile, in_file: u32) -> io::Result<()> {
        let found = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).len();
        let attempts = if found < PATIENT_WITH { ATTEMPTS_MAX } else { 1 };
        let block = file.segment.saturating_mul(self.blocks_per_file).wrapping_add(in_file);
        let mut page: Box<Page> = Box::new([0; PAGE_BYTES]);
        let mut what = String::new();
        for attempt in 1..=attempts {
            thread::sleep(PAUSE * (attempt - 1));
            match read_up_to(open, &mut *page, u64::from(in_file) * PAGE_BYTES as u64)? {
                // Truncated away.
                0 => return Ok(()),
                PAGE_BYTES => match page::check(&page, block) {
                    Ok(()) => return Ok(()),
                    Err(mismatch) => what = mismatch.to_string(),
                },
                bytes => what = format!("{bytes} bytes of it are there"),
            }
        }
        note(&self.damaged, format!("{} block {block}: {what}", file.name));
        Ok(())
    }
}

fn note(list: &Mutex<Vec<String>>, line: String) {
    list.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], at + length as u64) {
            Ok(0) => break,
            Ok(bytes) => length += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Pass, relation_files};
    use crate::postgres::page::{self, BLOCKS_PER_FILE, PAGE_BYTES, Page};
    use crate::repository::drill_record::Verdict;

    fn page(block: u32) -> Page {
        let mut page = [7; PAGE_BYTES];
        let sum = page::checksum(&page, block).to_le_bytes();
        page[8..10].copy_from_slice(&sum);
        page
    }

    #[test]
    fn one_wrong_page_among_many_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let pgdata = scratch.path();
        for folder in ["global", "base/5", "pg_tblspc", "space/PG_17_1/5"] {
            fs::create_dir_all(pgdata.join(folder)).unwrap();
        }
        std::os::unix::fs::symlink(pgdata.join("space"), pgdata.join("pg_tblspc/99")).unwrap();
        let pages = |blocks: std::ops::Range<u32>| blocks.flat_map(page).collect::<Vec<u8>>();
        fs::write(pgdata.join("base/5/16384"), pages(0..300)).unwrap();
        fs::write(pgdata.join("base/5/16384.1"), pages(BLOCKS_PER_FILE..BLOCKS_PER_FILE + 2))
            .unwrap();
        fs::write(pgdata.join("pg_tblspc/99/PG_17_1/5/16390"), vec![0; 3 * PAGE_BYTES]).unwrap();
        fs::write(pgdata.join("base/5/PG_VERSION"), "17\n").unwrap();
        let look = || {
            let files = relation_files(pgdata).unwrap();
            let pass = Pass { blocks_per_file: BLOCKS_PER_FILE, ..Pass::default() };
            let answer = pass.over(&files);
            (answer.verdict, answer.words)
        };
        let (verdict, words) = look();
        assert_eq!(verdict, Verdict::Passed);
        assert!(words.starts_with("305 pages in 3 files"), "{words}");

        let mut bytes = pages(0..300);
        bytes[137 * PAGE_BYTES + 4000] ^= 1;
        fs::write(pgdata.join("base/5/16384"), &bytes).unwrap();
        let (verdict, words) = look();
        assert_eq!(verdict, Verdict::Failed);
        assert!(words.contains("base/5/16384 block 137: checksum"), "{words}");

        fs::write(pgdata.join("base/5/16384"), &pages(0..2)[..PAGE_BYTES + 100]).unwrap();
        let (verdict, words) = look();
        assert_eq!(verdict, Verdict::Failed);
        assert!(words.contains("block 1: 100 bytes of it are there"), "{words}");
    }
}

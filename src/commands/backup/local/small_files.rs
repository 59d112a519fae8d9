//! Small files that are no relation's are read whole when the plan is made: settings, maps, states
//! of transactions. What is in them may be replaced at any time, and half of each is neither.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::commands::backup::local::plan::{Content, Item};
use crate::commands::backup::local::walk::unreadable;
use crate::error::Result;
use crate::postgres::data_files::RelationDirectory;

const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Of all of them together: what is more is read when its pack is made.
const HELD_BYTES_MAX: u64 = 32 << 20;

/// Their pages are written in place and replayed, as those of relations are.
const OF_PAGES: [&str; 3] = ["pg_xact/", "pg_multixact/", "pg_commit_ts/"];

/// The same items, with the small files' content; without those that are gone meanwhile.
pub fn read(pgdata: &Path, items: Vec<Item>) -> Result<Vec<Item>> {
    let mut held = 0;
    let mut kept = Vec::with_capacity(items.len());
    for mut item in items {
        if is_small(&item) && held + item.size <= HELD_BYTES_MAX {
            let path = pgdata.join(&item.path);
            match read_whole(&path) {
                Ok(Some(bytes)) => {
                    item.size = bytes.len() as u64;
                    held += item.size;
                    item.content = Content::Bytes(bytes.into());
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unreadable(&path, error)),
            }
        }
        kept.push(item);
    }
    Ok(kept)
}

fn is_small(item: &Item) -> bool {
    item.content == Content::File
        && item.size <= SMALL_BYTES_MAX
        && !OF_PAGES.iter().any(|folder| item.path.starts_with(folder))
        && RelationDirectory::of_file(&item.path).is_none()
}

/// `None` where it is not small any more.
fn read_whole(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SMALL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= SMALL_BYTES_MAX).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::read;
    use crate::commands::backup::local::plan::{Content, Item};

    fn item(path: &str, size: u64) -> Item {
        let path = path.to_owned();
        Item { path, mode: 0o600, modified: 0, size, content: Content::File }
    }

    #[test]
    fn small_files_are_held_as_they_are_now_and_the_rest_is_left_for_later() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        for folder in ["base/5", "pg_xact"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for (path, content) in
            [("postgresql.conf", "longer"), ("base/5/16384", "page"), ("pg_xact/0000", "page")]
        {
            fs::write(at(path), content).unwrap();
        }
        fs::write(at("grown"), vec![7; 1 << 20]).unwrap();
        let items = vec![
            item("postgresql.conf", 3),
            item("gone", 10),
            item("base/5/16384", 4),
            item("pg_xact/0000", 4),
            item("grown", 10),
        ];
        let read = read(scratch.path(), items).unwrap();
        let found: Vec<_> = read.iter().map(|item| (item.path.as_str(), item.size)).collect();
        assert_eq!(
            found,
            [("postgresql.conf", 6), ("base/5/16384", 4), ("pg_xact/0000", 4), ("grown", 10)]
        );
        assert_eq!(read[0].content, Content::Bytes(b"longer"[..].into()));
        assert!(read[1..].iter().all(|item| item.content == Content::File));
    }
}

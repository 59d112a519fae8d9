//! Files in a repository that is a directory, and that are no objects: of writes that never ended,
//! or of names that no object has.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::commands::verify::problem::{Notebook, Problem};
use crate::host::atomic_file::is_temporary;
use crate::host::state;
use crate::repository::Home;
use crate::storage::{Key, Location};

/// A younger one may still be written.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Default)]
struct Found {
    count: u64,
    bytes: u64,
    first: Option<String>,
}

pub fn look(home: &Home, book: &mut Notebook) {
    let Ok(Location::Directory(root)) = Location::parse(&home.url()) else { return };
    let (mut unfinished, mut strange) = (Found::default(), Found::default());
    walk(&root, &mut |path, name, bytes| {
        let old = !state::is_young(path, OLD);
        match (is_temporary(name), Key::new(name).is_ok() && !name.starts_with('.')) {
            (true, _) if old => unfinished.add(path, bytes),
            (false, false) => strange.add(path, bytes),
            _ => {}
        }
    });
    let cost = "none: nobody reads it, it takes room";
    let note = |found: Found, what: &str| {
        let (count, bytes) = (found.count, found.bytes);
        let what = format!("{count} {what}, {bytes} bytes, the first of them this one");
        let problem = Problem::note(found.first?, what, cost);
        Some(problem.advise("It may be removed."))
    };
    book.problems.extend(note(unfinished, "files of writes that never ended"));
    book.problems.extend(note(strange, "files that cannot be objects"));
}

impl Found {
    fn add(&mut self, path: &Path, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
        self.first.get_or_insert_with(|| path.display().to_string());
    }
}

/// What cannot be read was told of when it was listed.
fn walk(folder: &Path, see: &mut impl FnMut(&Path, &str, u64)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => walk(&path, see),
            Ok(metadata) => {
                see(&path, &entry.file_name().to_string_lossy(), metadata.len());
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::look;
    use crate::commands::verify::problem::{Notebook, Severity};
    use crate::postgres::SystemIdentifier;
    use crate::repository::{ClusterName, Repository};
    use crate::storage::directory::Directory;

    #[test]
    fn what_is_no_object_is_a_note_unless_it_is_being_written() {
        let root = tempfile::tempdir().unwrap();
        let storage = Arc::new(Directory::new(root.path(), None));
        let name = ClusterName::new("main").unwrap();
        let home = Repository::new(storage, name).home(SystemIdentifier(7));
        let folder = root.path().join("main/7/wal/00000001");
        fs::create_dir_all(&folder).unwrap();
        let mut book = Notebook::default();
        fs::write(folder.join(".walden-1-a.tmp"), "young").unwrap();
        fs::write(folder.join("object"), "told of elsewhere").unwrap();
        look(&home, &mut book);
        assert!(book.problems.is_empty());
        let old = fs::File::create(folder.join(".walden-1-b.tmp")).unwrap();
        old.set_modified(SystemTime::now() - Duration::from_secs(200_000)).unwrap();
        fs::write(folder.join("a file~"), "1234").unwrap();
        look(&home, &mut book);
        let said: Vec<&str> = book.problems.iter().map(|it| it.what.as_str()).collect();
        assert!(said[0].starts_with("1 files of writes that never ended, 0 bytes"), "{said:?}");
        assert!(said[1].starts_with("1 files that cannot be objects, 4 bytes"), "{said:?}");
        assert!(book.problems.iter().all(|it| it.severity == Severity::Note));
    }
}

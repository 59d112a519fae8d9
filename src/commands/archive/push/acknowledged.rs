//! Files pushed before PostgreSQL asked for them, remembered until it does.
//!
//! A record is written after every repository has confirmed the file, and says all that has to be
//! the same when PostgreSQL asks: a server that crashed may write a segment anew. Whatever differs,
//! is old or cannot be read is no record, and the file is pushed like any other.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::commands::archive::place;
use crate::commands::archive::push::delivery::Delivery;
use crate::host;
use crate::host::state::StateDirectory;
use crate::postgres::WalFileName;

/// A bucket may have been emptied since.
const LASTS: Duration = Duration::from_secs(60 * 60);
/// Enough not to send it ahead again: behind a file that cannot be archived others wait for long.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);
const PREFIX: &str = "pushed-";
/// From this size on, a second thread is worth its start.
const LARGE: u64 = 4 << 20;
/// Read at a time, into a buffer that stays in the cache.
const PIECE_BYTES: usize = 128 << 10;

/// The records of one cluster.
#[derive(Debug)]
pub struct Acknowledged {
    state: StateDirectory,
    /// All that are configured: a file is pushed again when one was added.
    repositories: Vec<String>,
}

impl Acknowledged {
    /// `None` where nothing can be remembered, or it is not known for which cluster.
    pub fn of(delivery: &Delivery) -> Option<Self> {
        let control_file = delivery.caller.control_file?;
        let state = delivery.state(control_file.system_identifier).clone();
        state.folder()?;
        let app = &delivery.app;
        let repositories = app.settings.repositories.iter();
        let repositories = repositories.map(|one| place::name_of(app, one)).collect();
        Some(Acknowledged { state, repositories })
    }

    /// Whether this very file, with this content, is in all repositories. Asked once: the record is
    /// gone then.
    pub fn confirms(&self, name: &WalFileName, path: &Path) -> bool {
        let Some(crc32) = self.crc32_of_same(name, path, LASTS) else {
            self.state.forget(&note(name));
            return false;
        };
        let confirmed = crc32_of(path).is_ok_and(|found| found == crc32)
            // Nobody wrote it while it was read.
            && self.crc32_of_same(name, path, LASTS) == Some(crc32);
        self.state.forget(&note(name));
        confirmed
    }

    /// As `confirms`, without reading the file: good enough not to push it ahead twice.
    pub fn knows(&self, name: &WalFileName, path: &Path) -> bool {
        self.crc32_of_same(name, path, KNOWN_FOR).is_some()
    }

    /// To be called when every repository has confirmed content of this checksum. Nothing is said
    /// of a file that is not what it was before it was read.
    pub fn record(&self, name: &WalFileName, path: &Path, before: Identity, crc32: u32) {
        if Identity::of(path).ok() != Some(before) {
            return;
        }
        let text = format!("{}crc32 {crc32:08x}", self.head(name, before));
        if let Err(error) = self.state.note(&note(name), &text) {
            tracing::info!(%name, %error, "cannot remember, will be pushed again");
        }
    }

    pub fn forget_old(&self) {
        self.state.forget_old(PREFIX, KNOWN_FOR);
    }

    /// The checksum on record, if all else agrees.
    fn crc32_of_same(&self, name: &WalFileName, path: &Path, lasts: Duration) -> Option<u32> {
        let record = self.state.noted(&note(name), lasts)?;
        let head = self.head(name, Identity::of(path).ok()?);
        let digits = record.strip_prefix(&head)?.strip_prefix("crc32 ")?;
        let crc32 = u32::from_str_radix(digits, 16).ok()?;
        (digits == format!("{crc32:08x}")).then_some(crc32)
    }

    /// All but the checksum: compared as a whole, so that nothing can be forgotten.
    fn head(&self, name: &WalFileName, identity: Identity) -> String {
        let repositories = self.repositories.iter().map(|one| format!("repository {one}\n"));
        format!("name {name}\n{identity}{}", repositories.collect::<String>())
    }
}

fn note(name: &WalFileName) -> String {
    format!("{PREFIX}{name}")
}

/// In two halves at once, since PostgreSQL waits and most of it is copying.
fn crc32_of(path: &Path) -> io::Result<u32> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size < LARGE || host::processors() == 1 {
        return crc32_of_range(&file, 0..size).map(crc32fast::Hasher::finalize);
    }
    let (first, second) = thread::scope(|scope| {
        let second = thread::Builder::new()
            .stack_size(64 << 10)
            .spawn_scoped(scope, || crc32_of_range(&file, size / 2..size));
        let first = crc32_of_range(&file, 0..size / 2);
        let second = match second {
            Ok(second) => second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(error),
        };
        (first, second)
    });
    let mut whole = first?;
    whole.combine(&second?);
    Ok(whole.finalize())
}

fn crc32_of_range(file: &File, range: Range<u64>) -> io::Result<crc32fast::Hasher> {
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(PIECE_BYTES as u64) as usize;
        file.read_exact_at(&mut piece[..length], at)?;
        hasher.update(&piece[..length]);
        at += length as u64;
    }
    Ok(hasher)
}

/// Which file it is, and that nobody has written it since: the change time is the kernel's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub size: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a file"));
        }
        Ok(Identity {
            size: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { size, device, inode, modified, changed } = self;
        writeln!(f, "size {size}\ndevice {device}\ninode {inode}")?;
        writeln!(f, "modified {}.{:09}", modified.0, modified.1)?;
        writeln!(f, "changed {}.{:09}", changed.0, changed.1)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use crate::commands::archive::push::acknowledged::{Acknowledged, Identity};
    use crate::host::state::StateDirectory;
    use crate::postgres::WalFileName;

    fn acknowledged(scratch: &Path, identity: &str, repositories: &[&str]) -> Acknowledged {
        let state = StateDirectory::open(Some(&scratch.join("state")), None, identity);
        let repositories = repositories.iter().map(|&one| one.to_owned()).collect();
        Acknowledged { state, repositories }
    }

    fn name() -> WalFileName {
        WalFileName::parse("000000010000000A000000FF").unwrap()
    }

    /// A file with a record of it.
    fn recorded(scratch: &Path) -> (Acknowledged, PathBuf) {
        let path = scratch.join("file");
        fs::write(&path, "content").unwrap();
        let acknowledged = acknowledged(scratch, "7 /data", &["s3://a", "/b"]);
        let identity = Identity::of(&path).unwrap();
        acknowledged.record(&name(), &path, identity, crc32fast::hash(b"content"));
        (acknowledged, path)
    }

    #[test]
    fn a_file_is_confirmed_once() {
        let scratch = tempfile::tempdir().unwrap();
        let (acknowledged, path) = recorded(scratch.path());
        assert!(acknowledged.knows(&name(), &path));
        assert!(acknowledged.confirms(&name(), &path));
        assert!(!acknowledged.confirms(&name(), &path));
        assert!(!acknowledged.knows(&name(), &path));
    }

    #[test]
    fn whatever_differs_confirms_nothing_and_ends_the_record() {
        let other = WalFileName::parse("000000010000000A000000FE").unwrap();
        type Change = fn(&Path);
        let changes: [Change; 4] = [
            |path| fs::write(path, "CONTENT").unwrap(),
            |path| fs::write(path, "content").unwrap(),
            |path| {
                fs::copy(path, path.with_extension("new")).unwrap();
                fs::remove_file(path).unwrap();
                fs::hard_link(path.with_extension("new"), path).unwrap();
            },
            |path| fs::remove_file(path).unwrap(),
        ];
        for change in changes {
            let scratch = tempfile::tempdir().unwrap();
            let (acknowledged, path) = recorded(scratch.path());
            assert!(!acknowledged.confirms(&other, &path));
            // Past the grain of the file system's clock.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(&path);
            assert!(!acknowledged.confirms(&name(), &path));
            assert!(
                acknowledged.state.noted("pushed-000000010000000A000000FF", super::LASTS).is_none()
            );
        }
    }

    #[test]
    fn another_cluster_and_other_repositories_know_nothing_of_it() {
        let scratch = tempfile::tempdir().unwrap();
        let (_, path) = recorded(scratch.path());
        for (identity, repositories) in [
            ("8 /data", &["s3://a", "/b"][..]),
            ("7 /data", &["s3://a"]),
            ("7 /data", &["s3://a", "/b", "/c"]),
            ("7 /data", &["/b", "s3://a"]),
        ] {
            let other = acknowledged(scratch.path(), identity, repositories);
            assert!(!other.knows(&name(), &path), "{identity} {repositories:?}");
        }
    }

    #[test]
    fn of_a_file_that_changed_meanwhile_nothing_is_recorded() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        fs::write(&path, "content").unwrap();
        let before = Identity::of(&path).unwrap();
        fs::write(&path, "contents").unwrap();
        let acknowledged = acknowledged(scratch.path(), "7 /data", &["/b"]);
        acknowledged.record(&name(), &path, before, crc32fast::hash(b"contents"));
        assert!(!acknowledged.knows(&name(), &path));
    }
}

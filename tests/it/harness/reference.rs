//! What PostgreSQL handed over, kept aside before walden saw it: the witness of what an archive
//! must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use walden::host::atomic_file;
use walden::postgres::WalFileName;

use super::Scratch;
use super::site::files_below;

/// Keeps a copy, calls the command, and notes what it came to. A file that comes again is compared
/// with its copy. PostgreSQL takes a killed command for a reason to restart its archiver, up to 10
/// seconds later; a failure costs one.
const SCRIPT: &str = r#"
path=$1 place=$2
shift 2
name=${path##*/}
if [ -e "$place/kept/$name" ]; then
    cmp -s "$path" "$place/kept/$name" || echo "$name" >>"$place/rewritten"
else
    cp "$path" "$place/$name.$$" && mv "$place/$name.$$" "$place/kept/$name" || exit 1
fi
"$@"
code=$?
echo "$name $code" >>"$place/calls"
[ "$code" -le 125 ] || exit 125
exit "$code"
"#;

pub struct Reference {
    scratch: Scratch,
    /// Compared once and not kept as copies any more.
    settled: Mutex<BTreeMap<String, Digest>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Digest {
    bytes: usize,
    crc32: u32,
}

/// One call of `walden push`.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    pub code: i32,
}

/// What a comparison saw.
#[derive(Debug, Default)]
pub struct Tally {
    pub segments: usize,
    pub others: usize,
    pub bytes: u64,
    pub stored_bytes: u64,
    /// Of pushes that were killed; never an object.
    pub temporary_files: usize,
}

impl Reference {
    pub fn new() -> Reference {
        let scratch = Scratch::new();
        scratch.directory("kept");
        fs::write(scratch.join("keep.sh"), SCRIPT).expect("write the script");
        Reference { scratch, settled: Mutex::default() }
    }

    /// An `archive_command` that keeps each file and then does `command`.
    pub fn around(&self, command: &str) -> String {
        let script = self.scratch.join("keep.sh");
        format!("sh '{}' \"%p\" '{}' {command}", script.display(), self.scratch.path().display())
    }

    /// Whether this is what was handed over under this name.
    #[track_caller]
    pub fn is_same(&self, name: &str, content: &[u8]) -> bool {
        let settled = self.settled.lock().unwrap();
        match fs::read(self.kept(name)) {
            Ok(copy) => copy == content,
            Err(_) => *settled.get(name).expect("it was handed over") == Digest::of(content),
        }
    }

    /// Compares what PostgreSQL was told is archived, and gives up the copies: a long run would
    /// fill the disk with them. Their digests stay.
    #[track_caller]
    pub fn settle(&self, repository: &Path, system_identifier: &str) {
        let home = repository.join("main").join(system_identifier);
        for Call { name, .. } in self.calls().iter().filter(|call| call.code == 0) {
            let Ok(copy) = fs::read(self.kept(name)) else { continue };
            let sealed = fs::read(home.join(place_of(name))).expect("archived, so it is there");
            let content = zstd::decode_all(&sealed[..]).expect("archived, so it is whole");
            assert!(content == copy, "{name} is archived, and another file");
            let mut settled = self.settled.lock().unwrap();
            settled.insert(name.clone(), Digest::of(&copy));
            fs::remove_file(self.kept(name)).expect("give up the copy");
        }
    }

    fn names(&self) -> BTreeSet<String> {
        let files = files_below(&self.scratch.join("kept")).into_iter();
        let copies = files.filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()));
        copies.chain(self.settled.lock().unwrap().keys().cloned()).collect()
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.scratch.join("kept").join(name)
    }

    pub fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.scratch.join("calls")).unwrap_or_default();
        let call = |line: &str| {
            let (name, code) = line.split_once(' ')?;
            Some(Call { name: name.to_owned(), code: code.parse().ok()? })
        };
        text.lines().filter_map(call).collect()
    }

    /// Files that came a second time with other content.
    pub fn rewritten(&self) -> Vec<String> {
        let text = fs::read_to_string(self.scratch.join("rewritten")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Every file that was handed over is in the repository, the very same, and nothing else is.
    /// Read without walden's own code, as `docs/format.md` promises.
    #[track_caller]
    pub fn expect_same(&self, repository: &Path, system_identifier: &str) -> Tally {
        let home = format!("main/{system_identifier}");
        let mut unexplained: BTreeSet<PathBuf> = files_below(repository).into_iter().collect();
        let mut tally = Tally::default();
        let mut faults = Vec::new();
        for name in self.names() {
            let object = repository.join(&home).join(place_of(&name));
            if !unexplained.remove(&object) {
                faults.push(format!("{name} is missing"));
                continue;
            }
            let sealed = fs::read(&object).expect("read the object");
            match zstd::decode_all(&sealed[..]) {
                Ok(found) if self.is_same(&name, &found) => {
                    tally.count(&name, found.len(), sealed.len());
                }
                Ok(_) => faults.push(format!("{name} is another file")),
                Err(error) => faults.push(format!("{name} is damaged: {error}")),
            }
        }
        unexplained.remove(&repository.join(&home).join("cluster.json"));
        let is_temporary = |file: &PathBuf| {
            file.file_name().and_then(|name| name.to_str()).is_some_and(atomic_file::is_temporary)
        };
        tally.temporary_files = unexplained.iter().filter(|file| is_temporary(file)).count();
        unexplained.retain(|file| !is_temporary(file));
        faults.extend(unexplained.iter().map(|file| format!("what is {}?", file.display())));
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        tally
    }
}

impl Digest {
    fn of(content: &[u8]) -> Digest {
        Digest { bytes: content.len(), crc32: crc32fast::hash(content) }
    }
}

impl Tally {
    fn count(&mut self, name: &str, bytes: usize, stored_bytes: usize) {
        match WalFileName::parse(name) {
            Ok(WalFileName::Segment(_)) => self.segments += 1,
            _ => self.others += 1,
        }
        self.bytes += bytes as u64;
        self.stored_bytes += stored_bytes as u64;
    }
}

/// Where the object of a WAL file lies in the home of its cluster, as `docs/format.md` says.
pub fn place_of(name: &str) -> String {
    match WalFileName::parse(name).expect("the name of a WAL file") {
        WalFileName::Segment(_) => format!("wal/{}/{}/{name}.zst", &name[..8], &name[..16]),
        WalFileName::History(_) => format!("history/{name}.zst"),
        _ => format!("wal/{}/{name}.zst", &name[..8]),
    }
}

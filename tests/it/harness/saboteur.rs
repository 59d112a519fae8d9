//! Who damages a repository: a copy of a healthy one, and every way to make an object of it wrong.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use walden::codec::{
    Compression, Content, Frame, FrameSealer, Header, PackBuilder, SealedFrame, SeekTable,
};
use walden::host::privileges;

use super::site::files_below;
use super::{Scratch, Walden};

/// A copy of a directory repository that costs no space: its objects are links until they are
/// replaced.
pub struct Copy {
    scratch: Scratch,
    /// `main/<system identifier>`.
    home: PathBuf,
}

/// A sealed object taken apart, to be put together again as a liar would.
pub struct Sealed {
    pub header: Value,
    pub content: Vec<u8>,
}

impl Copy {
    /// `home` is where the cluster's objects lie in `repository`.
    pub fn of(repository: &Path, home: &Path) -> Copy {
        let scratch = Scratch::new();
        for file in files_below(repository) {
            let link = scratch.join("repository").join(file.strip_prefix(repository).unwrap());
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            fs::hard_link(&file, link).unwrap();
        }
        let copy = Copy { scratch, home: home.to_owned() };
        copy.give();
        copy
    }

    /// What was made since belongs to the server's user, as all of it does.
    fn give(&self) {
        let owner = privileges::server_user().unwrap();
        let root = self.scratch.join("repository");
        for folder in folders_below(&root) {
            privileges::give(&folder, owner.as_ref()).unwrap();
        }
    }

    pub fn root(&self) -> PathBuf {
        self.scratch.join("repository")
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.root().display())
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub fn walden(&self) -> Walden {
        let walden = Walden::new().as_server_user().current_dir("/");
        let walden = walden.env("WALDEN_STATE_DIR", self.scratch.join("state"));
        walden.repository(self.url()).cluster("main")
    }

    /// The names of all objects below a folder of the cluster's, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let folder = self.path(folder);
        let files = files_below(&folder).into_iter();
        files.map(|file| file.strip_prefix(&folder).unwrap().display().to_string()).collect()
    }

    pub fn path(&self, key: &str) -> PathBuf {
        self.root().join(&self.home).join(key)
    }

    pub fn read(&self, key: &str) -> Vec<u8> {
        fs::read(self.path(key)).unwrap_or_else(|error| panic!("{key}: {error}"))
    }

    /// The object of the healthy repository keeps what it has: this is another file. Its time
    /// stays, as a bad disk would leave it.
    pub fn write(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        let modified = fs::metadata(&path).ok().and_then(|metadata| metadata.modified().ok());
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let modified = modified.unwrap_or_else(|| SystemTime::now() - Duration::from_secs(7200));
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let owner = privileges::server_user().unwrap();
        privileges::give(&path, owner.as_ref()).unwrap();
        privileges::give(path.parent().unwrap(), owner.as_ref()).unwrap();
    }

    /// One bit of the byte that `choose` points at.
    pub fn flip(&self, key: &str, choose: impl FnOnce(&[u8]) -> usize) {
        let mut bytes = self.read(key);
        let at = choose(&bytes);
        bytes[at] ^= 0x10;
        self.write(key, &bytes);
    }

    /// In the middle of what is compressed.
    pub fn flip_content(&self, key: &str) {
        self.flip(key, |bytes| (body_of(bytes) + bytes.len()) / 2);
    }

    /// Such that the header is no JSON any more.
    pub fn flip_header(&self, key: &str) {
        self.flip(key, |bytes| position(bytes, b"\"walden\"").expect("a header"));
    }

    pub fn cut(&self, key: &str, part: f64) {
        let bytes = self.read(key);
        self.write(key, &bytes[..(bytes.len() as f64 * part) as usize]);
    }

    pub fn swap(&self, one: &str, other: &str) {
        let [first, second] = [one, other].map(|key| self.read(key));
        self.write(one, &second);
        self.write(other, &first);
    }

    pub fn remove(&self, key: &str) {
        fs::remove_file(self.path(key)).unwrap_or_else(|error| panic!("{key}: {error}"));
    }

    /// The object as before, sealed again with what `change` made of it.
    pub fn reseal(&self, key: &str, change: impl FnOnce(&mut Sealed)) {
        let mut sealed = Sealed::parse(&self.read(key));
        change(&mut sealed);
        self.write(key, &sealed.to_bytes());
    }

    /// Another header before the very bytes that were there.
    pub fn rewrite_header(&self, key: &str, change: impl FnOnce(&mut Value)) {
        let object = self.read(key);
        let mut header = header_of(&object);
        change(&mut header);
        self.write(key, &[&header_frame(&header), &object[body_of(&object)..]].concat());
    }

    /// A pack that is whole and right in itself, as large as before, with one byte changed that
    /// lies in this range of its raw bytes.
    pub fn forge_pack(&self, key: &str, range: &Range<u64>) {
        let forged = forge(&self.read(key), range);
        self.write(key, &forged.unwrap_or_else(|| panic!("{key}: no byte can change")));
    }
}

impl Sealed {
    pub fn parse(object: &[u8]) -> Sealed {
        Sealed { header: header_of(object), content: raw(object) }
    }

    /// The header says of the content what is so.
    pub fn be_consistent(&mut self) {
        self.header["size"] = self.content.len().into();
        self.header["crc32"] = format!("{:08x}", crc32fast::hash(&self.content)).into();
    }

    pub fn replace(&mut self, content: Vec<u8>) {
        self.content = content;
        self.be_consistent();
    }

    /// The content is JSON, and is so afterwards.
    pub fn edit_json(&mut self, change: impl FnOnce(&mut Value)) {
        let mut json = serde_json::from_slice(&self.content).expect("JSON");
        change(&mut json);
        self.replace(serde_json::to_vec(&json).unwrap());
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.set_pledged_src_size(Some(self.content.len() as u64)).unwrap();
        std::io::Write::write_all(&mut encoder, &self.content).unwrap();
        [header_frame(&self.header), encoder.finish().unwrap()].concat()
    }
}

/// The content of a sealed object, as anybody would read it.
pub fn raw(object: &[u8]) -> Vec<u8> {
    zstd::stream::decode_all(object).expect("an object")
}

/// Where the header ends.
pub fn body_of(object: &[u8]) -> usize {
    8 + u32::from_le_bytes(object[4..8].try_into().unwrap()) as usize
}

pub fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn header_of(object: &[u8]) -> Value {
    serde_json::from_slice(&object[8..body_of(object)]).expect("a header")
}

/// docs/format.md, "A sealed object".
fn header_frame(header: &Value) -> Vec<u8> {
    let json = serde_json::to_vec(header).unwrap();
    let length = (json.len() as u32).to_le_bytes();
    [&0x184D_2A57_u32.to_le_bytes()[..], &length, &json].concat()
}

/// The frame that is changed must stay as long as it was, or the manifest would know.
fn forge(object: &[u8], range: &Range<u64>) -> Option<Vec<u8>> {
    let table = SeekTable::parse(object, object.len() as u64).expect("a pack");
    let (header, _) = Header::split(object).expect("a pack");
    let mut sealer = FrameSealer::new(Compression::default()).unwrap();
    let (mut pack, mut is_forged) = (PackBuilder::default(), false);
    for Frame { stored, raw: lies } in table.frames() {
        let stored = &object[stored.start as usize..stored.end as usize];
        let content = raw(stored);
        let is_inside = lies.start >= range.start && lies.end <= range.end;
        let forged = (!is_forged && is_inside).then(|| forge_frame(&mut sealer, stored, &content));
        let frame = forged.flatten();
        is_forged |= frame.is_some();
        pack.push(frame.unwrap_or_else(|| SealedFrame {
            bytes: stored.to_vec().into(),
            content: Content::of(&content),
        }));
    }
    let describe = |content: Content| Header { size: content.size, crc32: content.crc32, ..header };
    let sealed = pack.finish(describe);
    (is_forged && sealed.len() == object.len()).then_some(sealed)
}

fn forge_frame(sealer: &mut FrameSealer, stored: &[u8], content: &[u8]) -> Option<SealedFrame> {
    // Not zeros: a byte of a row, most likely.
    let places = (0..content.len()).rev().filter(|at| content[*at] != 0);
    places.take(400).find_map(|place| {
        let mut changed = content.to_vec();
        changed[place] ^= 1;
        let frame = sealer.seal(&changed).unwrap();
        (frame.bytes.len() == stored.len()).then_some(frame)
    })
}

/// With `root` itself.
fn folders_below(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.to_owned()];
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        next += 1;
    }
    folders
}

/// What a directory holds, to be compared with later: names, sizes, content.
pub fn fingerprint(root: &Path) -> std::collections::BTreeMap<PathBuf, (u64, u32)> {
    let files = files_below(root).into_iter().filter_map(|file| {
        let size = fs::symlink_metadata(&file).ok()?.size();
        let crc = fs::read(&file).map_or(0, |bytes| crc32fast::hash(&bytes));
        Some((file.strip_prefix(root).unwrap().to_owned(), (size, crc)))
    });
    files.collect()
}

//! What an incremental backup by files goes by: which blocks are certainly the parent's. The
//! argument why this is safe is docs/decisions/0023.

use std::collections::{BTreeSet, HashMap};

use crate::commands::backup::basis::Parent;
use crate::commands::backup::local::plan::Item;
use crate::postgres::Lsn;
use crate::postgres::data_files::{BLOCK_BYTES, Fork, RelationDirectory};
use crate::postgres::page::{self, Page};
use crate::repository::manifest::{FileEntry, FileKind};

/// How much earlier than the parent a database must have been made to be the same as in it where
/// the times of its files differ, as on another host: clocks of hosts differ too.
const CLOCKS_DIFFER_SECONDS: i64 = 24 * 60 * 60;
const VERSION_FILE: &str = "PG_VERSION";

/// The parent, as far as it tells which blocks need not be stored again.
pub struct Since<'p> {
    /// A page that was changed since then has an LSN of then or later.
    start_lsn: Lsn,
    /// LSNs below it are none: the first segment of the WAL is never written.
    first_lsn: Lsn,
    /// Relations' files of the parent, by the paths of the whole files.
    files: HashMap<String, u32>,
    /// Blocks that were damaged already.
    damaged: BTreeSet<(String, u32)>,
    /// Databases that the parent has, and that were not made anew since.
    databases: BTreeSet<u32>,
    versions: HashMap<&'p str, i64>,
    began: i64,
    has_checksums: bool,
    blocks_per_file: u32,
}

/// One file of a relation, of which some blocks may be the parent's.
pub struct Candidate<'s> {
    since: &'s Since<'s>,
    path: String,
    /// In the whole relation.
    first_block: u32,
    /// Blocks that the parent has.
    known: u32,
}

impl<'p> Since<'p> {
    pub fn new(parent: &'p Parent, items: &[Item], pages: PagesOf) -> Since<'p> {
        let manifest = &parent.manifest;
        let mut since = Since {
            start_lsn: manifest.start_lsn,
            first_lsn: Lsn(u64::from(manifest.wal_segment_size)),
            files: HashMap::new(),
            damaged: BTreeSet::new(),
            databases: BTreeSet::from([0]),
            versions: HashMap::new(),
            began: manifest.began.as_second(),
            has_checksums: pages.have_checksums,
            blocks_per_file: pages.in_file,
        };
        for file in manifest.files.iter().filter(|file| file.kind == FileKind::File) {
            let path = file.whole_path();
            if RelationDirectory::of_file(&path).is_some() {
                since.files.insert(path, blocks_of(file));
            } else if file.path.ends_with(VERSION_FILE) {
                since.versions.insert(&file.path, file.modified);
            }
        }
        let damaged = manifest.damaged_pages.iter();
        since.damaged.extend(damaged.map(|page| (page.path.clone(), page.block)));
        let same: Vec<u32> = items.iter().filter_map(|item| since.same_database(item)).collect();
        since.databases.extend(same);
        since
    }

    /// `None` for what is always stored whole: what is no relation's, the maps of free space and of
    /// visibility, the init forks, and what the parent does not have.
    pub fn candidate(&self, item: &Item) -> Option<Candidate<'_>> {
        let (directory, name) = RelationDirectory::of_file(&item.path)?;
        let known = *self.files.get(&item.path)?;
        let is_whole_pages = item.size > 0 && item.size.is_multiple_of(BLOCK_BYTES as u64);
        let is_main = name.fork == Fork::Main;
        let is_of_the_parent = known > 0 && self.databases.contains(&directory.database);
        let first_block = name.segment.checked_mul(self.blocks_per_file)?;
        let path = item.path.clone();
        (is_whole_pages && is_main && is_of_the_parent).then_some(Candidate {
            since: self,
            path,
            first_block,
            known,
        })
    }

    /// A directory that was removed and made anew under the same number may hold pages of a
    /// template, older than the parent and other than in it. Its version file is then as new as it.
    fn same_database(&self, item: &Item) -> Option<u32> {
        let (folder, name) = item.path.rsplit_once('/')?;
        let database = RelationDirectory::parse(folder).filter(|_| name == VERSION_FILE)?.database;
        let then = *self.versions.get(item.path.as_str())?;
        let is_old = item.modified < self.began - CLOCKS_DIFFER_SECONDS;
        (item.modified == then || is_old).then_some(database)
    }
}

/// What the server says of its pages.
#[derive(Debug, Clone, Copy)]
pub struct PagesOf {
    pub have_checksums: bool,
    /// In each file of a relation but the last.
    pub in_file: u32,
}

impl Candidate<'_> {
    /// Whether the block must be stored: it may be other than what the parent has.
    pub fn keeps(&self, block: u32, page: &Page) -> bool {
        let Since { start_lsn, first_lsn, damaged, has_checksums, .. } = self.since;
        let lsn = page::lsn(page);
        block >= self.known
            || page::is_new(page)
            || lsn >= *start_lsn
            || lsn < *first_lsn
            || (*has_checksums && page::check(page, self.first_block + block).is_err())
            || (!damaged.is_empty() && damaged.contains(&(self.path.clone(), block)))
    }
}

/// How many blocks a file has once it is put together.
fn blocks_of(file: &FileEntry) -> u32 {
    let in_whole = || u32::try_from(file.size / BLOCK_BYTES as u64).unwrap_or(u32::MAX);
    file.part.as_ref().map_or_else(in_whole, |part| {
        let last = part.blocks.last().map_or(0, |(first, count)| first + count);
        part.length.max(last)
    })
}

#[cfg(test)]
mod tests {
    use super::{PagesOf, Since};
    use crate::commands::backup::basis::Parent;
    use crate::commands::backup::local::plan::{Content, Item};
    use crate::postgres::page::{self, PAGE_BYTES, Page};
    use crate::postgres::{Lsn, SystemIdentifier};
    use crate::repository::manifest::{DamagedPage, FileEntry, FileKind, Part, samples};

    /// The parent began at 0/200028 of a cluster with segments of 1 MiB, at 10:00:01.
    fn parent() -> Parent {
        let mut manifest = samples::manifest(SystemIdentifier(7), 1);
        let began = manifest.began.as_second();
        let file = |path: &str, size: u64, part: Option<Part>| FileEntry {
            path: path.to_owned(),
            kind: FileKind::File,
            mode: 0o600,
            size,
            offset: 512,
            modified: began - 100,
            part,
        };
        let part = Part { length: 4, header: 8192, blocks: vec![(1, 1), (6, 2)] };
        manifest.files = vec![
            file("base/5/PG_VERSION", 3, None),
            file("base/6/PG_VERSION", 3, None),
            file("base/5/100", 10 * 8192, None),
            file("base/6/100", 10 * 8192, None),
            file("base/5/INCREMENTAL.101.1", 4 * 8192, Some(part)),
            file("base/5/100_vm", 8192, None),
            file("base/5/102", 0, None),
            file("global/1262", 8192, None),
        ];
        let what = String::new();
        let path = "base/5/101.1".to_owned();
        manifest.damaged_pages = vec![DamagedPage { path, block: 2, what, relation: None }];
        Parent { manifest, chain_length: 1 }
    }

    fn item(path: &str, size: u64, modified: i64) -> Item {
        Item { path: path.to_owned(), mode: 0o600, modified, size, content: Content::File }
    }

    const PAGES: PagesOf = PagesOf { have_checksums: true, in_file: page::BLOCKS_PER_FILE };

    fn page(lsn: u64, block: u32) -> Page {
        let mut page = [0; PAGE_BYTES];
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        page[14] = 1;
        let sum = page::checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn only_what_is_certainly_the_parents_is_left_out() {
        let parent = parent();
        let began = parent.manifest.began.as_second();
        let items = [item("base/5/PG_VERSION", 3, began - 100)];
        let since = Since::new(&parent, &items, PAGES);
        assert_eq!(parent.manifest.start_lsn, Lsn(0x20_0028));
        let file = since.candidate(&item("base/5/100", 12 * 8192, 0)).unwrap();
        assert!(!file.keeps(9, &page(0x20_0000, 9)));
        assert!(file.keeps(10, &page(0x20_0000, 10)), "the parent has ten");
        assert!(file.keeps(9, &page(0x20_0028, 9)));
        assert!(!file.keeps(9, &page(0x10_0000, 9)));
        assert!(file.keeps(9, &page(0xF_FFFF, 9)), "no LSN of any record");
        assert!(file.keeps(9, &[0; PAGE_BYTES]), "new");
        assert!(file.keeps(9, &page(0x20_0000, 8)), "of another place");
        let trusting = PagesOf { have_checksums: false, ..PAGES };
        let since = Since::new(&parent, &items, trusting);
        let file = since.candidate(&item("base/5/100", 12 * 8192, 0)).unwrap();
        assert!(!file.keeps(9, &page(0x20_0000, 8)));
    }

    #[test]
    fn of_a_part_the_whole_file_counts_and_its_damage() {
        let parent = parent();
        let items = [item("base/5/PG_VERSION", 3, parent.manifest.began.as_second() - 100)];
        let since = Since::new(&parent, &items, PAGES);
        let file = since.candidate(&item("base/5/101.1", 20 * 8192, 0)).unwrap();
        let first = page::BLOCKS_PER_FILE;
        for (block, is_kept) in [(0, false), (2, true), (5, false), (7, false), (8, true)] {
            assert_eq!(file.keeps(block, &page(0x20_0000, first + block)), is_kept, "{block}");
        }
    }

    #[test]
    fn what_is_no_main_fork_of_the_same_database_is_stored_whole() {
        let parent = parent();
        let began = parent.manifest.began.as_second();
        let whole = |items: &[Item], path: &str, size: u64| {
            Since::new(&parent, items, PAGES).candidate(&item(path, size, 0)).is_none()
        };
        let same = [item("base/5/PG_VERSION", 3, began - 100)];
        for path in ["base/5/100_vm", "base/5/103", "base/5/102", "PG_VERSION", "base/6/100"] {
            assert!(whole(&same, path, 8192), "{path}");
        }
        assert!(whole(&same, "base/5/100", 8191));
        assert!(whole(&same, "base/5/100", 0));
        assert!(!whole(&same, "base/5/100", 8192));
        assert!(!whole(&[], "global/1262", 8192));
        // A database of the same number, made anew; one restored or copied long ago; and lately.
        for (modified, is_whole) in
            [(began + 5, true), (began - 100_000, false), (began - 99, true)]
        {
            let items = [item("base/5/PG_VERSION", 3, modified)];
            assert_eq!(whole(&items, "base/5/100", 8192), is_whole, "{modified}");
        }
    }
}

//! Chains of backups put together by the words of the manual: what the tests hold against what
//! walden makes of them. It owes nothing to the code under test but the checksum of a page.

use std::fs;
use std::path::Path;

use walden::postgres::page::{self, PAGE_BYTES};

use super::site::files_below;

/// Puts a chain together in the directory of its last link, by the words of the manual and nothing
/// of walden's: PostgreSQL's own combiner, but simpler.
pub fn combine(links: &[&Path]) {
    let last = links.last().unwrap();
    for file in files_below(last) {
        let relative = file.strip_prefix(last).unwrap();
        let name = relative.file_name().unwrap().to_str().unwrap();
        if let Some(whole) = name.strip_prefix("INCREMENTAL.") {
            let relative = relative.with_file_name(whole);
            fs::write(last.join(&relative), content(links, &relative)).unwrap();
            fs::remove_file(&file).unwrap();
        }
    }
    let label = last.join("backup_label");
    let text = fs::read_to_string(&label).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("INCREMENTAL FROM"));
    fs::write(&label, lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// A whole file as the last of `links` knows it.
fn content(links: &[&Path], relative: &Path) -> Vec<u8> {
    let (last, before) = links.split_last().expect("a full backup has every file whole");
    if let Ok(whole) = fs::read(last.join(relative)) {
        return whole;
    }
    let name = format!("INCREMENTAL.{}", relative.file_name().unwrap().to_str().unwrap());
    let file = fs::read(last.join(relative.with_file_name(name))).unwrap();
    let (length, blocks, contents) = incremental(&file);
    let mut whole = content(before, relative);
    let end = blocks.iter().map(|block| block + 1).max().unwrap_or(0).max(length);
    whole.resize(length.min(end) * PAGE_BYTES, 0);
    whole.resize(end * PAGE_BYTES, 0);
    for (block, page) in blocks.iter().zip(contents.chunks(PAGE_BYTES)) {
        whole[block * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(page);
    }
    whole
}

/// The truncation block length, the blocks, and what follows the header.
fn incremental(file: &[u8]) -> (usize, Vec<usize>, &[u8]) {
    let word = |at: usize| u32::from_le_bytes(file[4 * at..4 * at + 4].try_into().unwrap());
    assert_eq!(word(0), 0xD3AE_1F0D);
    let count = word(1) as usize;
    let blocks = (0..count).map(|n| word(3 + n) as usize).collect();
    let header = 12 + 4 * count;
    let header = if count == 0 { header } else { header.div_ceil(PAGE_BYTES) * PAGE_BYTES };
    assert_eq!(file.len(), header + count * PAGE_BYTES);
    (word(2) as usize, blocks, &file[header..])
}

/// Each page has the checksum of what it holds, where it lies.
#[track_caller]
pub fn assert_pages_are_right(pgdata: &Path) {
    let mut pages = 0;
    for file in files_below(pgdata) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let (number, segment) = name.split_once('.').unwrap_or((name, "0"));
        let number = number.split('_').next().unwrap();
        let is_relation = number.bytes().all(|c| c.is_ascii_digit())
            && (file.starts_with(pgdata.join("base")) || file.starts_with(pgdata.join("global")));
        let (true, Ok(segment)) = (is_relation, segment.parse::<u32>()) else { continue };
        let bytes = fs::read(&file).unwrap();
        let (chunks, rest) = bytes.as_chunks::<PAGE_BYTES>();
        assert!(rest.is_empty(), "{}", file.display());
        for (block, page) in (segment * page::BLOCKS_PER_FILE..).zip(chunks) {
            let right = page::check(page, block);
            assert!(right.is_ok(), "{} block {block}: {right:?}", file.display());
            pages += 1;
        }
    }
    assert!(pages > 1000, "{pages}");
}

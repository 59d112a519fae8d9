//! Which bytes of which backup make up a file: one piece of a whole file, blocks of several backups
//! where the newest one has it in part.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::repository::Manifest;
use crate::repository::manifest::{FileEntry, FileKind, Part};

/// PostgreSQL's `BLCKSZ`; incremental files are made of such blocks.
pub const BLOCK_BYTES: u64 = 8192;

/// Some bytes of one file, as one backup has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Which backup of the chain, the newest first.
    pub source: u32,
    /// Which file of its manifest.
    pub entry: u32,
    /// Where it begins in its tar stream.
    pub offset: u64,
    pub length: u64,
    /// Where it goes in the file.
    pub at: u64,
}

impl Piece {
    /// Where it ends in the file, exclusive.
    pub fn end(&self) -> u64 {
        self.at + self.length
    }

    /// The part of it that goes into these bytes of the file.
    pub fn within(&self, range: &Range<u64>) -> Option<Piece> {
        let (at, end) = (self.at.max(range.start), self.end().min(range.end));
        let length = end.checked_sub(at).filter(|length| *length > 0)?;
        Some(Piece { offset: self.offset + (at - self.at), length, at, ..*self })
    }

    /// The part of it that lies in these bytes of the stream.
    pub fn within_stream(&self, range: &Range<u64>) -> Option<Piece> {
        let offset = self.offset.max(range.start);
        let end = (self.offset + self.length).min(range.end);
        let length = end.checked_sub(offset).filter(|length| *length > 0)?;
        Some(Piece { offset, length, at: self.at + (offset - self.offset), ..*self })
    }
}

/// The backups a restore takes from, the newest first: each the parent of the one before it.
pub struct Sources<'a> {
    chain: &'a [Manifest],
    /// For each older backup, by the path of the whole file: the files that the newest has in part.
    older: Vec<HashMap<String, (u32, &'a FileEntry)>>,
}

impl<'a> Sources<'a> {
    pub fn new(chain: &'a [Manifest]) -> Sources<'a> {
        let newest = chain.first().map(|newest| newest.files.as_slice()).unwrap_or_default();
        let in_part: HashSet<String> =
            newest.iter().filter(|entry| entry.part.is_some()).map(FileEntry::whole_path).collect();
        let older = chain.iter().skip(1).map(|manifest| bases(manifest, &in_part)).collect();
        Sources { chain, older }
    }

    /// Length and pieces of a file of the newest backup, rising; what lies between them is zeros.
    pub fn of(&self, index: u32, entry: &FileEntry) -> Result<(u64, Vec<Piece>)> {
        if let Some(part) = &entry.part {
            return self.combine(index, entry, part);
        }
        let FileEntry { offset, size, .. } = *entry;
        let piece = Piece { source: 0, entry: index, offset, length: size, at: 0 };
        Ok((size, (size > 0).then_some(piece).into_iter().collect()))
    }

    /// What `reconstruct_from_incremental_file` does (pg_combinebackup's reconstruct.c): a block
    /// comes from the newest backup that has it; below the newest one's truncation length older
    /// ones are asked, down to the first that has the whole file; what nobody has is zeros.
    fn combine(&self, index: u32, entry: &FileEntry, part: &Part) -> Result<(u64, Vec<Piece>)> {
        let newest = runs(0, index, entry).ok_or_else(|| self.bad_part(0, entry))?;
        let truncation = u64::from(part.length);
        let length = newest.last().map_or(0, |run| run.blocks.end).max(truncation) * BLOCK_BYTES;
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        missing.push(0..truncation);
        take(&mut missing, &newest, &mut found);
        // Blocks beyond the truncation length count in the newest backup only.
        for run in &newest {
            found.extend(run.piece(run.blocks.start.max(truncation)..run.blocks.end));
        }
        let path = entry.whole_path();
        for (source, files) in (1u32..).zip(&self.older) {
            let Some((index, base)) = files.get(&path) else {
                return Err(self.no_base(source, &path));
            };
            let runs = runs(source, *index, base).ok_or_else(|| self.bad_part(source, base))?;
            take(&mut missing, &runs, &mut found);
            if base.part.is_none() {
                return Ok((length, joined(found)));
            }
        }
        Err(self.no_base(self.older.len() as u32, &path))
    }

    fn no_base(&self, source: u32, path: &str) -> Error {
        let message = match self.chain {
            [] => format!("no backup has {path}"),
            [one] => format!("backup {} has {path} in part only, and no parent", one.id),
            [newest, ..] => {
                let older = &self.chain[(source as usize).min(self.chain.len() - 1)].id;
                format!("backup {} has {path} in part, and {older} lacks the rest", newest.id)
            }
        };
        Error::new(ErrorKind::Refused, message)
            .hint("Choose another backup with --backup; this one cannot be put together.")
    }

    fn bad_part(&self, source: u32, entry: &FileEntry) -> Error {
        let id = self.chain.get(source as usize).map_or("?", |manifest| manifest.id.as_str());
        let message = format!("the manifest of backup {id} is damaged: it lies of {}", entry.path);
        Error::new(ErrorKind::Corrupt, message).hint("Choose another backup with --backup.")
    }
}

/// Where a backup has both a file and a part of it, the file counts (`reconstruct.c` looks for it
/// first).
fn bases<'a>(
    manifest: &'a Manifest,
    wanted: &HashSet<String>,
) -> HashMap<String, (u32, &'a FileEntry)> {
    let mut found: HashMap<String, (u32, &FileEntry)> = HashMap::new();
    let files = (0u32..).zip(&manifest.files).filter(|(_, file)| file.kind == FileKind::File);
    for (index, entry) in files {
        let path = entry.whole_path();
        let is_better = |(_, other): &(u32, &FileEntry)| other.part.is_some();
        if wanted.contains(&path) && found.get(&path).is_none_or(is_better) {
            found.insert(path, (index, entry));
        }
    }
    found
}

/// Blocks that follow each other in a file as in the stream.
struct Run {
    source: u32,
    entry: u32,
    blocks: Range<u64>,
    /// Of the first block, in the stream.
    offset: u64,
}

impl Run {
    /// Those of its blocks, or nothing.
    fn piece(&self, blocks: Range<u64>) -> Option<Piece> {
        (blocks.start < blocks.end).then(|| Piece {
            source: self.source,
            entry: self.entry,
            offset: self.offset.saturating_add((blocks.start - self.blocks.start) * BLOCK_BYTES),
            length: (blocks.end - blocks.start) * BLOCK_BYTES,
            at: blocks.start * BLOCK_BYTES,
        })
    }
}

/// The blocks of a file, rising; `None` where its part cannot be one. Of a whole file they are
/// those that are whole.
fn runs(source: u32, index: u32, entry: &FileEntry) -> Option<Vec<Run>> {
    let Some(part) = &entry.part else {
        let blocks = 0..entry.size / BLOCK_BYTES;
        return Some(vec![Run { source, entry: index, blocks, offset: entry.offset }]);
    };
    let mut runs: Vec<Run> = Vec::with_capacity(part.blocks.len());
    let mut at = u64::from(part.header);
    for (first, count) in &part.blocks {
        let blocks = u64::from(*first)..u64::from(*first) + u64::from(*count);
        if runs.last().is_some_and(|last| last.blocks.end > blocks.start) {
            return None;
        }
        runs.push(Run { source, entry: index, blocks, offset: entry.offset.saturating_add(at) });
        at += u64::from(*count) * BLOCK_BYTES;
    }
    (at == entry.size).then_some(runs)
}

/// Takes out of the `missing` blocks those that the runs have. Both rise.
fn take(missing: &mut Vec<Range<u64>>, runs: &[Run], found: &mut Vec<Piece>) {
    let mut left = Vec::with_capacity(missing.len());
    let mut runs = runs.iter().peekable();
    for gap in missing.iter() {
        let mut begin = gap.start;
        while let Some(run) = runs.peek() {
            if run.blocks.start >= gap.end {
                break;
            }
            let taken = run.blocks.start.max(begin)..run.blocks.end.min(gap.end);
            if let Some(piece) = run.piece(taken.clone()) {
                if begin < taken.start {
                    left.push(begin..taken.start);
                }
                begin = taken.end;
                found.push(piece);
            }
            // What goes on behind this gap may fill the next one.
            if run.blocks.end > gap.end {
                break;
            }
            runs.next();
        }
        if begin < gap.end {
            left.push(begin..gap.end);
        }
    }
    *missing = left;
}

/// In the order of the file, neighbours in both file and stream as one.
pub fn joined(mut pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.sort_unstable_by_key(|piece| piece.at);
    let mut joined: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let goes_on = |last: &&mut Piece| {
            (last.source, last.entry) == (piece.source, piece.entry)
                && last.end() == piece.at
                && last.offset.saturating_add(last.length) == piece.offset
        };
        match joined.last_mut().filter(goes_on) {
            Some(last) => last.length += piece.length,
            None => joined.push(piece),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{BLOCK_BYTES, Sources};
    use crate::error::ErrorKind;
    use crate::postgres::SystemIdentifier;
    use crate::repository::Manifest;
    use crate::repository::manifest::samples::manifest;
    use crate::repository::manifest::{FileEntry, FileKind, Part};

    /// One backup's copy of the file: each block is the number of the backup that it is of.
    #[derive(Debug, Clone)]
    enum Copy {
        Whole(u32),
        Part { length: u32, blocks: Vec<u32> },
        None,
    }

    fn entry(copy: &Copy) -> Option<FileEntry> {
        let (name, size, part) = match copy {
            Copy::None => return None,
            Copy::Whole(blocks) => ("7", u64::from(*blocks) * BLOCK_BYTES + 100, None),
            Copy::Part { length, blocks } => {
                let header = if blocks.is_empty() { 12 } else { 8192 };
                let size = u64::from(header) + blocks.len() as u64 * BLOCK_BYTES;
                let blocks = blocks.iter().map(|block| (*block, 1)).collect();
                ("INCREMENTAL.7", size, Some(Part { length: *length, header, blocks }))
            }
        };
        let path = format!("base/5/{name}");
        let (kind, mode, offset, modified) = (FileKind::File, 0o600, 5120, 0);
        Some(FileEntry { path, kind, mode, size, offset, modified, part })
    }

    fn chain(copies: &[Copy]) -> Vec<Manifest> {
        let backup = |(number, copy): (usize, &Copy)| {
            let mut manifest = manifest(SystemIdentifier(7), 9 - number as u16);
            manifest.files.extend(entry(copy));
            manifest
        };
        copies.iter().enumerate().map(backup).collect()
    }

    /// As pg_combinebackup does it, block by block: which backup and which place in its stream.
    fn naive(copies: &[Copy]) -> Option<Vec<Option<(u32, u64)>>> {
        let place = |copy: &Copy, wanted: u32| match copy {
            Copy::Whole(blocks) => (wanted < *blocks).then_some(5120 + u64::from(wanted) * 8192),
            Copy::Part { blocks, .. } => {
                let nth = blocks.iter().position(|block| *block == wanted)? as u64;
                Some(5120 + 8192 + nth * 8192)
            }
            Copy::None => None,
        };
        let Copy::Part { length, blocks } = &copies[0] else { return None };
        let base = copies.iter().find(|copy| !matches!(copy, Copy::Part { .. }));
        if !matches!(base, Some(Copy::Whole(_))) {
            return None;
        }
        let highest = blocks.last().map_or(0, |block| block + 1);
        let mut result = Vec::new();
        for block in 0..highest.max(*length) {
            let mut found = place(&copies[0], block).map(|at| (0, at));
            for (source, copy) in (1u32..).zip(&copies[1..]) {
                if found.is_none() && block < *length {
                    found = place(copy, block).map(|at| (source, at));
                }
                if matches!(copy, Copy::Whole(_)) {
                    break;
                }
            }
            result.push(found);
        }
        Some(result)
    }

    fn combined(copies: &[Copy]) -> crate::error::Result<Vec<Option<(u32, u64)>>> {
        let chain = chain(copies);
        let index = chain[0].files.len() - 1;
        let (size, pieces) = Sources::new(&chain).of(index as u32, &chain[0].files[index])?;
        let mut blocks = BTreeMap::new();
        let mut end = 0;
        for piece in pieces {
            assert!(piece.at >= end && piece.end() <= size, "{piece:?}");
            end = piece.end();
            for nth in 0..piece.length / BLOCK_BYTES {
                let place = (piece.source, piece.offset + nth * BLOCK_BYTES);
                blocks.insert(piece.at / BLOCK_BYTES + nth, place);
            }
        }
        Ok((0..size / BLOCK_BYTES).map(|block| blocks.get(&block).copied()).collect())
    }

    #[test]
    fn random_chains_are_combined_as_block_by_block() {
        let mut random = fastrand::Rng::with_seed(42);
        let mut whole = 0;
        for _ in 0..3000 {
            let part = |random: &mut fastrand::Rng| {
                let share = random.f64();
                let blocks: Vec<u32> = (0..20).filter(|_| random.f64() < share).collect();
                Copy::Part { length: random.u32(..24), blocks }
            };
            let mut copies = vec![part(&mut random)];
            for _ in 0..random.usize(1..6) {
                copies.push(match random.u32(..10) {
                    0..7 => part(&mut random),
                    7 => Copy::None,
                    _ => Copy::Whole(random.u32(..24)),
                });
            }
            copies.push(Copy::Whole(random.u32(..24)));
            match naive(&copies) {
                Some(expected) => {
                    assert_eq!(combined(&copies).unwrap(), expected, "{copies:?}");
                    whole += 1;
                }
                None => {
                    let refused = combined(&copies).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::Refused);
                    assert!(refused.to_string().contains("base/5/7"), "{refused}");
                }
            }
        }
        assert!(whole > 1000, "{whole}");
    }

    #[test]
    fn a_part_without_its_file_is_refused_and_names_what_is_missing() {
        let part = Copy::Part { length: 3, blocks: vec![1] };
        let error = combined(std::slice::from_ref(&part)).unwrap_err();
        assert!(error.to_string().contains("base/5/7 in part only, and no parent"), "{error}");
        let error = combined(&[part.clone(), part, Copy::None]).unwrap_err();
        assert!(error.to_string().contains("20261121T100007Z-0007 lacks the rest"), "{error}");
    }

    #[test]
    fn a_part_that_cannot_be_one_is_damage() {
        let mut chain = chain(&[Copy::Part { length: 9, blocks: vec![1, 5] }, Copy::Whole(9)]);
        let lies: [fn(&mut FileEntry); 3] = [
            |entry| entry.size += 1,
            |entry| entry.part.as_mut().unwrap().blocks = vec![(5, 1), (1, 1)],
            |entry| entry.part.as_mut().unwrap().blocks = vec![(1, u32::MAX), (5, 1)],
        ];
        for lie in lies {
            let mut entry = chain[0].files.pop().unwrap();
            let good = entry.clone();
            lie(&mut entry);
            chain[0].files.push(entry);
            let index = chain[0].files.len() - 1;
            let error = Sources::new(&chain).of(index as u32, &chain[0].files[index]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            chain[0].files[index] = good;
        }
    }
}

//! Checksums of the content of a backup's files, chunk by chunk: what is in place already and right
//! need not be fetched again.

use std::ops::Range;

use twox_hash::XxHash3_64;

use crate::codec::{self, Compression, Header, Kind, Origin, Sealer};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::manifest::{FileEntry, FileKind};
use crate::repository::object::ObjectReader;
use crate::repository::{BackupId, Home, Manifest, unopened};
use crate::storage::Body;

/// Raw bytes that one checksum is of. Frames of packs begin where chunks of large files do.
pub const CHUNK_BYTES: usize = 128 << 10;

/// The checksums of a backup: XXH3 (64 bits, seed 0) of every chunk of every whole file, in the
/// order of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    all: Vec<u64>,
    /// Where those of each file of the manifest begin, and at last where they end.
    starts: Vec<u32>,
}

impl Sums {
    /// Of the file at this place in the manifest's list; empty for a directory and for a file that
    /// is there in part.
    pub fn of(&self, file: usize) -> &[u64] {
        let range = self.starts.get(file).zip(self.starts.get(file + 1));
        let range = range.map_or(0..0, |(first, end)| *first as usize..*end as usize);
        &self.all[range]
    }
}

/// How many chunks a file has checksums of.
pub fn chunks_of(entry: &FileEntry) -> usize {
    let is_whole = entry.kind == FileKind::File && entry.part.is_none();
    if is_whole { entry.size.div_ceil(CHUNK_BYTES as u64) as usize } else { 0 }
}

/// The place of one chunk in a file of `size` bytes.
pub fn chunk_range(chunk: usize, size: u64) -> Range<u64> {
    let begin = (chunk * CHUNK_BYTES) as u64;
    begin..size.min(begin + CHUNK_BYTES as u64)
}

/// The checksum of one chunk.
pub fn sum(chunk: &[u8]) -> u64 {
    XxHash3_64::oneshot(chunk)
}

/// Takes the checksums of a file that comes in pieces.
#[derive(Default)]
pub struct ChunkHasher {
    hasher: XxHash3_64,
    filled: usize,
    sums: Vec<u64>,
}

impl ChunkHasher {
    pub fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.filled));
            bytes = later;
            if self.filled == 0 && now.len() == CHUNK_BYTES {
                self.sums.push(sum(now));
                continue;
            }
            std::hash::Hasher::write(&mut self.hasher, now);
            self.filled += now.len();
            if self.filled == CHUNK_BYTES {
                self.end_chunk();
            }
        }
    }

    /// Those of one file; from here on that of another.
    pub fn finish_file(&mut self) -> Vec<u64> {
        if self.filled > 0 {
            self.end_chunk();
        }
        std::mem::take(&mut self.sums)
    }

    fn end_chunk(&mut self) {
        let hasher = std::mem::take(&mut self.hasher);
        self.sums.push(std::hash::Hasher::finish(&hasher));
        self.filled = 0;
    }
}

impl Home {
    /// Stores the checksums of a backup that is not published yet: those of all chunks of all whole
    /// files, in the order of its manifest.
    pub fn put_sums(
        &self,
        id: &BackupId,
        sums: &[u64],
        origin: &Origin,
        compression: Compression,
    ) -> Result<()> {
        let mut sealer = Sealer::new(compression, sums.len() as u64 * 8)?;
        for sum in sums {
            sealer.write(&sum.to_le_bytes())?;
        }
        let sealed = sealer
            .finish(|content| Header::new(Kind::Sums, id.as_str(), content, origin.clone()))?;
        self.put_once(&self.sums_key(id), &Body::new(sealed))
    }

    /// The checksums of a backup; `None` where it has none, or where they cannot be those of its
    /// manifest.
    pub fn sums(&self, manifest: &Manifest) -> Result<Option<Sums>> {
        if manifest.chunk_bytes != Some(CHUNK_BYTES as u64) {
            return Ok(None);
        }
        let key = self.sums_key(&manifest.id);
        let sealed = match ObjectReader::begin(&*self.storage, &key) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            outcome => outcome?,
        };
        let mut bytes = Vec::new();
        let header = codec::open(sealed, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        let header = header.map_err(|error| unopened(error, &key))?;
        let mut starts = vec![0u32];
        for entry in &manifest.files {
            let end = starts[starts.len() - 1] as usize + chunks_of(entry);
            starts.push(u32::try_from(end).unwrap_or(u32::MAX));
        }
        let expected = starts[starts.len() - 1] as usize * 8;
        let is_ours = header.kind == Kind::Sums
            && header.name == manifest.id.as_str()
            && header.origin == manifest.origin;
        if !is_ours || bytes.len() != expected {
            return Err(Error::new(ErrorKind::Corrupt, format!("{key} is not of its manifest"))
                .hint("Somebody copied or moved objects: put the right one back."));
        }
        let (numbers, _) = bytes.as_chunks::<8>();
        let all = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        Ok(Some(Sums { all, starts }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{CHUNK_BYTES, ChunkHasher, chunk_range, sum};
    use crate::codec::Compression;
    use crate::error::ErrorKind;
    use crate::postgres::SystemIdentifier;
    use crate::repository::manifest::samples::manifest;
    use crate::repository::{ClusterName, Manifest, Repository};
    use crate::storage::memory::Memory;

    #[test]
    fn however_a_file_comes_its_chunks_have_the_same_checksums() {
        let content: Vec<u8> = (0..90_000u32).flat_map(u32::to_le_bytes).collect();
        let expected: Vec<u64> = content.chunks(CHUNK_BYTES).map(sum).collect();
        for piece in [1 << 20, CHUNK_BYTES, 4096, 1001] {
            let mut hasher = ChunkHasher::default();
            content.chunks(piece).for_each(|piece| hasher.write(piece));
            assert_eq!(hasher.finish_file(), expected);
            assert!(hasher.finish_file().is_empty());
        }
        assert_eq!(chunk_range(2, content.len() as u64), 262_144..360_000);
    }

    #[test]
    fn each_file_finds_its_own_and_others_are_refused() {
        let memory = Arc::new(Memory::new());
        let repository = Repository::new(memory.clone(), ClusterName::new("main").unwrap());
        let home = repository.home(SystemIdentifier(7));
        let mut manifest: Manifest = manifest(SystemIdentifier(7), 1);
        assert_eq!(home.sums(&manifest).unwrap(), None);
        manifest.chunk_bytes = Some(CHUNK_BYTES as u64);
        assert_eq!(home.sums(&manifest).unwrap(), None);
        manifest.files[1].size = CHUNK_BYTES as u64 + 1;
        let level = Compression::default();
        home.put_sums(&manifest.id, &[1, 2, 3], &manifest.origin, level).unwrap();
        let sums = home.sums(&manifest).unwrap().unwrap();
        let of: Vec<&[u64]> = (0..4).map(|file| sums.of(file)).collect();
        assert_eq!(of, [&[][..], &[1, 2], &[3], &[]]);
        manifest.files[2].size = 0;
        assert_eq!(home.sums(&manifest).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

//! The tar stream on its way into frames: a large file begins one, so that a chunk of it is a
//! frame, and every chunk's checksum is taken. Of incremental files the headers are read.

use std::collections::BTreeMap;

use crate::commands::backup::copy::StreamWriter;
use crate::error::Result;
use crate::postgres::data_files::RelationDirectory;
use crate::postgres::incremental_file::{self, HeaderReader};
use crate::postgres::replication::{Entry, EntryKind, TarSink};
use crate::repository::ChunkHasher;
use crate::repository::manifest::Part;
use crate::repository::sums::CHUNK_BYTES;

pub struct TarFrames<'f, 'w> {
    writer: &'f mut StreamWriter<'w>,
    /// Whether the server was asked for a difference: else no file is taken for one.
    has_parts: bool,
    hasher: ChunkHasher,
    sums: Vec<u64>,
    /// The incremental file that is passing.
    header: Option<(String, HeaderReader)>,
    parts: BTreeMap<String, Part>,
}

impl<'f, 'w> TarFrames<'f, 'w> {
    pub fn new(writer: &'f mut StreamWriter<'w>, has_parts: bool) -> Self {
        TarFrames {
            writer,
            has_parts,
            hasher: ChunkHasher::default(),
            sums: Vec::new(),
            header: None,
            parts: BTreeMap::new(),
        }
    }

    /// The checksums of all chunks of all whole files, in order; and what the others hold.
    pub fn finish(mut self) -> Result<(Vec<u64>, BTreeMap<String, Part>)> {
        self.end_file()?;
        Ok((self.sums, self.parts))
    }

    fn end_file(&mut self) -> Result<()> {
        self.sums.extend(self.hasher.finish_file());
        if let Some((path, header)) = self.header.take() {
            self.parts.insert(path, Part::of(&header.finish()?));
        }
        Ok(())
    }
}

impl TarSink for TarFrames<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write(bytes)
    }

    fn begin_file(&mut self, entry: &Entry) -> Result<()> {
        self.end_file()?;
        if self.has_parts && entry.kind == EntryKind::File && is_part(&entry.path) {
            self.header = Some((entry.path.clone(), HeaderReader::default()));
        }
        if entry.size >= CHUNK_BYTES as u64 {
            self.writer.flush()?;
        }
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.header {
            Some((_, header)) => header.take(bytes)?,
            None => self.hasher.write(bytes),
        }
        self.writer.write(bytes)
    }
}

/// Whether its name is that of a relation's file, with the server's mark before it.
fn is_part(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    let whole = name.strip_prefix(incremental_file::PREFIX);
    whole.is_some_and(|whole| RelationDirectory::of_file(&format!("{folder}/{whole}")).is_some())
}

#[cfg(test)]
mod tests {
    use super::is_part;

    #[test]
    fn only_relations_have_parts() {
        for path in [
            "base/5/INCREMENTAL.16384",
            "global/INCREMENTAL.1262_vm",
            "pg_tblspc/16400/PG_17_202406281/5/INCREMENTAL.16384.2",
        ] {
            assert!(is_part(path), "{path}");
        }
        for path in
            ["base/5/16384", "INCREMENTAL.1", "base/5/INCREMENTAL.x", "pg_xact/INCREMENTAL.1"]
        {
            assert!(!is_part(path), "{path}");
        }
    }
}

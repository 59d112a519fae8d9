//! The tar stream on its way into frames: a large file begins one, so that a chunk of it is a
//! frame, and every chunk's checksum is taken.

use crate::commands::backup::copy::StreamWriter;
use crate::error::Result;
use crate::postgres::replication::{Entry, TarSink};
use crate::repository::ChunkHasher;
use crate::repository::sums::CHUNK_BYTES;

pub struct TarFrames<'f, 'w> {
    writer: &'f mut StreamWriter<'w>,
    hasher: ChunkHasher,
    sums: Vec<u64>,
}

impl<'f, 'w> TarFrames<'f, 'w> {
    pub fn new(writer: &'f mut StreamWriter<'w>) -> Self {
        TarFrames { writer, hasher: ChunkHasher::default(), sums: Vec::new() }
    }

    /// The checksums of all chunks of all files, in order.
    pub fn finish(mut self) -> Vec<u64> {
        self.sums.extend(self.hasher.finish_file());
        self.sums
    }
}

impl TarSink for TarFrames<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write(bytes)
    }

    fn begin_file(&mut self, entry: &Entry) -> Result<()> {
        self.sums.extend(self.hasher.finish_file());
        if entry.size >= CHUNK_BYTES as u64 {
            self.writer.flush()?;
        }
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.write(bytes);
        self.writer.write(bytes)
    }
}

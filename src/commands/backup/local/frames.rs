//! A pack on its way: bytes of the stream go in, sealed frames come out.

use crate::codec::{Compression, FrameSealer, PACK_FRAME_BYTES, PackBuilder};
use crate::error::Result;

pub struct PackWriter {
    sealer: FrameSealer,
    pack: PackBuilder,
    /// The frame begun; a chunk on its way may reach beyond its end.
    frame: Vec<u8>,
}

impl PackWriter {
    pub fn new(compression: Compression) -> Result<Self> {
        let frame = Vec::with_capacity(2 * PACK_FRAME_BYTES);
        Ok(PackWriter {
            sealer: FrameSealer::new(compression)?,
            pack: PackBuilder::default(),
            frame,
        })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.frame.extend_from_slice(bytes);
        self.settle()
    }

    /// Room for at most `PACK_FRAME_BYTES` more, filled with zeros; `settle` when they are there.
    pub fn room(&mut self, length: usize) -> &mut [u8] {
        let begun = self.frame.len();
        self.frame.resize(begun + length, 0);
        &mut self.frame[begun..]
    }

    /// Seals what is full.
    pub fn settle(&mut self) -> Result<()> {
        let mut sealed = 0;
        while self.frame.len() - sealed >= PACK_FRAME_BYTES {
            let end = sealed + PACK_FRAME_BYTES;
            self.pack.push(self.sealer.seal(&self.frame[sealed..end])?);
            sealed = end;
        }
        self.frame.drain(..sealed);
        Ok(())
    }

    /// What comes next begins a frame.
    pub fn cut(&mut self) -> Result<()> {
        if !self.frame.is_empty() {
            self.pack.push(self.sealer.seal(&self.frame)?);
            self.frame.clear();
        }
        Ok(())
    }

    /// The pack so far; this is ready for the next one.
    pub fn take(&mut self) -> Result<PackBuilder> {
        self.cut()?;
        Ok(std::mem::take(&mut self.pack))
    }
}

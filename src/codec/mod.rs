//! Bytes to sealed bytes and back: compress, checksum, frame. Pure: no files, no clock.
//!
//! A sealed object is ordinary zstd: one skippable frame that holds a small JSON header, then
//! frames with content checksums, so that `zstd -d` gives the raw bytes. `docs/format.md` has the
//! byte tables.

pub mod header;
pub mod frame;
pub mod seal;
pub mod open;
pub mod pack;
pub mod unpack;

pub use frame::{FRAME_BYTES, FrameSealer, PACK_FRAME_BYTES, SealedFrame};
pub use header::{Content, Header, Kind, Origin};
pub use open::{open, same_content};
pub use pack::PackBuilder;
pub use seal::Sealer;
pub use unpack::{Frame, FrameOpener, SeekTable};

/// How objects are compressed. zstd level 1 by default: on real WAL it is as small as level 3 at
/// twice the speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// zstd's level, -7 to 19.
    pub level: i32,
}

impl Default for Compression {
    fn default() -> Self {
        Compression { level: 1 }
    }
}

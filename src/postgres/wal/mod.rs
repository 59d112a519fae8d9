//! The WAL as bytes. Pure: no files, no clock.

pub mod page;
pub mod segment;
pub mod digest;

pub use digest::Digest;
pub use segment::{SegmentCheck, SegmentFacts};

//! The WAL as bytes. Pure: no files, no clock.

pub mod page;
pub mod segment;

pub use segment::{SegmentCheck, SegmentFacts};

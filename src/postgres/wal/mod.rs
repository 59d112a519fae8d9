//! The WAL as bytes. Pure: no files, no clock.

pub mod page;
pub mod segment;
mod fields;
pub mod record;
pub mod reader;
pub mod transaction;
pub mod class_row;
pub mod digest;
mod activities;
pub mod digester;
pub mod link;
pub mod agreement;
pub mod tablespaces;
#[cfg(test)]
pub mod samples;

pub use digest::{Digest, joint};
pub use digester::Digester;
pub use link::Link;
pub use reader::{Outcome, Reader, read_segment};
pub use record::Record;
pub use segment::{SegmentCheck, SegmentFacts};
pub use transaction::ending;

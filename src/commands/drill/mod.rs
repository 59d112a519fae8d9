//! `drill`: a rehearsed recovery: into a private place, asked questions, measured, written down,
//! cleaned up.

pub mod recovered;
mod dump;
pub mod checks;
pub mod extract;

pub use recovered::Recovered;

//! What happened in the WAL that somebody may ask for: tables dropped or emptied, rows deleted in
//! mass, databases dropped.

pub mod names;
pub mod transactions;
pub mod classify;
pub mod pattern;

pub use classify::{Deed, What, deeds};
pub use names::{Known, Lookup};
pub use pattern::Pattern;
pub use transactions::{Transaction, Transactions, Unended};

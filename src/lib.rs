//! walden: a home for PostgreSQL's write-ahead log.
//!
//! The modules stand in reading order; each uses only those below it (`tests/tidy.rs` holds the
//! order).

pub mod cli;
pub mod commands;
pub mod config;
pub mod repository;
pub mod storage;
pub mod codec;
pub mod catalog;
pub mod postgres;
pub mod host;
pub mod error;

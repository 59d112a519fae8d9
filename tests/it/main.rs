//! The integration tests, one crate: each file is a chapter, `harness` is the language they are
//! told in.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test ends where it cannot go on, and moves files as a DBA would"
)]

mod harness;

/// The harness keeps its own promises.
mod house;
mod incremental;

/// What holds for any bytes.
mod properties;

/// Every record of real WAL, as PostgreSQL itself reads it.
mod wal_reader;

/// The parsers of WAL on damaged WAL.
mod wal_fuzz;

/// Samples that work, docs that are complete, failures in one line.
mod configuration;

/// Every store keeps the contract, whoever made it and however it is reached.
mod storage;

/// Every fault of S3 has its kind, and none passes for an answer.
mod s3_faults;

/// `push` and `fetch` on a directory.
mod archive;

/// `push` and `fetch` on S3.
mod archive_s3;

/// What `push` reads in the WAL it archives.
mod validation;
/// What PostgreSQL is content with is archived.
mod valid_wal;

/// `push` and the files PostgreSQL has not asked for yet.
mod look_ahead;

/// Fetching ahead of a recovery.
mod prefetch;

/// Fetching ahead of real servers.
mod prefetch_server;

/// `push` and `fetch` of segments larger than memory should be.
mod large;

/// `backup` from real servers, whole or not at all.
mod backup;
/// And by reading the files beside the server.
mod backup_local;

/// `backup` told to stop at any instant.
mod backup_cancel;

/// What a backup does to its host.
mod backup_care;

/// What is kept with a backup beside its files.
mod backup_facts;

/// What things are called, saved with a backup.
mod names;

/// `list`: what backups there are, and which can be used.
mod list;

/// The whole story, on every version.
mod story;

/// Everything killed at any instant.
mod crash;

/// Archiving for as long as one wants, over a store that fails.
mod soak;

/// What PostgreSQL makes of `fetch` in real recovery.
mod recovery;

/// From when until when one can recover, and what is missing.
mod window;

/// `restore`: what it refuses, what it writes, where recovery ends.
mod restore;

/// `verify`: what it finds, and that it finds nothing where nothing is wrong.
mod verify;

/// `restore` into what is there already, in several attempts, and in part.
mod restore_delta;

/// Backups of servers that write flat out and change all their files meanwhile.
mod torture;
/// Chains of incremental backups, beside pg_combinebackup.
mod combine;
/// Backups and restores amid what goes wrong.
mod large_faults;

/// `report`: one page of evidence, in a browser.
mod report;

/// `find`: what happened, told from what only looks like it.
mod find;
/// A plan is accepted if and only if PostgreSQL reaches the target.
mod plan_property;

/// `verify` on repositories that somebody damaged.
mod sabotage;

/// `drill` at random commits of a restless cluster, beside a live one, and killed.
mod rehearsal;

/// The story a newcomer sees.
mod demo;
mod drill;

/// What a drill asks of the server it has recovered.
mod drill_checks;

/// Tables brought back as they were.
mod extract;

/// Stores that take long to build.
#[cfg(feature = "test-stores")]
mod stores;

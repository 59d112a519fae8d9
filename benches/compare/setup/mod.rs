//! What the comparisons share: servers, WAL, peers, a store, a stopwatch, and tables.

/// What the environment asks for.
pub mod knobs;
/// Ctrl-C.
pub mod interrupt;
/// Places in the file system.
pub mod scratch;
/// PostgreSQL servers.
pub mod server;
/// Real WAL, kept from run to run.
pub mod wal;
/// How WAL comes to be: what the servers are told to do.
pub mod workload;
/// One call, and what it took.
pub mod stopwatch;
/// Who takes part, and how each is called.
pub mod peers;
/// How pgBackRest is configured.
pub mod pgbackrest;
/// S3 that is as slow as told.
pub mod store;
/// Rounds in which everybody takes a turn.
pub mod race;
/// Markdown.
pub mod table;

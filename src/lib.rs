//! walden: a home for PostgreSQL's write-ahead log.

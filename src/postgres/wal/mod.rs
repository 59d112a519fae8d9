//! The WAL as bytes. Pure: no files, no clock.

//! Takes a base backup.

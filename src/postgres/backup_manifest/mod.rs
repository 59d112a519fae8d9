//! PostgreSQL's own `backup_manifest`: which files a backup has, with their checksums.
//!
//! Format: manual, appendix "Backup Manifest Format". Version 1 until 16, version 2 with the system
//! identifier since 17.

mod read;
mod write;
mod checksum;

pub use checksum::{Checksum, FileHasher};
pub use read::{ListedFile, listed, verify};
pub use write::{ManifestWriter, WalRange};

const LAST_LINE: &str = "\"Manifest-Checksum\": \"";

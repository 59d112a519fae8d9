//! What a walsender does for us: a base backup, streamed.

pub mod base_backup;
pub mod upload_manifest;
pub mod tar_stream;

pub use base_backup::{BackupEnd, BackupStart, BaseBackup, Checkpoint, Piece, SystemIdentity};
pub use tar_stream::{Entry, EntryKind, TarMerger, TarSink};
pub use upload_manifest::upload_manifest;

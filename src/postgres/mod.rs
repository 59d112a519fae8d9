//! What PostgreSQL writes and says.

pub mod lsn;
pub mod timeline;
pub mod version;
pub mod system_identifier;
pub mod wal_file_name;
pub mod history_file;
pub mod recovery_settings;
pub mod recovery_log;
pub mod tablespace_map;
pub mod control_file;
pub mod data_files;
pub mod page;
pub mod incremental_file;
pub mod backup_manifest;
pub mod wal;
pub mod wal_file_check;
pub mod archive_status;
pub mod installation;
pub mod client_program;
pub mod server;
pub mod connection;
pub mod configuration_files;
pub mod names;
pub mod tar_header;
pub mod replication;
pub mod low_level_backup;

pub use lsn::Lsn;
pub use names::Names;
pub use system_identifier::SystemIdentifier;
pub use timeline::TimelineId;
pub use version::MajorVersion;
pub use wal_file_name::{SegmentName, WalFileName};

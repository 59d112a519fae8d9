//! Which data directory a command was called for.

use std::path::{Path, PathBuf};

/// The directory we are called in, if it is a data directory; else the one that `file` lies in
/// (`<pgdata>/pg_wal/…`); else what the settings say. PostgreSQL calls its commands in the data
/// directory, and that beats a setting: the configuration of the production cluster may well be in
/// use beside a restored copy of it.
pub fn find(file: Option<&Path>, configured: Option<&Path>) -> Option<PathBuf> {
    let is_data_directory = |path: &PathBuf| path.join("global/pg_control").is_file();
    let here = std::env::current_dir().ok();
    let around = file.and_then(Path::parent).and_then(Path::parent).map(Path::to_path_buf);
    let around = around.filter(|path| path.is_absolute());
    here.into_iter().chain(around).find(is_data_directory).or(configured.map(Path::to_path_buf))
}

//! Which data directory a command was called for.

use std::io;
use std::path::{Path, PathBuf};

/// The one that `file` lies in (`<pgdata>/pg_wal/…`), where a person gave its whole path; else the
/// directory we are called in, if it is a data directory; else what the settings say. PostgreSQL
/// gives relative paths and calls its commands in the data directory, and that beats a setting: the
/// configuration of the production cluster may well be in use beside a restored copy of it.
pub fn find(file: Option<&Path>, configured: Option<&Path>) -> Option<PathBuf> {
    // One that cannot be looked at now is still no reason to take another cluster for this one.
    let is_data_directory = |path: &PathBuf| match path.join("global/pg_control").metadata() {
        Ok(file) => file.is_file(),
        Err(error) => {
            !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
    };
    let here = std::env::current_dir().ok();
    let around = file.and_then(Path::parent).and_then(Path::parent).map(Path::to_path_buf);
    let around = around.filter(|path| path.is_absolute());
    around.into_iter().chain(here).find(is_data_directory).or(configured.map(Path::to_path_buf))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::find;

    #[test]
    fn the_data_directory_of_a_whole_path_beats_the_settings() {
        let scratch = tempfile::tempdir().unwrap();
        let settings = Some(Path::new("/configured"));
        let file = scratch.path().join("pg_wal/00000002.history");
        assert_eq!(find(Some(&file), settings).as_deref(), settings);
        fs::create_dir(scratch.path().join("global")).unwrap();
        fs::write(scratch.path().join("global/pg_control"), "").unwrap();
        assert_eq!(find(Some(&file), settings).as_deref(), Some(scratch.path()));
        assert_eq!(find(Some(Path::new("pg_wal/x")), settings).as_deref(), settings);
    }

    #[test]
    fn one_that_cannot_be_looked_at_is_not_passed_over() {
        let scratch = tempfile::tempdir().unwrap();
        // Too many links: an error as good as any that root meets, too.
        symlink("global", scratch.path().join("global")).unwrap();
        let file = scratch.path().join("pg_wal/00000002.history");
        let found = find(Some(&file), Some(Path::new("/configured")));
        assert_eq!(found.as_deref(), Some(scratch.path()));
    }
}

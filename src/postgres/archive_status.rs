//! `pg_wal/archive_status`: which WAL files PostgreSQL wants archived. Read, never written.

use std::io;
use std::path::Path;

use crate::postgres::WalFileName;

/// Its folder beside the WAL files.
pub const FOLDER: &str = "archive_status";

/// The WAL files that wait for archive_command, in the order PostgreSQL will hand them over:
/// history files first, then by name (`ready_file_comparator`, pgarch.c).
pub fn ready(folder: &Path) -> io::Result<Vec<WalFileName>> {
    let mut ready = Vec::new();
    for entry in folder.read_dir()? {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".ready"));
        // What is no WAL file's name is PostgreSQL's to complain about.
        ready.extend(name.and_then(|name| WalFileName::parse(name).ok()));
    }
    ready.sort_by_cached_key(|name| {
        let is_history = matches!(name, WalFileName::History(_));
        (!is_history, name.to_string())
    });
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::postgres::archive_status::ready;

    #[test]
    fn ready_files_come_in_the_order_of_postgresql() {
        let scratch = tempfile::tempdir().unwrap();
        for name in [
            "000000020000000000000003.ready",
            "000000010000000A00000001.ready",
            "000000010000000A00000001.partial.ready",
            "000000010000000A00000001.00000028.backup.ready",
            "00000003.history.ready",
            "00000002.history.ready",
            "000000010000000A00000002.done",
            "nonsense.ready",
            "000000010000000A00000004",
        ] {
            fs::write(scratch.path().join(name), "").unwrap();
        }
        let names: Vec<String> =
            ready(scratch.path()).unwrap().iter().map(ToString::to_string).collect();
        let expected = [
            "00000002.history",
            "00000003.history",
            "000000010000000A00000001",
            "000000010000000A00000001.00000028.backup",
            "000000010000000A00000001.partial",
            "000000020000000000000003",
        ];
        assert_eq!(names, expected);
        assert!(ready(&scratch.path().join("missing")).is_err());
    }
}

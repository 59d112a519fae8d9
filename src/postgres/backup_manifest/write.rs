//! Writes a `backup_manifest` as the server would (`AddFileToBackupManifest` and its neighbours in
//! backup_manifest.c): `pg_verifybackup` and `UPLOAD_MANIFEST` take it.

use std::io::Write as _;

use ring::digest;

use super::LAST_LINE;
use crate::postgres::{Lsn, MajorVersion, SystemIdentifier, TimelineId};

/// The first version that writes the system identifier into its manifests.
const WITH_SYSTEM_IDENTIFIER: MajorVersion = MajorVersion(17);

/// Grows file by file, in memory: about 150 bytes each.
#[derive(Debug)]
pub struct ManifestWriter {
    text: Vec<u8>,
    is_empty: bool,
}

/// WAL that must be replayed to make the backup consistent; of each timeline on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    pub timeline: TimelineId,
    pub start: Lsn,
    pub end: Lsn,
}

impl ManifestWriter {
    pub fn new(major: MajorVersion, system_identifier: SystemIdentifier) -> ManifestWriter {
        let head = if major >= WITH_SYSTEM_IDENTIFIER {
            format!(
                "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\
                 \"System-Identifier\": {system_identifier},\n"
            )
        } else {
            "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n".to_owned()
        };
        ManifestWriter { text: (head + "\"Files\": [").into_bytes(), is_empty: true }
    }

    /// `path` is relative to the data directory; `modified` in seconds since 1970. A name that is
    /// not UTF-8 is written in hexadecimal.
    pub fn file(&mut self, path: &[u8], size: u64, modified: i64, crc32c: u32) {
        let name = match std::str::from_utf8(path) {
            Ok(path) => format!("\"Path\": {}", serde_json::Value::from(path)),
            Err(_) => format!("\"Encoded-Path\": \"{}\"", hex(path)),
        };
        let modified = jiff::Timestamp::from_second(modified).unwrap_or_default();
        let line = format!(
            "{}\n{{ {name}, \"Size\": {size}, \"Last-Modified\": \"{}\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{}\" }}",
            if self.is_empty { "" } else { "," },
            modified.strftime("%Y-%m-%d %H:%M:%S GMT"),
            // As it lies in the memory of the machines that walden runs on.
            hex(&crc32c.to_le_bytes()),
        );
        self.text.extend_from_slice(line.as_bytes());
        self.is_empty = false;
    }

    pub fn finish(mut self, ranges: &[WalRange]) -> Vec<u8> {
        let ranges: Vec<String> = ranges
            .iter()
            .map(|range| {
                let WalRange { timeline, start, end } = range;
                format!(
                    "{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \
                     \"End-LSN\": \"{end}\" }}"
                )
            })
            .collect();
        let ranges = format!("\n],\n\"WAL-Ranges\": [\n{}\n],\n", ranges.join(",\n"));
        self.text.extend_from_slice(ranges.as_bytes());
        let sum = digest::digest(&digest::SHA256, &self.text);
        let _infallible = writeln!(self.text, "{LAST_LINE}{}\"}}", hex(sum.as_ref()));
        self.text
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{ManifestWriter, WalRange};
    use crate::postgres::replication::{Entry, EntryKind};
    use crate::postgres::{Lsn, MajorVersion, SystemIdentifier, TimelineId, backup_manifest};

    const SYSTEM: SystemIdentifier = SystemIdentifier(7_710_624_905_522_433_779);

    fn written(major: MajorVersion) -> String {
        let mut writer = ManifestWriter::new(major, SYSTEM);
        writer.file(b"PG_VERSION", 3, 1_795_301_096, crc_fast::crc32_iscsi(b"17\n"));
        writer.file(b"with \"quotes\"\n", 0, 0, 0);
        let timeline = TimelineId::new(1).unwrap();
        let range = WalRange { timeline, start: Lsn(0xD0_0028), end: Lsn(0xD0_0120) };
        String::from_utf8(writer.finish(&[range])).unwrap()
    }

    #[test]
    fn it_is_what_a_server_of_version_17_writes() {
        let text = written(MajorVersion(17));
        let (signed, sum) = text.split_once("\"Manifest-Checksum\": ").unwrap();
        assert_eq!(
            signed,
            "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\
             \"System-Identifier\": 7710624905522433779,\n\
             \"Files\": [\n\
             { \"Path\": \"PG_VERSION\", \"Size\": 3, \
             \"Last-Modified\": \"2026-11-21 22:44:56 GMT\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"64440205\" },\n\
             { \"Path\": \"with \\\"quotes\\\"\\n\", \"Size\": 0, \
             \"Last-Modified\": \"1970-01-01 00:00:00 GMT\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }\n\
             ],\n\
             \"WAL-Ranges\": [\n\
             { \"Timeline\": 1, \"Start-LSN\": \"0/D00028\", \"End-LSN\": \"0/D00120\" }\n\
             ],\n"
        );
        assert_eq!(sum.len(), 64 + 4);
        assert!(sum.ends_with("\"}\n"), "{sum}");
    }

    #[test]
    fn before_17_it_is_of_version_1_without_a_system_identifier() {
        let text = written(MajorVersion(16));
        assert!(text.starts_with(
            "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{ \"Path\": "
        ));
    }

    #[test]
    fn a_manifest_without_files_is_a_manifest_and_a_strange_name_stands_in_hexadecimal() {
        let entry = |path: &str, size, crc32c| Entry {
            path: path.to_owned(),
            kind: EntryKind::File,
            mode: 0o600,
            size,
            offset: 512,
            modified: 0,
            crc32c,
        };
        let empty = ManifestWriter::new(MajorVersion(18), SYSTEM).finish(&[]);
        backup_manifest::verify(&empty, &[], SYSTEM).unwrap();

        let both = written(MajorVersion(17)).into_bytes();
        let entries = [
            entry("PG_VERSION", 3, crc_fast::crc32_iscsi(b"17\n")),
            entry("with \"quotes\"\n", 0, 0),
        ];
        backup_manifest::verify(&both, &entries, SYSTEM).unwrap();

        let mut strange = ManifestWriter::new(MajorVersion(17), SYSTEM);
        strange.file(b"\xFFa", 1, 0, 5);
        let strange = String::from_utf8(strange.finish(&[])).unwrap();
        assert!(strange.contains("\"Encoded-Path\": \"ff61\""), "{strange}");
    }
}

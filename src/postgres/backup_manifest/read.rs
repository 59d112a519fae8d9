//! Reads a `backup_manifest`, and holds what came against it.

use std::borrow::Cow;
use std::collections::HashMap;

use ring::digest;

use super::LAST_LINE;
use super::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::SystemIdentifier;
use crate::postgres::replication::{Entry, EntryKind};

#[derive(serde::Deserialize)]
struct Written<'a> {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Files", borrow)]
    files: Vec<WrittenFile<'a>>,
}

#[derive(serde::Deserialize)]
struct WrittenFile<'a> {
    #[serde(rename = "Path", borrow)]
    path: Option<Cow<'a, str>>,
    /// In hexadecimal, for a name that is not UTF-8.
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<Cow<'a, str>>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<Cow<'a, str>>,
    #[serde(rename = "Checksum")]
    checksum: Option<Cow<'a, str>>,
}

/// Checks the manifest against its own checksum, and what came through against the manifest: every
/// file there, none besides, each of its size and CRC-32C. `Corrupt` where anything differs.
pub fn verify(
    manifest: &[u8],
    entries: &[Entry],
    system_identifier: SystemIdentifier,
) -> Result<()> {
    let written = written(manifest, system_identifier)?;
    let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
    let mut streamed: HashMap<&str, &Entry> =
        files.map(|entry| (entry.path.as_str(), entry)).collect();
    for file in &written.files {
        let path = file.path()?;
        match streamed.remove(path.as_ref()) {
            Some(entry) => compare(&path, file, entry)?,
            None => return Err(wrong(format!("lists {path}, which was not sent"))),
        }
    }
    if let Some(extra) = streamed.keys().min() {
        return Err(wrong(format!("does not list {extra}, which was sent")));
    }
    Ok(())
}

/// A file as the server listed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Relative to the data directory.
    pub path: String,
    /// In bytes.
    pub size: u64,
    pub checksum: Checksum,
}

/// All files of a manifest that matches its own checksum and is of this cluster.
pub fn listed(manifest: &[u8], system_identifier: SystemIdentifier) -> Result<Vec<ListedFile>> {
    let listed = |file: &WrittenFile<'_>| {
        let path = file.path()?.into_owned();
        let checksum = match (file.algorithm.as_deref(), file.checksum.as_deref()) {
            (Some(algorithm), Some(digits)) => {
                hex(digits).and_then(|sum| Checksum::new(algorithm, sum)).ok_or_else(|| {
                    wrong(format!("has a checksum of {path} that cannot be read, {algorithm}"))
                })?
            }
            _ => Checksum::None,
        };
        Ok(ListedFile { path, size: file.size, checksum })
    };
    written(manifest, system_identifier)?.files.iter().map(listed).collect()
}

fn written(manifest: &[u8], system_identifier: SystemIdentifier) -> Result<Written<'_>> {
    verify_own_checksum(manifest)?;
    let written: Written<'_> = serde_json::from_slice(manifest)
        .map_err(|error| wrong("cannot be read".to_owned()).source(error))?;
    if !(1..=2).contains(&written.version) {
        return Err(wrong(format!("has version {}, which walden does not know", written.version)));
    }
    if let Some(found) = written.system_identifier.filter(|found| *found != system_identifier.0) {
        return Err(wrong(format!("names another cluster, {found}")));
    }
    Ok(written)
}

impl<'a> WrittenFile<'a> {
    fn path(&self) -> Result<Cow<'_, str>> {
        match (&self.path, &self.encoded_path) {
            (Some(path), _) => Ok(Cow::Borrowed(path)),
            (None, Some(encoded)) => hex(encoded)
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .map(Cow::Owned)
                .ok_or_else(|| wrong(format!("has the file name {encoded}, which is not UTF-8"))),
            (None, None) => Err(wrong("has a file without a name".to_owned())),
        }
    }
}

fn compare(path: &str, file: &WrittenFile<'_>, entry: &Entry) -> Result<()> {
    if file.size != entry.size {
        let (wanted, found) = (file.size, entry.size);
        return Err(wrong(format!("says {wanted} bytes of {path}, and {found} came")));
    }
    let sum = match (file.algorithm.as_deref(), &file.checksum) {
        (Some("CRC32C"), Some(checksum)) => hex(checksum).and_then(|sum| sum.try_into().ok()),
        _ => None,
    };
    // The server writes the number as it lies in its memory, so either way round.
    let [little, big] =
        [u32::from_le_bytes, u32::from_be_bytes].map(|read| sum.map(|sum: [u8; 4]| read(sum)));
    if little == Some(entry.crc32c) || big == Some(entry.crc32c) {
        return Ok(());
    }
    Err(wrong(format!("gives another checksum of {path} than that of what came")))
}

/// The last line holds the SHA-256 of all lines before it.
fn verify_own_checksum(manifest: &[u8]) -> Result<()> {
    let at = manifest.windows(LAST_LINE.len()).rposition(|window| window == LAST_LINE.as_bytes());
    let at = at.ok_or_else(|| wrong("has no checksum of itself".to_owned()))?;
    let digits = manifest.get(at + LAST_LINE.len()..at + LAST_LINE.len() + 64);
    let said = digits.and_then(|digits| hex(std::str::from_utf8(digits).ok()?));
    let found = digest::digest(&digest::SHA256, &manifest[..at]);
    if said.as_deref() == Some(found.as_ref()) {
        return Ok(());
    }
    Err(wrong("does not match its own checksum".to_owned()))
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        digits.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the server's backup manifest {what}")).hint(
        "What the server read is not what arrived: a fault of memory, disk or network. Nothing \
         was published; \
         take the backup again, and look at the hardware if it comes back.",
    )
}

#[cfg(test)]
mod tests {
    use ring::digest;

    use super::verify;
    use crate::error::{ErrorKind, Result};
    use crate::postgres::SystemIdentifier;
    use crate::postgres::replication::{Entry, EntryKind};

    const SYSTEM: SystemIdentifier = SystemIdentifier(7_710_624_905_522_433_779);

    /// As `AppendStringToManifest` and its like write it (backup_manifest.c).
    fn manifest(files: &[String]) -> Vec<u8> {
        let text = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {SYSTEM},\n\
             \"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": 1, \
             \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n",
            files.join(",\n")
        );
        let sum = digest::digest(&digest::SHA256, text.as_bytes());
        let sum: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{text}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
    }

    fn line(path: &str, size: u64, checksum: &str) -> String {
        format!(
            "{{ {path}, \"Size\": {size}, \"Last-Modified\": \"2026-11-21 14:27:04 GMT\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{checksum}\" }}"
        )
    }

    fn entry(path: &str, kind: EntryKind, size: u64, crc32c: u32) -> Entry {
        let path = path.to_owned();
        Entry { path, kind, mode: 0o600, size, offset: 512, modified: 0, crc32c }
    }

    /// What a server of version 15 wrote of its PG_VERSION, the bytes `15\n`.
    fn version_file() -> String {
        line("\"Path\": \"PG_VERSION\"", 3, "8a744722")
    }

    fn entries() -> Vec<Entry> {
        vec![
            entry("base", EntryKind::Directory, 0, 0),
            entry("PG_VERSION", EntryKind::File, 3, crc_fast::crc32_iscsi(b"15\n")),
            entry("empty", EntryKind::File, 0, 0),
        ]
    }

    fn judged(files: &[String], entries: &[Entry]) -> Result<()> {
        verify(&manifest(files), entries, SYSTEM)
    }

    #[test]
    fn what_the_manifest_says_and_what_came_must_agree_in_both_directions() {
        let empty = || line("\"Encoded-Path\": \"656d707479\"", 0, "00000000");
        judged(&[version_file(), empty()], &entries()).unwrap();

        let mut damaged = entries();
        damaged[1].crc32c ^= 1;
        let mut longer = entries();
        longer[1].size += 1;
        for (files, entries, says) in [
            (vec![version_file(), empty()], damaged, "another checksum of PG_VERSION"),
            (vec![version_file(), empty()], longer, "3 bytes of PG_VERSION, and 4 came"),
            (vec![version_file()], entries(), "does not list empty"),
            (vec![version_file(), empty()], entries()[..2].to_vec(), "lists empty, which was not"),
        ] {
            let error = judged(&files, &entries).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn a_damaged_or_foreign_manifest_vouches_for_nothing() {
        let files = [version_file(), line("\"Path\": \"empty\"", 0, "00000000")];
        let good = manifest(&files);
        for at in 0..good.len() - 3 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(verify(&bad, &entries(), SYSTEM).is_err(), "byte {at}");
        }
        assert!(verify(b"", &entries(), SYSTEM).is_err());
        assert!(verify(&good, &entries(), SystemIdentifier(8)).is_err());
    }
}

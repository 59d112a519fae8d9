//! The server's tar archives become one ordinary tar stream, in pieces, as they come.
//!
//! A tablespace's files move below `pg_tblspc/<oid>/`; the zero blocks between archives go;
//! `backup_manifest` comes last. Each file's CRC-32C is taken on the way.

use crc_fast::{CrcAlgorithm, Digest};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::tar_header::{self, BLOCK_BYTES};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// What went through, in the order of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the data directory, without a slash at its end.
    pub path: String,
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// In bytes; 0 for a directory.
    pub size: u64,
    /// Where the content begins in the merged stream.
    pub offset: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// CRC-32C of the content.
    pub crc32c: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
}

/// Where the merged stream goes.
pub trait TarSink {
    /// The next bytes of the stream that are no file's content: headers, and the zeros behind it.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// The content of this entry comes next, if it has any.
    fn begin_file(&mut self, entry: &Entry) -> Result<()>;

    /// The next bytes of the stream, content of the file just begun.
    fn content(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Takes the archives apart and puts them together. Bytes go out through the `out` of each call.
pub struct TarMerger {
    entries: Vec<Entry>,
    /// Bytes of the merged stream so far.
    position: u64,
    tablespace: Option<u32>,
    state: State,
    /// A header on its way in, and how much of it has come.
    header: [u8; BLOCK_BYTES],
    filled: usize,
    digest: Digest,
}

enum State {
    /// Collecting a header.
    Header,
    Content {
        remaining: u64,
        padding: u64,
    },
    /// The first zero block has come; only such may follow.
    Ended,
}

impl Default for TarMerger {
    fn default() -> Self {
        TarMerger {
            entries: Vec::new(),
            position: 0,
            tablespace: None,
            state: State::Ended,
            header: [0; BLOCK_BYTES],
            filled: 0,
            digest: Digest::new(CrcAlgorithm::Crc32Iscsi),
        }
    }
}

impl TarMerger {
    /// What follows is of another archive: of a tablespace, or (`None`) of the data directory.
    pub fn begin_archive(&mut self, tablespace: Option<u32>, out: &mut dyn TarSink) -> Result<()> {
        self.end_archive()?;
        self.tablespace = tablespace;
        self.state = State::Header;
        match tablespace {
            // The archive holds what is in the directory, not the directory itself.
            Some(oid) => {
                let path = format!("pg_tblspc/{oid}/");
                self.emit_header(&mut tar_header::plain(&path, 0o700, 0)?, &path, out)
            }
            None => Ok(()),
        }
    }

    /// The next bytes of the archive.
    pub fn write(&mut self, mut bytes: &[u8], out: &mut dyn TarSink) -> Result<()> {
        while !bytes.is_empty() {
            match self.state {
                State::Header => {
                    let taken = bytes.len().min(BLOCK_BYTES - self.filled);
                    self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
                    self.filled += taken;
                    bytes = &bytes[taken..];
                    if self.filled == BLOCK_BYTES {
                        self.filled = 0;
                        self.take_header(out)?;
                    }
                }
                State::Content { .. } => bytes = self.take_content(bytes, out)?,
                State::Ended if bytes.iter().all(|byte| *byte == 0) => return Ok(()),
                State::Ended => return Err(broken("it goes on after its end")),
            }
        }
        Ok(())
    }

    /// One more file, after all archives: the server's manifest.
    pub fn append_file(&mut self, path: &str, content: &[u8], out: &mut dyn TarSink) -> Result<()> {
        self.end_archive()?;
        self.tablespace = None;
        let mut header = tar_header::plain(path, 0o600, content.len() as u64)?;
        let modified = self.entries.last().map_or(0, |entry| entry.modified);
        header.set_mtime(modified.unsigned_abs());
        header.set_cksum();
        self.emit_header(&mut header, path, out)?;
        self.write(content, out)?;
        if let State::Content { padding, .. } = self.state {
            self.write(&[0; BLOCK_BYTES][..padding as usize], out)?;
        }
        self.state = State::Ended;
        Ok(())
    }

    /// Ends the merged stream with the two zero blocks of an ordinary archive; all that went
    /// through.
    pub fn finish(self, out: &mut dyn TarSink) -> Result<Vec<Entry>> {
        self.end_archive()?;
        out.write(&[0; 2 * BLOCK_BYTES])?;
        Ok(self.entries)
    }

    /// What went through so far.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn end_archive(&self) -> Result<()> {
        match self.state {
            State::Ended => Ok(()),
            State::Header if self.filled == 0 => Ok(()),
            _ => Err(broken("it ends in the middle of a file")),
        }
    }

    fn take_header(&mut self, out: &mut dyn TarSink) -> Result<()> {
        if self.header.iter().all(|byte| *byte == 0) {
            self.state = State::Ended;
            return Ok(());
        }
        let mut header = tar::Header::new_old();
        *header.as_mut_bytes() = self.header;
        if !tar_header::checksum_is_right(&header) {
            return Err(broken("a header does not match its checksum"));
        }
        let path = String::from_utf8(header.path_bytes().into_owned())
            .map_err(|_| broken("a file name is not UTF-8"))?;
        let path = match self.tablespace {
            Some(oid) => format!("pg_tblspc/{oid}/{}", path.trim_start_matches("./")),
            None => path.trim_start_matches("./").to_owned(),
        };
        if self.tablespace.is_some() {
            tar_header::set_path(&mut header, &path)?;
        }
        self.emit_header(&mut header, &path, out)
    }

    fn emit_header(
        &mut self,
        header: &mut tar::Header,
        path: &str,
        out: &mut dyn TarSink,
    ) -> Result<()> {
        let unreadable = |error: std::io::Error| broken("a header cannot be read").source(error);
        let kind = match header.entry_type() {
            tar::EntryType::Regular => EntryKind::File,
            tar::EntryType::Directory => EntryKind::Directory,
            _ => return Err(broken(&format!("{path} is neither a file nor a directory"))),
        };
        let size = match kind {
            EntryKind::File => header.entry_size().map_err(unreadable)?,
            EntryKind::Directory => 0,
        };
        out.write(header.as_bytes())?;
        self.position += BLOCK;
        let entry = Entry {
            path: checked(path)?,
            kind,
            mode: header.mode().map_err(unreadable)? & 0o7777,
            size,
            offset: self.position,
            modified: header.mtime().map_err(unreadable)?.try_into().unwrap_or(i64::MAX),
            crc32c: 0,
        };
        out.begin_file(&entry)?;
        self.entries.push(entry);
        self.digest.reset();
        let padding = size.next_multiple_of(BLOCK) - size;
        self.state =
            if size == 0 { State::Header } else { State::Content { remaining: size, padding } };
        Ok(())
    }

    /// Content and the zeros behind it; what is left of `bytes`.
    fn take_content<'b>(&mut self, bytes: &'b [u8], out: &mut dyn TarSink) -> Result<&'b [u8]> {
        let State::Content { remaining, padding } = &mut self.state else { return Ok(bytes) };
        let available = bytes.len() as u64;
        let content = available.min(*remaining);
        let zeros = (available - content).min(*padding);
        *remaining -= content;
        *padding -= zeros;
        let is_whole = *remaining == 0;
        let is_over = is_whole && *padding == 0;
        let (taken, rest) = bytes.split_at((content + zeros) as usize);
        self.digest.update(&taken[..content as usize]);
        self.position += content + zeros;
        if let (true, Some(entry)) = (is_whole, self.entries.last_mut()) {
            entry.crc32c = self.digest.finalize() as u32;
        }
        if is_over {
            self.state = State::Header;
        }
        let (content, zeros) = taken.split_at(content as usize);
        out.content(content)?;
        out.write(zeros)?;
        Ok(rest)
    }
}

/// A path that a restore can take without fear.
fn checked(path: &str) -> Result<String> {
    let path = path.trim_end_matches('/');
    let safe = |part: &str| !matches!(part, "" | "." | "..");
    if path.split('/').all(safe) {
        return Ok(path.to_owned());
    }
    Err(broken(&format!("{path:?} is not a path below the data directory")))
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the server's tar stream is broken: {what}")).hint(
        "Nothing was published. Try again; if it comes back, report it with the server's version.",
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::{Entry, EntryKind, TarMerger, TarSink};
    use crate::error::{ErrorKind, Result};
    use crate::postgres::tar_header;

    #[derive(Default)]
    struct Merged {
        bytes: Vec<u8>,
        /// Where the contents begin.
        begun: Vec<u64>,
    }

    impl TarSink for Merged {
        fn write(&mut self, bytes: &[u8]) -> Result<()> {
            self.bytes.extend_from_slice(bytes);
            Ok(())
        }

        fn begin_file(&mut self, entry: &Entry) -> Result<()> {
            assert_eq!(entry.offset, self.bytes.len() as u64);
            self.begun.push(entry.offset);
            Ok(())
        }

        fn content(&mut self, bytes: &[u8]) -> Result<()> {
            self.write(bytes)
        }
    }

    /// As PostgreSQL writes them: ustar, ended by two zero blocks.
    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar_header::plain(path, 0o600, content.len() as u64).unwrap();
            header.set_mtime(1_700_000_000);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn merge(archives: &[(Option<u32>, Vec<u8>)], piece: usize) -> Result<(Vec<u8>, Vec<Entry>)> {
        let mut out = Merged::default();
        let mut merger = TarMerger::default();
        for (tablespace, bytes) in archives {
            merger.begin_archive(*tablespace, &mut out)?;
            for piece in bytes.chunks(piece) {
                merger.write(piece, &mut out)?;
            }
        }
        merger.append_file("backup_manifest", b"{}", &mut out)?;
        let entries = merger.finish(&mut out)?;
        assert_eq!(out.begun, entries.iter().map(|entry| entry.offset).collect::<Vec<_>>());
        Ok((out.bytes, entries))
    }

    #[test]
    fn archives_become_one_that_tar_reads_and_entries_point_into_it() {
        let long = format!("PG_15_202209061/5/{}", "x".repeat(80));
        let big = vec![7; 70_000];
        let space = archive(&[("PG_15_202209061/", b""), (&long, b"in the tablespace")]);
        let base = archive(&[
            ("backup_label", b"START"),
            ("base/", b""),
            ("base/1", &big),
            ("empty", b""),
            ("global/pg_control", &[1; 512]),
        ]);
        for piece in [1 << 20, 1000, 512, 7] {
            let archives = [(Some(16384), space.clone()), (None, base.clone())];
            let (merged, entries) = merge(&archives, piece).unwrap();
            let paths: Vec<_> = entries.iter().map(|entry| entry.path.clone()).collect();
            assert_eq!(
                paths,
                [
                    "pg_tblspc/16384",
                    "pg_tblspc/16384/PG_15_202209061",
                    &format!("pg_tblspc/16384/{long}"),
                    "backup_label",
                    "base",
                    "base/1",
                    "empty",
                    "global/pg_control",
                    "backup_manifest"
                ]
            );
            let mut by_tar = tar::Archive::new(&merged[..]);
            for (found, entry) in by_tar.entries().unwrap().zip(&entries) {
                let mut found = found.unwrap();
                let path = found.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
                assert_eq!(path, entry.path);
                assert_eq!(found.raw_file_position(), entry.offset, "{path}");
                assert_eq!(
                    found.header().entry_type().is_dir(),
                    entry.kind == EntryKind::Directory
                );
                let mut content = Vec::new();
                found.read_to_end(&mut content).unwrap();
                assert_eq!(content.len() as u64, entry.size);
                if entry.kind == EntryKind::File {
                    assert_eq!(crc_fast::crc32_iscsi(&content), entry.crc32c, "{path}");
                }
                let at = entry.offset as usize;
                assert_eq!(content, merged[at..at + content.len()]);
            }
            assert_eq!(merged.len() % 512, 0);
            assert_eq!(&merged[merged.len() - 1024..], &[0; 1024]);
        }
    }

    #[test]
    fn damage_is_noticed() {
        let good = archive(&[("a", b"content"), ("b", b"more")]);
        let mut flipped = good.clone();
        flipped[3] ^= 1;
        let cases = [flipped, good[..600].to_vec(), [&good[..], b"more"].concat()];
        for bytes in cases {
            let error = merge(&[(None, bytes)], 100).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        assert!(merge(&[(None, good)], 100).is_ok());
    }

    #[test]
    fn a_path_that_climbs_out_is_refused() {
        let mut bytes = archive(&[("aa/bb/b", b"")]);
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&bytes[..512]);
        header.as_old_mut().name[..7].copy_from_slice(b"../../b");
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        assert!(merge(&[(None, bytes)], 512).is_err());
    }
}

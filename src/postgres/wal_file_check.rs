//! Checks that bytes are the WAL file they are named: the same check before a push and after a
//! fetch. The records inside are push's matter: what is read back matches the checksum it was
//! stored with, and PostgreSQL checks each record as it replays it.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::history_file::HistoryFile;
use crate::postgres::wal::{SegmentCheck, SegmentFacts};
use crate::postgres::{SegmentName, WalFileName};

/// History and backup history files are a few lines; one above this is something else.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Takes a file in pieces of any length.
#[derive(Debug)]
pub enum WalFileCheck {
    Segment(SegmentCheck),
    Text { name: WalFileName, text: Vec<u8> },
}

impl WalFileCheck {
    pub fn new(name: &WalFileName) -> Self {
        match name {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
                WalFileCheck::Segment(SegmentCheck::new(*segment))
            }
            WalFileName::History(_) | WalFileName::BackupHistory(..) => {
                WalFileCheck::Text { name: *name, text: Vec::new() }
            }
        }
    }

    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        match self {
            WalFileCheck::Segment(check) => check.write(piece),
            WalFileCheck::Text { name, text } => {
                if text.len() + piece.len() > TEXT_BYTES_MAX {
                    return Err(invalid(name, "is too long"));
                }
                text.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// The whole file has come. Segments tell more about themselves; text files carry no system
    /// identifier.
    pub fn finish(self) -> Result<Option<SegmentFacts>> {
        match self {
            WalFileCheck::Segment(check) => check.finish().map(Some),
            WalFileCheck::Text { name, text } => check_text(&name, &text).map(|()| None),
        }
    }
}

fn check_text(name: &WalFileName, bytes: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(bytes).map_err(|e| invalid(name, "is not text").source(e))?;
    match name {
        WalFileName::History(timeline) => HistoryFile::parse(*timeline, text)
            .map(|_| ())
            .map_err(|error| error.with_kind(ErrorKind::InvalidSource)),
        WalFileName::BackupHistory(segment, _) => check_backup_history(name, segment, text),
        WalFileName::Segment(_) | WalFileName::Partial(_) => Ok(()),
    }
}

/// The first line, as `build_backup_content` (xlogbackup.c) writes it:
/// `START WAL LOCATION: A/FF000028 (file 000000010000000A000000FF)`.
fn check_backup_history(name: &WalFileName, segment: &SegmentName, text: &str) -> Result<()> {
    let first = text.lines().next().unwrap_or_default();
    if first.starts_with("START WAL LOCATION: ") && first.ends_with(&format!("(file {segment})")) {
        return Ok(());
    }
    Err(invalid(name, "does not begin with the location of its own start"))
}

fn invalid(name: &WalFileName, what: &str) -> Error {
    Error::new(ErrorKind::InvalidSource, format!("not a valid {name}: it {what}"))
        .hint("The file is damaged, or is not the one of this name.")
}

#[cfg(test)]
mod tests {
    use super::WalFileCheck;
    use crate::postgres::WalFileName;
    use crate::postgres::wal::segment::samples;

    fn passes(name: &str, bytes: &[u8]) -> bool {
        let mut check = WalFileCheck::new(&WalFileName::parse(name).unwrap());
        bytes.chunks(10).all(|piece| check.write(piece).is_ok()) && check.finish().is_ok()
    }

    #[test]
    fn all_four_kinds_pass() {
        let segment = samples::segment(samples::name(), 4);
        assert!(passes(&samples::name().to_string(), &segment));
        assert!(passes(&format!("{}.partial", samples::name()), &segment));
        assert!(passes("00000002.history", b"1\tA/FF000000\tno recovery target specified\n"));
        assert!(passes(
            "000000010000000A000000FF.00000028.backup",
            b"START WAL LOCATION: A/FF000028 (file 000000010000000A000000FF)\nSTOP WAL ...\n",
        ));
    }

    #[test]
    fn text_files_with_other_content_are_refused() {
        let long = vec![b'a'; 2 << 20];
        for bytes in [&b"\xff\xfe"[..], b"something else", &long] {
            assert!(!passes("00000002.history", bytes));
            assert!(!passes("000000010000000A000000FF.00000028.backup", bytes));
        }
        assert!(!passes(
            "000000010000000A000000FF.00000028.backup",
            b"START WAL LOCATION: A/FE000028 (file 000000010000000A000000FE)\n",
        ));
    }
}

//! The four kinds of file name that PostgreSQL archives.
//!
//! Built as in `XLogFileName`, `TLHistoryFileName` and `BackupHistoryFileName` (xlog_internal.h).

use std::fmt;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, TimelineId};

/// A WAL file that PostgreSQL hands to `archive_command` or asks of `restore_command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalFileName {
    /// `000000010000000A000000FF`
    Segment(SegmentName),
    /// `000000010000000A000000FF.partial`: the last, unfinished segment of a timeline left by
    /// promotion.
    Partial(SegmentName),
    /// `00000002.history`: where a timeline branched off.
    History(TimelineId),
    /// `000000010000000A000000FF.00000028.backup`: notes of a base backup; the number is an offset
    /// in the segment.
    BackupHistory(SegmentName, u32),
}

/// Timeline, log file (upper half of the LSN) and segment within it; the segment size is not part
/// of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    pub timeline: TimelineId,
    pub log: u32,
    pub segment: u32,
}

impl WalFileName {
    pub fn parse(name: &str) -> Result<Self> {
        let bad = || {
            Error::new(ErrorKind::Usage, format!("{name:?} is not the name of a WAL file")).hint(
                "walden takes segments, .partial, .history and .backup files, named as \
                       PostgreSQL names them.",
            )
        };
        let (stem, rest) =
            name.split_once('.').map_or((name, None), |(stem, rest)| (stem, Some(rest)));
        match rest {
            None => SegmentName::parse(stem).map(WalFileName::Segment).ok_or_else(bad),
            Some("partial") => SegmentName::parse(stem).map(WalFileName::Partial).ok_or_else(bad),
            Some("history") => {
                TimelineId::from_hex(stem).map(WalFileName::History).map_err(|_| bad())
            }
            Some(rest) => {
                let offset = rest.strip_suffix(".backup").and_then(upper_hex).ok_or_else(bad)?;
                let segment = SegmentName::parse(stem).ok_or_else(bad)?;
                Ok(WalFileName::BackupHistory(segment, offset))
            }
        }
    }

    /// The last part of a path such as `pg_wal/000000010000000A000000FF`.
    pub fn from_path(path: &Path) -> Result<Self> {
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) => WalFileName::parse(name),
            None => Err(Error::new(
                ErrorKind::Usage,
                format!("{} does not name a file", path.display()),
            )
            .hint("Give the path of a file in pg_wal, %p in archive_command.")),
        }
    }

    pub fn timeline(&self) -> TimelineId {
        match self {
            WalFileName::Segment(name)
            | WalFileName::Partial(name)
            | WalFileName::BackupHistory(name, _) => name.timeline,
            WalFileName::History(timeline) => *timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFileName::Segment(name) => write!(f, "{name}"),
            WalFileName::Partial(name) => write!(f, "{name}.partial"),
            WalFileName::History(timeline) => write!(f, "{}.history", timeline.to_hex()),
            WalFileName::BackupHistory(name, offset) => write!(f, "{name}.{offset:08X}.backup"),
        }
    }
}

impl SegmentName {
    /// 24 upper-case hexadecimal digits.
    pub fn parse(name: &str) -> Option<Self> {
        if name.len() != 24 || !name.is_ascii() {
            return None;
        }
        let timeline = TimelineId::from_hex(&name[..8]).ok()?;
        Some(SegmentName {
            timeline,
            log: upper_hex(&name[8..16])?,
            segment: upper_hex(&name[16..])?,
        })
    }

    /// The segment that holds the byte at `lsn`. `segment_size` in bytes, a power of two of at most
    /// 1 GiB.
    pub fn containing(timeline: TimelineId, lsn: Lsn, segment_size: u32) -> Self {
        let low = (lsn.0 & 0xFFFF_FFFF) as u32;
        SegmentName { timeline, log: (lsn.0 >> 32) as u32, segment: low / segment_size }
    }

    /// Whether segments of this size have such a name, and an end.
    pub fn exists(&self, segment_size: u32) -> bool {
        let segments_per_log = (1u64 << 32) / u64::from(segment_size.max(1));
        let is_last = self.log == u32::MAX && u64::from(self.segment) + 1 == segments_per_log;
        u64::from(self.segment) < segments_per_log && !is_last
    }

    /// Where the segment starts in the WAL.
    pub fn start(&self, segment_size: u32) -> Lsn {
        Lsn((u64::from(self.log) << 32) + u64::from(self.segment) * u64::from(segment_size))
    }

    /// The segment that follows on the same timeline.
    #[must_use]
    pub fn next(&self, segment_size: u32) -> Self {
        let start = Lsn(self.start(segment_size).0 + u64::from(segment_size));
        SegmentName::containing(self.timeline, start, segment_size)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:08X}{:08X}", self.timeline.to_hex(), self.log, self.segment)
    }
}

impl serde::Serialize for SegmentName {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SegmentName {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        SegmentName::parse(&text).ok_or_else(|| {
            <D::Error as serde::de::Error>::custom(format!("{text:?} is no name of a segment"))
        })
    }
}

fn upper_hex(digits: &str) -> Option<u32> {
    let plain = digits.len() == 8 && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'A'..=b'F'));
    if plain { u32::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::{SegmentName, WalFileName};
    use crate::postgres::{Lsn, TimelineId};

    #[test]
    fn all_four_kinds_are_read_and_written_alike() {
        for name in [
            "000000010000000A000000FF",
            "000000010000000A000000FF.partial",
            "00000002.history",
            "000000010000000A000000FF.00000028.backup",
        ] {
            assert_eq!(WalFileName::parse(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for name in [
            "",
            "00000001",
            "000000010000000a000000ff",
            "000000000000000A000000FF",
            "000000010000000A000000FF.00000028",
            "000000010000000A000000FF.28.backup",
            "00000000.history",
            "../00000002.history",
            "RECOVERYXLOG",
            "000000010000000A000000F\u{e9}",
        ] {
            assert!(WalFileName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn segments_follow_each_other_across_log_files() {
        let timeline = TimelineId::new(1).unwrap();
        let size = 16 << 20;
        let last = SegmentName::containing(timeline, Lsn(0xA_FFFF_FFFF), size);
        assert_eq!(last.to_string(), "000000010000000A000000FF");
        assert_eq!(last.next(size).to_string(), "000000010000000B00000000");
        assert_eq!(last.start(size), Lsn(0xA_FF00_0000));
    }
}

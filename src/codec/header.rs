//! The header of an object: JSON in the skippable zstd frame that comes first.

use std::io::Read;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::SystemIdentifier;
use crate::postgres::wal::digest::{self, Digest};

/// Skippable frames are 0x184D2A50 to 0x184D2A5F (zstd frame format, RFC 8878 3.1.2); 7 is ours.
const MAGIC: u32 = 0x184D_2A57;
const FORMAT: u32 = 1;
/// No header comes near it; a length above it is damage, and is not believed.
const HEADER_BYTES_MAX: u32 = 1 << 20;

/// What an object says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Header {
    /// Version of the object format.
    pub walden: u32,
    pub kind: Kind,
    /// The file's name as PostgreSQL gave it, or the pack's.
    pub name: String,
    /// Of the raw content, in bytes.
    pub size: u64,
    /// CRC-32 (as in zlib) of the raw content, eight hexadecimal digits.
    #[serde(with = "hex32")]
    pub crc32: u32,
    pub origin: Origin,
    /// What push learned of a segment. One that cannot be read is none: the content is not lost
    /// with it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "digest_if_readable"
    )]
    pub digest: Option<Box<Digest>>,
    /// What is worth knowing of the content without reading it, for lists; its shape belongs to who
    /// writes this kind of object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Segment,
    Partial,
    History,
    BackupHistory,
    Pack,
    Manifest,
    Names,
    Sums,
    Configuration,
    Index,
}

/// Who stored an object, for the person who has to find out why two differ.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    pub host: String,
    /// The data directory or server it came from.
    pub source: String,
    pub system_identifier: SystemIdentifier,
    pub time: jiff::Timestamp,
    /// walden's version.
    pub version: String,
}

/// `db1:/var/lib/postgresql/17/main at 2026-11-21T10:15:30Z`
impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} at {:.0}", self.host, self.source, self.time)
    }
}

impl Header {
    pub fn new(kind: Kind, name: impl Into<String>, content: Content, origin: Origin) -> Self {
        Header {
            walden: FORMAT,
            kind,
            name: name.into(),
            size: content.size,
            crc32: content.crc32,
            origin,
            digest: None,
            summary: None,
        }
    }

    #[must_use]
    pub fn with_summary(self, summary: serde_json::Value) -> Self {
        Header { summary: Some(summary), ..self }
    }

    /// The skippable frame: magic, length (both little-endian `u32`), JSON.
    pub fn to_frame(&self) -> Vec<u8> {
        let mut json = self.to_json();
        if json.len() > HEADER_BYTES_MAX as usize {
            let digest = self.digest.as_deref().map(without_lists).map(Box::new);
            json = Header { digest, ..self.clone() }.to_json();
        }
        let length = u32::try_from(json.len()).expect("a header is less than its limit");
        let mut frame = Vec::with_capacity(8 + json.len());
        frame.extend_from_slice(&MAGIC.to_le_bytes());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&json);
        frame
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names, numbers and times always have a JSON form")
    }

    /// Takes the header from the beginning of an object; what is left is its content.
    pub fn read(object: &mut impl Read) -> Result<Header> {
        let mut lead = [0; 8];
        fill(object, &mut lead)?;
        let [magic, length] = [0, 4]
            .map(|at| u32::from_le_bytes([lead[at], lead[at + 1], lead[at + 2], lead[at + 3]]));
        if magic != MAGIC {
            return Err(damaged("not written by walden"));
        }
        if length > HEADER_BYTES_MAX {
            return Err(damaged("longer than any"));
        }
        let mut json = vec![0; length as usize];
        fill(object, &mut json)?;
        let header: Header = serde_json::from_slice(&json)
            .map_err(|e| damaged("not JSON of its shape").source(e))?;
        if header.walden > FORMAT {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("object format {} is newer than this walden knows", header.walden),
            )
            .hint("Use the walden that wrote it, or a newer one."));
        }
        Ok(header)
    }

    /// How many bytes the header takes, of an object that begins so; `None` where it has none.
    pub fn bytes(start: &[u8]) -> Option<u64> {
        let (magic, length) = (start.get(..4)?, start.get(4..8)?);
        let length = u32::from_le_bytes(length.try_into().ok()?);
        let is_header = *magic == MAGIC.to_le_bytes() && length <= HEADER_BYTES_MAX;
        is_header.then_some(8 + u64::from(length))
    }

    /// The header and what follows it.
    pub fn split(mut object: &[u8]) -> Result<(Header, &[u8])> {
        let header = Header::read(&mut object)?;
        Ok((header, object))
    }
}

/// What is left of a digest that is too long all the same.
fn without_lists(digest: &Digest) -> Digest {
    Digest {
        restore_points: Vec::new(),
        activities: Vec::new(),
        endings: Vec::new(),
        unfinished: None,
        continued: None,
        is_cut: true,
        ..digest.clone()
    }
}

fn digest_if_readable<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Box<Digest>>, D::Error> {
    let written: serde_json::Value = serde::Deserialize::deserialize(deserializer)?;
    let known = serde_json::from_value::<Digest>(written).ok();
    Ok(known.filter(|known| known.version <= digest::VERSION).map(Box::new))
}

fn fill(object: &mut impl Read, to: &mut [u8]) -> Result<()> {
    object.read_exact(to).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => damaged("the object ends in it"),
        _ => error.downcast().unwrap_or_else(|error| damaged("it cannot be read").source(error)),
    })
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("object header is damaged: {what}"))
}

/// What is known of raw content once it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Content {
    pub size: u64,
    pub crc32: u32,
}

impl Content {
    pub fn of(raw: &[u8]) -> Self {
        Content { size: raw.len() as u64, crc32: crc32fast::hash(raw) }
    }

    /// What is known of both, one after the other, without reading either again.
    #[must_use]
    pub fn followed_by(self, next: Content) -> Self {
        let hasher = |it: Content| crc32fast::Hasher::new_with_initial_len(it.crc32, it.size);
        let mut crc32 = hasher(self);
        crc32.combine(&hasher(next));
        Content { size: self.size + next.size, crc32: crc32.finalize() }
    }
}

/// A CRC-32 as eight hexadecimal digits.
pub mod hex32 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(crc: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{crc:08x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let digits = String::deserialize(deserializer)?;
        u32::from_str_radix(&digits, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
pub mod samples {
    use super::{Content, Header, Kind, Origin};
    use crate::postgres::SystemIdentifier;

    pub fn header(content: Content) -> Header {
        let origin = Origin {
            host: "db1".into(),
            source: "/data".into(),
            system_identifier: SystemIdentifier(7_400_000_000_000_000_000),
            time: "2026-11-21T10:00:00Z".parse().unwrap(),
            version: "0.1.0".into(),
        };
        Header::new(Kind::Segment, "000000010000000A000000FF", content, origin)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::header;
    use super::{Content, HEADER_BYTES_MAX, Header};
    use crate::postgres::Lsn;
    use crate::postgres::wal::digest::{self, Digest, InvalidRecord, RestorePoint};

    fn with(digest: Digest) -> Header {
        Header { digest: Some(Box::new(digest)), ..header(Content::of(b"WAL")) }
    }

    fn digest() -> Digest {
        let point = |n: u64| RestorePoint {
            lsn: Lsn(n << 8),
            name: "x".repeat(60),
            time: "2026-11-21T10:00:00.123456Z".parse().unwrap(),
        };
        Digest {
            version: digest::VERSION,
            records: 7,
            restore_points: (0..10).map(point).collect(),
            ..Digest::default()
        }
    }

    #[test]
    fn a_digest_comes_back_and_an_object_without_one_has_none() {
        for header in [with(digest()), header(Content::of(b"WAL"))] {
            let (read, rest) =
                Header::split(&header.to_frame()).map(|(h, r)| (h, r.len())).unwrap();
            assert_eq!((read, rest), (header, 0));
        }
    }

    #[test]
    fn a_digest_that_is_too_long_loses_its_lists_and_nothing_else() {
        let invalid =
            InvalidRecord { lsn: Lsn(9), what: "CRC".to_owned(), ..InvalidRecord::default() };
        let point = digest().restore_points.remove(0);
        let long = Digest { restore_points: vec![point; 10_000], ..digest() };
        let long = with(Digest { invalid: Some(invalid.clone()), ..long });
        let frame = long.to_frame();
        assert!(frame.len() < HEADER_BYTES_MAX as usize);
        let read = Header::split(&frame).unwrap().0.digest.unwrap();
        assert!(read.is_cut && read.restore_points.is_empty());
        assert_eq!((read.records, read.invalid), (7, Some(invalid)));
    }

    #[test]
    fn a_digest_of_a_version_or_shape_to_come_does_not_hide_the_rest() {
        let newer = Digest { version: digest::VERSION + 1, ..digest() };
        let frame = with(newer).to_frame();
        assert_eq!(Header::split(&frame).unwrap().0, header(Content::of(b"WAL")));
        let mut odd = with(digest()).to_json();
        let at = odd.windows(9).position(|bytes| bytes == b"records\":").unwrap() + 9;
        odd[at] = b'[';
        odd.insert(at + 1, b']');
        let read: Header = serde_json::from_slice(&odd).unwrap();
        assert_eq!(read.digest, None);
    }
}

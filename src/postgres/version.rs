//! PostgreSQL's major versions and the numbers that give them away.

use std::fmt;

/// A major version such as 17.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct MajorVersion(pub u16);

/// The versions walden is tested with, and the magic of their WAL pages (`XLOG_PAGE_MAGIC`,
/// xlog_internal.h).
const SUPPORTED: [(MajorVersion, u16); 4] = [
    (MajorVersion(15), 0xD110),
    (MajorVersion(16), 0xD113),
    (MajorVersion(17), 0xD116),
    (MajorVersion(18), 0xD118),
];

impl MajorVersion {
    pub const OLDEST: MajorVersion = SUPPORTED[0].0;
    pub const NEWEST: MajorVersion = SUPPORTED[3].0;

    /// `None` for a version walden does not know.
    pub fn from_wal_magic(magic: u16) -> Option<Self> {
        SUPPORTED.iter().find(|(_, known)| *known == magic).map(|(version, _)| *version)
    }

    /// From `server_version_num`: 170011 is 17.
    pub fn from_server_version_num(number: u32) -> Self {
        MajorVersion(u16::try_from(number / 10_000).unwrap_or(u16::MAX))
    }

    pub fn is_supported(self) -> bool {
        SUPPORTED.iter().any(|(version, _)| *version == self)
    }
}

impl fmt::Display for MajorVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

//! Timelines: the branches of a cluster's history. A promotion starts a new one.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// Never 0; PostgreSQL starts at 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "u32", into = "u32")]
pub struct TimelineId(u32);

impl TimelineId {
    pub fn new(id: u32) -> Result<Self> {
        if id == 0 {
            return Err(
                Error::new(ErrorKind::Usage, "0 is not a timeline").hint("Timelines start at 1.")
            );
        }
        Ok(TimelineId(id))
    }

    /// As in file names: eight upper-case hexadecimal digits.
    pub fn from_hex(digits: &str) -> Result<Self> {
        let plain =
            digits.len() == 8 && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'A'..=b'F'));
        match u32::from_str_radix(digits, 16) {
            Ok(id) if plain => TimelineId::new(id),
            _ => Err(Error::new(
                ErrorKind::Usage,
                format!("{digits:?} is not a timeline in a file name"),
            )),
        }
    }

    pub fn get(self) -> u32 {
        self.0
    }

    /// Eight upper-case hexadecimal digits, as in file names.
    pub fn to_hex(self) -> String {
        format!("{:08X}", self.0)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl TryFrom<u32> for TimelineId {
    type Error = Error;

    fn try_from(id: u32) -> Result<Self> {
        TimelineId::new(id)
    }
}

impl From<TimelineId> for u32 {
    fn from(timeline: TimelineId) -> u32 {
        timeline.0
    }
}

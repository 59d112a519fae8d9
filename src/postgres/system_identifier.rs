//! The number `initdb` gives to a cluster; it stands in pg_control and in the first page of every
//! WAL segment.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SystemIdentifier {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        match text.parse() {
            Ok(number) if plain => Ok(SystemIdentifier(number)),
            _ => Err(Error::new(ErrorKind::Usage, format!("{text:?} is not a system identifier"))
                .hint("pg_controldata shows it as \"Database system identifier\".")),
        }
    }
}

/// Text in JSON: it does not fit into the 53 bits that many readers keep of a number.
impl serde::Serialize for SystemIdentifier {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SystemIdentifier {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(<D::Error as serde::de::Error>::custom)
    }
}

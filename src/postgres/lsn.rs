//! Log sequence numbers: byte positions in the WAL, written `16/B374D848`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let half = |part: &str| {
            let plain =
                (1..=8).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_hexdigit());
            if plain { u64::from_str_radix(part, 16).ok() } else { None }
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("{text:?} is not a log sequence number"))
                    .hint("Write it as PostgreSQL does, for example 16/B374D848.")
            })
    }
}

impl serde::Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(<D::Error as serde::de::Error>::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Lsn;

    #[test]
    fn reads_what_postgresql_writes() {
        assert_eq!("16/B374D848".parse::<Lsn>().unwrap(), Lsn(0x16_B374_D848));
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!(Lsn(0x1_0000_0028).to_string(), "1/28");
    }

    #[test]
    fn refuses_what_is_not_an_lsn() {
        for text in ["", "16", "16/", "/1", "1/2/3", "+1/2", "123456789/0", "1/G"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }
}

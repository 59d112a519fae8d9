//! Recovery targets: where recovery shall end, as PostgreSQL names it, read without guessing.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::catalog::moment::moment_for;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, TimelineId};

pub use crate::catalog::moment::{Zones, moment};

/// `MAXFNAMELEN` - 1 (xlog_internal.h).
const NAME_BYTES_MAX: usize = 63;
/// 0, 1 and 2 are not transactions of users (access/transam.h).
const FIRST_NORMAL_XID: u32 = 3;

/// Where recovery ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// After the last commit at or before this time; to the microsecond, as PostgreSQL keeps times.
    Time(Timestamp),
    Lsn(Lsn),
    /// As `pg_current_xact_id` or the 32-bit number in the log; PostgreSQL looks at the lower 32
    /// bits.
    Xid(u64),
    /// A restore point.
    Name(String),
    /// As soon as the backup is consistent.
    Immediate,
    /// The end of the archived WAL.
    Latest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetTimeline {
    /// The newest one that a backup can reach.
    #[default]
    Latest,
    /// The backup's own.
    Current,
    Number(TimelineId),
}

/// What PostgreSQL does once the target is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetAction {
    #[default]
    Pause,
    Promote,
    Shutdown,
}

impl Target {
    /// As `moment` reads it; refusals propose flags of `restore`.
    pub fn time(text: &str, zones: &Zones<'_>, now: Timestamp) -> Result<Target> {
        moment_for("--target-time", text, zones, now).map(Target::Time)
    }

    pub fn xid(text: &str) -> Result<Target> {
        match text.parse::<u64>() {
            Ok(xid) if xid as u32 >= FIRST_NORMAL_XID => Ok(Target::Xid(xid)),
            _ => Err(Error::new(ErrorKind::Usage, format!("{text:?} is not a transaction id"))
                .hint(
                    "Transaction ids are decimal numbers from 3 on, as in log_line_prefix's %x.",
                )),
        }
    }

    pub fn name(text: &str) -> Result<Target> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
        if fits {
            return Ok(Target::Name(text.to_owned()));
        }
        Err(Error::new(ErrorKind::Usage, format!("{text:?} cannot name a restore point"))
            .hint("pg_create_restore_point takes names of 1 to 63 bytes."))
    }

    /// Whether "just before" has a meaning for this target.
    pub fn can_be_exclusive(&self) -> bool {
        matches!(self, Target::Time(_) | Target::Lsn(_) | Target::Xid(_))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Time(time) => write!(f, "time {time}"),
            Target::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Target::Xid(xid) => write!(f, "transaction {xid}"),
            Target::Name(name) => write!(f, "restore point {name:?}"),
            Target::Immediate => f.write_str("immediate (as soon as the backup is consistent)"),
            Target::Latest => f.write_str("latest (the end of the archived WAL)"),
        }
    }
}

impl FromStr for TargetTimeline {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "latest" => Ok(TargetTimeline::Latest),
            "current" => Ok(TargetTimeline::Current),
            _ => text
                .parse()
                .ok()
                .and_then(|number| TimelineId::new(number).ok())
                .map(TargetTimeline::Number)
                .ok_or_else(|| {
                    Error::new(ErrorKind::Usage, format!("{text:?} is not a timeline"))
                        .hint("Write latest, current or a decimal number from 1 on.")
                }),
        }
    }
}

impl TargetAction {
    /// PostgreSQL's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TargetAction::Pause => "pause",
            TargetAction::Promote => "promote",
            TargetAction::Shutdown => "shutdown",
        }
    }
}

impl FromStr for TargetAction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [TargetAction::Pause, TargetAction::Promote, TargetAction::Shutdown]
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("{text:?} is not a target action"))
                    .hint("Write pause, promote or shutdown.")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::{Target, TargetTimeline};

    #[test]
    fn numbers_and_names_are_bounded() {
        assert_eq!(Target::xid("745").unwrap(), Target::Xid(745));
        assert!(
            Target::xid("2").is_err() && Target::xid("-1").is_err() && Target::xid("").is_err()
        );
        assert!(Target::name("before_migration").is_ok());
        assert!(Target::name("").is_err() && Target::name(&"x".repeat(64)).is_err());
        assert!(
            "0".parse::<TargetTimeline>().is_err() && "newest".parse::<TargetTimeline>().is_err()
        );
    }
}

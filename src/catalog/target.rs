//! Recovery targets: where recovery shall end, as PostgreSQL names it, read without guessing.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Unit};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, TimelineId};

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

/// The zones by which a time may be read; given, since reading them is not the catalog's.
pub struct Zones<'a> {
    pub known: &'a TimeZoneDatabase,
    /// This host's.
    pub local: TimeZone,
}

impl Target {
    /// `2026-11-21T10:00:00Z`, `2026-11-21 10:00:00.5+02`, `2026-11-21 10:00:00 Europe/Berlin`.
    ///
    /// Without a zone it is `Refused`, with the readings it could have.
    pub fn time(text: &str, zones: &Zones<'_>) -> Result<Target> {
        let text = text.trim();
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Target::Time(to_microseconds(time)));
        }
        if let Some((civil, zone)) = text.rsplit_once(' ')
            && let Ok(civil) = civil.trim().parse::<DateTime>()
            && !zone.starts_with(|c: char| c.is_ascii_digit())
        {
            return in_named_zone(civil, zone, zones).map(Target::Time);
        }
        match text.parse::<DateTime>() {
            Ok(civil) => Err(without_zone(text, civil, zones)),
            Err(error) => Err(Error::new(ErrorKind::Usage, format!("{text:?} is not a time"))
                .source(error)
                .hint("Write it as 2026-11-21T10:15:30Z or 2026-11-21T10:15:30+02:00.")),
        }
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

/// `2026-11-21 12:00:00+02:00 Europe/Berlin`: how a person of that zone reads a moment.
pub fn reading(time: Timestamp, zone: &TimeZone) -> String {
    let local = time.to_zoned(zone.clone());
    match zone.iana_name() {
        Some(name) => format!("{} {name}", local.strftime("%Y-%m-%d %H:%M:%S%.f%:z")),
        None => local.strftime("%Y-%m-%d %H:%M:%S%.f%:z").to_string(),
    }
}

/// Down, so that a target never lies later than what was asked.
fn to_microseconds(time: Timestamp) -> Timestamp {
    let floor =
        jiff::TimestampRound::new().smallest(Unit::Microsecond).mode(jiff::RoundMode::Floor);
    time.round(floor).unwrap_or(time)
}

/// Only names that mean one zone: UTC, and `Area/City` of the time zone database. `CET` and `EST`
/// do not.
fn in_named_zone(civil: DateTime, name: &str, zones: &Zones<'_>) -> Result<Timestamp> {
    let zone = match name {
        "UTC" | "GMT" | "Z" | "z" => TimeZone::UTC,
        _ if name.starts_with(['+', '-']) => {
            return format!("{civil}{name}")
                .parse()
                .map(to_microseconds)
                .map_err(|e| refused(format!("{name:?} is not an offset")).source(e).hint(WAYS));
        }
        _ if name.contains('/') => zones.known.get(name).map_err(|e| {
            refused(format!("time zone {name:?} is not known here")).source(e).hint(WAYS)
        })?,
        _ => return Err(refused(format!("{name:?} may mean several time zones")).hint(WAYS)),
    };
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    if !ambiguous.is_ambiguous() {
        return ambiguous.unambiguous().map(to_microseconds).map_err(|e| {
            refused(format!("{civil} cannot be placed in {name}")).source(e).hint(WAYS)
        });
    }
    let early = ambiguous.earlier().map(|time| time.to_string()).unwrap_or_default();
    let late = ambiguous.later().map(|time| time.to_string()).unwrap_or_default();
    Err(refused(format!("{civil} is ambiguous in {name}: the clocks were changed then"))
        .hint(format!("Say which is meant: --target-time '{early}' or --target-time '{late}'.")))
}

const WAYS: &str = "Write the offset, as in 2026-11-21T10:15:30+02:00 or 2026-11-21T10:15:30Z, \
                    or a zone such as Europe/Berlin.";

fn without_zone(text: &str, civil: DateTime, zones: &Zones<'_>) -> Error {
    let utc = format!("{civil}Z");
    let mut hint = format!("Say which is meant. In UTC: --target-time '{utc}'.");
    let local = zones.local.to_ambiguous_timestamp(civil);
    let readings = match (local.earlier(), local.later()) {
        (Ok(early), Ok(late)) if early == late => vec![early],
        (early, late) => [early, late].into_iter().flatten().collect(),
    };
    let name = zones.local.iana_name().unwrap_or("local");
    for time in readings {
        let local = time.to_zoned(zones.local.clone()).strftime("%Y-%m-%dT%H:%M:%S%.f%:z");
        hint +=
            &format!(" In this host's zone ({name}): --target-time '{local}', which is {time}.");
    }
    refused(format!("{text} has no time zone")).hint(hint)
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, message)
}

#[cfg(test)]
mod tests {
    use jiff::tz::{TimeZone, TimeZoneDatabase};

    use super::{Target, TargetTimeline, Zones, reading};
    use crate::error::ErrorKind;

    /// Offset -03:30 without a database, so that the tests hold on a host without zone files.
    fn time(text: &str) -> crate::error::Result<String> {
        let known = TimeZoneDatabase::none();
        let local = TimeZone::fixed(jiff::tz::Offset::from_seconds(-12_600).unwrap());
        match Target::time(text, &Zones { known: &known, local })? {
            Target::Time(time) => Ok(time.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_time_with_a_zone_is_one_moment() {
        for (text, moment) in [
            ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
            ("2026-11-21 10:00:00Z", "2026-11-21T10:00:00Z"),
            ("2026-11-21 10:00:00.123456+00", "2026-11-21T10:00:00.123456Z"),
            ("2026-11-21T10:00:00+02:00", "2026-11-21T08:00:00Z"),
            ("2026-11-21 10:00:00+02", "2026-11-21T08:00:00Z"),
            ("2026-11-21 10:00:00 +02", "2026-11-21T08:00:00Z"),
            ("2026-11-21 10:00:00 -0330", "2026-11-21T13:30:00Z"),
            (" 2026-11-21 10:00:00.5 UTC ", "2026-11-21T10:00:00.5Z"),
            ("2026-11-21T10:00:00.123456999Z", "2026-11-21T10:00:00.123456Z"),
        ] {
            assert_eq!(time(text).unwrap(), moment, "{text}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_refused_with_its_readings() {
        for text in ["2026-11-21 10:00:00", "2026-11-21T10:00:00", "2026-11-21 10:00"] {
            let error = time(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{text}");
            let line = error.one_line();
            assert!(line.contains("--target-time '2026-11-21T10:00:00Z'"), "{line}");
            assert!(line.contains("--target-time '2026-11-21T10:00:00-03:30'"), "{line}");
            assert!(line.contains("which is 2026-11-21T13:30:00Z"), "{line}");
        }
    }

    #[test]
    fn a_zone_that_is_not_one_is_refused() {
        for text in ["2026-11-21 10:00:00 CEST", "2026-11-21 10:00:00 Nowhere/City"] {
            assert_eq!(time(text).unwrap_err().kind(), ErrorKind::Refused, "{text}");
        }
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "10:00:00"] {
            assert_eq!(time(text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }

    #[test]
    fn a_named_zone_knows_its_daylight_saving() {
        let known = TimeZoneDatabase::from_env();
        let (Ok(berlin), local) = (known.get("Europe/Berlin"), TimeZone::UTC) else {
            eprintln!("SKIPPED: this host has no time zone database");
            return;
        };
        let zones = Zones { known: &known, local };
        let parse = |text| Target::time(text, &zones);
        let noon = "2026-07-01T10:00:00Z".parse().unwrap();
        assert_eq!(parse("2026-07-01 12:00:00 Europe/Berlin").unwrap(), Target::Time(noon));
        assert_eq!(reading(noon, &berlin), "2026-07-01 12:00:00+02:00 Europe/Berlin");

        let twice = parse("2026-10-25 02:30:00 Europe/Berlin").unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::Refused);
        assert!(twice.one_line().contains("'2026-10-25T00:30:00Z' or"), "{twice:?}");
        assert!(twice.one_line().contains("'2026-10-25T01:30:00Z'"), "{twice:?}");
    }

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

//! Moments as people write them: exact, relative, or by the clock of a named zone, never guessed.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, ToSpan as _, Unit};

use crate::error::{Error, ErrorKind, Result};

/// The zones by which a time may be read; given, since reading them is not the catalog's.
pub struct Zones<'a> {
    pub known: &'a TimeZoneDatabase,
    /// This host's.
    pub local: TimeZone,
}

/// `2026-11-21T10:00:00Z`, `2026-11-21 10:00:00.5+02`, `2026-11-21 10:00 Europe/Berlin`,
/// `yesterday 21:00 UTC`, `today 09:30 Europe/Berlin`, `-15m`, `-2h30m`, `-1d`, `now`.
///
/// A time without a zone, and one that a zone's clocks never showed or showed twice, is `Refused`
/// with the readings it could have.
pub fn moment(text: &str, zones: &Zones<'_>, now: Timestamp) -> Result<Timestamp> {
    Reader { zones, now, flag: "" }.read(text)
}

/// As `moment`, with `flag` before each reading, so that it can be copied as it stands.
pub fn moment_for(flag: &str, text: &str, zones: &Zones<'_>, now: Timestamp) -> Result<Timestamp> {
    Reader { zones, now, flag: &format!("{flag} ") }.read(text)
}

/// `2026-11-21 12:00:00+02:00 Europe/Berlin`: how a person of that zone reads a moment.
pub fn reading(time: Timestamp, zone: &TimeZone) -> String {
    let local = time.to_zoned(zone.clone());
    match zone.iana_name() {
        Some(name) => format!("{} {name}", local.strftime("%Y-%m-%d %H:%M:%S%.f%:z")),
        None => local.strftime("%Y-%m-%d %H:%M:%S%.f%:z").to_string(),
    }
}

struct Reader<'a> {
    zones: &'a Zones<'a>,
    now: Timestamp,
    /// What stands before a reading that is proposed.
    flag: &'a str,
}

impl Reader<'_> {
    fn read(&self, text: &str) -> Result<Timestamp> {
        let text = text.trim();
        if text == "now" {
            return Ok(to_microseconds(self.now));
        }
        if let Some(ago) = text.strip_prefix('-') {
            let ago = span(ago).ok_or_else(|| not_a_time(text))?;
            let time = self.now.checked_sub(ago).map_err(|e| not_a_time(text).source(e))?;
            return Ok(to_microseconds(time));
        }
        if let Some((day, clock)) = text.split_once(char::is_whitespace)
            && let Some(days_ago) = days_ago(day)
        {
            return self.on_day(text, days_ago, clock.trim());
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(to_microseconds(time));
        }
        if let Some((civil, zone)) = text.rsplit_once(' ')
            && let Ok(civil) = civil.trim().parse::<DateTime>()
            && !zone.starts_with(|c: char| c.is_ascii_digit())
        {
            return self.in_zone(civil, &self.zone(zone)?, zone);
        }
        match text.parse::<DateTime>() {
            Ok(civil) => Err(self.without_zone(text, |_| Some(civil))),
            Err(error) => Err(not_a_time(text).source(error)),
        }
    }

    /// `21:00 UTC`, `21:00+02` so many days before the day it is now in that zone.
    fn on_day(&self, text: &str, days_ago: i64, clock: &str) -> Result<Timestamp> {
        let (clock, zone) = split_clock(clock);
        let clock: Time = clock.parse().map_err(|e| not_a_time(text).source(e))?;
        let civil = |zone: &TimeZone| Some(self.day(days_ago, zone)?.to_datetime(clock));
        if zone.is_empty() {
            return Err(self.without_zone(text, civil));
        }
        let known = self.zone(zone)?;
        let civil = civil(&known).ok_or_else(|| not_a_time(text))?;
        self.in_zone(civil, &known, zone)
    }

    fn day(&self, days_ago: i64, zone: &TimeZone) -> Option<Date> {
        self.now.to_zoned(zone.clone()).date().checked_sub(days_ago.days()).ok()
    }

    /// Only names that mean one zone: UTC, an offset, and `Area/City` of the time zone database.
    /// `CET` and `EST` do not.
    fn zone(&self, name: &str) -> Result<TimeZone> {
        match name {
            "UTC" | "GMT" | "Z" | "z" => Ok(TimeZone::UTC),
            _ if name.starts_with(['+', '-']) => format!("2000-01-01T00:00:00{name}[{name}]")
                .parse::<jiff::Zoned>()
                .or_else(|_| offset_in_digits(name).parse())
                .map(|zoned| zoned.time_zone().clone())
                .map_err(|e| refused(format!("{name:?} is not an offset")).source(e).hint(WAYS)),
            _ if name.contains('/') => self.zones.known.get(name).map_err(|e| {
                refused(format!("time zone {name:?} is not known here")).source(e).hint(WAYS)
            }),
            _ => Err(refused(format!("{name:?} may mean several time zones")).hint(WAYS)),
        }
    }

    fn in_zone(&self, civil: DateTime, zone: &TimeZone, name: &str) -> Result<Timestamp> {
        let placed = zone.to_ambiguous_timestamp(civil);
        let what = match placed.offset() {
            AmbiguousOffset::Unambiguous { .. } => {
                return placed.unambiguous().map(to_microseconds).map_err(|e| {
                    refused(format!("{civil} cannot be placed in {name}")).source(e).hint(WAYS)
                });
            }
            AmbiguousOffset::Gap { .. } => "did not exist: the clocks were put forward past it",
            AmbiguousOffset::Fold { .. } => "was twice: the clocks were put back then",
        };
        let readings: Vec<String> = readings(civil, zone)
            .into_iter()
            .map(|time| format!("{}'{time}' ({})", self.flag, reading(time, zone)))
            .collect();
        Err(refused(format!("in {name} the time {civil} {what}"))
            .hint(format!("Say which is meant: {}.", readings.join(" or "))))
    }

    /// `civil` is the date and time that is meant if it is meant in that zone.
    fn without_zone(&self, text: &str, civil: impl Fn(&TimeZone) -> Option<DateTime>) -> Error {
        let flag = self.flag;
        let mut hint = "Say which is meant.".to_owned();
        if let Some(civil) = civil(&TimeZone::UTC) {
            hint += &format!(" In UTC: {flag}'{civil}Z'.");
        }
        let local = &self.zones.local;
        let name = local.iana_name().unwrap_or("local");
        let times = civil(local).map(|civil| readings(civil, local)).unwrap_or_default();
        for time in times {
            let local = time.to_zoned(local.clone()).strftime("%Y-%m-%dT%H:%M:%S%.f%:z");
            hint += &format!(" In this host's zone ({name}): {flag}'{local}', which is {time}.");
        }
        refused(format!("{text} has no time zone")).hint(hint)
    }
}

/// `15m`, `2h30m`, `1d`: a day is 24 hours.
fn span(text: &str) -> Option<SignedDuration> {
    let mut rest = text;
    let mut seconds: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return None,
        };
        rest = &rest[letters..];
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
    }
    (!text.is_empty()).then(|| SignedDuration::from_secs(seconds))
}

fn days_ago(word: &str) -> Option<i64> {
    match word {
        "today" => Some(0),
        "yesterday" => Some(1),
        _ => None,
    }
}

/// The time of day and the zone behind it, which may be missing.
fn split_clock(clock: &str) -> (&str, &str) {
    let end = clock.find(|c: char| !(c.is_ascii_digit() || ":.".contains(c)));
    let (time, zone) = clock.split_at(end.unwrap_or(clock.len()));
    (time.trim_end(), zone.trim())
}

/// `+0330` as `2000-01-01T00:00:00+03:30[+03:30]`.
fn offset_in_digits(name: &str) -> String {
    let (sign, digits) = name.split_at(1);
    let colon = match digits.len() {
        4 if digits.is_ascii() => format!("{sign}{}:{}", &digits[..2], &digits[2..]),
        _ => format!("{sign}{digits}:00"),
    };
    format!("2000-01-01T00:00:00{colon}[{colon}]")
}

/// The moments at which the clocks of this zone showed it, or would have: one or two.
fn readings(civil: DateTime, zone: &TimeZone) -> Vec<Timestamp> {
    let placed = zone.to_ambiguous_timestamp(civil);
    match (placed.earlier(), placed.later()) {
        (Ok(early), Ok(late)) if early == late => vec![early],
        (early, late) => [early, late].into_iter().flatten().collect(),
    }
}

/// Down, so that a target never lies later than what was asked.
fn to_microseconds(time: Timestamp) -> Timestamp {
    let floor =
        jiff::TimestampRound::new().smallest(Unit::Microsecond).mode(jiff::RoundMode::Floor);
    time.round(floor).unwrap_or(time)
}

const WAYS: &str = "Write the offset, as in 2026-11-21T10:15:30+02:00 or 2026-11-21T10:15:30Z, \
                    or a zone such as Europe/Berlin.";

fn not_a_time(text: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("{text:?} is not a time")).hint(
        "Write it as 2026-11-21T10:15:30Z, 2026-11-21T10:15:30+02:00, 'yesterday 21:00 UTC', \
         'today 09:30 Europe/Berlin' or -15m.",
    )
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, message)
}

#[cfg(test)]
mod tests {
    use jiff::tz::{TimeZone, TimeZoneDatabase};

    use super::{Zones, moment, moment_for, reading};
    use crate::error::{ErrorKind, Result};

    const NOW: &str = "2026-11-21T10:30:00.1234567Z";

    /// Offset -03:30 without a database, so that the tests hold on a host without zone files.
    fn read(text: &str) -> Result<String> {
        let known = TimeZoneDatabase::none();
        let local = TimeZone::fixed(jiff::tz::Offset::from_seconds(-12_600).unwrap());
        moment_for("--at", text, &Zones { known: &known, local }, NOW.parse().unwrap())
            .map(|time| time.to_string())
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
            ("2026-11-21 10:00 -03:30", "2026-11-21T13:30:00Z"),
            (" 2026-11-21 10:00:00.5 UTC ", "2026-11-21T10:00:00.5Z"),
            ("2026-11-21T10:00:00.123456999Z", "2026-11-21T10:00:00.123456Z"),
        ] {
            assert_eq!(read(text).unwrap(), moment, "{text}");
        }
    }

    #[test]
    fn a_relative_time_counts_from_now_and_a_day_from_its_zone() {
        for (text, moment) in [
            ("now", "2026-11-21T10:30:00.123456Z"),
            ("-15m", "2026-11-21T10:15:00.123456Z"),
            ("-2h30m", "2026-11-21T08:00:00.123456Z"),
            ("-1d", "2026-11-20T10:30:00.123456Z"),
            ("-1w1s", "2026-11-14T10:29:59.123456Z"),
            ("yesterday 21:00 UTC", "2026-11-20T21:00:00Z"),
            ("yesterday 21:00Z", "2026-11-20T21:00:00Z"),
            ("today 09:30:00.25 +02", "2026-11-21T07:30:00.25Z"),
            ("today 09:30+02:00", "2026-11-21T07:30:00Z"),
            // There it is the 22nd already.
            ("today 00:10 +14:00", "2026-11-21T10:10:00Z"),
        ] {
            assert_eq!(read(text).unwrap(), moment, "{text}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_refused_with_its_readings() {
        for text in [
            "2026-11-21 10:00:00",
            "2026-11-21T10:00:00",
            "2026-11-21 10:00",
            "today 10:00",
            "today 10:00:00",
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{text}");
            assert!(error.to_string().ends_with("has no time zone"), "{error}");
            let line = error.one_line();
            assert!(line.contains("--at '2026-11-21T10:00:00Z'"), "{line}");
            assert!(line.contains("--at '2026-11-21T10:00:00-03:30'"), "{line}");
            assert!(line.contains("which is 2026-11-21T13:30:00Z"), "{line}");
        }
    }

    #[test]
    fn what_is_not_a_time_or_a_zone_is_refused() {
        for text in ["2026-11-21 10:00:00 CEST", "2026-11-21 10:00:00 Nowhere/City"] {
            assert_eq!(read(text).unwrap_err().kind(), ErrorKind::Refused, "{text}");
        }
        for text in [
            "",
            "-",
            "-15",
            "-15x",
            "-99999999999999d",
            "yesterday",
            "yesterday noon UTC",
            "2026-13-01T00:00:00Z",
            "10:00:00",
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
            assert!(error.hint_text().is_some(), "{text}");
        }
    }

    #[test]
    fn the_clocks_of_a_zone_may_skip_a_time_or_show_it_twice() {
        let known = jiff::tz::db();
        let berlin = known.get("Europe/Berlin").expect("the host's time zone database: tzdata");
        let zones = Zones { known, local: TimeZone::UTC };
        let read = |text| moment(text, &zones, "2026-07-02T00:30:00Z".parse().unwrap());
        let noon = "2026-07-01T10:00:00Z".parse().unwrap();
        assert_eq!(read("2026-07-01 12:00:00 Europe/Berlin").unwrap(), noon);
        assert_eq!(read("yesterday 12:00 Europe/Berlin").unwrap(), noon);
        assert_eq!(reading(noon, &berlin), "2026-07-01 12:00:00+02:00 Europe/Berlin");

        let twice = read("2026-10-25 02:30:00 Europe/Berlin").unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::Refused);
        assert!(twice.to_string().contains("was twice"), "{twice}");
        let line = twice.one_line();
        assert!(line.contains("'2026-10-25T00:30:00Z' (2026-10-25 02:30:00+02:00"), "{line}");
        assert!(line.contains("'2026-10-25T01:30:00Z' (2026-10-25 02:30:00+01:00"), "{line}");

        let never = read("2026-03-29 02:30 Europe/Berlin").unwrap_err();
        assert_eq!(never.kind(), ErrorKind::Refused);
        assert!(never.to_string().contains("did not exist"), "{never}");
        let line = never.one_line();
        assert!(line.contains("'2026-03-29T00:30:00Z' (2026-03-29 01:30:00+01:00"), "{line}");
        assert!(line.contains("'2026-03-29T01:30:00Z' (2026-03-29 03:30:00+02:00"), "{line}");
    }
}

//! When the server said what: the stages of a recovery, by the times in its own log.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Each as the first line that tells of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moments {
    pub consistent: Option<Timestamp>,
    /// The last record was replayed.
    pub replayed: Option<Timestamp>,
    /// It accepts connections, and writes.
    pub ready: Option<Timestamp>,
}

impl Moments {
    /// Of a log with `log_line_prefix = '%m [%p] '` and `log_timezone = UTC`.
    pub fn read(log: &str) -> Moments {
        let mut found = Moments::default();
        for line in log.lines() {
            let Some((prefix, said)) = line.split_once("LOG:  ") else { continue };
            let moment = match said {
                _ if said.starts_with("consistent recovery state reached") => &mut found.consistent,
                _ if said.starts_with("redo done at ") => &mut found.replayed,
                "database system is ready to accept connections" => &mut found.ready,
                _ => continue,
            };
            *moment = moment.or_else(|| time_of(prefix));
        }
        found
    }
}

/// `2026-11-21 10:00:00.123 UTC [7] `
fn time_of(prefix: &str) -> Option<Timestamp> {
    let (time, _) = prefix.split_once(" UTC ")?;
    let time: DateTime = time.trim().parse().ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use super::Moments;

    #[test]
    fn the_first_line_that_tells_counts() {
        let log = "\
2026-11-21 10:00:00.100 UTC [7] LOG:  starting archive recovery
2026-11-21 10:00:01.250 UTC [8] LOG:  consistent recovery state reached at 0/2000100
2026-11-21 10:00:02.500 UTC [8] LOG:  redo done at 0/3000028 system usage: CPU
2026-11-21 10:00:03.750 UTC [7] LOG:  database system is ready to accept connections
2026-11-21 10:00:09.000 UTC [7] LOG:  database system is ready to accept connections
";
        let moments = Moments::read(log);
        let text = |moment: Option<jiff::Timestamp>| moment.map(|moment| moment.to_string());
        assert_eq!(text(moments.consistent).as_deref(), Some("2026-11-21T10:00:01.25Z"));
        assert_eq!(text(moments.replayed).as_deref(), Some("2026-11-21T10:00:02.5Z"));
        assert_eq!(text(moments.ready).as_deref(), Some("2026-11-21T10:00:03.75Z"));
        let read_only = "2026-11-21 10:00:03.750 UTC [7] LOG:  database system is ready to \
                         accept read-only connections";
        assert_eq!(Moments::read(read_only), Moments::default());
    }
}

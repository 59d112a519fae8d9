//! What a server says of its recovery, in its log with `lc_messages = C` (xlogrecovery.c, xlog.c).

use crate::postgres::{Lsn, TimelineId};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryLog {
    /// The last file that restore_command brought.
    pub restored: Option<String>,
    pub consistent: bool,
    /// Why recovery stopped: `recovery stopping before commit of transaction 745, time …`.
    pub stopped: Option<String>,
    /// It waits at the target for `pg_wal_replay_resume()`.
    pub paused_at_target: bool,
    /// It waits, but not at the target: a setting is lower than on the source, or somebody asked.
    pub paused_elsewhere: bool,
    pub shut_down_at_target: bool,
    /// It accepts writes.
    pub promoted: bool,
    /// Where the last record replayed begins.
    pub redo_done: Option<Lsn>,
    pub last_commit: Option<jiff::Timestamp>,
    pub new_timeline: Option<TimelineId>,
    /// The last line that says what is wrong, whole.
    pub fatal: Option<String>,
    pub warning: Option<String>,
}

impl RecoveryLog {
    /// Lines may begin with any `log_line_prefix`.
    pub fn read(log: &str) -> RecoveryLog {
        let mut found = RecoveryLog::default();
        found.hear(log);
        found
    }

    /// More of it: whole lines.
    pub fn hear(&mut self, lines: &str) {
        for line in lines.lines() {
            self.note(line.trim());
        }
    }

    fn note(&mut self, line: &str) {
        let after = |mark: &str| line.split_once(mark).map(|(_, rest)| rest);
        if after("PANIC:  ").or_else(|| after("FATAL:  ")).is_some() {
            self.fatal = Some(line.to_owned());
        } else if after("WARNING:  ").is_some() {
            self.warning = Some(line.to_owned());
        }
        let Some(said) = after("LOG:  ") else { return };
        let quoted = |rest: &str| rest.split('"').next().unwrap_or_default().to_owned();
        if let Some(rest) = said.strip_prefix("restored log file \"") {
            self.restored = Some(quoted(rest));
        } else if said.starts_with("consistent recovery state reached") {
            self.consistent = true;
        } else if said.starts_with("recovery stopping ") {
            self.stopped = Some(said.to_owned());
        } else if said.starts_with("pausing at the end of recovery") {
            self.paused_at_target = true;
        } else if said.starts_with("recovery has paused") {
            self.paused_elsewhere = true;
        } else if said.starts_with("shutdown at recovery target") {
            self.shut_down_at_target = true;
        } else if let Some(rest) = said.strip_prefix("redo done at ") {
            self.redo_done = rest.split_whitespace().next().and_then(|lsn| lsn.parse().ok());
        } else if let Some(time) = said.strip_prefix("last completed transaction was at log time ")
        {
            self.last_commit = time.parse().ok();
        } else if let Some(id) = said.strip_prefix("selected new timeline ID: ") {
            self.new_timeline = id.parse().ok().and_then(|id| TimelineId::new(id).ok());
        } else if said.starts_with("database system is ready to accept connections") {
            self.promoted = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RecoveryLog;
    use crate::postgres::Lsn;

    /// As 15.18 writes it.
    const PROMOTED: &str = "\
10:00:00.1 [7] LOG:  starting point-in-time recovery to 2026-11-21 09:59:00+00
10:00:00.2 [7] LOG:  restored log file \"000000010000000000000002\" from archive
10:00:00.3 [7] LOG:  consistent recovery state reached at 0/2000100
10:00:00.3 [1] LOG:  database system is ready to accept read-only connections
10:00:00.4 [7] LOG:  restored log file \"000000010000000000000003\" from archive
10:00:00.5 [7] LOG:  recovery stopping before commit of transaction 745, time 2026-11-21 09:59:30+00
10:00:00.5 [7] LOG:  redo done at 0/3000028 system usage: CPU: user: 0.00 s
10:00:00.5 [7] LOG:  last completed transaction was at log time 2026-11-21 09:58:00.25+00
10:00:00.6 [7] LOG:  selected new timeline ID: 2
10:00:00.7 [7] LOG:  archive recovery complete
10:00:00.8 [1] LOG:  database system is ready to accept connections
";

    #[test]
    fn a_promotion_is_read_with_all_it_says() {
        let log = RecoveryLog::read(PROMOTED);
        assert!(log.promoted && log.consistent && !log.paused_at_target);
        assert_eq!(log.restored.as_deref(), Some("000000010000000000000003"));
        assert_eq!(log.redo_done, Some(Lsn(0x300_0028)));
        assert_eq!(log.last_commit.unwrap().to_string(), "2026-11-21T09:58:00.25Z");
        assert_eq!(log.new_timeline.unwrap().get(), 2);
        let stopped = log.stopped.unwrap();
        assert!(stopped.starts_with("recovery stopping before commit of transaction 745"));
        assert_eq!(log.fatal, None);
    }

    #[test]
    fn read_only_connections_are_no_promotion() {
        let log = RecoveryLog::read(
            PROMOTED.split_once("restored log file \"000000010000000000000003").unwrap().0,
        );
        assert!(!log.promoted && log.consistent);
    }

    #[test]
    fn a_pause_at_the_target_is_not_any_pause() {
        let log = RecoveryLog::read("LOG:  pausing at the end of recovery\nHINT:  Execute …");
        assert!(log.paused_at_target && !log.paused_elsewhere);
        let log = RecoveryLog::read(
            "WARNING:  hot standby is not possible because of insufficient parameter settings\n\
             LOG:  recovery has paused",
        );
        assert!(log.paused_elsewhere && !log.paused_at_target);
        assert!(log.warning.unwrap().contains("insufficient"));
    }

    #[test]
    fn the_fatal_line_is_quoted_whole() {
        let line = "[7] FATAL:  recovery ended before configured recovery target was reached";
        assert_eq!(RecoveryLog::read(&format!("{line}\nLOG:  x\n")).fatal.as_deref(), Some(line));
    }
}

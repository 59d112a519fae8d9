//! Did recovery end exactly where it was asked to: what was predicted from the archive beside what
//! the server says of itself.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use crate::catalog::recovery_plan::{Place, ReadRecords as _, RecordKind, Side};
use crate::catalog::{Decision, Target};
use crate::commands::drill::recovered::Recovered;
use crate::commands::restore::records::WalRecords;
use crate::commands::survey::Survey;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::history_file::HistoryFile;
use crate::postgres::recovery_log::RecoveryLog;
use crate::postgres::wal::digest::TransactionEnd;
use crate::postgres::{Lsn, TimelineId};
use crate::repository::Home;
use crate::repository::drill_record::{Check, Reached, Verdict};

/// `XLOG_BLCKSZ` may be larger, never smaller; a record ends where a page does, and the next begins
/// after the header of the page.
const PAGE_HEADER_BYTES_MAX: u64 = 40;
const PAGE_BYTES_MIN: u64 = 1024;

/// Where recovery ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The record replayed last begins here …
    pub last_record: Option<Lsn>,
    /// … and ends here, exclusive.
    pub end: Lsn,
    pub timeline: TimelineId,
    pub last_transaction: Option<Timestamp>,
    pub stopped: Option<String>,
}

impl Ended {
    /// By the log, and by the history file that the server wrote when it was promoted.
    pub fn read(log: &RecoveryLog, pgdata: &Path) -> Result<Ended> {
        let unknown = |what: String| {
            Error::new(ErrorKind::CouldNotCheck, what)
                .hint("The server's log is in the drill's directory: keep it by --keep.")
        };
        let new = log.new_timeline.ok_or_else(|| {
            unknown("the server does not say on which timeline it goes on".to_owned())
        })?;
        let file = pgdata.join("pg_wal").join(format!("{}.history", new.to_hex()));
        let text = fs::read_to_string(&file)
            .map_err(|error| unknown(format!("read {}: {error}", file.display())))?;
        let history = HistoryFile::parse(new, &text)?;
        let last = history
            .ancestors
            .last()
            .ok_or_else(|| unknown(format!("{} names no parent", file.display())))?;
        Ok(Ended {
            last_record: log.redo_done,
            end: last.end,
            timeline: last.timeline,
            last_transaction: log.last_commit,
            stopped: log.stopped.clone(),
        })
    }

    /// The server does not name the time of a commit at whose LSN it stopped: the archive does.
    pub fn reached(&self, decision: &Decision) -> Reached {
        let stopped_at = decision.last_commit.filter(|end| Some(end.lsn) == self.last_record);
        Reached {
            last_commit: stopped_at.map(|end| end.time).or(self.last_transaction),
            lsn: Some(self.end),
            timeline: Some(self.timeline),
            stopped: self.stopped.clone(),
        }
    }
}

/// What the archive says must have come out.
pub struct Expected<'a> {
    pub home: &'a Home,
    pub survey: &'a Survey,
    pub decision: &'a Decision,
}

impl Expected<'_> {
    /// One check for each of: the record, the timeline, the last transaction, the last commit.
    pub fn compare(&self, ended: &Ended, server: &Recovered) -> Vec<Check> {
        vec![
            self.place(ended),
            self.timeline(ended),
            self.last_transaction(ended),
            self.last_commit(server),
        ]
    }

    fn place(&self, ended: &Ended) -> Check {
        let last = ended.last_record.map_or("none".to_owned(), |lsn| lsn.to_string());
        let said = format!("replayed up to {} (the last record begins at {last})", ended.end);
        let Some(place) = self.decision.stop.place else { return self.end_of_archive(ended, said) };
        let what = format!("ends {}", place_text(&place));
        let is_right = match (place.side, place.record) {
            (Side::After, _) => ended.last_record == Some(place.lsn),
            // It stops at the first record after that point at which it is consistent.
            (Side::Before, RecordKind::BackupEnd) => {
                ended.end >= place.lsn && self.is_as_asked(ended)
            }
            (Side::Before, _) => is_next(ended.end, place.lsn),
        };
        check(what, is_right, said)
    }

    /// PostgreSQL's own words that it stopped because the backup is consistent.
    fn is_as_asked(&self, ended: &Ended) -> bool {
        let stopped = ended.stopped.as_deref().unwrap_or_default();
        stopped.contains("after reaching consistency")
    }

    /// PostgreSQL takes damaged WAL for the end of it and promotes.
    fn end_of_archive(&self, ended: &Ended, said: String) -> Check {
        let run = &self.decision.run;
        let size = u64::from(self.decision.backup.wal_segment_size);
        let what = format!("ends at the end of {}", run.last);
        let known = self.survey.inventory.segments.get(&run.last).and_then(|known| known.wal);
        let start = run.last.start(self.decision.backup.wal_segment_size);
        match known.map(|wal| wal.end) {
            // After a switch the rest of the segment counts as replayed.
            Some(Some(end)) => {
                let is_right = ended.end == end || ended.end.0 == start.0 + size;
                check(what, is_right, format!("{said}; the archive's last record ends at {end}"))
            }
            // No record ends in it: nothing of it could be replayed.
            Some(None) => check(what, ended.end <= Lsn(start.0 + size), said),
            None if ended.end < start => check(what, false, said),
            None => Check {
                verdict: Verdict::Incomplete,
                ..check(what, true, format!("{said}; it has no digest to compare that with"))
            },
        }
    }

    fn timeline(&self, ended: &Ended) -> Check {
        let wanted = self.decision.path.last();
        let answer = format!("timeline {}", ended.timeline);
        check(format!("follows timeline {wanted}"), ended.timeline == wanted, answer)
    }

    /// The server names the time of the last transaction, be it committed or rolled back.
    fn last_transaction(&self, ended: &Ended) -> Check {
        let said = |time: Option<Timestamp>| {
            time.map_or_else(|| "none".to_owned(), |time| time.to_string())
        };
        let answer = said(ended.last_transaction);
        match self.last_ending() {
            Ok(expected) => {
                let expected = expected.map(|ending| ending.time);
                let what = format!("last transaction replayed: {}", said(expected));
                check(what, ended.last_transaction == expected, answer)
            }
            Err(error) => Check {
                verdict: Verdict::Incomplete,
                ..check("last transaction replayed".to_owned(), true, error.to_string())
            },
        }
    }

    fn last_commit(&self, server: &Recovered) -> Check {
        let Some(commit) = self.decision.last_commit else {
            let what = "last commit".to_owned();
            return match self.has_digests() {
                true => check(what, true, "none was made after the backup".to_owned()),
                false => Check {
                    verdict: Verdict::Incomplete,
                    ..check(what, true, "WAL without digests: it cannot be told".to_owned())
                },
            };
        };
        let what = format!("transaction {}, {}, is committed", commit.xid, commit.time);
        let answer = self.record_differs(&commit).and_then(|differs| match differs {
            Some(differs) => Ok((false, differs)),
            None => status(server, commit.xid).map(|status| (status == "committed", status)),
        });
        match answer {
            Ok((is_right, answer)) => check(what, is_right, answer),
            Err(error) => {
                Check { verdict: Verdict::Incomplete, ..check(what, true, error.to_string()) }
            }
        }
    }

    /// What the commit's own record says, where that is not what the digest of its segment says.
    fn record_differs(&self, commit: &TransactionEnd) -> Result<Option<String>> {
        let size = self.decision.backup.wal_segment_size;
        let segment = self.decision.path.segment(commit.lsn, size);
        let segments = &self.decision.segments;
        let at = segments.iter().position(|known| *known == segment);
        let before = at.and_then(|at| segments.get(at.checked_sub(1)?)).copied();
        // A record across two segments belongs to the digest of the second one.
        let next = at.and_then(|at| segments.get(at + 1)).copied();
        let records = WalRecords::new(self.home);
        let mut found = records.records(segment, before)?.endings.clone();
        if let Some(next) = next.filter(|_| !found.iter().any(|it| it.at.lsn == commit.lsn)) {
            found.extend(records.records(next, Some(segment))?.endings.iter().cloned());
        }
        let record = found.iter().find(|ending| ending.at.lsn == commit.lsn);
        Ok(match record {
            Some(record) if record.is_commit && record.at == *commit => None,
            Some(record) => Some(format!(
                "the record at {} in {segment} is of transaction {}, {}: its digest lies",
                commit.lsn, record.at.xid, record.at.time
            )),
            None => Some(format!("no transaction ends at {} in {segment}", commit.lsn)),
        })
    }

    fn has_digests(&self) -> bool {
        let segments = self.decision.segments.iter();
        let known = segments.filter_map(|name| self.survey.inventory.segments.get(name));
        known.into_iter().all(|segment| segment.wal.is_some())
    }

    /// The last end of a transaction that is replayed, read from the end backwards.
    fn last_ending(&self) -> Result<Option<TransactionEnd>> {
        let records = WalRecords::new(self.home);
        let (segments, stop) = (&self.decision.segments, self.decision.stop.place);
        // At an LSN the server stops before it takes note of the record's time
        // (`recoveryStopsAfter`, xlogrecovery.c).
        let is_not_noted = matches!(self.decision.stop.target, Target::Lsn(_));
        let counts = |end: &TransactionEnd| {
            let begins = end.lsn >= self.decision.backup.start_lsn;
            let is_included =
                |place: Place| place.includes(end.lsn) && !(is_not_noted && place.lsn == end.lsn);
            begins && stop.is_none_or(is_included)
        };
        for (at, segment) in segments.iter().enumerate().rev() {
            let known = self.survey.inventory.segments.get(segment).and_then(|known| known.wal);
            if known.is_some_and(|wal| wal.latest_time.is_none() && !wal.opens_unknown) {
                continue;
            }
            let before = at.checked_sub(1).and_then(|before| segments.get(before)).copied();
            let read = records.records(*segment, before)?;
            let endings = read.endings.iter().map(|ending| ending.at);
            if let Some(last) = endings.rev().find(counts) {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }
}

/// Whether the record at `next` is the one after `end`.
fn is_next(end: Lsn, next: Lsn) -> bool {
    let is_on_a_new_page = end.0.is_multiple_of(PAGE_BYTES_MIN)
        && end.0 < next.0
        && next.0 - end.0 <= PAGE_HEADER_BYTES_MAX;
    end == next || is_on_a_new_page
}

/// In 64 bits, as it is asked for: the newest number that is not in the future.
fn status(server: &Recovered, xid: u32) -> Result<String> {
    let status =
        server.connect("postgres").or_else(|_| server.connect("template1"))?.value(&format!(
            "with now as (select pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())\
             ::text::numeric as next), \
             own as (select next, trunc((next - {xid}) / 4294967296) * 4294967296 + {xid} as xid \
             from now) \
             select pg_catalog.pg_xact_status(xid::text::xid8) from own"
        ))?;
    Ok(status.unwrap_or_else(|| "too old to be told".to_owned()))
}

fn place_text(place: &Place) -> String {
    let side = match place.side {
        Side::Before => "before",
        Side::After => "after",
    };
    let record = match place.record {
        RecordKind::Commit => "the commit",
        RecordKind::Abort => "the rollback",
        RecordKind::RestorePoint => "the restore point",
        RecordKind::BackupEnd => return format!("where the backup is consistent, {}", place.lsn),
        RecordKind::Fork => "the fork",
        RecordKind::Other => "the record",
    };
    let xid = place.xid.map_or_else(String::new, |xid| format!(" of transaction {xid}"));
    format!("{side} {record}{xid} at {}", place.lsn)
}

fn check(what: String, is_right: bool, answer: String) -> Check {
    let verdict = if is_right { Verdict::Passed } else { Verdict::Failed };
    Check { kind: "target".to_owned(), what, verdict, answer, duration_ms: 0 }
}

#[cfg(test)]
mod tests {
    use super::is_next;
    use crate::postgres::Lsn;

    #[test]
    fn a_record_may_begin_after_the_header_of_a_page() {
        assert!(is_next(Lsn(0x300_0100), Lsn(0x300_0100)));
        assert!(is_next(Lsn(0x300_2000), Lsn(0x300_2018)), "a page");
        assert!(is_next(Lsn(0x300_0000), Lsn(0x300_0028)), "a segment");
        assert!(!is_next(Lsn(0x300_0100), Lsn(0x300_0118)), "another record lies between");
        assert!(!is_next(Lsn(0x300_0118), Lsn(0x300_0100)), "too far");
        assert!(!is_next(Lsn(0x300_2000), Lsn(0x300_2050)));
    }
}

//! Where recovery to a time ends: PostgreSQL stops before the first commit or abort, in the order
//! of the WAL, that is later (`recoveryStopsBefore`), and ends in FATAL where there is none.

use jiff::{SignedDuration, Timestamp};

use crate::catalog::recovery_plan::course::{Attempt, Course, Reached};
use crate::catalog::recovery_plan::decision::{Place, Side, Stop};
use crate::catalog::recovery_plan::path_wal::{Run, Stretch};
use crate::catalog::recovery_plan::refusals;
use crate::catalog::{BackupSummary, Target};
use crate::error::Result;
use crate::postgres::Lsn;
use crate::postgres::wal::digest::Ending;

/// Stores keep the time of an object to the second, rounded down.
const STORED_TIME_SLACK: SignedDuration = SignedDuration::from_secs(1);

/// The first end of a transaction that is later than the target.
enum FirstLater {
    At(usize, Ending),
    Nowhere,
    /// There is WAL without a digest before it.
    Unknown,
}

impl Course<'_> {
    pub fn time(&self, backup: &BackupSummary, time: Timestamp) -> Result<Attempt> {
        match self.holds_later(backup, time)? {
            Some(true) => return Ok(Attempt::TooNew),
            None if time < backup.ended => return Ok(Attempt::TooNew),
            _ => {}
        }
        let run = match self.run(backup) {
            Ok(run) => run,
            Err(error) => return Ok(Attempt::Refused(error)),
        };
        match self.first_later(backup, &run, time)? {
            FirstLater::At(at, ending) => {
                let place = Some(Place::at(Side::Before, &ending));
                let stop = Stop { place, ..self.as_asked() };
                Ok(Attempt::Reached(Reached { run, stop, at, note: None }))
            }
            FirstLater::Nowhere => self.at_the_end(backup, run, time),
            FirstLater::Unknown => Ok(self.time_by_names(backup, run, time)),
        }
    }

    pub fn as_asked(&self) -> Stop {
        Stop { target: self.wanted.target.clone(), exclusive: self.wanted.exclusive, place: None }
    }

    fn is_later(&self, of_record: Timestamp, time: Timestamp) -> bool {
        if self.wanted.exclusive { of_record >= time } else { of_record > time }
    }

    /// Whether the backup holds something later than `time`: it may have been copied, and where it
    /// is replayed before the backup is consistent, PostgreSQL ends in FATAL. `None`: no end of a
    /// transaction before the end of the backup is known.
    fn holds_later(&self, backup: &BackupSummary, time: Timestamp) -> Result<Option<bool>> {
        let Some(first) = self.wal.place_of(backup.start_lsn) else { return Ok(None) };
        let later = |of_record| self.is_later(of_record, time);
        let stretches = &self.wal.stretches;
        let known = stretches[..first].iter().rev().map_while(Stretch::wal);
        let mut holds = known.filter_map(|wal| wal.latest_time).map(later).next();
        let last_byte = Lsn(backup.end_lsn.0.saturating_sub(1));
        let last = self.wal.place_of(last_byte).unwrap_or(first);
        for (at, stretch) in stretches.iter().enumerate().take(last + 1).skip(first) {
            if holds == Some(true) {
                break;
            }
            let Some(latest) = stretch.wal().and_then(|wal| wal.latest_time) else {
                continue;
            };
            if !later(latest) {
                holds = Some(false);
                continue;
            }
            for ending in self.endings(at)? {
                if ending.at.lsn < backup.end_lsn {
                    holds = Some(holds == Some(true) || later(ending.at.time));
                }
            }
        }
        Ok(holds)
    }

    fn first_later(
        &self,
        backup: &BackupSummary,
        run: &Run,
        time: Timestamp,
    ) -> Result<FirstLater> {
        let mut is_known = true;
        for at in run.first..=run.last {
            let stretch = &self.wal.stretches[at];
            let Some(wal) = stretch.wal() else {
                // Nothing in it was committed after it was stored.
                if stretch.segment.stored > time {
                    return Ok(FirstLater::Unknown);
                }
                is_known = false;
                continue;
            };
            let may_hold = wal.latest_time.is_some_and(|latest| self.is_later(latest, time));
            if !may_hold && !self.must_be_read(at) {
                continue;
            }
            let first = self.endings(at)?.into_iter().find(|ending| {
                let is_replayed = ending.at.lsn >= backup.start_lsn && ending.at.lsn < run.end;
                is_replayed && self.is_later(ending.at.time, time)
            });
            if let Some(ending) = first {
                return Ok(FirstLater::At(at, ending));
            }
        }
        Ok(if is_known { FirstLater::Nowhere } else { FirstLater::Unknown })
    }

    /// No later end of a transaction follows: told the time, PostgreSQL would end in FATAL. Where
    /// nothing can be missing up to that time all of this WAL is what was asked for, and the record
    /// of the last end says where that is.
    fn at_the_end(&self, backup: &BackupSummary, run: Run, time: Timestamp) -> Result<Attempt> {
        let why = "no transaction ended later, and with a time PostgreSQL would end in FATAL";
        let newest = self.newest(&run)?;
        let is_newest = newest.as_ref().is_some_and(|(_, _, newest)| *newest == time);
        if !is_newest && time > backup.ended {
            return Ok(Attempt::Refused(self.after_the_end(backup, &run, time)?));
        }
        let after_backup = newest.filter(|(_, last, _)| last.at.lsn >= backup.end_lsn);
        let Some((at, last, _)) = after_backup else {
            let note = format!("{why}: it is told to stop as soon as this backup is consistent.");
            return Ok(match self.immediate(backup) {
                Attempt::Reached(reached) => {
                    Attempt::Reached(Reached { note: Some(note), ..reached })
                }
                other => other,
            });
        };
        let note = format!("{why}: it is told the LSN of the last one instead.");
        let stop = Stop {
            target: Target::Lsn(last.at.lsn),
            exclusive: false,
            place: Some(Place::at(Side::After, &last)),
        };
        Ok(Attempt::Reached(Reached { run, stop, at, note: Some(note) }))
    }

    /// The last end of a transaction in the run, and the newest time of any.
    fn newest(&self, run: &Run) -> Result<Option<(usize, Ending, Timestamp)>> {
        let mut last: Option<(usize, Ending)> = None;
        let mut newest: Option<Timestamp> = None;
        for at in (run.first..=run.last).rev() {
            let latest = self.wal.stretches[at].wal().and_then(|wal| wal.latest_time);
            let must_be_read = self.must_be_read(at);
            if latest.is_none() && !must_be_read {
                continue;
            }
            if last.is_none() || must_be_read {
                let endings = self.endings(at)?;
                newest = newest.max(endings.iter().map(|ending| ending.at.time).max());
                last = last.or_else(|| Some((at, endings.into_iter().next_back()?)));
            } else {
                newest = newest.max(latest);
            }
        }
        Ok(last.zip(newest).map(|((at, last), newest)| (at, last, newest)))
    }

    fn after_the_end(
        &self,
        backup: &BackupSummary,
        run: &Run,
        time: Timestamp,
    ) -> Result<crate::error::Error> {
        if run.gap.is_some() {
            return Ok(self.broken(backup, run));
        }
        Ok(refusals::after_the_last_commit(time, self.last_commit(None, run.last)?))
    }

    /// As far as names and times of objects can tell.
    fn time_by_names(&self, backup: &BackupSummary, run: Run, time: Timestamp) -> Attempt {
        let described = self.wal.describe(&run);
        if time > described.stored + STORED_TIME_SLACK {
            return Attempt::Refused(match run.gap {
                Some(_) => self.broken(backup, &run),
                None => refusals::behind(&self.wanted.target, &described),
            });
        }
        let note = Some(refusals::NOT_TO_THE_COMMIT.to_owned());
        Attempt::Reached(Reached { run, stop: self.as_asked(), at: run.last, note })
    }
}

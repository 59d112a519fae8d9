//! One timeline path with its WAL: each backup on it is tried, the newest first.

use std::cmp::Reverse;

use crate::catalog::recovery_plan::decision::{Decision, GivenUp, Place, RecordKind, Side, Stop};
use crate::catalog::recovery_plan::path_wal::{PathWal, Run};
use crate::catalog::recovery_plan::point::Goal;
use crate::catalog::recovery_plan::{Known, Wanted, refusals};
use crate::catalog::wal_run::Cause;
use crate::catalog::{BackupSummary, Chain, Target, TimelinePath};
use crate::error::{Error, Result};
use crate::postgres::Lsn;
use crate::postgres::wal::digest::{Ending, TransactionEnd};

pub struct Course<'a> {
    pub known: &'a Known<'a>,
    pub wanted: &'a Wanted,
    pub path: TimelinePath,
    pub wal: PathWal,
}

/// What comes of one backup.
pub enum Attempt {
    Reached(Reached),
    /// It holds more than what is wanted: an older one may do.
    TooNew,
    Refused(Error),
}

pub struct Reached {
    pub run: Run,
    pub stop: Stop,
    /// The stretch in which the record to stop at ends.
    pub at: usize,
    pub note: Option<String>,
}

impl<'a> Course<'a> {
    pub fn new(known: &'a Known<'a>, wanted: &'a Wanted, path: TimelinePath) -> Course<'a> {
        let size = known.backups.first().map_or(0, |backup| backup.wal_segment_size);
        let wal = PathWal::new(&path, known.inventory, size.max(1));
        Course { known, wanted, path, wal }
    }

    pub fn decide(&self, backups: &[&BackupSummary]) -> Result<Decision> {
        let is_on_path =
            |backup: &&BackupSummary| self.path.contains(backup.timeline, backup.end_lsn);
        let mut on_path: Vec<&BackupSummary> = backups.iter().copied().filter(is_on_path).collect();
        if on_path.is_empty() {
            return Err(refusals::off_the_path(backups, &self.path));
        }
        // By place in the WAL first: clocks of two servers may differ, the WAL of one path does
        // not.
        on_path.sort_by_key(|backup| Reverse((backup.end_lsn, backup.ended)));
        let goal = self.goal(&on_path)?;
        let mut refusal = None;
        let mut passed_over = Vec::new();
        for backup in &on_path {
            let chain = Chain::of(backup, self.known.backups, self.known.tree);
            let attempt = match (self.attempt(backup, &goal)?, &chain) {
                (Attempt::Reached(_), Err(broken)) => {
                    passed_over.push(refusals::passed_over(backup, broken));
                    Attempt::Refused(refusals::broken_chain(backup, broken))
                }
                (attempt, _) => attempt,
            };
            match (attempt, chain) {
                (Attempt::Reached(reached), Ok(chain)) => {
                    let mut decision = self.finish(&chain, reached)?;
                    decision.notes.extend(passed_over);
                    return Ok(decision);
                }
                (Attempt::Reached(_), Err(_)) | (Attempt::TooNew, _) => {}
                (Attempt::Refused(error), _) => {
                    refusal.get_or_insert(error);
                    // What is wrong with the newest must be heard: an older one is another answer.
                    if matches!(goal, Goal::Immediate | Goal::Latest) {
                        break;
                    }
                }
            }
        }
        Err(refusal.unwrap_or_else(|| refusals::too_early(&on_path, self.wanted)))
    }

    fn attempt(&self, backup: &BackupSummary, goal: &Goal) -> Result<Attempt> {
        match goal {
            Goal::Time(time) => self.time(backup, *time),
            Goal::Lsn(lsn) => self.lsn(backup, *lsn),
            Goal::Record { at, place, .. } => Ok(self.record(backup, *at, *place, goal)),
            Goal::Unsearchable => Ok(self.unsearchable(backup)),
            Goal::Immediate => Ok(self.immediate(backup)),
            Goal::Latest => Ok(self.latest(backup)),
        }
    }

    /// The unbroken WAL from the backup on, which must hold all that makes it consistent.
    pub fn run(&self, backup: &BackupSummary) -> std::result::Result<Run, Error> {
        let run = self.wal.run_from(backup);
        let run =
            run.map_err(|missing| refusals::missing_segment(backup, missing, Cause::Missing))?;
        if run.end >= backup.end_lsn {
            return Ok(run);
        }
        let size = backup.wal_segment_size;
        Err(match run.gap {
            Some(gap) => refusals::missing_segment(backup, gap.segment, gap.cause),
            None => {
                let missing = self.wal.stretches[run.last].name.next(size);
                refusals::missing_segment(backup, missing, Cause::Missing)
            }
        })
    }

    /// Whether what is known of it is not all, or more than counts.
    pub fn must_be_read(&self, at: usize) -> bool {
        let stretch = &self.wal.stretches[at];
        self.wal.is_clipped(stretch) || stretch.wal().is_some_and(|wal| wal.opens_unknown)
    }

    /// The ends of transactions of one stretch, as far as it counts.
    pub fn endings(&self, at: usize) -> Result<Vec<Ending>> {
        let stretch = &self.wal.stretches[at];
        let records = self.known.records.records(stretch.name, self.wal.before(at))?;
        let counts = |ending: &&Ending| ending.at.lsn < stretch.to;
        Ok(records.endings.iter().filter(counts).cloned().collect())
    }

    /// Where the whole records of one stretch begin, as far as it counts.
    pub fn starts(&self, at: usize) -> Result<Vec<Lsn>> {
        let stretch = &self.wal.stretches[at];
        let records = self.known.records.records(stretch.name, self.wal.before(at))?;
        Ok(records.starts.iter().copied().filter(|start| *start < stretch.to).collect())
    }

    /// As soon as the backup is consistent.
    pub fn immediate(&self, backup: &BackupSummary) -> Attempt {
        let run = match self.run(backup) {
            Ok(run) => run,
            Err(error) => return Attempt::Refused(error),
        };
        let last_byte = Lsn(backup.end_lsn.0.saturating_sub(1));
        let at = self.wal.place_of(last_byte).unwrap_or(run.first);
        let stop =
            Stop { target: Target::Immediate, exclusive: false, place: Some(backup_end(backup)) };
        Attempt::Reached(Reached { run, stop, at, note: None })
    }

    /// A server would take a gap for the end, and promote without what lies behind it.
    fn latest(&self, backup: &BackupSummary) -> Attempt {
        let run = match self.run(backup) {
            Ok(run) if run.gap.is_none() => run,
            Ok(run) => return Attempt::Refused(self.broken(backup, &run)),
            Err(error) => return Attempt::Refused(error),
        };
        let Some(fork) = run.fork else {
            let stop = Stop { target: Target::Latest, exclusive: false, place: None };
            return Attempt::Reached(Reached { run, stop, at: run.last, note: None });
        };
        let (side, record) = (Side::Before, RecordKind::Fork);
        let place = Place { side, record, lsn: fork, time: None, xid: None };
        let stop = Stop { target: Target::Lsn(fork), exclusive: true, place: Some(place) };
        let note = format!(
            "timeline {} has archived no WAL yet: recovery ends where it begins, at {fork}.",
            self.path.last()
        );
        Attempt::Reached(Reached { run, stop, at: run.last, note: Some(note) })
    }

    pub fn broken(&self, backup: &BackupSummary, run: &Run) -> Error {
        let described = self.wal.describe(run);
        let last = self.last_commit(None, run.last).ok().flatten();
        let is_known =
            self.wal.stretches[run.first..=run.last].iter().all(|stretch| stretch.wal().is_some());
        let earlier = match last {
            Some(last) => (last.lsn >= backup.end_lsn).then_some(last.time),
            None => (!is_known && described.stored > backup.ended).then_some(described.stored),
        };
        refusals::broken(described, last, &refusals::earlier(backup, earlier))
    }

    fn finish(&self, chain: &Chain<'_>, reached: Reached) -> Result<Decision> {
        let Reached { run, stop, at, note } = reached;
        let is_told = stop.place.is_some() || stop.target == Target::Latest;
        let last_commit = match is_told {
            true => self.last_commit(stop.place.as_ref(), at)?,
            false => None,
        };
        let given_up = match &stop.place {
            Some(place) => Some(self.given_up(place, at)?),
            None if is_told => Some(GivenUp { commits: 0, at_least: false, last: None }),
            None => None,
        };
        let replayed = &self.wal.stretches[run.first..=at.max(run.first)];
        Ok(Decision {
            backup: chain.last().clone(),
            chain: chain.links().iter().map(|link| (*link).clone()).collect(),
            path: self.path.clone(),
            run: self.wal.describe(&run),
            stop,
            last_commit,
            given_up,
            segments: replayed.iter().map(|stretch| stretch.name).collect(),
            notes: note.into_iter().collect(),
        })
    }

    /// The last commit up to `place`, whose record ends in the stretch `at`; without one up to the
    /// end of that stretch. `None` where the WAL does not tell.
    pub fn last_commit(&self, place: Option<&Place>, at: usize) -> Result<Option<TransactionEnd>> {
        let stretch = &self.wal.stretches[at];
        if place.is_some() || self.must_be_read(at) {
            if stretch.wal().is_none() {
                return Ok(None);
            }
            let includes = |lsn| place.is_none_or(|place| place.includes(lsn));
            let endings = self.endings(at)?;
            let last = endings.iter().rev().find(|end| end.is_commit && includes(end.at.lsn));
            if let Some(last) = last {
                return Ok(Some(last.at));
            }
        } else if let Some(commit) = stretch.wal().and_then(|wal| wal.last_commit) {
            return Ok(Some(commit));
        }
        for (at, stretch) in self.wal.stretches[..at].iter().enumerate().rev() {
            let Some(wal) = stretch.wal() else { return Ok(None) };
            if wal.last_commit.is_some() {
                return Ok(wal.last_commit);
            }
            let first =
                if self.must_be_read(at) { self.endings(at)?.into_iter().next() } else { None };
            if let Some(commit) = first.filter(|first| first.is_commit) {
                return Ok(Some(commit.at));
            }
        }
        Ok(None)
    }

    /// Counted to the end of the path, also behind a gap.
    fn given_up(&self, place: &Place, at: usize) -> Result<GivenUp> {
        let mut given_up = GivenUp { commits: 0, at_least: false, last: None };
        for (index, stretch) in self.wal.stretches.iter().enumerate().skip(at) {
            let Some(wal) = stretch.wal() else {
                given_up.at_least = true;
                continue;
            };
            if index > at && !self.must_be_read(index) {
                given_up.commits += u64::from(wal.commits);
                given_up.last = wal.last_commit.or(given_up.last);
                continue;
            }
            let endings = self.endings(index)?;
            let lost = endings.iter().filter(|end| end.is_commit && !place.includes(end.at.lsn));
            for end in lost {
                given_up.commits += 1;
                given_up.last = Some(end.at);
            }
        }
        Ok(given_up)
    }
}

pub fn backup_end(backup: &BackupSummary) -> Place {
    let (side, record) = (Side::Before, RecordKind::BackupEnd);
    // The record that ends here makes it consistent; the next one is not replayed any more.
    Place { side, record, lsn: backup.end_lsn, time: None, xid: None }
}

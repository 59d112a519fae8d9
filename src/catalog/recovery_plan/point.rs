//! Targets that are one record: an LSN, a transaction's end, a restore point.

use std::ops::Range;

use jiff::Timestamp;

use crate::catalog::recovery_plan::course::{Attempt, Course, Reached};
use crate::catalog::recovery_plan::decision::{Place, RecordKind, Side, Stop};
use crate::catalog::recovery_plan::path_wal::Run;
use crate::catalog::recovery_plan::refusals;
use crate::catalog::{BackupSummary, Target};
use crate::error::Result;
use crate::postgres::Lsn;
use crate::postgres::wal::digest::{Ending, RestorePoint};

/// Of a transaction whose end no digest names, the segments with the nearest transaction ids are
/// read, so many at most.
const SEGMENTS_SEARCHED_MAX: usize = 2_000;

/// The target as far as it is the same for every backup of a path.
pub enum Goal {
    Time(Timestamp),
    Lsn(Lsn),
    /// A record, which ends in the stretch `at`.
    Record {
        at: usize,
        place: Place,
        /// A restore point of the same name stands before it, here: a server that begins before it
        /// would stop there.
        earlier: Option<Lsn>,
    },
    /// It may lie in WAL that has no digest.
    Unsearchable,
    Immediate,
    Latest,
}

/// Where a transaction ended.
enum Search {
    At(usize, Ending),
    Nowhere,
    Unknown,
    TooMany,
}

impl Course<'_> {
    /// `backups` are those of the path, the newest first.
    pub fn goal(&self, backups: &[&BackupSummary]) -> Result<Goal> {
        let oldest = backups.last().map_or(Lsn(0), |backup| backup.start_lsn);
        let from = self.wal.stretches.partition_point(|stretch| stretch.to <= oldest);
        match &self.wanted.target {
            Target::Time(time) => Ok(Goal::Time(*time)),
            Target::Lsn(lsn) => Ok(Goal::Lsn(*lsn)),
            Target::Xid(xid) => self.transaction(*xid as u32, from..self.wal.stretches.len()),
            Target::Name(name) => self.restore_point(name, oldest),
            Target::Immediate => Ok(Goal::Immediate),
            Target::Latest => Ok(Goal::Latest),
        }
    }

    pub fn lsn(&self, backup: &BackupSummary, lsn: Lsn) -> Result<Attempt> {
        if lsn < backup.end_lsn {
            return Ok(Attempt::TooNew);
        }
        let run = match self.run(backup) {
            Ok(run) => run,
            Err(error) => return Ok(Attempt::Refused(error)),
        };
        if lsn < run.end
            && let Some(begun) = self.wal.place_of(lsn)
        {
            for at in begun..=run.last {
                if self.wal.stretches[at].wal().is_none() {
                    let note = Some(refusals::NOT_TO_THE_COMMIT.to_owned());
                    let stop = self.as_asked();
                    return Ok(Attempt::Reached(Reached { run, stop, at, note }));
                }
                let starts = self.starts(at)?;
                if let Some(start) = starts.into_iter().find(|start| *start >= lsn) {
                    return self.at_record(run, at, start, lsn);
                }
            }
        }
        if run.gap.is_some() {
            return Ok(Attempt::Refused(self.broken(backup, &run)));
        }
        let last = self.last_start(&run)?;
        Ok(Attempt::Refused(refusals::behind_the_last_record(lsn, &self.wal.describe(&run), last)))
    }

    fn at_record(&self, run: Run, at: usize, start: Lsn, asked: Lsn) -> Result<Attempt> {
        let side = if self.wanted.exclusive { Side::Before } else { Side::After };
        let endings = self.endings(at)?;
        let ending = endings.iter().find(|ending| ending.at.lsn == start);
        let other = Place { side, record: RecordKind::Other, lsn: start, time: None, xid: None };
        let place = ending.map_or(other, |ending| Place::at(side, ending));
        let note = (start != asked).then(|| {
            format!("no record begins at {asked}: recovery stops at the next one, at {start}.")
        });
        let stop = Stop { place: Some(place), ..self.as_asked() };
        Ok(Attempt::Reached(Reached { run, stop, at, note }))
    }

    fn last_start(&self, run: &Run) -> Result<Option<Lsn>> {
        for at in (run.first..=run.last).rev() {
            if self.wal.stretches[at].wal().is_none() {
                return Ok(None);
            }
            if let Some(last) = self.starts(at)?.into_iter().rfind(|start| *start < run.end) {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    /// From a backup to a record that was found.
    pub fn record(&self, backup: &BackupSummary, at: usize, place: Place, goal: &Goal) -> Attempt {
        let Goal::Record { earlier, .. } = goal else { return Attempt::TooNew };
        let stops_earlier = earlier.is_some_and(|earlier| earlier >= backup.start_lsn);
        if place.lsn < backup.end_lsn || stops_earlier {
            return Attempt::TooNew;
        }
        let run = match self.run(backup) {
            Ok(run) => run,
            Err(error) => return Attempt::Refused(error),
        };
        if at > run.last || place.lsn >= run.end {
            return Attempt::Refused(self.broken(backup, &run));
        }
        let stop = Stop { place: Some(place), ..self.as_asked() };
        Attempt::Reached(Reached { run, stop, at, note: None })
    }

    /// By names only.
    pub fn unsearchable(&self, backup: &BackupSummary) -> Attempt {
        let run = match self.run(backup) {
            Ok(run) => run,
            Err(error) => return Attempt::Refused(error),
        };
        let note = format!(
            "{} is looked for from {} on, the end of this backup; if it lies before, choose an \
             older backup with --backup. {}",
            self.wanted.target,
            backup.ended,
            refusals::NOT_TO_THE_COMMIT
        );
        let stop = self.as_asked();
        Attempt::Reached(Reached { run, stop, at: run.last, note: Some(note) })
    }

    fn transaction(&self, xid: u32, among: Range<usize>) -> Result<Goal> {
        let side = if self.wanted.exclusive { Side::Before } else { Side::After };
        match self.search(xid, among.clone())? {
            Search::At(at, ending) if ending.at.xid != xid => {
                Err(refusals::subtransaction(xid, &ending, &self.wal.stretches[at].name))
            }
            Search::At(_, ending) if !ending.is_commit => Err(refusals::aborted(&ending)),
            Search::At(at, ending) => {
                Ok(Goal::Record { at, place: Place::at(side, &ending), earlier: None })
            }
            Search::Unknown => Ok(Goal::Unsearchable),
            Search::Nowhere => Err(refusals::never_ended(xid, &self.wal.stretches[among])),
            Search::TooMany => Err(refusals::not_among_nearest(xid, SEGMENTS_SEARCHED_MAX)),
        }
    }

    /// Reads segments, those first whose commits have the nearest transaction ids.
    fn search(&self, xid: u32, among: Range<usize>) -> Result<Search> {
        let distance = |of: u32| (of.wrapping_sub(xid) as i32).unsigned_abs();
        let mut candidates = Vec::new();
        let mut is_unknown = false;
        for at in among {
            let Some(wal) = self.wal.stretches[at].wal() else {
                is_unknown = true;
                continue;
            };
            if wal.latest_time.is_none() && !self.must_be_read(at) {
                continue;
            }
            let far = match (wal.first_commit, wal.last_commit) {
                (Some(first), Some(last)) => {
                    let is_within = (xid.wrapping_sub(first.xid) as i32) >= 0
                        && (last.xid.wrapping_sub(xid) as i32) >= 0;
                    if is_within { 0 } else { distance(first.xid).min(distance(last.xid)) }
                }
                _ => u32::MAX,
            };
            candidates.push((far, at));
        }
        candidates.sort_unstable();
        for (_, at) in candidates.iter().take(SEGMENTS_SEARCHED_MAX) {
            let is_it =
                |ending: &Ending| ending.at.xid == xid || ending.subtransactions.contains(&xid);
            if let Some(ending) = self.endings(*at)?.into_iter().find(is_it) {
                return Ok(Search::At(*at, ending));
            }
        }
        if is_unknown {
            return Ok(Search::Unknown);
        }
        let is_all = candidates.len() <= SEGMENTS_SEARCHED_MAX;
        Ok(if is_all { Search::Nowhere } else { Search::TooMany })
    }

    /// PostgreSQL stops at the first of the name that it meets, from the backup's start on.
    fn restore_point(&self, name: &str, oldest: Lsn) -> Result<Goal> {
        let all = self.restore_points();
        let named = all.iter().filter(|(_, point)| point.name == name && point.lsn >= oldest);
        let named: Vec<&(usize, RestorePoint)> = named.collect();
        let [first, others @ ..] = &named[..] else {
            let is_known = self.wal.stretches.iter().all(|s| s.wal().is_some());
            let found = all.iter().map(|(_, point)| point);
            let missing = || Err(refusals::no_restore_point(name, found));
            return if is_known { missing() } else { Ok(Goal::Unsearchable) };
        };
        if !others.is_empty() {
            return Err(refusals::several_restore_points(name, named.iter().map(|(_, p)| p)));
        }
        let (at, point) = first;
        let before = all.iter().filter(|(_, p)| p.name == name && p.lsn < point.lsn);
        let place = Place {
            side: Side::After,
            record: RecordKind::RestorePoint,
            lsn: point.lsn,
            time: Some(point.time),
            xid: None,
        };
        let earlier = before.map(|(_, p)| p.lsn).max();
        Ok(Goal::Record { at: *at, place, earlier })
    }

    /// Of the path, in the order of the WAL.
    fn restore_points(&self) -> Vec<(usize, RestorePoint)> {
        let of_path = |(name, point): &(crate::postgres::SegmentName, RestorePoint)| {
            let at = self.wal.place_of(name.start(self.wal.size()))?;
            let stretch = &self.wal.stretches[at];
            (stretch.name == *name && point.lsn < stretch.to).then(|| (at, point.clone()))
        };
        let mut points: Vec<_> =
            self.known.inventory.restore_points.iter().filter_map(of_path).collect();
        points.sort_by_key(|(_, point)| point.lsn);
        points
    }
}

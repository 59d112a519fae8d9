//! Which point is rehearsed: the end of the archive, one that was asked for, or a commit drawn by
//! lot.

use std::collections::BTreeMap;

use crate::catalog::recovery_plan::ReadRecords as _;
use crate::catalog::window::{TimelineWindow, Window, windows};
use crate::catalog::{Target, TargetTimeline, Wanted};
use crate::commands::drill::Request;
use crate::commands::restore::plan::described;
use crate::commands::restore::records::WalRecords;
use crate::commands::survey::Survey;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::recovery_settings::shell_word;
use crate::postgres::wal::digest::TransactionEnd;
use crate::postgres::{Lsn, SegmentName, TimelineId};
use crate::repository::Home;

/// What a drill is asked to recover to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A commit drawn by lot; by the same seed the same one, as long as the repository is the same.
    Random {
        seed: u32,
    },
    Target(Target),
}

/// What `restore` would be asked for.
#[derive(Debug, Clone)]
pub struct Point {
    pub wanted: Wanted,
    pub mode: &'static str,
    pub seed: Option<u32>,
    /// What one should know of the choice.
    pub notes: Vec<String>,
}

/// Segments whose commits cannot be drawn after all, before the draw is given up.
const DRAWS_MAX: usize = 1000;

pub fn choose(home: &Home, survey: &Survey, request: &Request) -> Result<Point> {
    match &request.wish {
        Wish::Target(target) => Ok(Point {
            wanted: wanted(request, target.clone(), request.timeline),
            mode: described(target).0,
            seed: None,
            notes: Vec::new(),
        }),
        Wish::Random { seed } => draw(home, survey, request, *seed),
    }
}

impl Point {
    /// In words of `restore`.
    pub fn options(&self) -> Vec<String> {
        let (kind, value) = described(&self.wanted.target);
        let target = value.map_or_else(
            || format!("--target-{kind}"),
            |value| format!("--target-{kind} {}", shell_word(&value)),
        );
        let mut options = vec![target];
        if self.wanted.exclusive {
            options.push("--target-exclusive".to_owned());
        }
        match self.wanted.timeline {
            TargetTimeline::Latest => {}
            TargetTimeline::Current => options.push("--target-timeline current".to_owned()),
            TargetTimeline::Number(number) => options.push(format!("--target-timeline {number}")),
        }
        options.extend(self.wanted.backup.iter().map(|id| format!("--backup {id}")));
        options
    }
}

fn wanted(request: &Request, target: Target, timeline: TargetTimeline) -> Wanted {
    let exclusive = request.exclusive && target.can_be_exclusive();
    Wanted { target, exclusive, timeline, backup: request.backup.clone() }
}

/// Each commit that can be recovered to has the same chance: a busy hour is rehearsed more often
/// than a quiet one, as it is what would be lost.
fn draw(home: &Home, survey: &Survey, request: &Request, seed: u32) -> Result<Point> {
    let (window, mut notes) = window(survey, request)?;
    let timeline = window.timeline;
    let mut lots = Lots::of(survey, &window, earliest(survey, request))?;
    if lots.unknown > 0 {
        notes.push(format!(
            "{} segments have no digest: their commits could not be drawn.",
            lots.unknown
        ));
    }
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    let records = WalRecords::new(home);
    for _ in 0..DRAWS_MAX {
        let Some((lot, number)) = lots.draw(&mut random) else { break };
        let read = records.records(lot.segment, lot.before)?;
        let commits = read.endings.iter().filter(|ending| ending.is_commit);
        let commits: Vec<TransactionEnd> = commits.map(|ending| ending.at).collect();
        let holds = |end: &&TransactionEnd| (lot.from..lot.to).contains(&end.lsn);
        if !commits.iter().any(|end| holds(&end)) {
            lots.take_out(lot.segment);
            continue;
        }
        // What lies outside of the window is drawn again, so that the others keep their chances.
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(commit) = commits.get(at).filter(holds) else { continue };
        let target = Target::Lsn(commit.lsn);
        let wanted = wanted(request, target, TargetTimeline::Number(timeline));
        let wanted = Wanted { exclusive: false, ..wanted };
        return Ok(Point { wanted, mode: "random", seed: Some(seed), notes });
    }
    notes.push(
        "Nothing was committed since the oldest backup: the end of the archive is rehearsed."
            .to_owned(),
    );
    let wanted = wanted(request, Target::Latest, TargetTimeline::Number(timeline));
    Ok(Point { wanted, mode: "random", seed: Some(seed), notes })
}

/// Where the backup ends that is asked for: what lies before it cannot be reached from it.
fn earliest(survey: &Survey, request: &Request) -> Lsn {
    let is_asked = |id: &str| request.backup.as_deref() == Some(id);
    let asked = survey.backups.iter().find(|backup| is_asked(&backup.id));
    asked.map_or(Lsn(0), |backup| backup.end_lsn)
}

/// What can be recovered of the timeline that is meant.
fn window(survey: &Survey, request: &Request) -> Result<(TimelineWindow, Vec<String>)> {
    let mut all = windows(&survey.backups, &survey.tree, &survey.inventory);
    if let TargetTimeline::Number(number) = request.timeline {
        all.retain(|window| window.timeline == number);
    }
    let mut notes = Vec::new();
    let Some(newest) = all.last().map(|window| window.timeline) else {
        return Err(nothing("nothing is archived"));
    };
    while let Some(window) = all.pop() {
        if !window.windows.is_empty() {
            return Ok((window, notes));
        }
        // A branch that archived WAL must be recoverable; one that has none yet is its parent.
        if window.segments > 0 || window.lacks_history {
            break;
        }
        notes.push(format!("Timeline {} has archived no WAL yet.", window.timeline));
    }
    Err(nothing(&format!("nothing of timeline {newest} can be recovered")))
}

fn nothing(what: &str) -> Error {
    Error::new(ErrorKind::Refused, what.to_owned())
        .hint("walden window says what is missing; walden list whether a backup can be used.")
}

/// One segment's commits.
#[derive(Debug, Clone, Copy)]
struct Lot {
    segment: SegmentName,
    before: Option<SegmentName>,
    /// Only those whose record begins here.
    from: Lsn,
    to: Lsn,
}

#[derive(Debug, Default)]
struct Lots {
    /// By how many commits come before it.
    lots: BTreeMap<u64, Lot>,
    commits: u64,
    unknown: u64,
}

impl Lots {
    fn of(survey: &Survey, timeline: &TimelineWindow, earliest: Lsn) -> Result<Lots> {
        let mut lots = Lots::default();
        for window in &timeline.windows {
            let earliest_lsn = window.earliest_lsn.max(earliest);
            lots.add(survey, timeline.timeline, &Window { earliest_lsn, ..window.clone() })?;
        }
        Ok(lots)
    }

    fn add(&mut self, survey: &Survey, timeline: TimelineId, window: &Window) -> Result<()> {
        if window.earliest_lsn >= window.run.cover {
            return Ok(());
        }
        let path = survey.tree.path(timeline)?;
        let size = u64::from(survey.inventory.segment_size);
        let mut start = window.earliest_lsn.0 - window.earliest_lsn.0 % size;
        let mut before = None;
        while start < window.run.cover.0 {
            let segment = path.segment(Lsn(start), survey.inventory.segment_size);
            match survey.inventory.segments.get(&segment).and_then(|known| known.wal) {
                Some(wal) => {
                    let (from, to) = (window.earliest_lsn, window.run.cover);
                    let lot = Lot { segment, before, from, to };
                    // What opens it may be one more.
                    let commits = u64::from(wal.commits) + u64::from(wal.opens_unknown);
                    if commits > 0 {
                        self.lots.insert(self.commits, lot);
                        self.commits += commits;
                    }
                }
                None => self.unknown += 1,
            }
            before = Some(segment);
            start += size;
        }
        Ok(())
    }

    /// A segment, and which of its commits.
    fn draw(&self, random: &mut fastrand::Rng) -> Option<(Lot, u64)> {
        if self.commits == 0 || self.lots.is_empty() {
            return None;
        }
        loop {
            let number = random.u64(..self.commits);
            let (first, lot) = self.lots.range(..=number).next_back()?;
            if lot.from < lot.to {
                return Some((*lot, number - first));
            }
        }
    }

    /// Nothing of it is drawn any more.
    fn take_out(&mut self, segment: SegmentName) {
        for lot in self.lots.values_mut().filter(|lot| lot.segment == segment) {
            lot.to = lot.from;
        }
        self.lots.values().all(|lot| lot.from >= lot.to).then(|| self.lots.clear());
    }
}

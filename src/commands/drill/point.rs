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
use crate::host::clock;
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

pub fn choose(home: &Home, survey: &Survey, request: &Request) -> Result<Point> {
    match &request.wish {
        // Nothing can be wrong with the archive there.
        Wish::Target(Target::Time(time)) if *time > clock::now() => {
            Err(Error::new(ErrorKind::Usage, format!("the target {time} lies in the future"))
                .hint("Use --latest for everything that is archived."))
        }
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
    let records = WalRecords::new(home);
    let lots = Lots::of(survey, &window, earliest(survey, request), &records)?;
    if lots.unknown > 0 {
        notes.push(format!(
            "{} segments have no digest: their commits could not be drawn.",
            lots.unknown
        ));
    }
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    if let Some((lot, number)) = lots.draw(&mut random) {
        let commits = lot.commits(&records)?;
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let commit = commits.get(at).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("{} has fewer commits than it says", lot.segment),
            )
            .hint("Its digest is not of its content: walden verify --deep says more.")
        })?;
        let target = Target::Lsn(commit.lsn);
        let wanted = wanted(request, target, TargetTimeline::Number(timeline));
        let wanted = Wanted { exclusive: false, ..wanted };
        return Ok(Point { wanted, mode: "random", seed: Some(seed), notes });
    }
    notes.push(
        "No commit is known since the oldest backup: the end of the archive is rehearsed."
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

impl Lot {
    fn commits(&self, records: &WalRecords<'_>) -> Result<Vec<TransactionEnd>> {
        let read = records.records(self.segment, self.before)?;
        let commits = read.endings.iter().filter(|ending| ending.is_commit);
        let holds = |end: &TransactionEnd| (self.from..self.to).contains(&end.lsn);
        Ok(commits.map(|ending| ending.at).filter(holds).collect())
    }
}

#[derive(Debug, Default)]
struct Lots {
    /// By how many commits come before it.
    lots: BTreeMap<u64, Lot>,
    commits: u64,
    unknown: u64,
}

impl Lots {
    fn of(
        survey: &Survey,
        timeline: &TimelineWindow,
        earliest: Lsn,
        records: &WalRecords<'_>,
    ) -> Result<Lots> {
        let mut lots = Lots::default();
        for window in &timeline.windows {
            let earliest_lsn = window.earliest_lsn.max(earliest);
            let window = Window { earliest_lsn, ..window.clone() };
            if earliest_lsn < window.run.cover {
                lots.add(survey, timeline.timeline, &window, records)?;
            }
        }
        Ok(lots)
    }

    fn add(
        &mut self,
        survey: &Survey,
        timeline: TimelineId,
        window: &Window,
        records: &WalRecords<'_>,
    ) -> Result<()> {
        let path = survey.tree.path(timeline)?;
        let size = u64::from(survey.inventory.segment_size);
        let (from, to) = (window.earliest_lsn, window.run.cover);
        let mut start = from.0 - from.0 % size;
        let mut before = None;
        while start < to.0 {
            let segment = path.segment(Lsn(start), survey.inventory.segment_size);
            let lot = Lot { segment, before, from, to };
            match survey.inventory.segments.get(&segment).and_then(|known| known.wal) {
                // Of a segment that is not all in the window the digest says too much.
                Some(wal) if start < from.0 || start + size > to.0 || wal.opens_unknown => {
                    self.push(lot, lot.commits(records)?.len() as u64);
                }
                Some(wal) => self.push(lot, u64::from(wal.commits)),
                None => self.unknown += 1,
            }
            before = Some(segment);
            start += size;
        }
        Ok(())
    }

    fn push(&mut self, lot: Lot, commits: u64) {
        if commits > 0 {
            self.lots.insert(self.commits, lot);
            self.commits += commits;
        }
    }

    /// A segment, and which of its commits.
    fn draw(&self, random: &mut fastrand::Rng) -> Option<(&Lot, u64)> {
        let number = (self.commits > 0).then(|| random.u64(..self.commits))?;
        let (first, lot) = self.lots.range(..=number).next_back()?;
        Some((lot, number - first))
    }
}

#[cfg(test)]
mod tests {
    use super::{Lot, Lots};
    use crate::postgres::{Lsn, SegmentName};

    #[test]
    fn every_commit_has_the_same_chance() {
        let lot = |name: &str| Lot {
            segment: SegmentName::parse(name).unwrap(),
            before: None,
            from: Lsn(0),
            to: Lsn(1),
        };
        let names = ["000000010000000000000001", "000000010000000000000002"];
        let mut lots = Lots::default();
        lots.push(lot(names[0]), 1);
        lots.push(lot("000000010000000000000003"), 0);
        lots.push(lot(names[1]), 3);
        let mut random = fastrand::Rng::with_seed(7);
        let mut drawn = std::collections::BTreeMap::new();
        for _ in 0..4000 {
            let (lot, number) = lots.draw(&mut random).unwrap();
            *drawn.entry((lot.segment.to_string(), number)).or_insert(0) += 1;
        }
        let first = (names[0].to_owned(), 0);
        assert_eq!(drawn.len(), 4, "{drawn:?}");
        assert!(drawn.values().all(|times| (800..1200).contains(times)), "{drawn:?}");
        assert!(drawn.contains_key(&first));
        assert!(Lots::default().draw(&mut random).is_none());
    }
}

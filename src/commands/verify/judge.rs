//! Problems to findings: what each costs, computed from what recovery could reach without it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::catalog::chain::Fault;
use crate::catalog::inventory::Segment;
use crate::catalog::loss::{Break, Harm, Loss, Reach, Stretch, World};
use crate::catalog::wal_run::Cause;
use crate::catalog::{BackupSummary, Chain};
use crate::commands::verify::problem::{Cost, Notebook, Problem, Severity};
use crate::commands::verify::report::Finding;
use crate::postgres::{SegmentName, WalFileName};
use crate::repository::{BackupId, Home};

/// How many are weighed one by one; each takes a look at all WAL.
const WEIGHED_MAX: usize = 200;

/// What the judge knows of the place.
pub struct Court<'a> {
    pub home: &'a Home,
    /// As it would be without the problems.
    pub world: World,
    /// What is not valid, where digests say so.
    pub invalid: &'a BTreeMap<SegmentName, String>,
    /// Where else a file or a copy of it may be: sentences for people.
    pub sources: &'a dyn Fn(&WalFileName) -> String,
}

/// What was found, and what all of it costs together.
pub struct Verdicts {
    /// Damage first; within that in the order of the objects.
    pub findings: Vec<Finding>,
    pub together: Loss,
    /// The latter in words, where there is any.
    pub consequence: Option<String>,
}

pub fn judge(mut court: Court<'_>, book: &mut Notebook) -> Verdicts {
    let children = court.mend_chains(book);
    let really = court.mend_wal(book);
    let whole = Reach::of(&court.world);
    let harms: Vec<Option<Harm>> =
        book.problems.iter().map(|problem| court.harm(problem, &children, &really)).collect();
    let mut all = Harm::default();
    harms.iter().flatten().for_each(|harm| all.add(harm));
    let together = court.world.loss(&whole, &all);
    let mut findings: Vec<Finding> = Vec::new();
    let mut weighed = 0;
    for (problem, harm) in book.problems.iter().zip(&harms) {
        let loss = match harm {
            Some(harm) if weighed < WEIGHED_MAX => {
                weighed += 1;
                Some(court.world.loss(&whole, harm))
            }
            _ => None,
        };
        let costs_less = loss.as_ref().is_some_and(|loss| !loss.is_none() && !loss.is_all);
        let mut finding = court.finding(problem, loss);
        if together.is_all && costs_less {
            finding.consequence += "; with the other damage nothing can be recovered any more";
        }
        findings.push(finding);
    }
    findings.sort_by(|a, b| (a.severity as u8, &a.object).cmp(&(b.severity as u8, &b.object)));
    let consequence = (!together.is_none()).then(|| sentences(String::new(), &together));
    Verdicts { findings, together, consequence }
}

impl Court<'_> {
    /// Takes chains for whole, and notes each link that is not. Who rested on whom.
    fn mend_chains(&mut self, book: &mut Notebook) -> BTreeMap<String, String> {
        let world = &self.world;
        let parents = world.backups.iter().filter_map(|backup| {
            backup.parent.as_ref().map(|parent| (backup.id.clone(), parent.clone()))
        });
        let parents: BTreeMap<String, String> = parents.collect();
        let mut broken: Vec<(String, String)> = Vec::new();
        for backup in &world.backups {
            let fault = Chain::of(backup, &world.backups, &world.tree).err();
            // A link further up is told of with that one; a missing history by itself.
            let fault = fault.filter(|it| it.backup == backup.id && it.why != Fault::NoHistory);
            broken.extend(fault.map(|fault| (backup.id.clone(), fault.to_string())));
        }
        for (id, what) in broken {
            let Ok(id) = id.parse::<BackupId>() else { continue };
            let key = self.home.manifest_key(&id);
            book.problems.push(Problem::damage(key, what, Cost::Backup(id.clone())));
            let link = self.world.backups.iter_mut().find(|backup| backup.id == id.as_str());
            if let Some(BackupSummary { parent, .. }) = link {
                *parent = None;
            }
        }
        parents
    }

    /// Takes the WAL for whole, and notes what is missing; what is damaged is noted already.
    fn mend_wal(&mut self, book: &mut Notebook) -> BTreeMap<SegmentName, Option<Segment>> {
        let (breaks, really) = self.world.mend();
        for found in &breaks {
            let Some(first) = found.segments.first().copied() else { continue };
            let key = self.home.wal_key(&WalFileName::Segment(first));
            let what = match found.cause {
                Cause::Damaged => continue,
                Cause::Invalid => match self.invalid.get(&first) {
                    Some(what) => what.clone(),
                    None => format!("the WAL at {} is not valid", found.range.start),
                },
                Cause::Missing | Cause::NeededByBackup => missing(found),
            };
            let known = really.get(&first).copied().flatten();
            let cost = Cost::Wal(found.segments.clone(), known);
            let severity = if found.is_harmful { Severity::Damage } else { Severity::Note };
            book.problems.push(Problem { severity, ..Problem::damage(key, what, cost) });
        }
        really
    }

    fn harm(
        &self,
        problem: &Problem,
        parents: &BTreeMap<String, String>,
        really: &BTreeMap<SegmentName, Option<Segment>>,
    ) -> Option<Harm> {
        let mut harm = Harm::default();
        match &problem.cost {
            Cost::Wal(segments, first) => {
                for segment in segments {
                    let is = really.get(segment).copied().unwrap_or(*first);
                    harm.segments.insert(*segment, is);
                }
            }
            Cost::Backup(id) => {
                harm.backups.insert(id.to_string());
                let resting = parents.iter().filter(|(_, parent)| **parent == id.as_str());
                harm.backups.extend(resting.map(|(child, _)| child.clone()));
            }
            Cost::History(timeline) => {
                harm.histories.insert(*timeline);
            }
            Cost::Said(_) => return None,
        }
        Some(harm)
    }

    fn finding(&self, problem: &Problem, loss: Option<Loss>) -> Finding {
        let Problem { severity, object, what, cost, advice } = problem;
        let consequence = match (cost, &loss) {
            (Cost::Said(said), _) => said.clone(),
            (_, None) => {
                "as of the others of its kind: there are too many to weigh each".to_owned()
            }
            (Cost::Wal(..), Some(loss)) => self.of_wal(problem, loss),
            (Cost::Backup(id), Some(loss)) => self.of_backup(id, loss),
            (Cost::History(timeline), Some(loss)) => {
                let file = WalFileName::History(*timeline);
                sentences(
                    format!("no recovery finds the way to timeline {timeline} without {file}"),
                    loss,
                )
            }
        };
        let advice = advice.clone().unwrap_or_else(|| self.advice(problem, loss.as_ref()));
        let (lost_times, lost_backups) =
            loss.map(|loss| (loss.stretches, loss.backups)).unwrap_or_default();
        Finding {
            severity: *severity,
            object: object.clone(),
            what: what.clone(),
            consequence,
            advice,
            lost_times,
            lost_backups,
        }
    }

    fn of_wal(&self, problem: &Problem, loss: &Loss) -> String {
        let Cost::Wal(segments, _) = &problem.cost else { return String::new() };
        if !loss.is_none() {
            return sentences("recovery ends before it".to_owned(), loss);
        }
        let size = self.world.inventory.segment_size.max(1);
        let is_needed = segments.iter().any(|segment| {
            let end = segment.start(size).0 + u64::from(size);
            self.world.backups.iter().any(|backup| backup.start_lsn.0 < end)
        });
        match is_needed {
            true => "recovery ends before it; no commit that is known is lost".to_owned(),
            false => "none: no backup needs it".to_owned(),
        }
    }

    fn of_backup(&self, id: &BackupId, loss: &Loss) -> String {
        let others: Vec<&String> =
            loss.backups.iter().filter(|lost| *lost != id.as_str()).collect();
        let also = match others.as_slice() {
            [] => String::new(),
            [only] => format!(", nor {only}, which rests on it"),
            many => format!(", nor {}, which rest on it", listing(many)),
        };
        let first = format!("backup {id} cannot be restored{also}");
        let is_known = self.world.backups.iter().any(|backup| backup.id == id.as_str());
        let alone = match is_known {
            true => {
                "recovery to any time there was still works from older backups, but takes longer"
            }
            false => "of what time it was cannot be told any more, nor what was lost with it alone",
        };
        match loss.stretches.is_empty() {
            true => format!("{first}; {alone}"),
            false => format!("{first}; {}", times(loss)),
        }
    }

    fn advice(&self, problem: &Problem, loss: Option<&Loss>) -> String {
        let is_lost = loss.is_none_or(|loss| !loss.is_none());
        match &problem.cost {
            Cost::Said(_) | Cost::Wal(..) if problem.severity == Severity::Note => {
                "Nothing need be done.".to_owned()
            }
            Cost::Said(_) => {
                "Bring the object back from a copy of the repository, and look at the store's disk."
                    .to_owned()
            }
            Cost::Wal(segments, _) => {
                let name = segments.first().copied().map(WalFileName::Segment);
                let again = name.map(|name| (self.sources)(&name)).unwrap_or_default();
                let now = if is_lost {
                    " If it is nowhere, take a backup now (walden backup): from its end on all can \
                     be recovered."
                } else {
                    ""
                };
                format!("{again}{now}")
            }
            Cost::History(timeline) => (self.sources)(&WalFileName::History(*timeline)),
            Cost::Backup(_) => {
                "Bring the object back from a copy of the repository, or take a new backup now: \
                 walden backup."
                    .to_owned()
            }
        }
    }
}

fn missing(found: &Break) -> String {
    let last = found.segments.last();
    match (found.count, last) {
        (0 | 1, _) | (_, None) => "it is missing".to_owned(),
        (count, Some(last)) if count == found.segments.len() as u64 => {
            format!("{count} segments are missing, from this one to {last}")
        }
        (count, _) => format!("{count} segments are missing from this one on"),
    }
}

fn sentences(first: String, loss: &Loss) -> String {
    let times = (!loss.stretches.is_empty()).then(|| times(loss));
    let backups: Vec<&String> = loss.backups.iter().collect();
    let backups = match backups.as_slice() {
        [] => None,
        [only] => Some(format!("backup {only} cannot be restored")),
        many => Some(format!("backups {} cannot be restored", listing(many))),
    };
    let costs: Vec<String> = times.into_iter().chain(backups).collect();
    match (first.is_empty(), costs.is_empty()) {
        (true, _) => costs.join("; "),
        (false, true) => first,
        (false, false) => format!("{first}: {}", costs.join("; ")),
    }
}

fn listing(all: &[&String]) -> String {
    match all {
        [] => String::new(),
        [only] => (*only).clone(),
        [first @ .., last] if first.len() < 5 => {
            let first: Vec<&str> = first.iter().map(|it| it.as_str()).collect();
            format!("{} and {last}", first.join(", "))
        }
        [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
    }
}

/// `recovery into 2026-11-21 10:02:05 to 10:07:11 is impossible`
fn times(loss: &Loss) -> String {
    if loss.is_all {
        return "nothing can be recovered any more".to_owned();
    }
    let timelines: BTreeSet<_> =
        loss.stretches.iter().flat_map(|stretch| &stretch.timelines).collect();
    let one = timelines.len() == 1;
    let spans: Vec<String> = loss.stretches.iter().take(3).map(|it| span(it, one)).collect();
    let more = match loss.stretches.len().saturating_sub(3) {
        0 => String::new(),
        more => format!(" and {more} more stretches"),
    };
    let on = match timelines.first() {
        Some(timeline) if one && timeline.get() > 1 => format!(" on timeline {timeline}"),
        _ => String::new(),
    };
    format!("recovery into {}{more}{on} is impossible", spans.join(" and into "))
}

fn span(stretch: &Stretch, one: bool) -> String {
    let Stretch { timelines, from, to } = stretch;
    let day = |time: &Timestamp| time.strftime("%Y-%m-%d ").to_string();
    let same_second = to.as_second() == from.as_second();
    let clock = |time: &Timestamp| match same_second {
        true => time.strftime("%H:%M:%S%.6f").to_string(),
        false => time.strftime("%H:%M:%S").to_string(),
    };
    let end_day = if day(from) == day(to) { String::new() } else { day(to) };
    let on = match timelines.as_slice() {
        _ if one => String::new(),
        [only] => format!(" (timeline {only})"),
        many => {
            let many: Vec<String> = many.iter().map(ToString::to_string).collect();
            format!(" (timelines {})", many.join(", "))
        }
    };
    format!("{}{} to {end_day}{} UTC{on}", day(from), clock(from), clock(to))
}

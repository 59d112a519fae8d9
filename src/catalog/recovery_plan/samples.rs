//! Histories made by hand: what was written on which timeline, archived or lost.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use jiff::Timestamp;

use crate::catalog::inventory::{Inventory, Segment, SegmentWal};
use crate::catalog::recovery_plan::{
    BackupSummary, Decision, Known, ReadRecords, Records, Wanted, decide,
};
use crate::catalog::timeline_tree::samples::{timeline, tree};
use crate::catalog::{Target, TargetTimeline, TimelineTree};
use crate::error::Result;
use crate::postgres::wal::digest::{Ending, RestorePoint, TransactionEnd};
use crate::postgres::{Lsn, MajorVersion, SegmentName};

pub const MIB: u64 = 1 << 20;
/// Every record is so long.
const RECORD_BYTES: u64 = 0x100;

#[derive(Clone)]
pub enum What {
    Commit(u32, Timestamp, Vec<u32>),
    Abort(u32, Timestamp),
    Point(String, Timestamp),
    Other,
}

/// Segments of 1 MiB; LSNs are given in tenths of them, so that 25 is the middle of segment 2.
#[derive(Clone, Default)]
pub struct World {
    histories: Vec<(u32, String)>,
    backups: Vec<BackupSummary>,
    /// By timeline and LSN.
    records: BTreeMap<(u32, u64), What>,
    archived: BTreeSet<SegmentName>,
    without_digest: BTreeSet<SegmentName>,
    invalid: BTreeMap<SegmentName, Lsn>,
    /// Else at 22:00 and a minute for each segment.
    stored: BTreeMap<SegmentName, Timestamp>,
}

pub fn at(hour_and_minute: &str) -> Timestamp {
    format!("2026-11-21T{hour_and_minute}:00Z").parse().unwrap()
}

pub fn time(hour_and_minute: &str) -> Target {
    Target::Time(at(hour_and_minute))
}

pub fn lsn(tenths: u64) -> Lsn {
    Lsn(tenths * MIB / 10 / 8 * 8)
}

pub fn wanted(target: Target) -> Wanted {
    Wanted { target, exclusive: false, timeline: TargetTimeline::Latest, backup: None }
}

/// A full one of version 17.
pub fn backup(id: &str, on: u32, (start_lsn, end_lsn): (Lsn, Lsn)) -> BackupSummary {
    BackupSummary {
        id: id.to_owned(),
        timeline: timeline(on),
        start_lsn,
        end_lsn,
        began: at("10:00"),
        ended: at("10:00"),
        wal_segment_size: MIB as u32,
        major: MajorVersion(17),
        parent: None,
        stored: 3000,
    }
}

impl World {
    /// `history` as in the file, with LSNs in tenths: `1 25`.
    pub fn fork(mut self, id: u32, history: &str) -> World {
        let line = |line: &str| {
            let (parent, tenths) = line.split_once(' ').unwrap();
            format!("{parent} {}", lsn(tenths.parse().unwrap()))
        };
        self.histories.push((id, history.lines().map(line).collect::<Vec<_>>().join("\n")));
        self
    }

    pub fn backup(mut self, id: &str, on: u32, tenths: (u64, u64), ended: &str) -> World {
        let lsns = (lsn(tenths.0), lsn(tenths.1));
        self.backups.push(BackupSummary { ended: at(ended), ..backup(id, on, lsns) });
        self
    }

    /// The one added last rests on another.
    pub fn incremental_to(mut self, parent: &str) -> World {
        self.backups.last_mut().unwrap().parent = Some(parent.to_owned());
        self
    }

    pub fn commit(self, on: u32, tenths: u64, xid: u32, time: &str) -> World {
        self.record(on, tenths, What::Commit(xid, at(time), Vec::new()))
    }

    pub fn abort(self, on: u32, tenths: u64, xid: u32, time: &str) -> World {
        self.record(on, tenths, What::Abort(xid, at(time)))
    }

    pub fn point(self, on: u32, tenths: u64, name: &str, time: &str) -> World {
        self.record(on, tenths, What::Point(name.to_owned(), at(time)))
    }

    pub fn record(self, on: u32, tenths: u64, what: What) -> World {
        self.record_at(on, lsn(tenths).0, what)
    }

    pub fn record_at(mut self, on: u32, lsn: u64, what: What) -> World {
        self.records.insert((on, lsn), what);
        self
    }

    pub fn archived(mut self, on: u32, segments: std::ops::RangeInclusive<u32>) -> World {
        self.archived.extend(segments.map(|segment| name(on, segment)));
        self
    }

    pub fn without(mut self, on: u32, segment: u32) -> World {
        self.archived.remove(&name(on, segment));
        self
    }

    pub fn without_digests(mut self, on: u32, segments: std::ops::RangeInclusive<u32>) -> World {
        self.without_digest.extend(segments.map(|segment| name(on, segment)));
        self
    }

    pub fn stored_at(
        mut self,
        on: u32,
        segments: std::ops::RangeInclusive<u32>,
        time: &str,
    ) -> World {
        self.stored.extend(segments.map(|segment| (name(on, segment), at(time))));
        self
    }

    pub fn invalid(mut self, on: u32, tenths: u64) -> World {
        let at = lsn(tenths);
        self.invalid.insert(SegmentName::containing(timeline(on), at, MIB as u32), at);
        self
    }

    pub fn decide(&self, wanted: &Wanted) -> Result<Decision> {
        let tree = self.tree();
        let known = Known {
            backups: &self.backups,
            tree: &tree,
            inventory: &self.inventory(),
            records: self,
            now: at("23:00"),
        };
        decide(&known, wanted)
    }

    /// `B on 1 until 0/280000, 2: before 0/300000`
    pub fn outcome(&self, wanted: &Wanted) -> String {
        match self.decide(wanted) {
            Ok(decision) => {
                let stop = decision.stop.place.map_or("end".to_owned(), |place| {
                    let words = format!("{:?} {:?}", place.side, place.record);
                    format!("{} {}", words.to_lowercase(), place.lsn)
                });
                let path = decision.path.to_string();
                format!("{} on {path}: {}", decision.backup.id, stop)
            }
            Err(error) => error.one_line(),
        }
    }

    fn tree(&self) -> TimelineTree {
        let histories: Vec<_> =
            self.histories.iter().map(|(id, text)| (*id, text.as_str())).collect();
        tree(&histories)
    }

    fn inventory(&self) -> Inventory {
        let mut inventory = Inventory { segment_size: MIB as u32, ..Inventory::default() };
        for name in &self.archived {
            let has_digest = !self.without_digest.contains(name);
            let wal = has_digest.then(|| self.facts(*name));
            let usual = || at(&format!("22:{:02}", name.segment));
            let stored = self.stored.get(name).copied().unwrap_or_else(usual);
            inventory.segments.insert(*name, Segment { stored, wal, ..Segment::default() });
            if has_digest {
                let points = self.points(*name).into_iter().map(|point| (*name, point));
                inventory.restore_points.extend(points);
            }
        }
        inventory
    }

    fn facts(&self, name: SegmentName) -> SegmentWal {
        let records = self.read(name);
        let commits: Vec<_> = records.endings.iter().filter(|end| end.is_commit).collect();
        SegmentWal {
            end: Some(
                self.invalid.get(&name).copied().unwrap_or(name.next(MIB as u32).start(MIB as u32)),
            ),
            commits: commits.len() as u32,
            first_commit: commits.first().map(|end| end.at),
            last_commit: commits.last().map(|end| end.at),
            latest_time: records.endings.iter().map(|end| end.at.time).max(),
            invalid: self.invalid.get(&name).copied(),
            ..SegmentWal::default()
        }
    }

    /// What the segment holds, of its own timeline and copied from those before it.
    fn records_in(&self, name: SegmentName) -> Vec<(Lsn, &What)> {
        let start = name.start(MIB as u32);
        let path = self.tree().path(name.timeline).unwrap();
        let mut found = Vec::new();
        for step in path.steps() {
            let on = step.timeline.get();
            for ((of, lsn), what) in &self.records {
                let lsn = Lsn(*lsn);
                // A record counts where it ends.
                let end = lsn.0 + RECORD_BYTES;
                let is_here = end > start.0 && end <= start.0 + MIB;
                if *of == on && is_here && step.begin <= lsn && step.end.is_none_or(|f| lsn < f) {
                    found.push((lsn, what));
                }
            }
        }
        let limit = self.invalid.get(&name).copied().unwrap_or(Lsn(u64::MAX));
        found.retain(|(lsn, _)| *lsn < limit);
        found
    }

    fn read(&self, name: SegmentName) -> Records {
        let mut records = Records::default();
        for (lsn, what) in self.records_in(name) {
            records.starts.push(lsn);
            let end = |xid: u32, time, is_commit, subtransactions: &[u32]| Ending {
                at: TransactionEnd { lsn, xid, time },
                is_commit,
                subtransactions: subtransactions.to_vec(),
                dropped: Vec::new(),
                dropped_stats: Vec::new(),
                database: None,
                is_cut: false,
                is_prepared: false,
            };
            match what {
                What::Commit(xid, time, subs) => records.endings.push(end(*xid, *time, true, subs)),
                What::Abort(xid, time) => records.endings.push(end(*xid, *time, false, &[])),
                What::Point(..) | What::Other => {}
            }
        }
        records
    }

    fn points(&self, name: SegmentName) -> Vec<RestorePoint> {
        let point = |(lsn, what): (Lsn, &What)| match what {
            What::Point(name, time) => Some(RestorePoint { lsn, name: name.clone(), time: *time }),
            _ => None,
        };
        self.records_in(name).into_iter().filter_map(point).collect()
    }
}

impl ReadRecords for World {
    fn records(&self, segment: SegmentName, _: Option<SegmentName>) -> Result<Rc<Records>> {
        assert!(!self.without_digest.contains(&segment), "what has no digest cannot be read");
        Ok(Rc::new(self.read(segment)))
    }
}

pub fn name(on: u32, segment: u32) -> SegmentName {
    SegmentName { timeline: timeline(on), log: 0, segment }
}

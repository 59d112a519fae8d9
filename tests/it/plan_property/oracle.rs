//! What a target means, told from what happened and not from what walden thinks.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use walden::postgres::Lsn;

use super::history::{Backup, Event, History, SEGMENT_BYTES, What};

/// A target somebody may ask for.
#[derive(Debug)]
pub struct Wish {
    pub kind: Kind,
    /// `None`: not said.
    pub timeline: Option<u32>,
}

#[derive(Debug)]
pub enum Kind {
    Time { time: Timestamp, exclusive: bool },
    Lsn { lsn: Lsn, exclusive: bool },
    Xid { xid: u32, exclusive: bool },
    Name(String),
    Immediate,
    Latest,
}

impl Wish {
    pub fn draw(chance: &mut fastrand::Rng, history: &History) -> Wish {
        // Mostly what happened after the first backup.
        let all: Vec<&Event> = match chance.u8(..10) {
            0 => history.events.iter().collect(),
            _ => history.told().collect(),
        };
        let event = all[chance.usize(..all.len())];
        let exclusive = chance.u8(..3) == 0;
        let kind = match chance.u8(..100) {
            0..45 => {
                let times: Vec<Timestamp> = all.iter().filter_map(|event| event.time()).collect();
                let off = [-1, 0, 0, 0, 1, chance.i64(0..2_000_000)][chance.usize(..6)];
                let time = times[chance.usize(..times.len())];
                Kind::Time { time: time + SignedDuration::from_micros(off), exclusive }
            }
            45..65 => {
                let lsn = event.lsn.0.saturating_add_signed([-8, 0, 0, 8][chance.usize(..4)]);
                Kind::Lsn { lsn: Lsn(lsn), exclusive }
            }
            65..80 => {
                let xid = match &event.what {
                    What::Commit { subtransactions, .. } if !subtransactions.is_empty() => {
                        subtransactions[0]
                    }
                    _ if event.xid < 3 => 70_000,
                    _ => event.xid,
                };
                Kind::Xid { xid, exclusive }
            }
            80..92 => {
                let names: Vec<&String> = all.iter().filter_map(|event| name(event)).collect();
                let unknown = "never made".to_owned();
                let known = names.get(chance.usize(..names.len() + 1));
                Kind::Name(known.map_or(unknown, |name| (*name).clone()))
            }
            92..96 => Kind::Immediate,
            _ => Kind::Latest,
        };
        let timelines: Vec<u32> = history.timelines().collect();
        let timeline = chance.bool().then(|| timelines[chance.usize(..timelines.len())]);
        Wish { kind, timeline }
    }

    pub fn flags(&self) -> Vec<String> {
        let (mut flags, is_exclusive) = match &self.kind {
            Kind::Time { time, exclusive } => (vec![format!("--target-time={time}")], *exclusive),
            Kind::Lsn { lsn, exclusive } => (vec![format!("--target-lsn={lsn}")], *exclusive),
            Kind::Xid { xid, exclusive } => (vec![format!("--target-xid={xid}")], *exclusive),
            Kind::Name(name) => (vec![format!("--target-name={name}")], false),
            Kind::Immediate => (vec!["--target-immediate".to_owned()], false),
            Kind::Latest => (vec!["--target-latest".to_owned()], false),
        };
        if is_exclusive {
            flags.push("--target-exclusive".to_owned());
        }
        flags.extend(self.timeline.map(|timeline| format!("--target-timeline={timeline}")));
        flags
    }

    /// As PostgreSQL's manual says, without a thought.
    pub fn settings(&self) -> String {
        let (target, exclusive) = match &self.kind {
            Kind::Time { time, exclusive } => {
                let time = time.strftime("%Y-%m-%d %H:%M:%S%.f+00");
                (format!("recovery_target_time = '{time}'\n"), *exclusive)
            }
            Kind::Lsn { lsn, exclusive } => {
                (format!("recovery_target_lsn = '{lsn}'\n"), *exclusive)
            }
            Kind::Xid { xid, exclusive } => {
                (format!("recovery_target_xid = '{xid}'\n"), *exclusive)
            }
            Kind::Name(name) => (format!("recovery_target_name = '{name}'\n"), false),
            Kind::Immediate => ("recovery_target = 'immediate'\n".to_owned(), false),
            Kind::Latest => (String::new(), false),
        };
        let inclusive = if exclusive { "off" } else { "on" };
        format!(
            "{target}recovery_target_inclusive = {inclusive}\nrecovery_target_action = promote\n"
        )
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.flags().join(" "))
    }
}

/// What somebody who asks for this on this timeline expects to find; `None` where there is no such
/// thing.
pub fn rows(
    history: &History,
    timeline: u32,
    kind: &Kind,
    backup_end: Lsn,
) -> Option<BTreeSet<i64>> {
    let events = on_path(history, timeline);
    // Before this, and at it where `true`.
    let (cut, with) = match kind {
        Kind::Time { time, exclusive } => {
            let is_wanted = |of: Timestamp| if *exclusive { of < *time } else { of <= *time };
            let wanted = events.iter().filter(|event| event.time().is_some_and(is_wanted));
            return Some(wanted.flat_map(|event| ids(event)).collect());
        }
        Kind::Lsn { lsn, exclusive } => {
            let start = starts(history, timeline).into_iter().filter(|start| start >= lsn).min()?;
            (start, !exclusive)
        }
        Kind::Xid { xid, exclusive } => {
            let is_it =
                |event: &&&Event| event.xid == *xid && matches!(event.what, What::Commit { .. });
            (events.iter().find(is_it)?.lsn, !exclusive)
        }
        Kind::Name(wanted) => {
            let is_it = |event: &&&Event| name(event) == Some(wanted);
            (events.iter().rfind(is_it)?.lsn, true)
        }
        Kind::Immediate => (backup_end, false),
        Kind::Latest => (archived_end(history, timeline), false),
    };
    let wanted = events.iter().filter(|event| event.lsn < cut || (with && event.lsn == cut));
    Some(wanted.flat_map(|event| ids(event)).collect())
}

/// Whether a later end of a transaction, or the last one at this time, is in the archive, and some
/// backup leads to it without a gap.
pub fn is_archived(history: &History, timeline: u32, kind: &Kind) -> bool {
    let Kind::Time { time, exclusive } = kind else { return false };
    let ends = on_path(history, timeline);
    let leads_there = |backup: &Backup| {
        let end = unbroken_end(history, timeline, backup.end);
        ends.iter()
            .filter(|event| event.lsn < end)
            .filter_map(|event| event.time())
            .any(|of| if *exclusive { of > *time } else { of >= *time })
    };
    let of_the_path = history.backups.iter().filter(|backup| {
        is_on_path(history, timeline, backup.timeline, backup.end) && backup.ended <= *time
    });
    of_the_path.into_iter().any(leads_there)
}

/// The newest backup on the way that ended before the target, else the oldest.
pub fn backup_for<'a>(history: &'a History, timeline: u32, kind: &Kind) -> Option<&'a Backup> {
    let mut on_path: Vec<&Backup> = history
        .backups
        .iter()
        .filter(|backup| is_on_path(history, timeline, backup.timeline, backup.end))
        .collect();
    on_path.sort_by_key(|backup| backup.end);
    let events = on_path_lsn(history, timeline, kind);
    let fits = |backup: &&&Backup| match kind {
        Kind::Time { time, .. } => backup.ended <= *time,
        Kind::Lsn { lsn, .. } => backup.end <= *lsn,
        Kind::Xid { .. } | Kind::Name(_) => events.is_none_or(|lsn| backup.end <= lsn),
        Kind::Immediate | Kind::Latest => true,
    };
    on_path.iter().rfind(fits).or(on_path.first()).copied()
}

fn on_path_lsn(history: &History, timeline: u32, kind: &Kind) -> Option<Lsn> {
    let events = on_path(history, timeline);
    let is_it = |event: &&&Event| match kind {
        Kind::Xid { xid, .. } => event.xid == *xid,
        Kind::Name(wanted) => name(event) == Some(wanted),
        _ => false,
    };
    events.iter().find(is_it).map(|event| event.lsn)
}

fn name(event: &Event) -> Option<&String> {
    match &event.what {
        What::RestorePoint { name } => Some(name),
        What::Commit { .. } | What::Abort { .. } => None,
    }
}

fn ids(event: &Event) -> Vec<i64> {
    match &event.what {
        What::Commit { ids, .. } => ids.clone(),
        What::Abort { .. } | What::RestorePoint { .. } => Vec::new(),
    }
}

/// The timelines of a path, each with where it ends.
fn steps(history: &History, timeline: u32) -> Vec<(u32, Lsn)> {
    let mut steps = vec![(timeline, Lsn(u64::MAX))];
    while let Some((parent, fork)) = history.forks.get(&steps[steps.len() - 1].0) {
        steps.push((*parent, *fork));
    }
    steps
}

fn is_on_path(history: &History, timeline: u32, of: u32, end: Lsn) -> bool {
    steps(history, timeline).iter().any(|(step, fork)| *step == of && end <= *fork)
}

/// In the order of the WAL.
fn on_path(history: &History, timeline: u32) -> Vec<&Event> {
    let steps = steps(history, timeline);
    let counts = |event: &&Event| {
        steps.iter().any(|(step, fork)| *step == event.timeline && event.lsn < *fork)
    };
    let mut events: Vec<&Event> = history.events.iter().filter(counts).collect();
    events.sort_by_key(|event| event.lsn);
    events
}

fn starts(history: &History, timeline: u32) -> Vec<Lsn> {
    let of = |(step, fork): (u32, Lsn)| {
        let starts = history.starts.get(&step).into_iter().flatten();
        starts.copied().filter(move |start| *start < fork)
    };
    steps(history, timeline).into_iter().flat_map(of).collect()
}

/// Where the last archived segment of the path ends, or the path leaves it.
fn archived_end(history: &History, timeline: u32) -> Lsn {
    let end = |(step, fork): &(u32, Lsn)| {
        let own = history.archived.iter().filter(|name| name.timeline.get() == *step);
        let ends = own.map(|name| Lsn(name.start(SEGMENT_BYTES).0 + u64::from(SEGMENT_BYTES)));
        ends.map(|end| end.min(*fork)).max()
    };
    steps(history, timeline).iter().filter_map(end).max().unwrap_or_default()
}

/// Up to where every segment of the path from here on is archived.
fn unbroken_end(history: &History, timeline: u32, from: Lsn) -> Lsn {
    let size = u64::from(SEGMENT_BYTES);
    let mut start = Lsn(from.0 - from.0 % size);
    loop {
        let end = Lsn(start.0 + size);
        let archived = |(step, _): &&(u32, Lsn)| {
            history
                .archived
                .iter()
                .any(|name| name.timeline.get() == *step && name.start(SEGMENT_BYTES) == start)
        };
        let steps = steps(history, timeline);
        let read = steps.iter().filter(|(_, fork)| start < *fork).find(archived);
        match read {
            None => return start,
            Some((_, fork)) if *fork < end => return *fork,
            Some(_) => start = end,
        }
    }
}

//! The inventory of the WAL, from as few requests as will do.

use std::collections::BTreeMap;

use crate::catalog::inventory::Segment;
use crate::catalog::{Inventory, TimelineTree, WalPart};
use crate::commands::survey::memory::{LearnedLog, Listing, Memory};
use crate::error::Result;
use crate::host::clock;
use crate::postgres::TimelineId;
use crate::repository::parallel::ask_all;
use crate::repository::{Home, ListedLog};

/// The newest log files of a timeline, which are listed anew always: WAL arrives there.
const LISTED_ALWAYS: usize = 16;

/// What was learned of one log file.
struct Answer {
    learned: LearnedLog,
    notes: Vec<String>,
}

/// `segment_size` in bytes, as far as it is known from elsewhere.
pub fn inventory(
    home: &Home,
    memory: &Memory,
    tree: &TimelineTree,
    segment_size: Option<u32>,
    notes: &mut Vec<String>,
) -> Result<Inventory> {
    let mut answers = Vec::new();
    let mut listed = Vec::new();
    for log in logs(home, memory)? {
        match log {
            Log::Listed(log) => listed.push(log),
            Log::Remembered(learned) => answers.push(Answer { learned, notes: Vec::new() }),
        }
    }
    answers.extend(ask_all(&listed, |log| answer(home, memory, log, segment_size))?);
    let told = answers.iter().find_map(|answer| answer.learned.segment_size);
    let mut parts = Vec::with_capacity(answers.len());
    for answer in answers {
        notes.extend(answer.notes);
        parts.push(answer.learned.part);
    }
    Ok(Inventory::new(parts, tree, told.or(segment_size).unwrap_or_default()))
}

enum Log {
    Listed(ListedLog),
    /// Closed, and listed within the last hour.
    Remembered(LearnedLog),
}

/// All of them, by a request for each thousand segments; of those listed a while ago only the
/// newest.
fn logs(home: &Home, memory: &Memory) -> Result<Vec<Log>> {
    let before = memory.listing();
    let timelines = home.archived_timelines()?;
    let logs: Vec<Vec<Log>> = ask_all(&timelines, |timeline| {
        let known = before.as_ref().and_then(|before| before.get(timeline));
        match known.filter(|known| known.len() > LISTED_ALWAYS) {
            Some(known) => newest_anew(home, memory, *timeline, known),
            None => Ok(home.listed_logs(*timeline, 0)?.into_iter().map(Log::Listed).collect()),
        }
    })?;
    if before.is_none() {
        memory.remember_listing(&listing(&logs));
    }
    Ok(logs.into_iter().flatten().collect())
}

fn newest_anew(
    home: &Home,
    memory: &Memory,
    timeline: TimelineId,
    known: &[u32],
) -> Result<Vec<Log>> {
    let (older, newest) = known.split_at(known.len() - LISTED_ALWAYS);
    let mut logs = ask_all(older, |log| {
        match memory.log(timeline, *log).filter(|learned| learned.is_closed) {
            Some(learned) => Ok(Log::Remembered(learned)),
            None => home.listed_log(timeline, *log, *log == known[0]).map(Log::Listed),
        }
    })?;
    logs.extend(home.listed_logs(timeline, newest[0])?.into_iter().map(Log::Listed));
    Ok(logs)
}

fn listing(logs: &[Vec<Log>]) -> Listing {
    let mut listing = Listing::new();
    for log in logs.iter().flatten() {
        if let Log::Listed(log) = log {
            listing.entry(log.timeline).or_default().push(log.log);
        }
    }
    listing
}

/// From what is remembered, as far as it is still listed as it was; else from index and headers.
fn answer(
    home: &Home,
    memory: &Memory,
    listed: &ListedLog,
    segment_size: Option<u32>,
) -> Result<Answer> {
    let (timeline, log) = (listed.timeline, listed.log);
    let remembered = memory.log(timeline, log).filter(|known| still_holds(known, listed));
    let known = remembered.unwrap_or_default();
    let is_new = |name| !known.part.segments.contains_key(name);
    let new: Vec<_> =
        listed.segments.iter().filter(|segment| is_new(&segment.name)).copied().collect();
    if new.is_empty() {
        return Ok(Answer { learned: known, notes: Vec::new() });
    }
    let size = known.segment_size.or(segment_size);
    // Then it is time for its index, for which all of it is needed.
    let closes = !known.is_closed && size.is_some_and(|size| listed.is_closed(size, clock::now()));
    let asked_all = closes || known.part.segments.is_empty();
    let index = match asked_all {
        true => home.log_as_listed(listed)?,
        false => home.log_as_listed(&ListedLog { segments: new, is_first: false, ..*listed })?,
    };
    let segments = index.segments.iter().map(|(name, entry)| {
        let (stored, size, is_damaged) = (entry.stored, entry.size, entry.is_damaged);
        (*name, Segment { stored, size, is_damaged, wal: None }, entry.digest.as_ref())
    });
    let size = index.segment_size.or(size);
    // Where no size is known there is no digest either, and nothing to join.
    let fresh = WalPart::distil(segments, size.unwrap_or(1));
    let mut part = if asked_all { WalPart::default() } else { known.part };
    part.extend(fresh);
    let is_closed = known.is_closed || (asked_all && index.is_closed);
    let learned = LearnedLog { part, segment_size: size, is_closed };
    memory.remember_log(timeline, log, &learned);
    Ok(Answer { learned, notes: index.notes })
}

/// An object is never overwritten: one that has another time or size was removed and brought back,
/// and one that is gone was removed.
fn still_holds(known: &LearnedLog, listed: &ListedLog) -> bool {
    let there: BTreeMap<_, _> = listed
        .segments
        .iter()
        .map(|segment| (segment.name, (segment.stored, segment.size)))
        .collect();
    let same =
        |(name, segment): (&_, &Segment)| there.get(name) == Some(&(segment.stored, segment.size));
    known.part.segments.iter().all(same)
}

//! What nobody needs to recover, and what belongs to nobody: it takes room, and may be damaged.

use std::collections::{BTreeMap, BTreeSet};

use crate::commands::verify::problem::{Cost, Notebook, Problem};
use crate::postgres::{SegmentName, TimelineId, WalFileName};
use crate::repository::{BackupId, Contents, Home, IndexFault, Kept, Object};

const TAKES_ROOM: &str = "none: nobody reads it, it takes room";

/// `told`: the fingerprints of what the headers of segments say.
pub fn look(
    home: &Home,
    contents: &Contents,
    backups: &BTreeSet<BackupId>,
    told: &BTreeMap<SegmentName, u64>,
    book: &mut Notebook,
) {
    let mut partial: Vec<&Object> = Vec::new();
    for object in &contents.objects {
        let key = home.key_of(&object.kept);
        match &object.kept {
            Kept::Wal(name @ WalFileName::Partial(_)) => {
                partial.push(object);
                let cost = "none for a recovery, which never asks for it; it holds the last WAL of \
                            a timeline that ended";
                read_or_note(home, name, cost, book);
            }
            Kept::Wal(name @ WalFileName::BackupHistory(..)) => {
                let cost = "none for a recovery, which never asks for it";
                read_or_note(home, name, cost, book);
            }
            Kept::Index(timeline, log) => index(home, (*timeline, *log), told, book),
            Kept::Hold(id) if !backups.contains(id) => {
                let what = "it holds a backup that is not there";
                book.problems.push(Problem::note(key, what, "none"));
            }
            _ => {}
        }
    }
    if let Some(first) = partial.first() {
        let (count, bytes) = (partial.len(), partial.iter().map(|it| it.size).sum::<u64>());
        let what = format!("{count} partial segments, {bytes} bytes, the first of them this one");
        let cost = "none: they are what promotions left of the segment they happened in";
        book.problems.push(Problem::note(home.key_of(&first.kept), what, cost));
    }
    for info in &contents.unknown {
        let what = format!("nothing of walden has such a key; it has {} bytes", info.size);
        let problem = Problem::note(&info.key, what, TAKES_ROOM);
        book.problems.push(problem.advise("Look who put it there; walden does not need it."));
    }
    records(home, book);
}

fn read_or_note(home: &Home, name: &WalFileName, cost: &str, book: &mut Notebook) {
    if let Err(error) = home.get_wal(name, |_| Ok(())) {
        book.failed(home.wal_key(name), &error, Cost::Said(cost.to_owned()));
    }
}

/// A cache: what is wrong with it costs time, unless it is believed.
fn index(
    home: &Home,
    (timeline, log): (TimelineId, u32),
    told: &BTreeMap<SegmentName, u64>,
    book: &mut Notebook,
) {
    let key = home.index_key(timeline, log);
    match home.index_fault(timeline, log, told) {
        Ok(None) => {}
        Ok(Some(IndexFault::Useless(what))) => {
            let cost = "none: it saves requests, and what does not fit is not used";
            let problem = Problem::note(key, what, cost);
            book.problems.push(problem.advise("Remove it: it is written anew."));
        }
        Ok(Some(IndexFault::Misleading(name))) => {
            let cost = "PostgreSQL can replay this WAL, but window, find and restore decide by the \
                        index: they may tell wrong times and commits";
            let what = format!("it says of {name} other than the segment's own header does");
            let problem = Problem::damage(key, what, Cost::Said(cost.to_owned()));
            book.problems.push(problem.advise("Remove it: it is written anew."));
        }
        Err(error) => book.skip(key, error),
    }
}

/// The evidence: audit trail and drills.
fn records(home: &Home, book: &mut Notebook) {
    let cost =
        || Cost::Said("none for a recovery; the evidence of what was done is lost".to_owned());
    match home.audit(None, None) {
        Ok(entries) => {
            for error in entries.into_iter().filter_map(Result::err) {
                book.failed(home.audits_key(), &error, cost());
            }
        }
        Err(error) => book.skip(home.audits_key(), error),
    }
    let drills = home.drills().and_then(|ids| home.drill_records(&ids));
    match drills {
        Ok(records) => {
            for error in records.into_iter().filter_map(Result::err) {
                book.failed(home.drills_key(), &error, cost());
            }
        }
        Err(error) => book.skip(home.drills_key(), error),
    }
}

//! Where to stop so that it has not happened, and how many commits of others that gives up.

use std::collections::BTreeMap;

use crate::catalog::events::{Deed, What};
use crate::commands::find::names::NameBook;
use crate::commands::find::read::Segments;
use crate::commands::find::report::{Action, Event};
use crate::commands::find::search::{By, Found, Hit, HitKind};
use crate::commands::find::walk::Walk;
use crate::error::Result;
use crate::postgres::names::RelationKind;
use crate::postgres::recovery_settings::shell_word;
use crate::postgres::wal::Record;
use crate::postgres::wal::digest::{RestorePoint, TransactionEnd};
use crate::postgres::wal::record::ResourceManager;
use crate::postgres::{Lsn, SegmentName, TimelineId};

/// Segments read to count commits, for all events together: each costs a request and a tenth of a
/// second.
const READ_MAX: usize = 128;

const PREPARED: &str = "It ended by COMMIT PREPARED: once restored it is prepared again and holds \
                        its locks, so end it by ROLLBACK PREPARED (pg_prepared_xacts names it).";

/// `pg_database`: in the tablespace of shared relations, of no database.
const PG_DATABASE: (u32, u32, u32) = (1664, 0, 1262);
/// Of the resource manager Heap, without the bit that says a page was initialised.
const HEAP_OPERATION_MASK: u8 = 0x70;
const HEAP_DELETE: u8 = 0x10;
const HEAP_INPLACE: u8 = 0x70;

/// Makes events of hits.
pub struct Points<'p, 'h> {
    pub walk: &'p Walk<'h>,
    pub segments: &'p mut Segments<'h>,
    pub names: &'p NameBook,
    /// For the restore lines.
    pub flags: &'p [String],
    /// Commits that lie whole in a segment, by its start; `None` where that is not known.
    commits: BTreeMap<Lsn, Option<u64>>,
    /// Commits that lie in two.
    straddling: Vec<Lsn>,
    read_max: usize,
}

impl<'p, 'h> Points<'p, 'h> {
    pub fn new(
        walk: &'p Walk<'h>,
        segments: &'p mut Segments<'h>,
        names: &'p NameBook,
        flags: &'p [String],
    ) -> Self {
        let read_max = segments.read() + READ_MAX;
        let (commits, straddling) = (BTreeMap::new(), Vec::new());
        Points { walk, segments, names, flags, commits, straddling, read_max }
    }

    /// In the order of the hits.
    pub fn events(mut self, found: &Found) -> Result<Vec<Event>> {
        let size = self.walk.segment_size();
        self.commits = found.commits.iter().map(|(name, n)| (name.start(size), *n)).collect();
        self.straddling.clone_from(&found.straddling);
        found.hits.iter().map(|hit| self.event(hit)).collect()
    }

    fn event(&mut self, hit: &Hit) -> Result<Event> {
        match &hit.what {
            HitKind::Deed { deed, by } => self.deed(deed, by),
            HitKind::RestorePoint(point) => Ok(self.restore_point(point)),
            HitKind::End { at, is_commit } => Ok(self.end(*at, *is_commit)),
        }
    }

    fn deed(&mut self, deed: &Deed, by: &By) -> Result<Event> {
        let commit_lsn = by.at.lsn;
        let mut event = self.of_transaction(deed.what.into(), by.at);
        event.relation = deed.relation.as_ref().map(|known| known.full_name.clone());
        event.database = self.names.database_name(deed.database, by.at.time);
        event.kind = deed.relation.as_ref().map(|known| known.kind.word());
        event.oid = deed.oid;
        event.file = deed.file.map(|file| file.to_string());
        event.rows = deed.rows;
        event.note.clone_from(&deed.note);
        if deed.relation.as_ref().is_some_and(|known| known.is_unlogged) {
            event.note = Some("It is unlogged: its rows are in no backup and no WAL.".to_owned());
        }
        event.extract = self.extract_line(deed, &event);
        if by.is_prepared {
            event.note = Some(PREPARED.to_owned());
        }
        match deed.what {
            What::DropDatabase => {
                event.kind = Some("database");
                event.restore_lsn = self.before_drop_database(by)?;
                event.restore = self.restore_line(event.restore_lsn);
                event.restore_gives_up = self.commits_between(event.restore_lsn, commit_lsn)?;
                event.note = Some(
                    "The files of a database go before its commit, so recovery has to stop before \
                     all of it."
                        .to_owned(),
                );
            }
            What::Drop | What::Truncate => {
                if let Some(lock) = by.first_lock {
                    event.inspect_lsn = Some(lock);
                    event.inspect_gives_up = self.commits_between(lock, commit_lsn)?;
                    event.inspect = Some(self.inspect_line(lock));
                }
            }
            What::Delete => {}
        }
        Ok(event)
    }

    fn end(&self, at: TransactionEnd, is_commit: bool) -> Event {
        self.of_transaction(if is_commit { Action::Commit } else { Action::Abort }, at)
    }

    fn of_transaction(&self, action: Action, at: TransactionEnd) -> Event {
        Event {
            xid: Some(at.xid),
            commit_lsn: Some(at.lsn),
            restore_gives_up: Some(0),
            ..self.plain(action, at.time, at.lsn)
        }
    }

    fn restore_point(&self, point: &RestorePoint) -> Event {
        let (_, target) = self.walk.timelines_at(point.lsn);
        let words = ["--target-name".to_owned(), shell_word(&point.name)];
        Event {
            name: Some(point.name.clone()),
            restore: self.line(&words, target, true),
            ..self.plain(Action::RestorePoint, point.time, point.lsn)
        }
    }

    fn plain(&self, action: Action, time: jiff::Timestamp, lsn: Lsn) -> Event {
        let (timeline, _) = self.walk.timelines_at(lsn);
        Event {
            action,
            relation: None,
            database: None,
            kind: None,
            oid: None,
            file: None,
            name: None,
            rows: None,
            xid: None,
            time,
            timeline,
            commit_lsn: None,
            restore_lsn: lsn,
            restore_gives_up: None,
            restore: self.restore_line(lsn),
            inspect_lsn: None,
            inspect_gives_up: None,
            inspect: None,
            extract: None,
            note: None,
        }
    }

    fn restore_line(&self, lsn: Lsn) -> String {
        let (_, target) = self.walk.timelines_at(lsn);
        self.line(&at_lsn(lsn), target, true)
    }

    /// Without an action: PostgreSQL pauses.
    fn inspect_line(&self, lsn: Lsn) -> String {
        let (_, target) = self.walk.timelines_at(lsn);
        self.line(&at_lsn(lsn), target, false)
    }

    /// What is there still is not to be overwritten.
    fn extract_line(&self, deed: &Deed, event: &Event) -> Option<String> {
        let known = deed.relation.as_ref().filter(|known| !known.is_unlogged)?;
        let is_table = matches!(known.kind, RelationKind::Table | RelationKind::PartitionedTable);
        let beside = match deed.what {
            What::Drop => None,
            What::Truncate | What::Delete => Some("--into-schema walden_restored".to_owned()),
            What::DropDatabase => return None,
        };
        let (_, timeline) = self.walk.timelines_at(event.restore_lsn);
        let mut words = vec![format!("walden drill --extract {}", shell_word(&known.full_name))];
        words.extend(at_lsn(event.restore_lsn));
        words.push(format!("--target-timeline {timeline}"));
        words.extend(self.flags.iter().map(|flag| shell_word(flag)));
        words.push("--into <conninfo>".to_owned());
        words.extend(beside);
        is_table.then(|| words.join(" "))
    }

    fn line(&self, target: &[String], timeline: TimelineId, promotes: bool) -> String {
        let mut words = vec!["walden restore <dir>".to_owned()];
        words.extend(target.iter().cloned());
        words.push(format!("--target-timeline {timeline}"));
        if promotes {
            words.push("--target-action promote".to_owned());
        }
        words.extend(self.flags.iter().map(|flag| shell_word(flag)));
        words.join(" ")
    }

    /// How many transactions were committed from `from` on and before `to`; `None` where it would
    /// take too much reading, or cannot be known.
    fn commits_between(&mut self, from: Lsn, to: Lsn) -> Result<Option<u64>> {
        let Some(whole) = self.whole_segments_between(from, to) else { return Ok(None) };
        let mut edges: Vec<SegmentName> =
            [from, to].iter().filter_map(|lsn| self.walk.segment_at(*lsn)).collect();
        edges.dedup();
        let straddling = self.straddling.iter().filter(|lsn| from <= **lsn && **lsn < to);
        let mut count = whole + straddling.count() as u64;
        for name in edges {
            if self.segments.read() >= self.read_max && !self.segments.knows(name) {
                return Ok(None);
            }
            let ends = self.segments.ends(name)?;
            let between = |lsn: Lsn| from <= lsn && lsn < to;
            let commits = ends.iter().filter(|end| end.is_commit && between(end.at.lsn));
            count += commits.count() as u64;
        }
        Ok(Some(count))
    }

    /// Commits in the segments between those of `from` and `to`.
    fn whole_segments_between(&self, from: Lsn, to: Lsn) -> Option<u64> {
        let size = u64::from(self.walk.segment_size());
        let start = |lsn: Lsn| Lsn(lsn.0 - lsn.0 % size);
        let (first, last) = (Lsn(start(from).0 + size), start(to));
        if first >= last {
            return Some(0);
        }
        let between = self.commits.range(first..last);
        let is_whole = between.clone().count() as u64 == (last.0 - first.0) / size;
        if is_whole { between.map(|(_, commits)| *commits).sum() } else { None }
    }

    /// DROP DATABASE first marks the database as unfit for use, by a change that is none of a
    /// transaction, and later removes its files, both before it commits. The mark is in the row it
    /// deletes next.
    fn before_drop_database(&mut self, by: &By) -> Result<Lsn> {
        let first = by.first_lsn.unwrap_or(by.at.lsn);
        let Some(name) = self.walk.segment_at(first) else { return Ok(first) };
        let before = self.walk.segment_at(Lsn(name.start(self.walk.segment_size()).0 - 1));
        let mut rows = DatabaseRows::default();
        for name in before.into_iter().chain([name]) {
            self.segments.visit(name, |record| rows.see(record, by.at.xid))?;
        }
        Ok(rows.mark().filter(|mark| *mark < first).unwrap_or(first))
    }
}

fn at_lsn(lsn: Lsn) -> Vec<String> {
    vec![format!("--target-lsn {lsn}"), "--target-exclusive".to_owned()]
}

/// Changes of rows of `pg_database`, by their place in the page.
#[derive(Debug, Default)]
struct DatabaseRows {
    /// Until the delete was seen.
    changed: Vec<(Lsn, u16)>,
    deleted: Option<u16>,
}

impl DatabaseRows {
    fn see(&mut self, record: &Record<'_>, xid: u32) {
        if record.header.resource_manager != ResourceManager::HEAP || self.deleted.is_some() {
            return;
        }
        let operation = record.operation() & HEAP_OPERATION_MASK;
        if operation != HEAP_INPLACE && operation != HEAP_DELETE {
            return;
        }
        let Ok(parts) = record.parts() else { return };
        let file = parts.first_file.map(|file| (file.tablespace, file.database, file.number));
        if file != Some(PG_DATABASE) {
            return;
        }
        let row = |at: usize| Some(u16::from_le_bytes(*parts.main.get(at..)?.first_chunk::<2>()?));
        match operation {
            HEAP_INPLACE => self.changed.extend(row(0).map(|row| (record.lsn, row))),
            // After the id of the transaction.
            _ if record.header.xid == xid => self.deleted = row(4),
            _ => {}
        }
    }

    /// The last change in place of the row that was deleted.
    fn mark(&self) -> Option<Lsn> {
        let deleted = self.deleted?;
        let of_it = self.changed.iter().rev().find(|(_, row)| *row == deleted);
        of_it.map(|(lsn, _)| *lsn)
    }
}

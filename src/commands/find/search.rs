//! Along the segments: transactions put together, what they did, and which of it was asked for.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use crate::catalog::events::{self, Deed, Lookup as _, Transaction, Transactions, Unended};
use crate::commands::find::names::NameBook;
use crate::commands::find::read::Segments;
use crate::commands::find::report::Searched;
use crate::commands::find::walk::{Stretch, Walk};
use crate::commands::find::{Kinds, Request};
use crate::error::Result;
use crate::postgres::wal;
use crate::postgres::wal::digest::{self, Digest, Ending, Fragment, RestorePoint, TransactionEnd};
use crate::postgres::wal::digester::{ROWS_MIN, deleted_row};
use crate::postgres::{Lsn, SegmentName};

/// Clocks are set, and commits do not come in the order of their times.
const TIME_SLACK: SignedDuration = SignedDuration::from_mins(5);
/// Segments read on, for the end of a transaction that no digest names.
const READ_ON_MAX: usize = 16;
/// Segments read for the transactions that ended around a time, and for one transaction.
const READ_FOR_ENDS_MAX: usize = 256;

/// What was found, in the order of the WAL.
#[derive(Debug, Default)]
pub struct Found {
    pub hits: Vec<Hit>,
    /// Commits by segment, so that those between two places can be counted.
    pub commits: Vec<(SegmentName, Option<u64>)>,
    /// Where commits begin that lie in two segments.
    pub straddling: Vec<Lsn>,
    pub searched: Searched,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Hit {
    pub lsn: Lsn,
    pub what: HitKind,
}

#[derive(Debug, Clone)]
pub enum HitKind {
    Deed { deed: Box<Deed>, by: Box<By> },
    RestorePoint(RestorePoint),
    End { at: TransactionEnd, is_commit: bool },
}

/// The transaction that did it.
#[derive(Debug, Clone)]
pub struct By {
    pub at: TransactionEnd,
    pub first_lsn: Option<Lsn>,
    pub first_lock: Option<Lsn>,
}

pub struct Search<'s, 'h> {
    request: &'s Request,
    walk: &'s Walk<'h>,
    segments: &'s mut Segments<'h>,
    names: &'s mut NameBook,
    transactions: Transactions,
    /// The segment before, with a record that goes on in this one.
    before: Option<(SegmentName, Fragment)>,
    /// Segments with ends of transactions that are all asked for, and how far their xids are from
    /// the one that is.
    to_read: Vec<(u32, SegmentName)>,
    unread_of_unknown_version: usize,
    /// By database and number, files and where they were made.
    made: HashMap<(u32, u32), SegmentName>,
    /// Segments of which all names are known.
    learned: HashSet<SegmentName>,
    /// Where transactions ended that are told of.
    told: HashSet<Lsn>,
    found: Found,
}

impl<'s, 'h> Search<'s, 'h> {
    pub fn new(
        request: &'s Request,
        walk: &'s Walk<'h>,
        segments: &'s mut Segments<'h>,
        names: &'s mut NameBook,
    ) -> Self {
        Search {
            request,
            walk,
            segments,
            names,
            transactions: Transactions::default(),
            before: None,
            to_read: Vec::new(),
            unread_of_unknown_version: 0,
            made: HashMap::new(),
            learned: HashSet::new(),
            told: HashSet::new(),
            found: Found::default(),
        }
    }

    pub fn run(mut self) -> Result<Found> {
        let walk = self.walk;
        let notes = walk.each(|stretch| self.take(stretch))?;
        self.found.notes.extend(notes);
        self.read_on()?;
        self.read_ends()?;
        self.found.hits.sort_by_key(|hit| hit.lsn);
        if self.unread_of_unknown_version > 0 {
            self.found.notes.push(format!(
                "{} segments could not be searched: they are damaged, or of a PostgreSQL that \
                 this walden does not know.",
                self.unread_of_unknown_version
            ));
        }
        Ok(self.found)
    }

    fn take(&mut self, stretch: &Stretch<'_>) -> Result<()> {
        let name = stretch.name;
        self.note_gap(stretch);
        let read;
        let digest = match &stretch.entry.digest {
            Some(digest)
                if !is_cut(digest, self.request.rows_min)
                    || !self.may_matter(stretch, Some(digest)) =>
            {
                digest
            }
            known if !stretch.entry.is_damaged && self.may_matter(stretch, known.as_ref()) => {
                read = self.segments.digest(name)?;
                match read.as_ref().or(known.as_ref()) {
                    Some(digest) => digest,
                    None => return self.skip(name),
                }
            }
            Some(digest) => digest,
            None => return self.skip(name),
        };
        self.count(stretch, digest);
        if let Some((before, begun)) = self.before.take() {
            self.end_across(before, &begun, stretch, digest)?;
        }
        self.note_made(name, digest);
        for transaction in self.transactions.take(name, digest, stretch.fork) {
            self.tell(&transaction)?;
        }
        let is_ours = |lsn: Lsn| stretch.fork.is_none_or(|fork| lsn < fork);
        for point in digest.restore_points.iter().filter(|point| is_ours(point.lsn)) {
            self.tell_restore_point(point);
        }
        if let Some(invalid) = digest.invalid.as_ref().filter(|it| is_ours(it.lsn)) {
            self.found.notes.push(format!(
                "{name} is not valid from {} on ({}): nothing behind it can be recovered past it.",
                invalid.lsn, invalid.what
            ));
        }
        let goes_on = digest.unfinished.clone().filter(|it| is_ours(it.lsn));
        self.before = goes_on.map(|begun| (name, begun));
        Ok(())
    }

    /// A segment that cannot be searched.
    fn skip(&mut self, name: SegmentName) -> Result<()> {
        self.before = None;
        self.found.commits.push((name, None));
        self.unread_of_unknown_version += 1;
        Ok(())
    }

    fn note_gap(&mut self, stretch: &Stretch<'_>) {
        if stretch.missing == 0 {
            return;
        }
        self.before = None;
        self.found.notes.push(format!(
            "{} segments are missing before {}: what happened in them is not known.",
            stretch.missing, stretch.name
        ));
    }

    /// Whether what ended in the segment may be of the time that is asked for. The store took it
    /// after it was written.
    fn may_matter(&self, stretch: &Stretch<'_>, digest: Option<&Digest>) -> bool {
        let is_too_old = self.request.begin().is_some_and(|begin| {
            let latest = digest.and_then(|digest| digest.latest_time);
            latest.map_or(stretch.entry.stored, |latest| latest + TIME_SLACK) < begin
        });
        let is_too_new = self.request.end().is_some_and(|end| {
            let first = digest.and_then(|digest| digest.first_commit);
            first.is_some_and(|first| first.time - TIME_SLACK > end)
        });
        !is_too_old && !is_too_new
    }

    fn count(&mut self, stretch: &Stretch<'_>, digest: &Digest) {
        let name = stretch.name;
        let commits = match stretch.fork {
            // Those behind the fork are not ours.
            Some(fork) if fork < Lsn(stretch.start.0 + u64::from(self.walk.segment_size())) => None,
            _ => Some(digest.commits),
        };
        self.found.commits.push((name, commits));
        let searched = &mut self.found.searched;
        searched.segments += 1;
        searched.first.get_or_insert_with(|| name.to_string());
        searched.last = Some(name.to_string());
        let commits = [digest.first_commit, digest.last_commit].into_iter().flatten();
        for time in commits.map(|commit| commit.time) {
            searched.first_commit = searched.first_commit.min(Some(time)).or(Some(time));
            searched.last_commit = searched.last_commit.max(Some(time));
        }
        let wants_ends = self.request.xid.is_some() || self.request.around.is_some();
        let has_ends = digest.commits + digest.aborts > 0;
        if wants_ends && has_ends && self.may_matter(stretch, Some(digest)) {
            self.to_read.push((self.distance_of_xid(digest), name));
        }
    }

    /// The end of a transaction, or the delete, the record of which began in the segment before.
    fn end_across(
        &mut self,
        before: SegmentName,
        begun: &Fragment,
        stretch: &Stretch<'_>,
        digest: &Digest,
    ) -> Result<()> {
        let rest = digest.continued.as_ref();
        let known = rest.and_then(|rest| {
            digest::join(begun, rest, |record| (wal::ending(record), deleted_row(record)))
        });
        let (ending, row) = match known {
            Some(known) => known,
            None if self.may_matter(stretch, Some(digest)) => {
                (self.segments.across(before, stretch.name)?, None)
            }
            None => (None, None),
        };
        if let Some(row) = row {
            self.transactions.delete_one(before, begun.lsn, row);
        }
        if let Some(ending) = ending {
            self.found.straddling.extend(ending.is_commit.then_some(ending.at.lsn));
            self.end_one(before, &ending)?;
        }
        Ok(())
    }

    fn end_one(&mut self, segment: SegmentName, ending: &Ending) -> Result<()> {
        if let Some(transaction) = self.transactions.end(segment, ending) {
            self.tell(&transaction)?;
        }
        self.tell_end(ending);
        Ok(())
    }

    fn tell(&mut self, transaction: &Transaction) -> Result<()> {
        let (request, at) = (self.request, transaction.end);
        if !request.is_in_time(at.time) || !is_wanted_xid(request.xid, at, transaction) {
            return Ok(());
        }
        self.learn_names(transaction)?;
        let by = By {
            at,
            first_lsn: transaction.did.first_lsn,
            first_lock: transaction.did.locks.first().map(|lock| lock.lsn),
        };
        for deed in events::deeds(transaction, self.names, request.rows_min) {
            let is_wanted = request.kinds.want(deed.what) && self.is_named(&deed, at.time);
            if is_wanted && (!deed.may_be_index || self.emptied_a_table(transaction)?) {
                let what = HitKind::Deed { deed: Box::new(deed), by: Box::new(by.clone()) };
                self.told.insert(at.lsn);
                self.found.hits.push(Hit { lsn: at.lsn, what });
            }
        }
        Ok(())
    }

    /// Where files were made: the names of their relations are in the WAL there.
    fn note_made(&mut self, name: SegmentName, digest: &Digest) {
        for file in digest.activities.iter().flat_map(|activity| &activity.created) {
            self.made.insert((file.database, file.number), name);
        }
    }

    /// Of relations that no map knows, as far as they were made in this WAL.
    fn learn_names(&mut self, transaction: &Transaction) -> Result<()> {
        let time = transaction.end.time;
        let removes = !transaction.dropped.is_empty();
        let stats = transaction.dropped_stats.iter();
        let oids = stats.filter_map(|it| Some((it.database, u32::try_from(it.oid).ok()?)));
        let locks = transaction.did.locks.iter().map(|lock| (lock.database, lock.relation));
        let oids = oids.chain(locks).filter(|_| removes);
        let deleted = transaction.did.deleted.values();
        let deleted = deleted.filter(|rows| rows.rows >= self.request.rows_min);
        let files = deleted.map(|rows| rows.file).chain(transaction.dropped.iter().copied());
        let mut unknown: BTreeSet<(u32, u32)> = oids
            .filter(|(database, oid)| self.names.by_oid(*database, *oid, time).is_none())
            .collect();
        unknown.extend(
            files
                .filter(|file| self.names.by_file(*file, time).is_none())
                .map(|file| (file.database, file.number)),
        );
        // Made by itself: what a rewrite leaves behind.
        let own = |file: &(u32, u32)| {
            transaction.did.created.iter().any(|it| (it.database, it.number) == *file)
        };
        let made = unknown.iter().filter(|it| !own(it)).filter_map(|it| self.made.get(it));
        let segments: BTreeSet<SegmentName> = made.copied().collect();
        for name in segments {
            // The row may come in the next: it is written after the file was made.
            let next = self.walk.after(name).next();
            for name in std::iter::once(name).chain(next) {
                if self.learned.insert(name) {
                    let rows = self.segments.class_rows(name)?;
                    self.names.learn(rows);
                }
            }
        }
        Ok(())
    }

    /// Of a transaction that gave relations new files that nobody knows: whether one of them is a
    /// table's. If it takes too much reading, it is taken for one.
    fn emptied_a_table(&mut self, transaction: &Transaction) -> Result<bool> {
        let first = transaction.did.first_lsn.unwrap_or(transaction.end.lsn);
        let Some(first) = self.walk.segment_at(first) else { return Ok(true) };
        let after = self.walk.after(first).take_while(|name| *name <= transaction.segment);
        let names: Vec<SegmentName> =
            std::iter::once(first).chain(after).take(READ_ON_MAX + 1).collect();
        if names.len() > READ_ON_MAX {
            return Ok(true);
        }
        let xids: Vec<u32> =
            transaction.subtransactions.iter().copied().chain([transaction.end.xid]).collect();
        self.segments.has_heap_among(&names, &xids, &transaction.did.created)
    }

    fn tell_restore_point(&mut self, point: &RestorePoint) {
        let request = self.request;
        let is_wanted = request.kinds.restore_points
            && request.xid.is_none()
            && request.tables.is_empty()
            && request.is_in_time(point.time);
        if is_wanted {
            let what = HitKind::RestorePoint(point.clone());
            self.found.hits.push(Hit { lsn: point.lsn, what });
        }
    }

    /// A plain commit or abort, where each of them is asked for and nothing better is known of it.
    fn tell_end(&mut self, ending: &Ending) {
        let request = self.request;
        let is_wanted = match request.xid {
            Some(xid) => ending.at.xid == xid || ending.subtransactions.contains(&xid),
            None => request.around.is_some() && request.kinds == Kinds::ALL,
        };
        let is_wanted = is_wanted && request.tables.is_empty();
        if is_wanted && request.is_in_time(ending.at.time) && self.told.insert(ending.at.lsn) {
            let what = HitKind::End { at: ending.at, is_commit: ending.is_commit };
            self.found.hits.push(Hit { lsn: ending.at.lsn, what });
        }
    }

    /// What is not named fits no pattern.
    fn is_named(&self, deed: &Deed, at: Timestamp) -> bool {
        let patterns = &self.request.tables;
        if patterns.is_empty() {
            return true;
        }
        let database = self.names.database_name(deed.database, at);
        match &deed.relation {
            Some(known) => patterns
                .iter()
                .any(|pattern| pattern.fits(database.as_deref(), &known.schema, &known.name)),
            // A database takes all its tables along.
            None if deed.what == events::What::DropDatabase => {
                database.is_some_and(|database| patterns.iter().any(|it| it.may_be_in(&database)))
            }
            None => false,
        }
    }

    /// Transactions whose end no digest names: it lies in a segment in which they did nothing else
    /// worth noting.
    fn read_on(&mut self) -> Result<()> {
        let mut lost = 0;
        for Unended { last, xid } in self.transactions.unended() {
            if !self.transactions.is_of_interest(xid, self.request.rows_min) {
                continue;
            }
            let following: Vec<SegmentName> =
                std::iter::once(last).chain(self.walk.after(last)).take(READ_ON_MAX).collect();
            let mut is_found = false;
            let is_last = following.len() < READ_ON_MAX;
            for name in following {
                let ends = self.segments.ends(name)?;
                let of_it = |end: &&Ending| end.at.xid == xid || end.subtransactions.contains(&xid);
                if let Some(ending) = ends.iter().find(of_it).cloned() {
                    self.end_one(name, &ending)?;
                    is_found = true;
                    break;
                }
            }
            lost += usize::from(!is_found && !is_last);
        }
        if lost > 0 {
            self.found.notes.push(format!(
                "how {lost} transactions ended that changed tables was not found within \
                 {READ_ON_MAX} segments; they are not told."
            ));
        }
        Ok(())
    }

    /// Where every end in a stretch of time is asked for, or one that no digest names.
    fn read_ends(&mut self) -> Result<()> {
        let mut to_read = std::mem::take(&mut self.to_read);
        let segments = to_read.len();
        to_read.sort_by_key(|(distance, _)| *distance);
        to_read.truncate(READ_FOR_ENDS_MAX);
        for (_, name) in &to_read {
            if self.request.xid.is_some() && !self.found.hits.is_empty() {
                return Ok(());
            }
            let (ends, fork) = (self.segments.ends(*name)?, self.walk.fork_of(name.timeline));
            for ending in ends.iter().filter(|end| fork.is_none_or(|fork| end.at.lsn < fork)) {
                self.tell_end(ending);
            }
        }
        if segments > to_read.len() {
            self.found.notes.push(format!(
                "only {READ_FOR_ENDS_MAX} of {segments} segments were read for single \
                 transactions: say a shorter time by --since and --until."
            ));
        }
        Ok(())
    }

    /// Ids are handed out in order, and most transactions are short: the segment is near that in
    /// which those about it were committed.
    fn distance_of_xid(&self, digest: &Digest) -> u32 {
        let (Some(xid), Some(first), Some(last)) =
            (self.request.xid, digest.first_commit, digest.last_commit)
        else {
            return 0;
        };
        let from = |id: u32| (xid.wrapping_sub(id) as i32).unsigned_abs();
        let is_between =
            (xid.wrapping_sub(first.xid) as i32) >= 0 && (last.xid.wrapping_sub(xid) as i32) >= 0;
        if is_between { 0 } else { from(first.xid).min(from(last.xid)) }
    }
}

/// Whether the segment has to be read for what its digest could not hold.
fn is_cut(digest: &Digest, rows_min: u64) -> bool {
    rows_min < ROWS_MIN
        || digest.is_cut
        || digest.activities.iter().any(|activity| activity.is_cut)
        || digest.endings.iter().any(|ending| ending.is_cut)
}

fn is_wanted_xid(wanted: Option<u32>, at: TransactionEnd, transaction: &Transaction) -> bool {
    wanted.is_none_or(|xid| at.xid == xid || transaction.subtransactions.contains(&xid))
}

/// Of hits that are plain ends only those nearest to `time` stay, `count` at most; how many went.
pub fn keep_nearest(hits: &mut Vec<Hit>, time: Timestamp, count: usize) -> usize {
    let distance = |hit: &Hit| match &hit.what {
        HitKind::End { at, .. } => Some((at.time.duration_since(time).abs(), at.lsn)),
        _ => None,
    };
    let mut distances: Vec<_> = hits.iter().filter_map(distance).collect();
    if distances.len() <= count {
        return 0;
    }
    distances.sort();
    let (before, farthest) = (hits.len(), distances.get(count).copied());
    hits.retain(|hit| distance(hit).is_none_or(|it| farthest.is_none_or(|farthest| it < farthest)));
    before - hits.len()
}

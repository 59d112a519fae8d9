//! Along the segments: transactions put together, what they did, and which of it was asked for.

mod ends;
mod naming;

pub use ends::keep_nearest;

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use crate::catalog::events::{self, Deed, Transaction, Transactions};
use crate::commands::find::Request;
use crate::commands::find::names::NameBook;
use crate::commands::find::read::Segments;
use crate::commands::find::report::Searched;
use crate::commands::find::walk::{Stretch, Walk};
use crate::error::Result;
use crate::postgres::wal;
use crate::postgres::wal::digest::{self, Digest, Ending, Fragment, RestorePoint, TransactionEnd};
use crate::postgres::wal::digester::{ROWS_MIN, deleted_row};
use crate::postgres::{Lsn, SegmentName};

/// Clocks are set, and commits do not come in the order of their times.
const TIME_SLACK: SignedDuration = SignedDuration::from_mins(5);
/// Segments read on, for the end of a transaction that no digest names.
const READ_ON_MAX: usize = 16;

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
    /// By COMMIT PREPARED.
    pub is_prepared: bool,
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
        let is_wanted = request.is_in_time(at.time) && is_wanted_xid(request.xid, at, transaction);
        if is_wanted {
            self.learn_names(transaction)?;
        }
        let gives_new_files =
            !transaction.dropped.is_empty() && !transaction.did.created.is_empty();
        if !is_wanted && !gives_new_files {
            return Ok(());
        }
        let deeds = events::deeds(transaction, self.names, request.rows_min);
        self.follow_file(transaction, &deeds);
        if !is_wanted {
            return Ok(());
        }
        let by = By {
            at,
            first_lsn: transaction.did.first_lsn,
            first_lock: transaction.did.locks.first().map(|lock| lock.lsn),
            is_prepared: transaction.is_prepared,
        };
        for deed in deeds {
            let is_wanted = request.kinds.want(deed.what) && self.is_named(&deed, at.time);
            if is_wanted && (!deed.may_be_index || self.emptied_a_table(transaction)?) {
                let what = HitKind::Deed { deed: Box::new(deed), by: Box::new(by.clone()) };
                self.told.insert(at.lsn);
                self.found.hits.push(Hit { lsn: at.lsn, what });
            }
        }
        Ok(())
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

//! The end of every transaction, where each is asked for, and of those that no digest names.

use jiff::Timestamp;

use crate::catalog::events::Unended;
use crate::commands::find::Kinds;
use crate::commands::find::search::{Hit, HitKind, READ_ON_MAX, Search};
use crate::error::Result;
use crate::postgres::SegmentName;
use crate::postgres::wal::digest::{Digest, Ending};

/// Segments read for the transactions that ended around a time, and for one transaction.
const READ_FOR_ENDS_MAX: usize = 256;

impl Search<'_, '_> {
    /// A plain commit or abort, where each of them is asked for and nothing better is known of it.
    pub(super) fn tell_end(&mut self, ending: &Ending) {
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

    /// Transactions whose end no digest names: it lies in a segment in which they did nothing else
    /// worth noting.
    pub(super) fn read_on(&mut self) -> Result<()> {
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
    pub(super) fn read_ends(&mut self) -> Result<()> {
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
    pub(super) fn distance_of_xid(&self, digest: &Digest) -> u32 {
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

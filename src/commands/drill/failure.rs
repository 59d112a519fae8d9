//! What a failure means: that recovery does not work, or that nobody knows.

use crate::catalog::Decision;
use crate::commands::archive::fetch::rehearsal::REFUSED;
use crate::commands::drill::stages::Stuck;
use crate::commands::restore::check_wal::check_wal;
use crate::error::{Error, ErrorKind};
use crate::postgres::WalFileName;
use crate::repository::Home;
use crate::repository::drill_record::Verdict;

/// Why a drill ended early.
#[derive(Debug)]
pub struct Finding {
    pub verdict: Verdict,
    pub error: Error,
}

impl Finding {
    /// It could not be done, which says nothing of the backup.
    pub fn open(error: Error) -> Finding {
        Finding { verdict: Verdict::Incomplete, error }
    }

    /// Recovery to this point does not work.
    pub fn wrong(error: Error) -> Finding {
        Finding { verdict: Verdict::Failed, error }
    }

    /// What the repository says: damaged, missing or impossible is wrong; a store that does not
    /// answer leaves it open.
    pub fn of_repository(error: Error) -> Finding {
        match error.kind() {
            ErrorKind::Refused
            | ErrorKind::Corrupt
            | ErrorKind::FoundWrong
            | ErrorKind::Absent
            | ErrorKind::NotFound
            | ErrorKind::ForeignCluster => Finding::wrong(error),
            _ => Finding::open(error),
        }
    }

    /// The same while this host has a say: what it refuses is no fault of the backup.
    pub fn of_host(error: Error) -> Finding {
        match error.kind() {
            ErrorKind::Refused => Finding::open(error),
            _ => Finding::of_repository(error),
        }
    }
}

/// A recovery that did not get to its end: the WAL is read record by record, to name what is wrong
/// with it.
pub fn explain(stuck: Stuck, home: &Home, decision: &Decision) -> Finding {
    let is_refused = stuck.fetch.as_deref().is_some_and(|line| line.contains(REFUSED));
    if matches!(stuck.error.kind(), ErrorKind::CouldNotCheck | ErrorKind::Full) || is_refused {
        return Finding::open(stuck.error);
    }
    let said = stuck.error.to_string();
    if let Some(error) = damage(home, decision) {
        return Finding::of_repository(error.context(said));
    }
    match stuck.fetch {
        // All that is needed can be read from here: what failed is how the server asks for it.
        Some(fetch) => Finding::open(
            Error::new(ErrorKind::Server, format!("{said}; fetch says: {fetch}"))
                .hint("Can the server's user read walden's configuration, credentials, store?"),
        ),
        None if is_about_wal(&stuck) => Finding::wrong(stuck.error),
        None => Finding::open(stuck.error.hint(
            "Its WAL is whole: look at this host's memory and disk, and at --allow-preload.",
        )),
    }
}

/// Whether what ended the server says that this backup and its WAL do not go together. This host,
/// and what the drill itself keeps away, are no fault of theirs.
fn is_about_wal(stuck: &Stuck) -> bool {
    let of_this_host = [
        "out of memory",
        "No space left on device",
        "could not map",
        "could not fork",
        "Cannot allocate memory",
        "Too many open files",
        // An extension's WAL, and its library was not loaded (`GetRmgr`, xlog_internal.h).
        "resource manager with ID",
        "could not access file",
    ];
    let is_of_host = |line: &str| of_this_host.iter().any(|words| line.contains(words));
    stuck.replayed && stuck.fatal.as_deref().is_some_and(|line| !is_of_host(line))
}

/// What is wrong with the WAL or the history files on the way.
fn damage(home: &Home, decision: &Decision) -> Option<Error> {
    let forks = decision.path.steps().iter().skip(1);
    for step in forks {
        let history = WalFileName::History(step.timeline);
        if let Err(error) = home.get_wal(&history, |_| Ok(())) {
            return Some(error.context(format!("read {history}")));
        }
    }
    let until = decision.stop.place.map(|place| place.lsn);
    check_wal(home, &decision.segments, until, &|_| ()).err()
}

#[cfg(test)]
mod tests {
    use super::Finding;
    use crate::error::{Error, ErrorKind};
    use crate::repository::drill_record::Verdict;

    #[test]
    fn damage_is_wrong_and_a_store_that_is_away_leaves_it_open() {
        let error = |kind| Error::new(kind, "x");
        for kind in [ErrorKind::Corrupt, ErrorKind::Refused, ErrorKind::Absent] {
            assert_eq!(Finding::of_repository(error(kind)).verdict, Verdict::Failed, "{kind:?}");
        }
        for kind in [ErrorKind::Unreachable, ErrorKind::NotAllowed, ErrorKind::Host] {
            let finding = Finding::of_repository(error(kind));
            assert_eq!(finding.verdict, Verdict::Incomplete, "{kind:?}");
        }
        assert_eq!(Finding::of_host(error(ErrorKind::Refused)).verdict, Verdict::Incomplete);
        assert_eq!(Finding::of_host(error(ErrorKind::Corrupt)).verdict, Verdict::Failed);
    }
}

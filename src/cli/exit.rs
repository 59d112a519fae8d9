//! Error kind to exit code, one table; `docs/exit-codes.md` says it to people.

use crate::error::ErrorKind;

/// The code of every command but `fetch`, whose failures all end in `FETCH_UNDECIDED` or
/// `FETCH_ASK_AGAIN`.
pub fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Absent => 1,
        ErrorKind::Usage => 2,
        ErrorKind::Refused | ErrorKind::NotFound | ErrorKind::AlreadyExists => 4,
        ErrorKind::FoundWrong => 5,
        ErrorKind::CouldNotCheck | ErrorKind::Server | ErrorKind::Host => 6,
        ErrorKind::InvalidSource => 10,
        ErrorKind::Conflict => 11,
        ErrorKind::ForeignCluster => 12,
        ErrorKind::Unreachable | ErrorKind::WrongPlace => 20,
        ErrorKind::NotAllowed => 21,
        ErrorKind::Throttled => 22,
        ErrorKind::Full => 23,
        ErrorKind::Corrupt => 30,
        ErrorKind::Bug => 70,
        ErrorKind::Interrupted => 75,
    }
}

/// `fetch` outside standby mode could not decide: above 125, so that PostgreSQL stops instead of
/// promoting.
pub const FETCH_UNDECIDED: u8 = 200;
/// `fetch` beside `standby.signal` could not decide: PostgreSQL will ask again.
pub const FETCH_ASK_AGAIN: u8 = 3;

/// What a `fetch` that could not decide exits with here: `standby.signal` lies in the directory
/// PostgreSQL calls us in.
pub fn fetch_undecided() -> u8 {
    if is_standby() { FETCH_ASK_AGAIN } else { FETCH_UNDECIDED }
}

pub fn is_standby() -> bool {
    std::path::Path::new("standby.signal").exists()
}

pub const PUSH_STATUS: &str = "\
Exit status (PostgreSQL tries again after every one but 0):
   0  durable and verified in the repository, or the identical file was there already
   2  usage or configuration
  10  not valid WAL of this name, or the file cannot be read
  11  another file of this name and other content is archived
  12  another cluster's WAL
  20  store unreachable or not the right place   21  not allowed   22  throttled   23  full
  30  what was stored does not match its checksum
  70  bug in walden
  75  interrupted";

pub const FETCH_STATUS: &str = "\
Exit status:
    0  the file is there, checked
    1  proven absent: to PostgreSQL the end of the archive
    3  undecided, beside standby.signal: PostgreSQL asks again
  200  undecided: PostgreSQL stops instead of promoting; start it again when the cause is mended";

pub const BACKUP_STATUS: &str = "\
Exit status:
   0  the backup is complete, and so is the WAL it needs
   2  usage or configuration
   4  refused, nothing changed: among others, there is no such --parent
   5  the backup is complete, but pages are damaged on the server itself: see the warnings
   6  PostgreSQL or this machine did not let us
  20  store unreachable or not the right place   21  not allowed   22  throttled   23  full
  30  what was stored or read does not match its checksum
  70  bug in walden
  75  interrupted";

pub const DRILL_STATUS: &str = "\
Exit status:
   0  passed: everything that was asked for was done, and came out right
      with --extract: the tables are where they were wanted
   2  usage or configuration
   4  refused, nothing changed: a time that has several readings; with --extract also no target,
      no such table, a target out of reach, or something of that name is there already
   5  failed: recovery does not work, ends elsewhere, takes too long, or an answer is wrong
   6  not completed: something could not be done or asked, and nothing was wrong until then
  70  bug in walden
  75  interrupted; everything was removed";

pub const WINDOW_STATUS: &str = "\
Exit status:
   0  told, also where nothing can be recovered
   2  usage or configuration
   4  refused: nothing is archived there, or it is not clear which cluster is meant
   20  store unreachable or not the right place   21  not allowed   22  throttled
   30  what was read does not match its checksum
   70  bug in walden";

pub const REPORT_STATUS: &str = "\
Exit status:
   0  written, whatever it says
   2  usage or configuration
   4  refused: nothing is archived there, or it is not clear which cluster is meant
   6  the page could not be written
  20  store unreachable or not the right place   21  not allowed   22  throttled
  30  what was read does not match its checksum
  70  bug in walden";

pub const FIND_STATUS: &str = "\
Exit status:
   0  searched, with hits or without; what could not be searched is in the notes
   2  usage or configuration
   4  refused: no such timeline, or nothing is archived
  20  store unreachable or not the right place   21  not allowed   22  throttled
  30  what was read does not match its checksum
  70  bug in walden
  75  interrupted";

pub const LIST_STATUS: &str = "\
Exit status:
   0  listed, also where there is no backup yet
   2  usage or configuration
   4  nothing is archived here under this name, or there is no such backup
  20  store unreachable or not the right place   21  not allowed   22  throttled
  30  what was read does not match its checksum
  70  bug in walden";

pub const RESTORE_STATUS: &str = "\
Exit status:
   0  placed, ready to start; with --wait: recovered to the target
   2  usage or configuration
   4  refused, nothing changed: directory not empty, target missing, ambiguous or out of reach
   5  recovery ended short of the target
   6  PostgreSQL or this machine did not let us
  20  store unreachable or not the right place   21  not allowed   22  throttled   23  full
  30  what was read does not match its checksum
  70  bug in walden
  75  interrupted";

pub const VERIFY_STATUS: &str = "\
Exit status:
   0  all that was asked for was looked at, and is sound
   2  usage or configuration
   4  refused: nothing is archived there, or it is not clear which cluster is meant
   5  something is damaged or missing: each finding says what it costs and what to do
   6  nothing wrong was found, but not all could be looked at
  70  bug in walden
  75  interrupted: the next run goes on from there";

pub const DEMO_STATUS: &str = "\
Exit status:
   0  the story was told, and the rows are back
   5  they are not
   6  it could not be told here: no PostgreSQL, say
  70  bug in walden";

#[cfg(test)]
mod tests {
    use crate::cli::exit::{FETCH_ASK_AGAIN, FETCH_UNDECIDED, code};
    use crate::error::ErrorKind;

    /// PostgreSQL restarts its archiver above 125, and counts nothing.
    #[test]
    fn no_kind_of_failure_ends_push_above_125() {
        let kinds = [
            ErrorKind::Absent,
            ErrorKind::Usage,
            ErrorKind::Refused,
            ErrorKind::NotFound,
            ErrorKind::AlreadyExists,
            ErrorKind::FoundWrong,
            ErrorKind::CouldNotCheck,
            ErrorKind::Server,
            ErrorKind::Host,
            ErrorKind::InvalidSource,
            ErrorKind::Conflict,
            ErrorKind::ForeignCluster,
            ErrorKind::Unreachable,
            ErrorKind::WrongPlace,
            ErrorKind::NotAllowed,
            ErrorKind::Throttled,
            ErrorKind::Full,
            ErrorKind::Corrupt,
            ErrorKind::Bug,
            ErrorKind::Interrupted,
        ];
        assert!(kinds.into_iter().all(|kind| (1..=125).contains(&code(kind))));
    }

    /// 143 would be a shutdown to PostgreSQL, 129 and more a death by signal: it stops on both.
    #[test]
    fn an_undecided_fetch_stops_a_recovery_and_not_a_standby() {
        const { assert!(FETCH_UNDECIDED > 128 && FETCH_UNDECIDED != 143) };
        const { assert!(FETCH_ASK_AGAIN > 1 && FETCH_ASK_AGAIN <= 125) };
    }
}

//! Error kind to exit code, one table; `docs/exit-codes.md` says it to people.

use crate::error::ErrorKind;

/// The code of every command but `fetch`, whose failures all end in `FETCH_UNDECIDED` or `FETCH_ASK_AGAIN`.
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
        ErrorKind::Key => 40,
        ErrorKind::Bug => 70,
        ErrorKind::Interrupted => 75,
    }
}

/// `fetch` outside standby mode could not decide: above 125, so that PostgreSQL stops instead of promoting.
pub const FETCH_UNDECIDED: u8 = 200;
/// `fetch` beside `standby.signal` could not decide: PostgreSQL will ask again.
pub const FETCH_ASK_AGAIN: u8 = 3;

/// What a `fetch` that could not decide exits with here: `standby.signal` lies in the directory PostgreSQL calls us in.
pub fn fetch_undecided() -> u8 {
    let is_standby = std::path::Path::new("standby.signal").exists();
    if is_standby { FETCH_ASK_AGAIN } else { FETCH_UNDECIDED }
}

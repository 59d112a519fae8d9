//! Who called us: PostgreSQL for a WAL file, or a person. Known even if the words make no sense.

use std::ffi::OsString;

use clap::CommandFactory as _;

use crate::cli::{Invocation, exit};
use crate::error::ErrorKind;
use crate::postgres::WalFileName;

/// What a failure means depends on this, even that of the command line itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// PostgreSQL's archive_command.
    Push,
    /// PostgreSQL's restore_command: a wrong exit code here makes it promote with rows missing.
    Fetch,
    Other,
}

/// Whether a word names a WAL file, or the place for one: then PostgreSQL calls, and no person.
pub fn name_wal(words: &[OsString]) -> bool {
    words.iter().skip(1).any(|word| {
        let word = word.to_string_lossy();
        let last = word.rsplit('/').next().unwrap_or_default();
        RESTORE_DESTINATIONS.contains(&last) || WalFileName::parse(last).is_ok()
    })
}

/// The global flags whose next word is theirs.
const FLAGS_WITH_VALUE: [&str; 4] = ["--config", "--cluster", "--repository", "--pgdata"];
/// What PostgreSQL names as %p in a restore_command, always (`RestoreArchivedFile`, xlogarchive.c).
const RESTORE_DESTINATIONS: [&str; 2] = ["RECOVERYXLOG", "RECOVERYHISTORY"];

impl Errand {
    /// From the raw words, the first of which is the program's name.
    ///
    /// When in doubt it is `Fetch`, whose failures are the dangerous ones: a restore_command that
    /// was mistyped must stop PostgreSQL, not make it promote.
    pub fn of(words: &[OsString]) -> Errand {
        let words: Vec<_> = words.iter().skip(1).map(|word| word.to_string_lossy()).collect();
        let command = first_that_is_no_flag(words.iter().map(AsRef::as_ref));
        match command {
            Some("push") => return Errand::Push,
            Some("fetch") => return Errand::Fetch,
            _ => {}
        }
        let is_destination =
            |word: &str| RESTORE_DESTINATIONS.iter().any(|name| word.ends_with(name));
        if words.iter().any(|word| is_destination(word)) {
            return Errand::Fetch;
        }
        let is_known = |name| Invocation::command().get_subcommands().any(|c| c.get_name() == name);
        if command.is_some_and(is_known) {
            return Errand::Other;
        }
        let says = |name: &str| words.iter().any(|word| word == name);
        match (says("fetch"), says("push")) {
            (true, _) => Errand::Fetch,
            (false, true) => Errand::Push,
            (false, false) => Errand::Other,
        }
    }

    /// Whether PostgreSQL reads what we say: one line for a failure, nothing else.
    pub fn is_postgresql(self) -> bool {
        self != Errand::Other
    }

    /// A standby asks every five seconds for what is not archived yet; a line for each would bury
    /// its log.
    pub fn is_daily_answer(self, kind: ErrorKind) -> bool {
        self == Errand::Fetch && kind == ErrorKind::Absent && exit::is_standby()
    }

    /// The exit code of a failure of this kind.
    pub fn exit_code(self, kind: ErrorKind) -> u8 {
        match (self, kind) {
            (Errand::Fetch, ErrorKind::Absent) => exit::code(ErrorKind::Absent),
            (Errand::Fetch, _) => exit::fetch_undecided(),
            (Errand::Push | Errand::Other, _) => exit::code(kind),
        }
    }
}

fn first_that_is_no_flag<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    loop {
        let word = words.next()?;
        if FLAGS_WITH_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory as _;

    use crate::cli::Invocation;
    use crate::cli::errand::{Errand, FLAGS_WITH_VALUE};
    use crate::error::ErrorKind;

    fn errand(words: &str) -> Errand {
        let words = ["walden"].into_iter().chain(words.split_whitespace());
        Errand::of(&words.map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_is_found_among_flags() {
        assert_eq!(errand("push pg_wal/x"), Errand::Push);
        assert_eq!(errand("--cluster fetch push pg_wal/x"), Errand::Push);
        assert_eq!(errand("--cluster=a -v fetch f p"), Errand::Fetch);
        assert_eq!(errand("--repository push fetch"), Errand::Fetch);
        assert_eq!(errand("restore fetch"), Errand::Other);
        assert_eq!(errand("backup"), Errand::Other);
        assert_eq!(errand("--version"), Errand::Other);
        assert_eq!(errand(""), Errand::Other);
    }

    #[test]
    fn a_mistyped_restore_command_is_a_fetch_all_the_same() {
        assert_eq!(errand("--confg /etc/w.toml fetch f p"), Errand::Fetch);
        assert_eq!(errand("fetsh 000000010000000000000001 pg_wal/RECOVERYXLOG"), Errand::Fetch);
        assert_eq!(errand("00000002.history pg_wal/RECOVERYHISTORY"), Errand::Fetch);
        assert_eq!(errand("--confg /etc/w.toml push p"), Errand::Push);
        assert_eq!(errand("pusch pg_wal/x"), Errand::Other);
    }

    #[test]
    fn every_global_flag_with_a_value_is_known() {
        let command = Invocation::command();
        let flags: Vec<String> = command
            .get_arguments()
            .filter(|flag| flag.get_action().takes_values() && flag.is_global_set())
            .filter_map(|flag| flag.get_long().map(|long| format!("--{long}")))
            .collect();
        assert_eq!(flags, FLAGS_WITH_VALUE);
    }

    #[test]
    fn fetch_says_absent_or_undecided_and_nothing_else() {
        assert_eq!(Errand::Fetch.exit_code(ErrorKind::Absent), 1);
        for kind in [ErrorKind::Usage, ErrorKind::Bug, ErrorKind::NotFound, ErrorKind::Full] {
            assert_eq!(Errand::Fetch.exit_code(kind), 200);
        }
        assert_eq!(Errand::Push.exit_code(ErrorKind::Usage), 2);
        assert_eq!(Errand::Other.exit_code(ErrorKind::Bug), 70);
    }
}

//! Words in, words out; decides nothing.

pub mod archive;
pub mod backup;
pub mod window;
pub mod find;
pub mod list;
pub mod restore;
pub mod verify;
pub mod drill;
pub mod report;
pub mod demo;
pub mod table;
pub mod progress;
pub mod errand;
pub mod failure;
pub mod log;
pub mod exit;

use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::Parser as _;

use crate::commands::App;
use crate::config::{Overrides, Settings};
use crate::error::{ErrorKind, Result};

use errand::Errand;

/// A home for PostgreSQL's write-ahead log.
#[derive(clap::Parser)]
#[command(name = "walden", version)]
struct Invocation {
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(after_help = exit::PUSH_STATUS)]
    Push(archive::Push),
    #[command(after_help = exit::FETCH_STATUS)]
    Fetch(archive::Fetch),
    #[command(hide = true)]
    Prefetch(archive::Prefetch),
    #[command(after_help = exit::BACKUP_STATUS)]
    Backup(backup::Backup),
    #[command(after_help = exit::WINDOW_STATUS)]
    Window(window::Window),
    #[command(after_help = exit::FIND_STATUS)]
    Find(find::Find),
    #[command(after_help = exit::LIST_STATUS)]
    List(list::List),
    #[command(after_help = exit::RESTORE_STATUS)]
    Restore(restore::Restore),
    #[command(after_help = exit::VERIFY_STATUS)]
    Verify(verify::Verify),
    #[command(after_help = exit::DRILL_STATUS)]
    Drill(Box<drill::Drill>),
    #[command(hide = true)]
    DrillGuard(drill::DrillGuard),
    #[command(after_help = exit::REPORT_STATUS)]
    Report(report::Report),
    #[command(after_help = exit::DEMO_STATUS)]
    Demo(demo::Demo),
}

/// Whatever happens, a panic included, ends in a code of the table in `exit`.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    failure::tell_of_panics_in_one_line();
    let words: Vec<OsString> = words.into_iter().collect();
    let errand = Errand::of(&words);
    ExitCode::from(conclude(errand, || attempt(&words, errand)))
}

/// A panic unwinds to here: an abort is a death by signal, of which PostgreSQL counts nothing.
fn conclude(errand: Errand, work: impl FnOnce() -> std::result::Result<(), ErrorKind>) -> u8 {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(failure::kind_of_panic(panic.as_ref())));
    outcome.map_or_else(|kind| errand.exit_code(kind), |()| 0)
}

/// Tells of a failure where it happens to be known, and passes on what kind it was.
fn attempt(words: &[OsString], errand: Errand) -> std::result::Result<(), ErrorKind> {
    let invocation = match Invocation::try_parse_from(words) {
        Ok(invocation) => invocation,
        Err(answer) => return failure::tell_of_words(&answer, errand, errand::name_wal(words)),
    };
    log::start(invocation.overrides.output, errand);
    failure::panic_where_a_test_asks();
    let outcome = Settings::resolve(&invocation.overrides)
        .and_then(|settings| dispatch(invocation.command, &App::new(settings)));
    outcome.map_err(|error| {
        match errand.is_daily_answer(error.kind()) {
            true => tracing::info!("{error}"),
            false => failure::tell(&error, errand),
        }
        error.kind()
    })
}

fn dispatch(command: Command, app: &App) -> Result<()> {
    match command {
        Command::Push(push) => push.run(app),
        Command::Fetch(fetch) => fetch.run(app),
        Command::Prefetch(prefetch) => prefetch.run(app),
        Command::Backup(backup) => backup.run(app),
        Command::Window(window) => window.run(app),
        Command::Find(find) => find.run(app),
        Command::List(list) => list.run(app),
        Command::Restore(restore) => restore.run(app),
        Command::Verify(verify) => verify.run(app),
        Command::Report(report) => report.run(app),
        Command::Drill(drill) => drill.run(app),
        Command::DrillGuard(guard) => guard.run(),
        Command::Demo(demo) => demo.run(app),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::cli::errand::Errand;
    use crate::cli::{Invocation, conclude};
    use crate::error::ErrorKind;

    #[test]
    fn a_panic_is_a_bug_and_to_a_recovery_no_end_of_the_archive() {
        let panic = |errand| conclude(errand, || panic!("on purpose"));
        assert_eq!(panic(Errand::Push), 70);
        assert_eq!(panic(Errand::Other), 70);
        assert_eq!(panic(Errand::Fetch), 200);
    }

    #[test]
    fn success_is_nothing_but_success() {
        assert_eq!(conclude(Errand::Fetch, || Ok(())), 0);
        assert_eq!(conclude(Errand::Fetch, || Err(ErrorKind::Absent)), 1);
        assert_eq!(conclude(Errand::Push, || Err(ErrorKind::Full)), 23);
    }

    #[test]
    fn the_flags_fit_together() {
        Invocation::command().debug_assert();
    }
}

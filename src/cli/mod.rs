//! Words in, words out; decides nothing.

pub mod archive;
pub mod backup;
pub mod restore;
pub mod demo;
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
    #[command(after_help = exit::BACKUP_STATUS)]
    Backup(backup::Backup),
    #[command(after_help = exit::RESTORE_STATUS)]
    Restore(restore::Restore),
    #[command(after_help = exit::DEMO_STATUS)]
    Demo(demo::Demo),
}

/// Whatever happens, a panic included, ends in a code of the table in `exit`.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    failure::tell_of_panics_in_one_line();
    let words: Vec<OsString> = words.into_iter().collect();
    let errand = Errand::of(&words);
    let attempt = std::panic::catch_unwind(AssertUnwindSafe(|| attempt(&words, errand)));
    let outcome = attempt.unwrap_or_else(|panic| Err(failure::kind_of_panic(panic.as_ref())));
    ExitCode::from(outcome.map_or_else(|kind| errand.exit_code(kind), |()| 0))
}

/// Tells of a failure where it happens to be known, and passes on what kind it was.
fn attempt(words: &[OsString], errand: Errand) -> std::result::Result<(), ErrorKind> {
    let invocation = match Invocation::try_parse_from(words) {
        Ok(invocation) => invocation,
        Err(answer) => return failure::tell_of_words(&answer, errand),
    };
    log::start(invocation.overrides.output, errand);
    let outcome = Settings::resolve(&invocation.overrides)
        .and_then(|settings| dispatch(invocation.command, &App::new(settings)));
    outcome.map_err(|error| {
        failure::tell(&error, errand);
        error.kind()
    })
}

fn dispatch(command: Command, app: &App) -> Result<()> {
    match command {
        Command::Push(push) => push.run(app),
        Command::Fetch(fetch) => fetch.run(app),
        Command::Backup(backup) => backup.run(app),
        Command::Restore(restore) => restore.run(app),
        Command::Demo(demo) => demo.run(app),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::cli::Invocation;

    #[test]
    fn the_flags_fit_together() {
        Invocation::command().debug_assert();
    }
}

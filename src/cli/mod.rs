//! Words in, words out; decides nothing.

pub mod archive;
pub mod backup;
pub mod restore;
pub mod demo;
pub mod exit;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::commands::App;
use crate::config::{Overrides, Settings};
use crate::error::Result;

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
    Push(archive::Push),
    Fetch(archive::Fetch),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Demo(demo::Demo),
}

pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let invocation = Invocation::parse_from(words);
    let outcome = Settings::resolve(&invocation.overrides)
        .and_then(|settings| dispatch(invocation.command, &App::new(settings)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walden: {}", error.one_line());
            ExitCode::from(exit::code(error.kind()))
        }
    }
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

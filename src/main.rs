//! Parses, resolves, runs, and turns the outcome into an exit code.

use std::process::ExitCode;

use walden::cli;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}

//! Tells the whole story on this machine: a cluster, a backup, an accident, and the rows again.
//!
//! It shows real command lines: this very binary is what PostgreSQL calls and what takes the
//! backup.

mod stage;
mod story;

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::postgres::installation::Installation;

use stage::Stage;

#[derive(Debug, Default)]
pub struct Request {
    /// Leaves directory and recovered server for the reader to play with.
    pub keep: bool,
    /// PostgreSQL's programs; the newest supported version of this machine if not said.
    pub pg_bin: Option<PathBuf>,
}

/// What is told while it happens.
#[derive(Debug)]
pub enum Scene<'a> {
    /// A step begins.
    Step(&'a str),
    /// A command line, to be tried at home.
    Command(&'a str),
    /// What a program answered, or what the world looks like now.
    Line(&'a str),
}

pub type Tell<'a> = dyn FnMut(Scene<'_>) + 'a;

#[derive(Debug)]
pub struct Report {
    /// Each step and how long it took, in order.
    pub steps: Vec<(&'static str, Duration)>,
    /// How many rows were lost and are there again.
    pub rows: usize,
    pub kept: Option<Kept>,
}

/// Where the recovered cluster can be looked at.
#[derive(Debug)]
pub struct Kept {
    pub directory: PathBuf,
    /// Shell lines.
    pub connect: String,
    pub stop: String,
}

/// Whatever becomes of it, also by Ctrl-C: afterwards no server runs and the directory is gone, but
/// for `keep`.
pub fn run(request: &Request, tell: &mut Tell<'_>) -> Result<Report> {
    let installation = Installation::newest(request.pg_bin.as_deref())?;
    let stage = Stage::set(installation)?;
    story::play(stage, request.keep, tell)
}

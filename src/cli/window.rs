//! `walden window`: flags to a request, the report to text or JSON.

mod text;

use std::io::Write as _;

use crate::commands::App;
use crate::commands::window::{self, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock;
use crate::postgres::{SystemIdentifier, TimelineId};

/// Shows from when until when the cluster can be recovered, and what is missing.
///
/// Reads the repository only. Run on the server's host it also tells how much is not archived yet.
#[derive(Debug, clap::Args)]
pub struct Window {
    /// This timeline only.
    #[arg(long, value_name = "NUMBER", value_parser = timeline)]
    timeline: Option<TimelineId>,
    /// The cluster, where several archive under one name.
    #[arg(long, value_name = "NUMBER")]
    system_identifier: Option<SystemIdentifier>,
}

impl Window {
    pub fn run(self, app: &App) -> Result<()> {
        let Window { timeline, system_identifier } = self;
        let report = window::run(app, Request { system_identifier, timeline })?;
        let text = match app.settings.output.json {
            true => serde_json::to_string_pretty(&report)
                .map(|json| json + "\n")
                .map_err(|error| Error::new(ErrorKind::Bug, "write the report").source(error))?,
            false => text::of(&report, clock::now()),
        };
        // Whoever reads may have closed its end: nothing is lost by that.
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(())
    }
}

fn timeline(text: &str) -> std::result::Result<TimelineId, String> {
    let number = text.parse::<u32>().ok().and_then(|number| TimelineId::new(number).ok());
    number.ok_or_else(|| "write it as a number, from 1 on".to_owned())
}

//! `window`: from when until when a cluster can be recovered, what is missing, and how far behind
//! its server the archive is.

mod report;
mod unarchived;

use std::path::Path;
use std::time::Duration;

use crate::catalog::window::windows;
use crate::commands::survey::{self, Memory, Survey};
use crate::commands::{App, Retries};
use crate::error::{Error, ErrorKind, Result};
use crate::host::data_directory;
use crate::postgres::control_file::ControlFile;
use crate::postgres::{SystemIdentifier, TimelineId};
use crate::repository::{Home, Repository};

pub use report::{GapReport, Report, TimelineReport, UnusableBackup, WindowReport};
pub use unarchived::{State, Unarchived, look as look_at_unarchived};

const RETRY_FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// Where several clusters archive under one name.
    pub system_identifier: Option<SystemIdentifier>,
    /// This one only.
    pub timeline: Option<TimelineId>,
}

pub fn run(app: &App, request: Request) -> Result<Report> {
    let repository = app.repository(Retries::PerCall(RETRY_FOR))?;
    let pgdata = data_directory::find(None, app.settings.pgdata.as_deref());
    let home = find_home(&repository, request.system_identifier, pgdata.as_deref())?;
    let survey = survey::survey(&home, &Memory::open(app, &home)?)?;
    let mut report = look(app, &home, pgdata.as_deref(), &survey);
    if let Some(wanted) = request.timeline {
        let known: Vec<String> =
            report.timelines.iter().map(|it| it.timeline.to_string()).collect();
        report.timelines.retain(|window| window.timeline == wanted);
        if report.timelines.is_empty() {
            let message = format!("nothing of timeline {wanted} is in {}", home.url());
            let hint = format!("Known here: {}.", known.join(", "));
            return Err(Error::new(ErrorKind::Refused, message).hint(hint));
        }
    }
    Ok(report)
}

/// The windows of all timelines, by a survey that was made, and how far behind its server it is.
pub fn look(app: &App, home: &Home, pgdata: Option<&Path>, survey: &Survey) -> Report {
    let Survey { backups, tree, inventory, notes } = survey;
    let unarchived = unarchived::look(home, pgdata, inventory);
    let timelines = windows(backups, tree, inventory);
    let mut report = Report::new(&timelines, inventory.segment_size, unarchived, notes.clone());
    report.cluster = app.settings.cluster.to_string();
    report.repository = home.url();
    report.system_identifier = home.system_identifier();
    report.backups = backups.len();
    report
}

/// On the host of one of several clusters that one is meant, unless said otherwise.
pub fn find_home(
    repository: &Repository,
    wanted: Option<SystemIdentifier>,
    pgdata: Option<&Path>,
) -> Result<Home> {
    let found = survey::find_archive(repository, wanted);
    let Err(error) = found else { return found };
    let here = pgdata.and_then(|pgdata| ControlFile::read(pgdata).ok());
    match here.filter(|_| wanted.is_none()) {
        Some(file) if error.kind() == ErrorKind::Refused => {
            survey::find_archive(repository, Some(file.system_identifier)).map_err(|_| error)
        }
        _ => Err(error),
    }
}

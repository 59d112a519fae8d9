//! How we get at the server: by its files here, or by its replication protocol.

use crate::commands::backup::copy::Target;
use crate::commands::backup::local::{self, LocalServer};
use crate::commands::backup::source::Source;
use crate::commands::backup::{Copied, Request, Wanted, finish, stream};
use crate::commands::progress::Progress;
use crate::config::BackupMode;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::postgres::TimelineId;
use crate::postgres::connection::Connection;
use crate::repository::manifest::Mode;

#[derive(Debug)]
pub enum Session {
    Local(LocalServer),
    Stream(Connection),
}

impl Session {
    /// In the mode that is asked for; where it may be either, by files if they are here.
    pub fn open(request: &Request) -> Result<(Session, Source)> {
        if request.mode == BackupMode::Stream {
            return stream_of(request);
        }
        let why = match look_for_files(request) {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(why)) => why,
            Err(error) if request.mode == BackupMode::Local => return Err(error),
            Err(error) => error.to_string(),
        };
        if request.mode == BackupMode::Local {
            return Err(Error::new(ErrorKind::Refused, format!("no backup by files: {why}")).hint(
                "Run walden on the server's host, as the user that PostgreSQL runs as; or take the \
                 backup by --mode stream.",
            ));
        }
        tracing::info!("by the replication protocol (--mode stream): {why}");
        stream_of(request)
    }

    pub fn mode(&self) -> Mode {
        match self {
            Session::Local(_) => Mode::Local,
            Session::Stream(_) => Mode::Stream,
        }
    }

    pub fn connection(&mut self) -> &mut Connection {
        match self {
            Session::Local(server) => &mut server.connection,
            Session::Stream(connection) => connection,
        }
    }

    /// Everything from the first word to the server until its last.
    pub fn copy(
        &mut self,
        source: &Source,
        target: &Target<'_>,
        wanted: Wanted<'_>,
        progress: &Progress,
    ) -> Result<Copied> {
        match self {
            Session::Local(server) => {
                let _cancel = server.connection.cancel_when_told()?;
                local::copy(server, source, target, wanted, progress)
            }
            Session::Stream(connection) => {
                stream::copy(connection, source, target, wanted, progress)
            }
        }
    }

    /// The history of the timeline, where the server has it.
    pub fn history(&mut self, timeline: TimelineId) -> Option<String> {
        match self {
            Session::Local(server) => server.history(timeline),
            Session::Stream(connection) => finish::ask_for_history(connection, timeline),
        }
    }
}

fn stream_of(request: &Request) -> Result<(Session, Source)> {
    let options = request.connection.clone().replication(true);
    let mut connection = Connection::connect(&options)?;
    let source = Source::of_replication(&mut connection)?;
    Ok((Session::Stream(connection), source))
}

/// `Err` in the inner result: why the files cannot be used.
fn look_for_files(request: &Request) -> Result<std::result::Result<(Session, Source), String>> {
    let mut connection = Connection::connect(&request.connection.clone().sql())
        .context(|| "connect to a database")?;
    let source = Source::of_sql(&mut connection)?;
    let place = request.pgdata.as_deref();
    let found = LocalServer::find(connection, &source, place, request.mode)?;
    Ok(found.map(|server| {
        tracing::info!("by the files in {} (--mode local)", server.pgdata.display());
        (Session::Local(server), source)
    }))
}

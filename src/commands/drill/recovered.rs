//! The recovered server, as those see it who ask it questions.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::postgres::MajorVersion;
use crate::postgres::connection::{Connection, ConnectionOptions};
use crate::postgres::installation::Installation;
use crate::postgres::server::Launch;

const SESSION: [&str; 8] = [
    "session_preload_libraries=",
    "local_preload_libraries=",
    "role=none",
    "statement_timeout=0",
    "lock_timeout=0",
    "idle_in_transaction_session_timeout=0",
    "default_transaction_read_only=off",
    "client_min_messages=warning",
];

/// It accepts writes, on a socket that is ours alone; what is done to it is thrown away.
#[derive(Debug)]
pub struct Recovered {
    launch: Launch,
    superuser: String,
    deadline: Deadline,
}

impl Recovered {
    /// The first of these names that the server knows as a superuser's is the one that is used.
    pub fn find_superuser(
        launch: Launch,
        candidates: &[String],
        deadline: Deadline,
    ) -> Result<Recovered> {
        let mut failure = None;
        for name in candidates {
            let recovered = Recovered { launch: launch.clone(), superuser: name.clone(), deadline };
            match recovered.connect("postgres").or_else(|_| recovered.connect("template1")) {
                Ok(connection) if connection.parameter("is_superuser") == Some("on") => {
                    return Ok(recovered);
                }
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        let error = Error::new(
            ErrorKind::CouldNotCheck,
            format!("no superuser of the cluster could log in (tried: {})", candidates.join(", ")),
        )
        .hint("Look at the roles of the cluster: one superuser must be able to log in.");
        Err(match failure {
            Some(cause) => error.source(cause),
            None => error,
        })
    }

    /// Socket directory, port, log, and how it was started.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    pub fn installation(&self) -> &Installation {
        &self.launch.installation
    }

    pub fn pgdata(&self) -> &Path {
        &self.launch.pgdata
    }

    pub fn superuser(&self) -> &str {
        &self.superuser
    }

    /// As the superuser, whatever the cluster's own pg_hba.conf says.
    pub fn connect(&self, database: &str) -> Result<Connection> {
        Connection::connect(&self.options(database))
    }

    /// How to connect; an answer may take as long as the drill may.
    pub fn options(&self, database: &str) -> ConnectionOptions {
        let (socket, port) = (&self.launch.socket_directory, self.launch.port);
        ConnectionOptions::local(socket, port, &self.superuser)
            .dbname(database)
            .application_name("walden drill")
            .server_options(self.session_options())
            .read_timeout(Some(self.deadline.remaining().max(Duration::from_secs(1))))
    }

    /// For PGOPTIONS: what the cluster has set for its roles and databases steers no session of
    /// ours, and brings no library into it.
    pub fn session_options(&self) -> String {
        let mut options = SESSION.iter().map(|set| format!("-c {set}")).collect::<Vec<_>>();
        if self.launch.installation.major >= MajorVersion(17) {
            options.push("-c event_triggers=off".to_owned());
        }
        options.join(" ")
    }

    /// Those that take connections and are no templates, by name.
    pub fn databases(&self) -> Result<Vec<String>> {
        let rows = self.connect("template1")?.query(
            "select datname from pg_catalog.pg_database \
             where datallowconn and not datistemplate and datconnlimit <> -2 order by datname",
        )?;
        Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    /// All the server has said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.launch.log).unwrap_or_default()).into_owned()
    }

    /// When the whole drill must have ended.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }
}

//! A connection to a PostgreSQL server: libpq's parameters in, rows of text out. Blocks.

pub mod options;
mod open;
mod keywords;
mod conninfo;
mod service_file;
mod pass_file;
mod account;
mod socket;
pub mod cancel;
mod tls;
mod auth;
mod wire;
mod copy;
mod server_message;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;

use crate::error::{Error, ErrorKind, Result};
use crate::host::termination;
use cancel::CancelRequest;
use wire::Wire;

pub(in crate::postgres) use wire::{Incoming, nonsense};

pub use copy::CopyIn;
pub use options::ConnectionOptions;
pub use server_message::{ServerMessage, sqlstate};
pub use socket::Canceller;

/// The rows of one result set, each value as text; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// One session. Dropping it ends the session.
pub struct Connection {
    wire: Wire,
    parameters: BTreeMap<String, String>,
    place: String,
    /// `None` where the server gave no key for it.
    cancel_request: Option<CancelRequest>,
}

impl Connection {
    /// To the first of the servers named that answers.
    pub fn connect(options: &ConnectionOptions) -> Result<Connection> {
        let mut failure = None;
        for endpoint in &options.endpoints {
            match open::connect_to(endpoint, options) {
                Ok(connection) => return Ok(connection),
                // One that is not there, or not yet, is passed over; one that says no has spoken.
                Err(error) if matches!(sqlstate(&error), None | Some("57P03")) => {
                    failure.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Usage, "no server is named")))
    }

    /// Runs one or more statements; the rows of the last.
    pub fn query(&mut self, sql: &str) -> Result<Rows> {
        let (mut last, mut rows) = (Rows::new(), Rows::new());
        self.run(sql, &mut |came| match came {
            Some(row) => rows.push(row),
            None => last = std::mem::take(&mut rows),
        })?;
        Ok(last)
    }

    /// Runs one or more statements and hands over each row as it comes: for those that are many.
    pub fn each_row(&mut self, sql: &str, each: &mut dyn FnMut(Vec<Option<String>>)) -> Result<()> {
        self.run(sql, &mut |came| came.into_iter().for_each(&mut *each))
    }

    /// `came` is told of each row, and of the end of each statement.
    fn run(&mut self, sql: &str, came: &mut dyn FnMut(Option<Vec<Option<String>>>)) -> Result<()> {
        self.start(sql)?;
        let mut failure = None;
        loop {
            match self.receive()? {
                Incoming::CopyData(_) => {}
                Incoming::Other(Message::DataRow(row)) => came(Some(values(&row)?)),
                Incoming::Other(Message::CommandComplete(_) | Message::EmptyQueryResponse) => {
                    came(None);
                }
                Incoming::Other(Message::ErrorResponse(body)) => {
                    failure = Some(ServerMessage::parse(body.fields()).into_error());
                }
                Incoming::Other(Message::CopyInResponse(_)) => self.refuse_copy()?,
                Incoming::Other(Message::ReadyForQuery(_)) => break,
                Incoming::Other(_) => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// The first value of the first row, where there is one and it is not NULL.
    pub fn value(&mut self, sql: &str) -> Result<Option<String>> {
        let first_row = self.query(sql)?.into_iter().next();
        Ok(first_row.and_then(|row| row.into_iter().next()).flatten())
    }

    /// What the server says of itself unasked: `server_version`, `in_hot_standby`, `TimeZone` ...
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// As `server_version_num`, for example 170011; also where no SQL can be asked.
    pub fn server_version_num(&self) -> Result<u32> {
        let text = self.parameter("server_version").unwrap_or_default();
        version_num(text).ok_or_else(|| {
            Error::new(ErrorKind::Server, format!("{text:?} is not a version of PostgreSQL"))
                .hint("walden speaks to PostgreSQL 15 and later.")
        })
    }

    /// Where the server is, as a person would write it: `db1:5432`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Over a Unix socket: the server's files are this host's.
    pub fn is_on_this_host(&self) -> bool {
        self.wire.is_unix()
    }

    /// Lets another thread end this connection.
    pub fn canceller(&self) -> Result<Canceller> {
        self.wire.canceller()
    }

    /// How long the server may be silent in the middle of an answer; `None`: as long as its machine
    /// answers.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.wire.set_timeout(timeout)
    }

    /// Sends a command whose answer the caller will read by `receive`.
    pub(in crate::postgres) fn start(&mut self, sql: &str) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message)
            .map_err(|error| Error::new(ErrorKind::Usage, "send a query").source(error))?;
        self.wire.send(&message)
    }

    /// The next message, without those that may come at any time.
    pub(in crate::postgres) fn receive(&mut self) -> Result<Incoming<'_>> {
        self.pass_over_asides()?;
        self.wire.receive()
    }

    /// Whether copy data comes next that is only a report of progress (`BASE_BACKUP` with
    /// PROGRESS).
    pub(in crate::postgres) fn next_is_progress(&mut self) -> Result<bool> {
        self.pass_over_asides()?;
        self.wire.next_is_copy_data_of(b'p')
    }

    /// Data for a COPY that the server has agreed to take.
    pub(in crate::postgres) fn send_copy_data(&mut self, bytes: &[u8]) -> Result<()> {
        let mut message = BytesMut::new();
        let data = frontend::CopyData::new(bytes).map_err(nonsense)?;
        data.write(&mut message);
        self.wire.send(&message)
    }

    pub(in crate::postgres) fn end_copy(&mut self) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        self.wire.send(&message)
    }

    fn pass_over_asides(&mut self) -> Result<()> {
        while matches!(self.wire.peek_tag()?, b'N' | b'S' | b'A') {
            if let Incoming::Other(message) = self.wire.receive()? {
                note(&mut self.parameters, &message);
            }
        }
        Ok(())
    }

    /// A COPY FROM STDIN gets no data from us: the server ends it with an error.
    fn refuse_copy(&mut self) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::copy_fail("walden sends no data", &mut message).map_err(nonsense)?;
        self.wire.send(&message)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut message = BytesMut::new();
        frontend::terminate(&mut message);
        // A courtesy: it spares the server a line in its log.
        let _ = self.wire.send(&message);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("place", &self.place).finish_non_exhaustive()
    }
}

fn note(parameters: &mut BTreeMap<String, String>, message: &Message) {
    match message {
        Message::ParameterStatus(status) => {
            if let (Ok(name), Ok(value)) = (status.name(), status.value()) {
                parameters.insert(name.to_owned(), value.to_owned());
            }
        }
        Message::NoticeResponse(body) => {
            let notice = ServerMessage::parse(body.fields());
            match notice.severity.as_str() {
                // Who is about to leave has asked for what it warns of.
                "WARNING" if !termination::is_leaving() => {
                    tracing::warn!("PostgreSQL says: {notice}");
                }
                _ => tracing::debug!("PostgreSQL says: {notice}"),
            }
        }
        _ => {}
    }
}

pub(in crate::postgres) fn values(row: &DataRowBody) -> Result<Vec<Option<String>>> {
    let text =
        |range: std::ops::Range<usize>| String::from_utf8_lossy(&row.buffer()[range]).into_owned();
    row.ranges().map(|range| Ok(range.map(text))).collect().map_err(nonsense)
}

/// `17.11 (Debian 17.11-1)` is 170011; `19beta1` and `19devel` are 190000.
fn version_num(text: &str) -> Option<u32> {
    let number = |text: &str| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        text[..digits].parse::<u32>().ok()
    };
    let major = number(text).filter(|major| (10..1000).contains(major))?;
    let minor = text.split_once('.').and_then(|(_, rest)| number(rest)).unwrap_or(0);
    Some(major * 10_000 + minor)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::{Connection, ConnectionOptions, version_num};
    use crate::error::ErrorKind;

    #[test]
    fn versions_are_read_with_whatever_follows() {
        assert_eq!(version_num("17.11 (Debian 17.11-1.pgdg12+1)"), Some(170_011));
        assert_eq!(version_num("15.18"), Some(150_018));
        assert_eq!(version_num("19beta1"), Some(190_000));
        assert_eq!(version_num("9.6.3"), None);
        assert_eq!(version_num(""), None);
    }

    fn to(listener: &TcpListener, sslmode: &str) -> ConnectionOptions {
        let port = listener.local_addr().unwrap().port();
        let conninfo = format!("host=127.0.0.1 port={port} user=w sslmode={sslmode}");
        let options = ConnectionOptions::from_conninfo(&conninfo).unwrap();
        options.connect_timeout(Duration::from_millis(300))
    }

    #[test]
    fn a_server_that_never_answers_is_given_up() {
        // The kernel accepts; nobody reads.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for sslmode in ["disable", "require"] {
            let began = Instant::now();
            let error = Connection::connect(&to(&listener, sslmode)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Server);
            assert!(error.to_string().contains("silent"), "{error}");
            assert!(began.elapsed() < Duration::from_secs(20));
        }
    }

    #[test]
    fn what_is_no_postgresql_is_said_to_be_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = to(&listener, "disable");
        let web_server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let error = Connection::connect(&options).unwrap_err();
        web_server.join().unwrap();
        assert!(error.to_string().contains("does not speak"), "{error}");
    }
}

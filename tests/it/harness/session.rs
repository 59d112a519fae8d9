//! SQL over the socket by a client of the tests' own: a witness that owes nothing to the code under
//! test.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::{backend, frontend};

/// Rows of columns, as text; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// One connection of the superuser, let in without a password.
pub struct Session {
    stream: UnixStream,
    received: BytesMut,
}

impl Session {
    /// Each answer is waited for a minute.
    pub fn open(socket_directory: &Path, port: u16, database: &str) -> Result<Session, String> {
        let socket = socket_directory.join(format!(".s.PGSQL.{port}"));
        let stream = UnixStream::connect(&socket)
            .map_err(|error| format!("connect to {}: {error}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(|e| e.to_string())?;
        let mut session = Session { stream, received: BytesMut::new() };
        let mut hello = BytesMut::new();
        let words = [("user", "postgres"), ("database", database), ("client_encoding", "UTF8")];
        frontend::startup_message(words, &mut hello).map_err(|error| error.to_string())?;
        session.send(&hello)?;
        session.answer()?;
        Ok(session)
    }

    /// One or more statements; the rows of all of them, or the server's words.
    pub fn query(&mut self, sql: &str) -> Result<Rows, String> {
        let mut question = BytesMut::new();
        frontend::query(sql, &mut question).map_err(|error| error.to_string())?;
        self.send(&question)?;
        self.answer()
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| format!("send to the server: {error}"))
    }

    fn answer(&mut self) -> Result<Rows, String> {
        let mut rows = Rows::new();
        let mut complaint = None;
        loop {
            match self.message()? {
                backend::Message::DataRow(row) => rows.push(columns(&row)?),
                backend::Message::ErrorResponse(fields) => {
                    complaint = Some(words(&fields)?);
                    // FATAL: no ReadyForQuery follows, the server hangs up.
                    if complaint.as_ref().is_some_and(|words| words.starts_with("FATAL")) {
                        break;
                    }
                }
                backend::Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        complaint.map_or(Ok(rows), Err)
    }

    fn message(&mut self) -> Result<backend::Message, String> {
        loop {
            let parsed = backend::Message::parse(&mut self.received);
            if let Some(message) = parsed.map_err(|error| error.to_string())? {
                return Ok(message);
            }
            let mut piece = [0_u8; 16 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err("the server hung up".to_owned()),
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(error) => return Err(format!("wait for the server's answer: {error}")),
            }
        }
    }
}

fn columns(row: &backend::DataRowBody) -> Result<Vec<Option<String>>, String> {
    let bytes = row.buffer();
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&bytes[range]).into_owned();
    let columns = row.ranges().map(|range| Ok(range.map(text))).collect();
    columns.map_err(|error| error.to_string())
}

fn words(fields: &backend::ErrorResponseBody) -> Result<String, String> {
    let mut severity = String::new();
    let mut message = String::new();
    let mut fields = fields.fields();
    while let Some(field) = fields.next().map_err(|error| error.to_string())? {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'V' => severity = value,
            b'M' => message = value,
            _ => {}
        }
    }
    Ok(format!("{severity}: {message}"))
}

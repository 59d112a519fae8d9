//! `COPY … TO STDOUT` and `COPY … FROM STDIN`: the rows of a table as one stream of bytes.

use postgres_protocol::message::backend::Message;

use crate::error::Result;
use crate::postgres::connection::{Connection, Incoming, ServerMessage, nonsense};

/// A row is a message to the server that sends it; here a message is as many rows as fit.
const MESSAGE_BYTES: usize = 128 << 10;
const HEADER_BYTES: usize = 5;

/// The server takes data for a table. Dropped before its end, none of it counts.
#[derive(Debug)]
pub struct CopyIn<'c> {
    connection: &'c mut Connection,
    /// The message that is being filled, from its first byte on.
    message: Vec<u8>,
    is_over: bool,
}

impl Connection {
    /// Hands over the data piece by piece, of whatever length a row is; how many rows it was.
    ///
    /// What `take` refuses ends it, and with it this connection's use.
    pub fn copy_out(
        &mut self,
        sql: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<u64> {
        self.start(sql)?;
        let (mut rows, mut failure, mut has_begun) = (None, None, false);
        loop {
            match self.receive_in_pieces()? {
                Incoming::CopyData(bytes) => take(bytes)?,
                Incoming::Other(Message::CopyOutResponse(_)) => has_begun = true,
                Incoming::Other(Message::CommandComplete(body)) => rows = copied(body.tag()),
                Incoming::Other(Message::ErrorResponse(body)) => {
                    failure = Some(ServerMessage::parse(body.fields()).into_error());
                }
                Incoming::Other(Message::CopyInResponse(_)) => self.refuse_copy()?,
                Incoming::Other(Message::ReadyForQuery(_)) => break,
                Incoming::Other(_) => {}
            }
        }
        match (failure, rows) {
            (Some(failure), _) => Err(failure),
            (None, Some(rows)) if has_begun => Ok(rows),
            (None, _) => Err(no_copy()),
        }
    }

    pub fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>> {
        self.start(sql)?;
        let mut failure = None;
        loop {
            match self.receive()? {
                Incoming::Other(Message::CopyInResponse(_)) => break,
                Incoming::Other(Message::ErrorResponse(body)) => {
                    failure = Some(ServerMessage::parse(body.fields()).into_error());
                }
                Incoming::Other(Message::ReadyForQuery(_)) => {
                    return Err(failure.unwrap_or_else(no_copy));
                }
                Incoming::Other(_) | Incoming::CopyData(_) => {}
            }
        }
        Ok(CopyIn { connection: self, message: empty(), is_over: false })
    }

    fn receive_in_pieces(&mut self) -> Result<Incoming<'_>> {
        if !self.wire.is_within_copy_data() {
            self.pass_over_asides()?;
        }
        self.wire.receive_in_pieces()
    }
}

impl CopyIn<'_> {
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = (HEADER_BYTES + MESSAGE_BYTES).saturating_sub(self.message.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.message.extend_from_slice(now);
            if !later.is_empty() {
                self.flush()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// How many rows the table has got.
    pub fn finish(mut self) -> Result<u64> {
        self.flush()?;
        self.connection.end_copy()?;
        self.is_over = true;
        let (mut rows, mut failure) = (None, None);
        loop {
            match self.connection.receive()? {
                Incoming::Other(Message::CommandComplete(body)) => rows = copied(body.tag()),
                Incoming::Other(Message::ErrorResponse(body)) => {
                    failure = Some(ServerMessage::parse(body.fields()).into_error());
                }
                Incoming::Other(Message::ReadyForQuery(_)) => break,
                Incoming::Other(_) | Incoming::CopyData(_) => {}
            }
        }
        match (failure, rows) {
            (Some(failure), _) => Err(failure),
            (None, rows) => rows.ok_or_else(no_copy),
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.message.len() == HEADER_BYTES {
            return Ok(());
        }
        // The length counts itself and not the kind.
        let length = (self.message.len() - 1) as u32;
        self.message[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        self.connection.wire.send(&self.message)?;
        self.message.truncate(HEADER_BYTES);
        Ok(())
    }
}

/// The server undoes what has come so far, and the connection is of use again.
impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        if self.is_over || self.connection.refuse_copy().is_err() {
            return;
        }
        while let Ok(incoming) = self.connection.receive() {
            if matches!(incoming, Incoming::Other(Message::ReadyForQuery(_))) {
                break;
            }
        }
    }
}

fn empty() -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_BYTES + MESSAGE_BYTES);
    message.extend_from_slice(b"d\0\0\0\0");
    message
}

/// `COPY 5` is 5.
fn copied(tag: std::io::Result<&str>) -> Option<u64> {
    tag.ok()?.strip_prefix("COPY ")?.parse().ok()
}

fn no_copy() -> crate::error::Error {
    nonsense(std::io::Error::other("no data where a COPY was asked for"))
}

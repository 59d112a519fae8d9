//! Messages over a socket: whole ones in, whole ones out.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::backend::{COPY_DATA_TAG, Header, Message};

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::socket::{Canceller, Socket};

const BUFFER_BYTES: usize = 256 << 10;
/// The server sends copy data in pieces of some 32 KiB, and no row we ask for comes near this.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

pub enum Incoming<'a> {
    /// Straight from the buffer: it is most of what ever comes.
    CopyData(&'a [u8]),
    Other(Message),
}

pub struct Wire {
    socket: Socket,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Of a message of copy data that is handed over in pieces.
    copy_data_left: usize,
    timeout: Option<Duration>,
}

impl Wire {
    pub fn new(socket: Socket) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Wire { socket, buffer, start: 0, end: 0, copy_data_left: 0, timeout: None }
    }

    pub fn canceller(&self) -> Result<Canceller> {
        self.socket.canceller().map_err(|error| {
            Error::new(ErrorKind::Host, "clone the socket of a connection").source(error)
        })
    }

    pub fn is_unix(&self) -> bool {
        matches!(self.socket, Socket::Unix(_))
    }

    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.timeout = timeout;
        self.socket.set_timeout(timeout).map_err(|error| {
            Error::new(ErrorKind::Host, "set a time-out on a socket").source(error)
        })
    }

    pub fn send(&mut self, message: &[u8]) -> Result<()> {
        self.socket
            .write_all(message)
            .and_then(|()| self.socket.flush())
            .map_err(|error| self.broken(error))
    }

    /// The kind of the next message, once it has begun to come.
    pub fn peek_tag(&mut self) -> Result<u8> {
        self.fill(5)?;
        Ok(self.buffer[self.start])
    }

    /// Whether the next message is copy data that begins with `kind`.
    pub fn next_is_copy_data_of(&mut self, kind: u8) -> Result<bool> {
        if self.peek_tag()? != COPY_DATA_TAG {
            return Ok(false);
        }
        self.fill(6)?;
        Ok(self.buffer[self.start + 5] == kind)
    }

    pub fn receive(&mut self) -> Result<Incoming<'_>> {
        self.fill(5)?;
        let header = Header::parse(&self.buffer[self.start..self.end]).ok().flatten();
        let (tag, length) = match header {
            Some(header) if (header.len() as usize) < MESSAGE_BYTES_MAX => {
                (header.tag(), header.len() as usize + 1)
            }
            _ => return Err(nonsense(io::Error::other("a message of impossible length"))),
        };
        self.fill(length)?;
        let message = &self.buffer[self.start..self.start + length];
        self.start += length;
        if tag == COPY_DATA_TAG {
            return Ok(Incoming::CopyData(&message[5..]));
        }
        match Message::parse(&mut BytesMut::from(message)) {
            Ok(Some(message)) => Ok(Incoming::Other(message)),
            Ok(None) => Err(nonsense(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(nonsense(error)),
        }
    }

    /// Whether `receive_in_pieces` has not yet handed over all of a message.
    pub fn is_within_copy_data(&self) -> bool {
        self.copy_data_left > 0
    }

    /// As `receive`, but copy data as far as it has come: a row may be as long as 1 GiB.
    pub fn receive_in_pieces(&mut self) -> Result<Incoming<'_>> {
        if self.copy_data_left == 0 {
            if self.peek_tag()? != COPY_DATA_TAG {
                return self.receive();
            }
            let length = &self.buffer[self.start + 1..self.start + 5];
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
            self.copy_data_left = length
                .checked_sub(4)
                .ok_or_else(|| nonsense(io::Error::other("a message of impossible length")))?;
            self.start += 5;
        }
        if self.copy_data_left > 0 {
            self.fill(1)?;
        }
        let bytes = self.copy_data_left.min(self.end - self.start);
        let piece = self.start..self.start + bytes;
        self.start += bytes;
        self.copy_data_left -= bytes;
        Ok(Incoming::CopyData(&self.buffer[piece]))
    }

    /// Reads until `length` bytes stand in the buffer.
    fn fill(&mut self, length: usize) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start + length > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if length > self.buffer.len() {
                self.buffer.resize(length, 0);
            }
        }
        while self.end - self.start < length {
            match self.socket.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => self.end += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    fn broken(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => silent(self.timeout),
            io::ErrorKind::UnexpectedEof => {
                Error::new(ErrorKind::Server, "PostgreSQL closed the connection")
                    .hint("The server's log says why.")
            }
            _ => Error::new(ErrorKind::Server, "the connection to PostgreSQL broke")
                .source(error)
                .hint("The server's log may say why."),
        }
    }
}

/// Nothing came for so long.
pub fn silent(timeout: Option<Duration>) -> Error {
    let seconds = timeout.unwrap_or_default().as_secs_f32();
    Error::new(ErrorKind::Server, format!("PostgreSQL was silent for {seconds:.1} s"))
        .hint("Is the server overloaded or stopped, or the network cut?")
}

pub fn nonsense(error: io::Error) -> Error {
    Error::new(ErrorKind::Server, "the server does not speak PostgreSQL's protocol")
        .source(error)
        .hint("Do PGHOST and PGPORT name a PostgreSQL server, and no pooler or proxy?")
}

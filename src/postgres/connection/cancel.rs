//! Asking a server to stop what it does for a connection that waits for it.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::host::termination::{self, Errand};
use crate::postgres::connection::options::{Endpoint, Host};
use crate::postgres::connection::socket::Socket;
use crate::postgres::connection::{Connection, ConnectionOptions, open};

/// Whoever asks wants to leave.
const PATIENCE: Duration = Duration::from_secs(2);

/// Goes to the server over a connection of its own, secured as the first one is. A server in the
/// middle of a checkpoint hears it at once, while it would notice a closed socket only afterwards.
#[derive(Debug, Clone)]
pub struct CancelRequest {
    pub(super) endpoint: Endpoint,
    pub(super) options: ConnectionOptions,
    pub(super) is_secured: bool,
    pub(super) process_id: i32,
    pub(super) secret_key: i32,
}

impl CancelRequest {
    /// Returns once the server has passed it on; whether anything was there to stop, it never says.
    pub fn send(&self) -> Result<()> {
        self.try_send().context(|| format!("ask PostgreSQL at {} to stop", self.endpoint))
    }

    fn try_send(&self) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        let mut socket = Socket::connect(&self.endpoint, &deadline)?;
        socket.set_timeout(Some(deadline.remaining())).map_err(broken)?;
        if self.is_secured {
            socket = open::secured(socket, &self.endpoint, &self.options)?;
        }
        let mut message = BytesMut::new();
        frontend::cancel_request(self.process_id, self.secret_key, &mut message);
        socket.write_all(&message).and_then(|()| socket.flush()).map_err(broken)?;
        // The server says nothing and hangs up when it has passed it on.
        let _ = socket.read(&mut [0]);
        Ok(())
    }
}

impl Connection {
    /// Until what is returned is dropped, being told to stop ends what the server does for this
    /// connection, and the session itself, before this process ends.
    pub fn cancel_when_told(&self) -> Result<Errand> {
        let canceller = self.canceller()?;
        let request = self.cancel_request.clone();
        Ok(termination::before_leaving(move || {
            if let Some(Err(error)) = request.as_ref().map(CancelRequest::send) {
                tracing::info!("{error}");
            }
            canceller.cancel();
        }))
    }
}

/// With the very address that was connected to: a name may have several.
pub(super) fn endpoint_of(endpoint: &Endpoint, socket: &Socket) -> Endpoint {
    let host = match (&endpoint.host, socket.peer()) {
        (Host::Name(name, _), Some(address)) => Host::Name(name.clone(), Some(address)),
        (host, _) => host.clone(),
    };
    Endpoint { host, port: endpoint.port }
}

fn broken(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Server, "the connection to PostgreSQL broke")
        .source(error)
        .hint("The server ends the session when it notices that this one is closed.")
}

//! From options to an open session: with TLS or without, as `sslmode` says, and past the password.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};

use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::postgres::connection::auth::{self, Credentials, Way};
use crate::postgres::connection::cancel::CancelRequest;
use crate::postgres::connection::options::{Endpoint, Host, SslMode};
use crate::postgres::connection::socket::Socket;
use crate::postgres::connection::wire::{self, Incoming, Wire, nonsense};
use crate::postgres::connection::{
    Connection, ConnectionOptions, ServerMessage, cancel, sqlstate, tls,
};

pub fn connect_to(endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Connection> {
    let attempts: &[Attempt] = match (&endpoint.host, options.tls.mode) {
        (Host::Socket(_), _) | (_, SslMode::Disable) => &[Attempt::Plain],
        (_, SslMode::Allow) => &[Attempt::Plain, Attempt::TryTls],
        (_, SslMode::Prefer) => &[Attempt::TryTls, Attempt::Plain],
        (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => &[Attempt::Tls],
    };
    let deadline = Deadline::after(options.connect_timeout);
    let mut outcome = attempt(endpoint, options, attempts[0], &deadline);
    for next in &attempts[1..] {
        outcome = match outcome {
            Err((error, Retry::OtherWay)) => {
                attempt(endpoint, options, *next, &deadline).map_err(|_| (error, Retry::No))
            }
            outcome => outcome,
        };
    }
    outcome
        .map_err(|(error, _)| error)
        .context(|| format!("connect to PostgreSQL at {endpoint} as {}", options.user))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Plain,
    /// Falls back to plain where the server has no TLS.
    TryTls,
    Tls,
}

/// Whether the other way, with TLS or without, may be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    OtherWay,
    No,
}

fn attempt(
    endpoint: &Endpoint,
    options: &ConnectionOptions,
    attempt: Attempt,
    deadline: &Deadline,
) -> std::result::Result<Connection, (Error, Retry)> {
    let no = |error| (error, Retry::No);
    let socket = Socket::connect(endpoint, deadline).map_err(no)?;
    let set_timeout = |socket: &Socket| {
        socket.set_timeout(Some(deadline.remaining())).map_err(|error| {
            no(Error::new(ErrorKind::Host, "set a time-out on a socket").source(error))
        })
    };
    set_timeout(&socket)?;
    let (socket, way) = match attempt {
        Attempt::Plain => (socket, Way::Plain),
        Attempt::TryTls | Attempt::Tls => {
            secure(socket, endpoint, options, attempt).map_err(|error| (error, Retry::OtherWay))?
        }
    };
    let reached = cancel::endpoint_of(endpoint, &socket);
    let is_secured = matches!(socket, Socket::Tls(_));
    let mut wire = Wire::new(socket);
    wire.set_timeout(Some(deadline.remaining())).map_err(no)?;
    let password = options.password_for(endpoint);
    let credentials = Credentials { options, password, way };
    let opened = start_session(wire, &credentials, endpoint);
    let (mut connection, key) = opened.map_err(|error| match sqlstate(&error) {
        // No line of pg_hba.conf lets us in this way.
        Some("28000") => (error, Retry::OtherWay),
        _ => (error, Retry::No),
    })?;
    connection.cancel_request = key.map(|(process_id, secret_key)| CancelRequest {
        endpoint: reached,
        options: options.clone(),
        is_secured,
        process_id,
        secret_key,
    });
    Ok(connection)
}

/// With TLS over it, or not at all.
pub(super) fn secured(
    socket: Socket,
    endpoint: &Endpoint,
    options: &ConnectionOptions,
) -> Result<Socket> {
    secure(socket, endpoint, options, Attempt::Tls).map(|(socket, _)| socket)
}

/// Asks for TLS. The answer is one byte, and nothing may follow it in the clear.
fn secure(
    mut socket: Socket,
    endpoint: &Endpoint,
    options: &ConnectionOptions,
    attempt: Attempt,
) -> Result<(Socket, Way)> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    let mut answer = [0];
    socket
        .write_all(&request)
        .and_then(|()| socket.read_exact(&mut answer))
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                wire::silent(Some(options.connect_timeout))
            }
            _ => nonsense(error),
        })
        .context(|| "ask for TLS")?;
    match (&answer, socket, &endpoint.host) {
        (b"S", Socket::Tcp(tcp), Host::Name(name, _)) => {
            let stream = tls::handshake(tcp, name, &options.tls)?;
            let binding = tls::server_end_point(&stream);
            Ok((Socket::Tls(Box::new(stream)), Way::Tls(binding)))
        }
        (b"N", socket, _) if attempt == Attempt::TryTls => Ok((socket, Way::Plain)),
        (b"N", ..) => Err(Error::new(ErrorKind::Server, "the server has no TLS")
            .hint("Set ssl = on at the server, or take a PGSSLMODE that does without.")),
        _ => Err(nonsense(io::Error::other("a strange answer to the request for TLS"))),
    }
}

/// The server process of a session and its secret, by which it may be told to stop.
type Key = (i32, i32);

fn start_session(
    mut wire: Wire,
    credentials: &Credentials<'_>,
    endpoint: &Endpoint,
) -> Result<(Connection, Option<Key>)> {
    let options = credentials.options;
    let mut parameters = vec![
        ("user", options.user.as_str()),
        ("client_encoding", "UTF8"),
        ("application_name", &options.application_name),
    ];
    if options.replication {
        parameters.push(("replication", "true"));
    } else {
        parameters.push(("database", options.dbname.as_deref().unwrap_or(&options.user)));
        parameters.extend([("DateStyle", "ISO"), ("TimeZone", "UTC")]);
    }
    parameters.extend(options.options.as_deref().map(|options| ("options", options)));
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message).map_err(|error| {
        Error::new(ErrorKind::Usage, "a connection parameter cannot be sent").source(error)
    })?;
    wire.send(&message)?;
    auth::authenticate(&mut wire, credentials)?;
    let place = endpoint.to_string();
    let parameters = BTreeMap::new();
    let mut connection = Connection { wire, parameters, place, cancel_request: None };
    let mut key = None;
    loop {
        match connection.receive()? {
            Incoming::Other(Message::ReadyForQuery(_)) => break,
            Incoming::Other(Message::ErrorResponse(body)) => {
                return Err(ServerMessage::parse(body.fields()).into_error());
            }
            Incoming::Other(Message::BackendKeyData(body)) => {
                key = Some((body.process_id(), body.secret_key()));
            }
            _ => {}
        }
    }
    connection.set_read_timeout(options.read_timeout)?;
    Ok((connection, key))
}

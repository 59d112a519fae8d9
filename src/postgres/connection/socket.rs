//! The socket under a connection: Unix or TCP, with TLS or without.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt;
use rustls::{ClientConnection, StreamOwned};

use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::postgres::connection::options::{Endpoint, Host, socket_path};

/// A dead machine is noticed after idle + count * interval, when a large answer takes hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 6;
/// What we sent and nobody confirmed, in milliseconds.
const UNCONFIRMED_MS: u32 = 90_000;

pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Ends a connection from another thread: whoever waits for the server gets an error at once.
#[derive(Debug)]
pub struct Canceller(Plain);

#[derive(Debug)]
enum Plain {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Canceller {
    /// The server sees a closed connection, and ends what it was doing for us.
    pub fn cancel(&self) {
        // A socket that is closed already is what was wanted.
        let _ = match &self.0 {
            Plain::Unix(socket) => socket.shutdown(Shutdown::Both),
            Plain::Tcp(socket) => socket.shutdown(Shutdown::Both),
        };
    }
}

impl Socket {
    pub fn connect(endpoint: &Endpoint, deadline: &Deadline) -> Result<Socket> {
        match &endpoint.host {
            Host::Socket(folder) => {
                let path = socket_path(folder, endpoint.port);
                UnixStream::connect(&path)
                    .map(Socket::Unix)
                    .map_err(|error| unanswered(&path.display().to_string(), error))
            }
            Host::Name(name, address) => {
                let addresses: Vec<SocketAddr> = match address {
                    Some(address) => vec![(*address, endpoint.port).into()],
                    None => (name.as_str(), endpoint.port)
                        .to_socket_addrs()
                        .map_err(|error| unresolved(name, error))?
                        .collect(),
                };
                connect_any(&addresses, &endpoint.to_string(), deadline).map(Socket::Tcp)
            }
        }
    }

    pub fn canceller(&self) -> io::Result<Canceller> {
        Ok(Canceller(match self {
            Socket::Unix(socket) => Plain::Unix(socket.try_clone()?),
            Socket::Tcp(socket) => Plain::Tcp(socket.try_clone()?),
            Socket::Tls(stream) => Plain::Tcp(stream.sock.try_clone()?),
        }))
    }

    /// The address at the other end; `None` of a Unix socket.
    pub fn peer(&self) -> Option<IpAddr> {
        let address = match self {
            Socket::Unix(_) => return None,
            Socket::Tcp(socket) => socket.peer_addr(),
            Socket::Tls(stream) => stream.sock.peer_addr(),
        };
        address.ok().map(|address| address.ip())
    }

    /// How long one read may wait; a write may wait as long.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        // Zero would be an error; what is over ends at once.
        let timeout = timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
        match self {
            Socket::Unix(socket) => {
                socket.set_read_timeout(timeout).and_then(|()| socket.set_write_timeout(timeout))
            }
            Socket::Tcp(socket) => set_tcp_timeout(socket, timeout),
            Socket::Tls(stream) => set_tcp_timeout(&stream.sock, timeout),
        }
    }
}

fn set_tcp_timeout(socket: &TcpStream, timeout: Option<Duration>) -> io::Result<()> {
    socket.set_read_timeout(timeout).and_then(|()| socket.set_write_timeout(timeout))
}

fn connect_any(addresses: &[SocketAddr], place: &str, deadline: &Deadline) -> Result<TcpStream> {
    let mut failure = io::Error::other("the name has no address");
    for address in addresses {
        let patience = deadline.remaining().max(Duration::from_millis(1));
        match TcpStream::connect_timeout(address, patience).and_then(prepared) {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(unanswered(place, failure))
}

fn prepared(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_COUNT)?;
    sockopt::set_tcp_user_timeout(&socket, UNCONFIRMED_MS)?;
    Ok(socket)
}

fn unresolved(name: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Server, format!("find the address of {name}"))
        .source(error)
        .hint("Is PGHOST right, and does name resolution work here?")
}

fn unanswered(place: &str, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "No server listens there: is it running, and are PGHOST (the socket directory) and \
             PGPORT right?"
        }
        io::ErrorKind::ConnectionRefused => {
            "Nothing listens there: is the server running, and do PGHOST, PGPORT and \
             listen_addresses agree?"
        }
        io::ErrorKind::PermissionDenied => "Run as a user who may open that socket.",
        _ => "Are PGHOST and PGPORT right, and does a firewall stand between?",
    };
    Error::new(ErrorKind::Server, format!("no server answers at {place}")).source(error).hint(hint)
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(socket) => socket.read(buffer),
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(socket) => socket.write(buffer),
            Socket::Tcp(socket) => socket.write(buffer),
            Socket::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Unix(socket) => socket.flush(),
            Socket::Tcp(socket) => socket.flush(),
            Socket::Tls(stream) => stream.flush(),
        }
    }
}

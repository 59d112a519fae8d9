//! Says who we are: trust, password in the clear, MD5, SCRAM-SHA-256 with and without channel
//! binding.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::options::{ChannelBindingMode, ConnectionOptions, Secret};
use crate::postgres::connection::server_message::ServerMessage;
use crate::postgres::connection::wire::{Incoming, Wire, nonsense};

/// What the way to the server is like.
pub enum Way {
    Plain,
    /// TLS, and the digest of the server's certificate where it has one.
    Tls(Option<Vec<u8>>),
}

pub struct Credentials<'a> {
    pub options: &'a ConnectionOptions,
    pub password: Option<Secret>,
    pub way: Way,
}

/// Answers the server's questions until it is content.
pub fn authenticate(wire: &mut Wire, credentials: &Credentials<'_>) -> Result<()> {
    let must_bind = credentials.options.channel_binding == ChannelBindingMode::Require;
    let mut bound = false;
    loop {
        match receive(wire)? {
            Message::AuthenticationOk if must_bind && !bound => return Err(unbound()),
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationSasl(offer) => bound = scram(wire, &offer, credentials)?,
            // Whoever asks for channel binding must not give the password to a server that cannot.
            _ if must_bind => return Err(unbound()),
            Message::AuthenticationCleartextPassword => {
                let password = password(credentials)?.to_owned();
                send(wire, |out| frontend::password_message(password.as_bytes(), out))?;
            }
            Message::AuthenticationMd5Password(question) => {
                let user = credentials.options.user.as_bytes();
                let hash = md5_hash(user, password(credentials)?.as_bytes(), question.salt());
                send(wire, |out| frontend::password_message(hash.as_bytes(), out))?;
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Server,
                    "the server asks for a way of authentication that walden does not know",
                )
                .hint(
                    "Use scram-sha-256, cert or peer in pg_hba.conf; not gss, sspi or ldap \
                       with tickets.",
                ));
            }
        }
    }
}

/// True where the channel was bound.
fn scram(
    wire: &mut Wire,
    offer: &AuthenticationSaslBody,
    credentials: &Credentials<'_>,
) -> Result<bool> {
    let offered: Vec<String> =
        offer.mechanisms().map(|name| Ok(name.to_owned())).collect().map_err(nonsense)?;
    let offers = |mechanism: &str| offered.iter().any(|offered| offered == mechanism);
    let wants_binding = credentials.options.channel_binding != ChannelBindingMode::Disable;
    let (mechanism, binding, bound) = match &credentials.way {
        Way::Tls(Some(digest)) if wants_binding && offers(SCRAM_SHA_256_PLUS) => {
            let binding = ChannelBinding::tls_server_end_point(digest.clone());
            (SCRAM_SHA_256_PLUS, binding, true)
        }
        // "We could, you cannot": the server notices if somebody in between took the offer away.
        Way::Tls(Some(_)) if wants_binding => (SCRAM_SHA_256, ChannelBinding::unrequested(), false),
        _ => (SCRAM_SHA_256, ChannelBinding::unsupported(), false),
    };
    if !offers(mechanism) {
        return Err(nonsense(std::io::Error::other("no SCRAM mechanism that we know")));
    }
    if !bound && credentials.options.channel_binding == ChannelBindingMode::Require {
        return Err(unbound());
    }
    let mut scram = ScramSha256::new(password(credentials)?.as_bytes(), binding);
    let first = scram.message().to_vec();
    send(wire, |out| frontend::sasl_initial_response(mechanism, &first, out))?;
    match receive(wire)? {
        Message::AuthenticationSaslContinue(body) => scram.update(body.data()).map_err(nonsense)?,
        _ => return Err(nonsense(std::io::Error::other("SCRAM breaks off"))),
    }
    let answer = scram.message().to_vec();
    send(wire, |out| frontend::sasl_response(&answer, out))?;
    match receive(wire)? {
        Message::AuthenticationSaslFinal(body) => {
            // The server's proof that it knows the password too.
            scram.finish(body.data()).map_err(nonsense)?;
            Ok(bound)
        }
        _ => Err(nonsense(std::io::Error::other("SCRAM breaks off"))),
    }
}

fn password<'a>(credentials: &'a Credentials<'_>) -> Result<&'a str> {
    credentials.password.as_ref().map(|secret| secret.0.as_str()).ok_or_else(|| {
        Error::new(ErrorKind::Server, "the server asks for a password, and there is none")
            .hint("Put it into ~/.pgpass (mode 0600), or set PGPASSFILE or PGPASSWORD.")
    })
}

fn receive(wire: &mut Wire) -> Result<Message> {
    loop {
        match wire.receive()? {
            Incoming::Other(Message::ErrorResponse(body)) => {
                return Err(ServerMessage::parse(body.fields()).into_error());
            }
            Incoming::Other(Message::NoticeResponse(_)) => {}
            Incoming::Other(message) => return Ok(message),
            Incoming::CopyData(_) => {
                return Err(nonsense(std::io::Error::other("data before authentication")));
            }
        }
    }
}

fn send(wire: &mut Wire, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
    let mut message = BytesMut::new();
    write(&mut message).map_err(|error| {
        Error::new(ErrorKind::Usage, "the password cannot be sent").source(error)
    })?;
    wire.send(&message)
}

fn unbound() -> Error {
    Error::new(ErrorKind::Server, "channel binding is required, and the server does not do it")
        .hint("It needs TLS and scram-sha-256 on the server; PGCHANNELBINDING demands it.")
}

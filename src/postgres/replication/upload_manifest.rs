//! `UPLOAD_MANIFEST` (17 and later): tells the server what an earlier backup has, so that it can
//! send the difference.

use postgres_protocol::message::backend::Message;

use crate::error::{Context, Result};
use crate::postgres::connection::{Connection, Incoming, ServerMessage};
use crate::postgres::replication::base_backup::unexpected;

/// The server takes pieces of any length; nothing much larger than what it sends itself.
const PIECE_BYTES: usize = 64 << 10;

/// `manifest` is a `backup_manifest`, the server's own or one that is written as such. It counts
/// for the next `BASE_BACKUP` of this connection.
pub fn upload_manifest(connection: &mut Connection, manifest: &[u8]) -> Result<()> {
    upload(connection, manifest).context(|| "hand over the manifest of the parent")
}

fn upload(connection: &mut Connection, manifest: &[u8]) -> Result<()> {
    connection.start("UPLOAD_MANIFEST")?;
    loop {
        match connection.receive()? {
            Incoming::Other(Message::CopyInResponse(_)) => break,
            Incoming::Other(message) => refused(message)?,
            Incoming::CopyData(_) => return Err(unexpected("data where it should take some")),
        }
    }
    for piece in manifest.chunks(PIECE_BYTES) {
        connection.send_copy_data(piece)?;
    }
    connection.end_copy()?;
    let mut failure = None;
    loop {
        match connection.receive()? {
            Incoming::Other(Message::ReadyForQuery(_)) => break,
            Incoming::Other(Message::ErrorResponse(body)) => {
                failure = Some(ServerMessage::parse(body.fields()).into_error());
            }
            Incoming::Other(_) => {}
            Incoming::CopyData(_) => return Err(unexpected("data where it should take some")),
        }
    }
    failure.map_or(Ok(()), Err)
}

fn refused(message: Message) -> Result<()> {
    match message {
        Message::ErrorResponse(body) => Err(ServerMessage::parse(body.fields()).into_error()),
        Message::ReadyForQuery(_) => Err(unexpected("an early end")),
        _ => Ok(()),
    }
}

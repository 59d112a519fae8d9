//! The bytes of a PUT on their way: sent from the parts they are in, and signed as they are sent.

use std::io;
use std::pin::Pin;
use std::task::{self, Poll};

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use ring::digest;

use crate::storage::Body;

/// A body, piece by piece. The pieces of a file are read where the connection is driven: they were
/// written a moment ago, and come from the kernel's cache.
pub struct Sent {
    pieces: Box<dyn Iterator<Item = io::Result<Bytes>> + Send + Sync>,
    left: u64,
}

impl Sent {
    pub fn new(body: &Body) -> Self {
        Sent { pieces: Box::new(body.pieces()), left: body.size() }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.pieces.next();
        if let Some(Ok(piece)) = &piece {
            self.left -= piece.len() as u64;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Puts the SHA-256 of a body into the signature of its request where nothing else keeps others
/// from changing it: over plain HTTP. Under TLS it is left out, as AWS's own tools do; the CRC-32
/// is signed and checked by the store either way.
#[derive(Debug)]
pub struct Signed {
    body: Body,
}

impl Signed {
    pub fn new(body: &Body) -> Self {
        Signed { body: body.clone() }
    }

    /// In hexadecimal digits.
    fn sha256(&self) -> io::Result<String> {
        let mut context = digest::Context::new(&digest::SHA256);
        for piece in self.body.pieces() {
            context.update(&piece?);
        }
        Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Intercept for Signed {
    fn name(&self) -> &'static str {
        "Signed"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let signing = match context.request().uri().starts_with("https:") {
            true => PayloadSigningOverride::unsigned_payload(),
            false => PayloadSigningOverride::Precomputed(self.sha256()?),
        };
        config.interceptor_state().store_put(signing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Signed;
    use crate::storage::{Body, Part};

    #[test]
    fn what_is_signed_is_the_whole_body_however_it_is_cut() {
        // Of FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let parts = [&b"a"[..], b"", b"bc"].map(Part::new);
        for body in [Body::new("abc"), Body::of(parts)] {
            assert_eq!(Signed::new(&body).sha256().unwrap(), abc);
        }
    }
}

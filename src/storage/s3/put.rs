//! Creating an object without ever replacing one, and believing only a confirmed checksum.

use std::sync::atomic::Ordering;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::s3::errors::{self, Asked};
use crate::storage::s3::{ConditionalPut, S3, payload};
use crate::storage::{Body, Key, Storage as _};

enum Failed {
    /// 501: the store knows no conditional PUT.
    NotImplemented(Error),
    /// The connection did not live to bring an answer.
    BrokeOff(Error),
    Sorted(Error),
}

impl S3 {
    /// Creates an object where its name is free, else `AlreadyExists`.
    pub(super) async fn put_where_free(
        &self,
        client: &Client,
        key: &Key,
        body: &Body,
    ) -> Result<()> {
        if self.unconditional.load(Ordering::Relaxed) {
            return self.look_then_put(client, key, body).await;
        }
        let answer = match self.put(client, key, body, true).await {
            Ok(answer) => answer,
            Err(Failed::Sorted(error)) => return Err(error),
            Err(Failed::BrokeOff(error)) => return Err(self.after_all(client, key, error).await),
            Err(Failed::NotImplemented(_))
                if self.options.conditional_put == ConditionalPut::Yes =>
            {
                let message = format!("{} does not know If-None-Match", self.url());
                return Err(Error::new(ErrorKind::NotAllowed, message)
                    .hint("Set s3.conditional_put to \"auto\" or \"no\"."));
            }
            Err(Failed::NotImplemented(_)) => {
                tracing::warn!(store = self.url(), "no conditional PUT here: look, then put");
                self.unconditional.store(true, Ordering::Relaxed);
                return self.look_then_put(client, key, body).await;
            }
        };
        self.confirm(client, key, body, &answer).await
    }

    async fn look_then_put(&self, client: &Client, key: &Key, body: &Body) -> Result<()> {
        // By GET: only its answer names who says that there is none, the store or something else.
        match self.read_start(client, key, 1).await {
            Ok(_) => return Err(self.already_exists(key)),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        match self.put(client, key, body, false).await {
            Ok(answer) => self.confirm(client, key, body, &answer).await,
            Err(
                Failed::NotImplemented(error) | Failed::BrokeOff(error) | Failed::Sorted(error),
            ) => Err(error),
        }
    }

    async fn put(
        &self,
        client: &Client,
        key: &Key,
        body: &Body,
        conditional: bool,
    ) -> std::result::Result<PutObjectOutput, Failed> {
        let options = &self.options;
        client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .set_if_none_match(conditional.then(|| "*".to_owned()))
            // Given, the SDK computes none of its own, sends the body in one plain piece with its
            // length, and the store refuses bytes that differ.
            .checksum_crc32(encode_crc32(body.crc32))
            .set_storage_class(options.storage_class.as_deref().map(StorageClass::from))
            .set_server_side_encryption(options.sse.as_deref().map(ServerSideEncryption::from))
            .set_ssekms_key_id(options.kms_key_id.clone())
            .body(ByteStream::from_body_1_x(payload::Sent::new(body)))
            .customize()
            .interceptor(payload::Signed::new(body))
            .send()
            .await
            .map_err(|error| {
                let status = error.raw_response().map(|raw| raw.status().as_u16());
                let timed_out = matches!(&error, SdkError::DispatchFailure(e) if e.is_timeout());
                let broke_off = matches!(error, SdkError::DispatchFailure(_)) && !timed_out;
                let sorted = errors::sort(error, Asked::Bucket, &self.place(key));
                match status {
                    Some(501) if conditional => Failed::NotImplemented(sorted),
                    _ if broke_off => Failed::BrokeOff(sorted),
                    _ => Failed::Sorted(sorted),
                }
            })
    }

    /// A yes counts when the store names the checksum of what it has; one that never does is read
    /// back.
    async fn confirm(
        &self,
        client: &Client,
        key: &Key,
        body: &Body,
        answer: &PutObjectOutput,
    ) -> Result<()> {
        let place = self.place(key);
        let has_ours = match answer.checksum_crc32() {
            Some(theirs) => theirs == encode_crc32(body.crc32),
            None => match self.read_checksum(client, key).await {
                Ok(crc32) => crc32 == body.crc32,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let message = format!("{place} was accepted and is not there");
                    return Err(Error::new(ErrorKind::Unreachable, message)
                        .hint("Look at the store's log, and at what stands in between.")
                        .source(error));
                }
                Err(error) => return Err(error.context("read back what was put")),
            },
        };
        if has_ours {
            return Ok(());
        }
        let message = format!("{place} was stored with other bytes than were sent");
        Err(Error::new(ErrorKind::Corrupt, message).hint(
            "Look at the store and at the proxies before it; the object needs to be removed.",
        ))
    }

    /// A store that refuses early hangs up on what is still being sent, and its answer may be lost
    /// with the connection; so may the answer to a put that was carried out. Either way the object
    /// is there, and that is what to say.
    async fn after_all(&self, client: &Client, key: &Key, error: Error) -> Error {
        match self.look(client, key).await {
            Ok(_) => self.already_exists(key),
            Err(_) => error,
        }
    }

    fn already_exists(&self, key: &Key) -> Error {
        Error::new(ErrorKind::AlreadyExists, format!("{} is there already", self.place(key)))
            .hint("Objects are written once; nothing was changed.")
    }
}

fn encode_crc32(crc32: u32) -> String {
    aws_smithy_types::base64::encode(crc32.to_be_bytes())
}

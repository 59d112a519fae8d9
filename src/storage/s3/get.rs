//! Reading an object, whole or in part: all the bytes that were asked for, or an error.

use std::ops::Range;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use bytes::{Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::Key;
use crate::storage::s3::S3;
use crate::storage::s3::errors::{self, Asked};

/// Room that is made on the word of an answer alone.
const ROOM_BYTES_MAX: u64 = 64 << 20;

impl S3 {
    pub(super) async fn read(&self, client: &Client, key: &Key) -> Result<Bytes> {
        let place = self.place(key);
        let answer = client
            .get_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
            .map_err(|error| errors::sort(error, Asked::Object, &place))?;
        self.object(answer, &place).await
    }

    /// HTTP cannot tell the size of an object but with some bytes of it; an object that has none is
    /// looked at.
    pub(super) async fn read_start(
        &self,
        client: &Client,
        key: &Key,
        max: u64,
    ) -> Result<(Bytes, u64)> {
        let place = self.place(key);
        let asked = client
            .get_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .range(format!("bytes=0-{}", max.max(1) - 1))
            .send()
            .await
            .map_err(|error| errors::sort(error, Asked::Object, &place));
        let answer = match asked {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                return match self.look(client, key).await?.size {
                    0 => Ok((Bytes::new(), 0)),
                    _ => Err(error),
                };
            }
            asked => asked?,
        };
        let Some(range) = answer.content_range().map(str::to_owned) else {
            // Small enough to have been meant anyway, or from a store that ignores ranges.
            if length(&answer).is_none_or(|length| length > max) {
                return Err(ignores_ranges(&place, 0, max, "all"));
            }
            let bytes = self.object(answer, &place).await?;
            let size = bytes.len() as u64;
            return Ok((bytes, size));
        };
        let total = range.rsplit_once('/').and_then(|(_, total)| total.parse::<u64>().ok());
        let end = total.map_or(0, |total| total.min(max));
        match total {
            Some(total) if range == format!("bytes 0-{}/{total}", end.max(1) - 1) => {
                let bytes = collect(answer.body, Some(end), &place).await?;
                Ok((whole(bytes, Some(end), &place)?, total))
            }
            _ => Err(ignores_ranges(&place, 0, max, &range)),
        }
    }

    /// All of an answer that is not of a range.
    async fn object(&self, answer: GetObjectOutput, place: &str) -> Result<Bytes> {
        let (length, has_etag) = (length(&answer), answer.e_tag().is_some());
        let bytes = collect(answer.body, length, place).await?;
        // S3 may begin an answer with 200 before it fails; an object always has an ETag.
        if !has_etag && (bytes.starts_with(b"<?xml") || bytes.starts_with(b"<Error")) {
            let message = format!("{place} answered 200 with an error");
            return Err(Error::new(ErrorKind::Unreachable, message)
                .hint("Look at the store's health.")
                .source(String::from_utf8_lossy(&bytes[..bytes.len().min(300)])));
        }
        whole(bytes, length, place)
    }

    pub(super) async fn read_range(
        &self,
        client: &Client,
        key: &Key,
        range: Range<u64>,
    ) -> Result<Bytes> {
        let place = self.place(key);
        let (first, last) = (range.start, range.end - 1);
        let answer = client
            .get_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .range(format!("bytes={first}-{last}"))
            .send()
            .await
            .map_err(|error| errors::sort(error, Asked::Object, &place))?;
        let expected = format!("bytes {first}-{last}/");
        if !answer.content_range().is_some_and(|got| got.starts_with(&expected)) {
            let got = answer.content_range().unwrap_or("all");
            return Err(ignores_ranges(&place, first, last, got));
        }
        let length = Some(range.end - first);
        whole(collect(answer.body, length, &place).await?, length, &place)
    }
}

fn ignores_ranges(place: &str, first: u64, last: u64, got: &str) -> Error {
    let message = format!("asked for bytes {first} to {last}, {place} gave {got}");
    Error::new(ErrorKind::Corrupt, message)
        .hint("The object was cut short, or the store ignores ranges.")
}

/// Into one piece of memory from the first byte on: to collect pieces and join them takes twice as
/// much.
async fn collect(mut body: ByteStream, length: Option<u64>, place: &str) -> Result<Bytes> {
    let room = length.unwrap_or_default().min(ROOM_BYTES_MAX) as usize;
    let mut bytes = BytesMut::with_capacity(room);
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| errors::sort_body(error, place))?);
    }
    Ok(bytes.freeze())
}

fn length(answer: &GetObjectOutput) -> Option<u64> {
    answer.content_length().and_then(|length| u64::try_from(length).ok())
}

fn whole(bytes: Bytes, length: Option<u64>, place: &str) -> Result<Bytes> {
    match length {
        Some(length) if length != bytes.len() as u64 => {
            let got = bytes.len();
            let message = format!("the answer of {place} has {got} of {length} bytes");
            Err(Error::new(ErrorKind::Unreachable, message)
                .hint("Look at the network between this host and the store."))
        }
        _ => Ok(bytes),
    }
}

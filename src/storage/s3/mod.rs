//! A store that speaks S3: AWS and its dialects, one conditional PUT per object.

mod put;
mod payload;
mod get;
mod client;
mod errors;
mod options;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::DateTime;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::storage::{Body, Key, Listing, ObjectInfo, Storage};
use errors::Asked;

pub use options::{ConditionalPut, Credentials, Options};

/// What `request_timeout` is for; each further MiB has another second.
const TIMEOUT_COVERS_BYTES: u64 = 64 << 20;

/// Runtime and client are made at the first request: a process that needs none pays for none.
pub struct S3 {
    bucket: String,
    /// Empty, or ending in `/`.
    prefix: String,
    options: Options,
    deadline: Option<Deadline>,
    connection: Mutex<Option<Connection>>,
    /// The store said that it does not know conditional requests.
    unconditional: AtomicBool,
}

#[derive(Clone)]
struct Connection {
    runtime: Arc<tokio::runtime::Runtime>,
    client: Client,
}

/// What a listing is asked for.
struct Pages<'a> {
    prefix: String,
    after: Option<&'a Key>,
    at_any_depth: bool,
}

impl S3 {
    pub fn new(
        bucket: &str,
        prefix: Option<&str>,
        options: Options,
        deadline: Option<Deadline>,
    ) -> Self {
        let prefix = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let unconditional = AtomicBool::new(options.conditional_put == ConditionalPut::No);
        let (bucket, connection) = (bucket.to_owned(), Mutex::new(None));
        S3 { bucket, prefix, options, deadline, connection, unconditional }
    }

    /// Runs one request to its end, its body included, and never longer than it may take.
    fn run<T, F: Future<Output = Result<T>>>(
        &self,
        request: impl FnOnce(Client) -> F,
    ) -> Result<T> {
        self.run_sending(0, request)
    }

    /// As `run`, with time for the bytes there are to send.
    fn run_sending<T, F: Future<Output = Result<T>>>(
        &self,
        bytes: u64,
        request: impl FnOnce(Client) -> F,
    ) -> Result<T> {
        let limit = self.time_limit(bytes)?;
        let Connection { runtime, client } = self.connection(limit)?;
        runtime.block_on(async {
            let answered = tokio::time::timeout(limit, request(client)).await;
            answered.unwrap_or_else(|_| Err(self.timed_out(limit)))
        })
    }

    fn time_limit(&self, bytes: u64) -> Result<Duration> {
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline.remaining());
        if left.is_zero() {
            let message = format!("no time left to ask {}", self.url());
            return Err(Error::new(ErrorKind::Unreachable, message)
                .hint("Look at the store's speed, or allow more time."));
        }
        let beyond = Duration::from_secs(bytes.saturating_sub(TIMEOUT_COVERS_BYTES) >> 20);
        Ok(self.options.request_timeout.saturating_add(beyond).min(left))
    }

    fn timed_out(&self, limit: Duration) -> Error {
        let message = format!("no answer from {} in {:.1} s", self.url(), limit.as_secs_f64());
        Error::new(ErrorKind::Unreachable, message)
            .hint("Look at the network and the store, or raise s3.request_timeout.")
    }

    fn connection(&self, limit: Duration) -> Result<Connection> {
        let mut connection =
            self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        // One worker beside the callers, which only wait: with none, a caller would have to drive
        // the others' requests, and connections would stand still between two requests.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Host, "cannot start a thread for S3")
                    .source(error)
                    .hint("Look at the limits of processes and memory for this user.")
            })?;
        let client = runtime.block_on(async {
            let connected = tokio::time::timeout(limit, client::connect(&self.options)).await;
            connected.unwrap_or_else(|_| Err(self.timed_out(limit)))
        });
        let client = match client {
            Ok(client) => client,
            // Dropped, it would wait for what hangs in the system's resolver.
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let made = Connection { runtime: runtime.into(), client };
        Ok(connection.insert(made).clone())
    }

    fn key(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Where an object is, for messages.
    fn place(&self, key: &Key) -> String {
        format!("{}/{key}", self.url())
    }

    async fn look(&self, client: &Client, key: &Key) -> Result<ObjectInfo> {
        let place = self.place(key);
        let answer = client
            .head_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .send()
            .await
            .map_err(|error| errors::sort(error, Asked::Head, &place))?;
        let size = answer.content_length().and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| {
            Error::new(ErrorKind::Unreachable, format!("{place} answered without a length"))
                .hint("Look at what stands between this host and the store.")
        })?;
        Ok(ObjectInfo { key: key.clone(), size, modified: timestamp(answer.last_modified()) })
    }

    /// All pages. The store sorts folders among the objects, with their `/`.
    fn pages(&self, wanted: &Pages<'_>) -> Result<Listing> {
        let (mut listing, mut token) = (Listing::default(), None);
        loop {
            let listing = &mut listing;
            let page = |client| async move { self.page(&client, wanted, token, listing).await };
            token = self.run(page)?;
            if token.is_none() {
                break;
            }
        }
        listing.objects.sort_by(|a, b| a.key.cmp(&b.key));
        listing.folders.sort();
        Ok(listing)
    }

    async fn page(
        &self,
        client: &Client,
        wanted: &Pages<'_>,
        token: Option<String>,
        listing: &mut Listing,
    ) -> Result<Option<String>> {
        let prefix = wanted.prefix.as_str();
        let answer = client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_delimiter((!wanted.at_any_depth).then(|| "/".to_owned()))
            .set_start_after(wanted.after.map(|after| self.key(after)))
            .set_continuation_token(token)
            .send()
            .await
            .map_err(|error| errors::sort(error, Asked::Bucket, &self.url()))?;
        for object in answer.contents() {
            let key = object.key().and_then(|key| key.strip_prefix(&self.prefix));
            // What no key of ours can name is not ours: the marker objects of "folders", for one.
            let Some(key) = key.and_then(|key| Key::new(key).ok()) else { continue };
            let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
            let modified = timestamp(object.last_modified());
            listing.objects.push(ObjectInfo { key, size, modified });
        }
        for folder in answer.common_prefixes() {
            let name = folder.prefix().and_then(|folder| folder.strip_prefix(prefix));
            let name = name.and_then(|name| name.strip_suffix('/'));
            listing.folders.extend(name.filter(|name| Key::new(*name).is_ok()).map(str::to_owned));
        }
        match (answer.is_truncated(), answer.next_continuation_token()) {
            (Some(true), Some(token)) => Ok(Some(token.to_owned())),
            (Some(true), None) => {
                let message = format!("the listing of {} breaks off", self.url());
                Err(Error::new(ErrorKind::Unreachable, message).hint("Look at the store's health."))
            }
            _ => Ok(None),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for S3 {
    fn put_new(&self, key: &Key, body: &Body) -> Result<()> {
        self.run_sending(body.size(), |client| async move {
            self.put_where_free(&client, key, body).await
        })
    }

    fn get(&self, key: &Key) -> Result<Bytes> {
        self.run(|client| async move { self.read(&client, key).await })
    }

    fn get_start(&self, key: &Key, max: u64) -> Result<(Bytes, u64)> {
        self.run(|client| async move { self.read_start(&client, key, max).await })
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        // HTTP cannot ask for nothing.
        if range.start >= range.end {
            let size = self.head(key)?.size;
            return if range.start == range.end && range.end <= size {
                Ok(Bytes::new())
            } else {
                let message = format!("{} has {size} bytes, not {range:?}", self.place(key));
                Err(Error::new(ErrorKind::Corrupt, message).hint("The object was cut short."))
            };
        }
        self.run(|client| async move { self.read_range(&client, key, range).await })
    }

    fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.run(|client| async move { self.look(&client, key).await })
    }

    fn list(&self, folder: Option<&Key>) -> Result<Listing> {
        let prefix = folder.map_or_else(|| self.prefix.clone(), |key| self.key(key) + "/");
        self.pages(&Pages { prefix, after: None, at_any_depth: false })
    }

    fn list_all(&self, folder: &Key, after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        let prefix = self.key(folder) + "/";
        let mut objects = self.pages(&Pages { prefix, after, at_any_depth: true })?.objects;
        // Not every store heeds where it was told to begin.
        objects.retain(|object| after.is_none_or(|after| object.key > *after));
        Ok(objects)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.run(|client| async move {
            let place = self.place(key);
            let request = client.delete_object().bucket(&self.bucket).key(self.key(key));
            match request.send().await {
                Ok(_) => Ok(()),
                // AWS calls that a success, others do not.
                Err(error) if error.code() == Some("NoSuchKey") => Ok(()),
                Err(error) => Err(errors::sort(error, Asked::Bucket, &place)),
            }
        })
    }

    fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix).trim_end_matches('/').to_owned()
    }
}

impl Drop for S3 {
    /// A look-up of a name may hang in the system's resolver; nobody waits for it any more.
    fn drop(&mut self) {
        let connection = self.connection.get_mut().unwrap_or_else(|broken| broken.into_inner());
        if let Some(runtime) = connection.take().and_then(|made| Arc::into_inner(made.runtime)) {
            runtime.shutdown_background();
        }
    }
}

fn timestamp(time: Option<&DateTime>) -> jiff::Timestamp {
    time.and_then(|time| jiff::Timestamp::from_second(time.secs()).ok()).unwrap_or_default()
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("url", &self.url()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Options, S3};
    use crate::host::clock::Deadline;

    #[test]
    fn large_bodies_have_more_time_but_never_more_than_there_is() {
        let store = |deadline| S3::new("bucket", None, Options::default(), deadline);
        let limit = |bytes| store(None).time_limit(bytes).unwrap().as_secs();
        assert_eq!([0, 64 << 20, 1 << 30].map(limit), [60, 60, 60 + 960]);
        let hurried = store(Some(Deadline::after(Duration::from_secs(100))));
        assert!(hurried.time_limit(1 << 30).unwrap() <= Duration::from_secs(100));
    }
}

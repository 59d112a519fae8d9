//! Says of each call what it was and how it went, and keeps count.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;

use crate::error::Result;
use crate::storage::{Body, Key, Listing, ObjectInfo, Storage, Verb};

#[derive(Debug)]
pub struct Observe {
    inner: Arc<dyn Storage>,
    tally: Arc<Tally>,
}

/// Counts that others may read while they grow.
#[derive(Debug, Default)]
pub struct Tally {
    calls: [AtomicU64; Verb::ALL.len()],
    failures: AtomicU64,
    bytes_stored: AtomicU64,
    bytes_read: AtomicU64,
}

impl Tally {
    pub fn calls(&self, verb: Verb) -> u64 {
        self.calls[verb as usize].load(Ordering::Relaxed)
    }

    /// `NotFound` and `AlreadyExists` among them.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub fn bytes_stored(&self) -> u64 {
        self.bytes_stored.load(Ordering::Relaxed)
    }

    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

impl Observe {
    pub fn new(inner: Arc<dyn Storage>, tally: Arc<Tally>) -> Self {
        Observe { inner, tally }
    }

    fn watch<T>(
        &self,
        verb: Verb,
        key: &dyn fmt::Display,
        ask: impl FnOnce() -> Result<T>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Result<T> {
        let began = Instant::now();
        let outcome = ask();
        let ms = began.elapsed().as_millis() as u64;
        self.tally.calls[verb as usize].fetch_add(1, Ordering::Relaxed);
        match &outcome {
            Ok(value) => {
                let bytes = bytes(value);
                match verb {
                    Verb::PutNew => &self.tally.bytes_stored,
                    _ => &self.tally.bytes_read,
                }
                .fetch_add(bytes, Ordering::Relaxed);
                tracing::debug!(verb = verb.name(), %key, bytes, ms, "done");
            }
            Err(error) => {
                self.tally.failures.fetch_add(1, Ordering::Relaxed);
                let (verb, kind) = (verb.name(), error.kind());
                tracing::debug!(verb, %key, ms, ?kind, %error, "failed");
            }
        }
        outcome
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for Observe {
    fn put_new(&self, key: &Key, body: &Body) -> Result<()> {
        let size = body.size();
        self.watch(Verb::PutNew, key, || self.inner.put_new(key, body), |()| size)
    }

    fn get(&self, key: &Key) -> Result<Bytes> {
        self.watch(Verb::Get, key, || self.inner.get(key), |bytes| bytes.len() as u64)
    }

    fn get_start(&self, key: &Key, max: u64) -> Result<(Bytes, u64)> {
        let ask = || self.inner.get_start(key, max);
        self.watch(Verb::Get, key, ask, |(bytes, _)| bytes.len() as u64)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let ask = || self.inner.get_range(key, range);
        self.watch(Verb::GetRange, key, ask, |bytes| bytes.len() as u64)
    }

    fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.watch(Verb::Head, key, || self.inner.head(key), |_| 0)
    }

    fn list(&self, folder: Option<&Key>) -> Result<Listing> {
        let shown = folder.map_or("", Key::as_str);
        self.watch(Verb::List, &shown, || self.inner.list(folder), |_| 0)
    }

    fn list_all(&self, folder: &Key, after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        self.watch(Verb::List, folder, || self.inner.list_all(folder, after), |_| 0)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.watch(Verb::Delete, key, || self.inner.delete(key), |()| 0)
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Observe, Tally};
    use crate::storage::memory::Memory;
    use crate::storage::{Body, Key, Storage, Verb, contract};

    #[test]
    fn calls_and_bytes_are_counted() {
        let tally = Arc::new(Tally::default());
        let store = Observe::new(Arc::new(Memory::new()), tally.clone());
        let key = Key::new("a").unwrap();
        store.put_new(&key, &Body::new("12345")).unwrap();
        store.put_new(&key, &Body::new("12345")).unwrap_err();
        store.get(&key).unwrap();
        store.get_range(&key, 1..3).unwrap();
        store.list(None).unwrap();
        assert_eq!((tally.calls(Verb::PutNew), tally.calls(Verb::Get)), (2, 1));
        assert_eq!((tally.calls(Verb::List), tally.failures()), (1, 1));
        assert_eq!((tally.bytes_stored(), tally.bytes_read()), (5, 7));
    }

    #[test]
    fn the_contract_holds_through_it() {
        contract::run_all(&|| Box::new(Observe::new(Arc::new(Memory::new()), Arc::default())));
    }
}

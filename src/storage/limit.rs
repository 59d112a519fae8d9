//! At most so many requests in flight: what more there is waits.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;

use crate::error::Result;
use crate::storage::{Body, Key, Listing, ObjectInfo, Storage};

#[derive(Debug)]
pub struct Limit {
    inner: Arc<dyn Storage>,
    free: Mutex<usize>,
    freed: Condvar,
}

impl Limit {
    /// `requests_max` of 0 counts as 1: with none at all nothing would ever end.
    pub fn new(inner: Arc<dyn Storage>, requests_max: usize) -> Self {
        Limit { inner, free: Mutex::new(requests_max.max(1)), freed: Condvar::new() }
    }

    fn enter(&self) -> Turn<'_> {
        let free = self.lock();
        let mut free = self
            .freed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Turn<'a>(&'a Limit);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for Limit {
    fn put_new(&self, key: &Key, body: &Body) -> Result<()> {
        let _turn = self.enter();
        self.inner.put_new(key, body)
    }

    fn get(&self, key: &Key) -> Result<Bytes> {
        let _turn = self.enter();
        self.inner.get(key)
    }

    fn get_start(&self, key: &Key, max: u64) -> Result<(Bytes, u64)> {
        let _turn = self.enter();
        self.inner.get_start(key, max)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let _turn = self.enter();
        self.inner.get_range(key, range)
    }

    fn head(&self, key: &Key) -> Result<ObjectInfo> {
        let _turn = self.enter();
        self.inner.head(key)
    }

    fn list(&self, folder: Option<&Key>) -> Result<Listing> {
        let _turn = self.enter();
        self.inner.list(folder)
    }

    fn list_all(&self, folder: &Key, after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        let _turn = self.enter();
        self.inner.list_all(folder, after)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let _turn = self.enter();
        self.inner.delete(key)
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::Limit;
    use crate::error::{Error, ErrorKind};
    use crate::storage::faulty::{Fault, Faulty};
    use crate::storage::memory::Memory;
    use crate::storage::{Key, Storage, Verb, contract};

    #[test]
    fn never_more_at_once_than_allowed() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let faulty = Faulty::new(Arc::new(Memory::new()));
        let (inside, peak) = (now.clone(), most.clone());
        let slow = move || {
            peak.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            inside.fetch_sub(1, Ordering::SeqCst);
            Error::new(ErrorKind::Unreachable, "slow")
        };
        faulty.fail_always(Verb::Get, Fault::before(slow));
        let limit = Limit::new(Arc::new(faulty), 3);
        let key = Key::new("a").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| limit.get(&key).unwrap_err());
            }
        });
        assert_eq!((now.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (0, 3));
    }

    #[test]
    fn the_contract_holds_through_it() {
        contract::run_all(&|| Box::new(Limit::new(Arc::new(Memory::new()), 2)));
    }
}

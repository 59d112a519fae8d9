//! A store that fails as told, for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Body, Key, Listing, ObjectInfo, Storage, Verb, body};

#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Storage>,
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: BTreeMap<Verb, u64>,
    /// By the number of the call, from 1.
    once: BTreeMap<(Verb, u64), Fault>,
    always: BTreeMap<Verb, Fault>,
}

#[derive(Clone)]
pub enum Fault {
    /// Nothing happens but the error.
    Before(ErrorKind),
    /// As `Before`, with an error made to measure.
    BeforeWith(Arc<dyn Fn() -> Error + Send + Sync>),
    /// It happens, and its answer is lost.
    After(ErrorKind),
    /// The middle byte is another: of what is stored, or of what is read.
    FlipByte,
    /// The second half is missing: of what is stored, or of what is read.
    CutShort,
}

impl Fault {
    pub fn before(error: impl Fn() -> Error + Send + Sync + 'static) -> Self {
        Fault::BeforeWith(Arc::new(error))
    }
}

impl Faulty {
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Faulty { inner, plan: Mutex::default() }
    }

    /// For the `nth` call of a verb, counted from 1 since the store was made.
    pub fn fail(&self, verb: Verb, nth: u64, fault: Fault) {
        self.plan().once.insert((verb, nth), fault);
    }

    pub fn fail_always(&self, verb: Verb, fault: Fault) {
        self.plan().always.insert(verb, fault);
    }

    pub fn calls(&self, verb: Verb) -> u64 {
        self.plan().calls.get(&verb).copied().unwrap_or_default()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().expect("nothing panics while it holds the lock")
    }

    fn next(&self, verb: Verb) -> Option<Fault> {
        let mut plan = self.plan();
        let nth = plan.calls.entry(verb).or_default();
        *nth += 1;
        let nth = *nth;
        plan.once.get(&(verb, nth)).or_else(|| plan.always.get(&verb)).cloned()
    }

    fn call<T>(
        &self,
        verb: Verb,
        ask: impl FnOnce() -> Result<T>,
        damage: impl FnOnce(T, &Fault) -> T,
    ) -> Result<T> {
        let error = |kind| Err(Error::new(kind, format!("{}: as the test wants it", verb.name())));
        match self.next(verb) {
            None => ask(),
            Some(Fault::Before(kind)) => error(kind),
            Some(Fault::BeforeWith(error)) => Err(error()),
            Some(Fault::After(kind)) => {
                ask()?;
                error(kind)
            }
            Some(fault) => Ok(damage(ask()?, &fault)),
        }
    }
}

fn damaged(bytes: Bytes, fault: &Fault) -> Bytes {
    let middle = bytes.len() / 2;
    match fault {
        Fault::FlipByte if !bytes.is_empty() => {
            let mut bytes = bytes.to_vec();
            bytes[middle] ^= 0x40;
            bytes.into()
        }
        Fault::CutShort => bytes.slice(..middle),
        _ => bytes,
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for Faulty {
    fn put_new(&self, key: &Key, body: &Body) -> Result<()> {
        match self.next(Verb::PutNew) {
            Some(fault @ (Fault::FlipByte | Fault::CutShort)) => {
                let whole = body.to_bytes().map_err(|error| body::unreadable(key, error))?;
                self.inner.put_new(key, &Body::new(damaged(whole, &fault)))
            }
            Some(Fault::Before(kind)) => Err(Error::new(kind, "put: as the test wants it")),
            Some(Fault::BeforeWith(error)) => Err(error()),
            Some(Fault::After(kind)) => {
                self.inner.put_new(key, body)?;
                Err(Error::new(kind, "put: as the test wants it"))
            }
            None => self.inner.put_new(key, body),
        }
    }

    fn get(&self, key: &Key) -> Result<Bytes> {
        self.call(Verb::Get, || self.inner.get(key), damaged)
    }

    fn get_start(&self, key: &Key, max: u64) -> Result<(Bytes, u64)> {
        let damage = |(bytes, size), fault: &Fault| (damaged(bytes, fault), size);
        self.call(Verb::Get, || self.inner.get_start(key, max), damage)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.call(Verb::GetRange, || self.inner.get_range(key, range), damaged)
    }

    fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.call(Verb::Head, || self.inner.head(key), |info, _| info)
    }

    fn list(&self, folder: Option<&Key>) -> Result<Listing> {
        self.call(Verb::List, || self.inner.list(folder), |listing, _| listing)
    }

    fn list_all(&self, folder: &Key, after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        self.call(Verb::List, || self.inner.list_all(folder, after), |listing, _| listing)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.call(Verb::Delete, || self.inner.delete(key), |(), _| ())
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Before(kind) => write!(f, "Before({kind:?})"),
            Fault::BeforeWith(_) => f.write_str("BeforeWith"),
            Fault::After(kind) => write!(f, "After({kind:?})"),
            Fault::FlipByte => f.write_str("FlipByte"),
            Fault::CutShort => f.write_str("CutShort"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Fault, Faulty};
    use crate::error::ErrorKind;
    use crate::storage::memory::Memory;
    use crate::storage::{Body, Key, Storage, Verb, contract};

    #[test]
    fn it_fails_as_told_and_then_no_more() {
        let memory = Arc::new(Memory::new());
        let faulty = Faulty::new(memory.clone());
        let key = Key::new("a").unwrap();
        faulty.fail(Verb::PutNew, 1, Fault::Before(ErrorKind::Full));
        faulty.fail(Verb::PutNew, 2, Fault::After(ErrorKind::Unreachable));
        faulty.fail(Verb::Get, 1, Fault::FlipByte);
        faulty.fail(Verb::Get, 2, Fault::CutShort);
        let body = Body::new("1234");
        assert_eq!(faulty.put_new(&key, &body).unwrap_err().kind(), ErrorKind::Full);
        assert!(memory.get(&key).is_err());
        assert_eq!(faulty.put_new(&key, &body).unwrap_err().kind(), ErrorKind::Unreachable);
        assert_eq!(memory.get(&key).unwrap(), "1234");
        assert_eq!(faulty.get(&key).unwrap(), "12s4");
        assert_eq!(faulty.get(&key).unwrap(), "12");
        assert_eq!(faulty.get(&key).unwrap(), "1234");
    }

    #[test]
    fn untold_it_keeps_the_contract() {
        contract::run_all(&|| Box::new(Faulty::new(Arc::new(Memory::new()))));
    }
}

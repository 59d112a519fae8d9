//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Body, Key, Listing, ObjectInfo, Storage, body};

#[derive(Debug, Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<Key, Bytes>>,
}

impl Memory {
    pub fn new() -> Self {
        Memory::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.lock().expect("nothing panics while it holds the lock")
    }
}

#[deny(clippy::missing_trait_methods)]
impl Storage for Memory {
    fn put_new(&self, key: &Key, body: &Body) -> Result<()> {
        let bytes = body.to_bytes().map_err(|error| body::unreadable(key, error))?;
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{key} is there already")));
        }
        objects.insert(key.clone(), bytes);
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Bytes> {
        let objects = self.objects();
        let missing = || Error::new(ErrorKind::NotFound, format!("{key} is not there"));
        objects.get(key).cloned().ok_or_else(missing)
    }

    fn get_start(&self, key: &Key, max: u64) -> Result<(Bytes, u64)> {
        let object = self.get(key)?;
        let size = object.len() as u64;
        Ok((object.slice(..size.min(max) as usize), size))
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let object = self.get(key)?;
        if range.start > range.end || range.end > object.len() as u64 {
            return Err(Error::new(ErrorKind::Corrupt, format!("{key} is shorter than {range:?}")));
        }
        Ok(object.slice(range.start as usize..range.end as usize))
    }

    fn head(&self, key: &Key) -> Result<ObjectInfo> {
        Ok(info(key, &self.get(key)?))
    }

    fn list(&self, folder: Option<&Key>) -> Result<Listing> {
        let prefix = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
        let objects = self.objects();
        let mut listing = Listing::default();
        for (key, bytes) in objects.iter() {
            let Some(rest) = key.as_str().strip_prefix(&prefix) else { continue };
            match rest.split_once('/') {
                Some((folder, _)) if listing.folders.last().is_some_and(|last| last == folder) => {}
                Some((folder, _)) => listing.folders.push(folder.to_owned()),
                None => listing.objects.push(info(key, bytes)),
            }
        }
        Ok(listing)
    }

    fn list_all(&self, folder: &Key, after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        let (prefix, objects) = (format!("{folder}/"), self.objects());
        let below = objects.iter().filter(|(key, _)| key.as_str().starts_with(&prefix));
        let wanted = below.filter(|(key, _)| after.is_none_or(|after| *key > after));
        Ok(wanted.map(|(key, bytes)| info(key, bytes)).collect())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.objects().remove(key);
        Ok(())
    }

    fn url(&self) -> String {
        "memory:".to_owned()
    }
}

fn info(key: &Key, bytes: &Bytes) -> ObjectInfo {
    let modified = jiff::Timestamp::UNIX_EPOCH;
    ObjectInfo { key: key.clone(), size: bytes.len() as u64, modified }
}

#[cfg(test)]
mod tests {
    use super::Memory;
    use crate::storage::contract;

    #[test]
    fn memory_keeps_the_contract() {
        contract::run_all(&|| Box::new(Memory::new()));
        contract::folders_are_no_objects(&Memory::new());
    }
}

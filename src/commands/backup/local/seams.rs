//! What two packs share: the chunk, and the page, that one ends and the next one begins with.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;

/// By where it begins in the stream, what waits for who makes the other pack. There are never more
/// than packs are being made.
#[derive(Debug, Default)]
pub struct Seams {
    /// First halves and second halves of chunks.
    halves: Mutex<BTreeMap<u64, Vec<u8>>>,
    pages: Mutex<BTreeMap<u64, Vec<u8>>>,
}

/// Which part of a chunk somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    First,
    Second,
}

impl Seams {
    /// The whole chunk, where the other half is there already.
    pub fn join(&self, chunk_at: u64, half: Half, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(other) = halves.remove(&chunk_at) else {
            halves.insert(chunk_at, bytes.to_vec());
            return None;
        };
        Some(match half {
            Half::First => [bytes, &other].concat(),
            Half::Second => [&other, bytes].concat(),
        })
    }

    /// The same page for both who ask for it: the first one reads.
    pub fn page(&self, page_at: u64, read: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = pages.remove(&page_at) {
            return Ok(page);
        }
        let page = read()?;
        pages.insert(page_at, page.clone());
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::{Half, Seams};

    #[test]
    fn two_halves_are_one_chunk_whichever_comes_first() {
        let seams = Seams::default();
        assert_eq!(seams.join(7, Half::First, b"ab"), None);
        assert_eq!(seams.join(9, Half::Second, b"ef"), None);
        assert_eq!(seams.join(7, Half::Second, b"cd"), Some(b"abcd".to_vec()));
        assert_eq!(seams.join(9, Half::First, b""), Some(b"ef".to_vec()));
        assert_eq!(seams.join(7, Half::Second, b"x"), None);
    }

    #[test]
    fn a_page_is_read_once_for_two() {
        let seams = Seams::default();
        assert_eq!(seams.page(7, || Ok(vec![1])).unwrap(), [1]);
        assert_eq!(seams.page(8, || Ok(vec![2])).unwrap(), [2]);
        assert_eq!(seams.page(7, || panic!("it is there already")).unwrap(), [1]);
        assert_eq!(seams.page(7, || Ok(vec![3])).unwrap(), [3], "for the next two");
    }
}

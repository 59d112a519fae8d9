//! Chunks that two packs share: whoever has the second half puts them together.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// First halves and second halves that wait for the other, by where the chunk begins in the stream.
/// There are never more than packs are being made.
#[derive(Debug, Default)]
pub struct Seams {
    waiting: Mutex<BTreeMap<u64, Vec<u8>>>,
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
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(other) = waiting.remove(&chunk_at) else {
            waiting.insert(chunk_at, bytes.to_vec());
            return None;
        };
        Some(match half {
            Half::First => [bytes, &other].concat(),
            Half::Second => [&other, bytes].concat(),
        })
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
}

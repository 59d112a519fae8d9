//! Work on many threads whose results are taken one after the other, in the order of what was
//! given: hashes and links depend on it.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// How many threads work, and how many results may wait to be taken, those at work included.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub jobs: usize,
    pub ahead: usize,
}

#[derive(Default)]
struct State {
    next: usize,
    taken: usize,
    is_over: bool,
}

struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one to work on, once there is room for its result.
    fn claim(&self, all: usize, ahead: usize) -> Option<usize> {
        let mut state = self.lock();
        while !state.is_over && state.next < all && state.next >= state.taken + ahead {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mine = Some(state.next).filter(|next| !state.is_over && *next < all)?;
        state.next += 1;
        Some(mine)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Nobody waits for who is gone, were it by a panic.
struct Leaves<'a>(&'a Turns);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.change(|state| state.is_over = true);
        }
    }
}

/// Hands what `work` makes of each to `take`, which runs on the caller's thread.
pub fn in_order<T: Sync, R: Send>(
    items: &[T],
    pace: Pace,
    work: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(R),
) {
    let turns = Turns { state: Mutex::default(), changed: Condvar::new() };
    let jobs = pace.jobs.clamp(1, items.len().max(1));
    let ahead = pace.ahead.max(jobs);
    let (turns, work) = (&turns, &work);
    thread::scope(|scope| {
        let (done, results) = channel();
        for _ in 0..jobs {
            let done = done.clone();
            scope.spawn(move || {
                let _leaves = Leaves(turns);
                while let Some(at) = turns.claim(items.len(), ahead) {
                    // Nobody takes it any more: then nobody will miss it.
                    let _ = done.send((at, work(&items[at])));
                }
            });
        }
        drop(done);
        let _leaves = Leaves(turns);
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        for (at, result) in results {
            waiting.insert(at, result);
            while let Some(result) = waiting.remove(&next) {
                take(result);
                next += 1;
                turns.change(|state| state.taken = next);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Pace, in_order};

    #[test]
    fn results_come_in_order_and_never_too_many_at_once() {
        let items: Vec<usize> = (0..500).collect();
        let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |item: &usize| {
            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..(item * 7919 % 13) * 50 {
                std::hint::spin_loop();
            }
            *item
        };
        let mut taken = Vec::new();
        in_order(&items, Pace { jobs: 4, ahead: 6 }, work, |item| {
            under_way.fetch_sub(1, Ordering::SeqCst);
            taken.push(item);
        });
        assert_eq!(taken, items);
        assert!(most.into_inner() <= 6);
        in_order(&[], Pace { jobs: 4, ahead: 6 }, |item: &usize| *item, |_| panic!("none"));
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_of_one_ends_all() {
        let items: Vec<usize> = (0..50).collect();
        let work = |item: &usize| assert_ne!(*item, 7);
        in_order(&items, Pace { jobs: 3, ahead: 3 }, work, |()| ());
    }
}

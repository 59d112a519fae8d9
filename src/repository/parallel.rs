//! Many questions to a store at once: one after another they would mostly wait.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::Result;

/// As many as a store lets us ask at once, unless told otherwise.
const AT_ONCE: usize = 16;

/// What `ask` makes of each, in the same order.
pub fn ask_each<T: Sync, R: Send>(of: &[T], ask: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::with_capacity(of.len()));
    let work = || {
        while let Some((at, one)) = take(of, &next) {
            let answer = ask(one);
            answers.lock().unwrap_or_else(PoisonError::into_inner).push((at, answer));
        }
    };
    thread::scope(|scope| {
        for _ in 1..of.len().min(AT_ONCE) {
            scope.spawn(work);
        }
        work();
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// As `ask_each`, for questions that are worth nothing without the others: nothing more is asked
/// once one failed, since each may take its time to fail.
pub fn ask_all<T: Sync, R: Send>(of: &[T], ask: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let failed = AtomicBool::new(false);
    let answers = ask_each(of, |one| {
        if failed.load(Ordering::Relaxed) {
            return None;
        }
        let answer = ask(one);
        failed.fetch_or(answer.is_err(), Ordering::Relaxed);
        Some(answer)
    });
    answers.into_iter().flatten().collect()
}

fn take<'t, T>(of: &'t [T], next: &AtomicUsize) -> Option<(usize, &'t T)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    of.get(at).map(|one| (at, one))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{AT_ONCE, ask_all, ask_each};
    use crate::error::{Error, ErrorKind};

    #[test]
    fn after_a_failure_nothing_more_is_asked() {
        let asked = AtomicUsize::new(0);
        let questions: Vec<usize> = (0..1_000).collect();
        let outcome = ask_all(&questions, |number| {
            asked.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(1));
            match number {
                3 => Err(Error::new(ErrorKind::Unreachable, "no answer")),
                number => Ok(number * 2),
            }
        });
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unreachable);
        assert!(asked.load(Ordering::SeqCst) < 900, "{asked:?}");
        assert_eq!(ask_all(&questions, |number| Ok(*number)).unwrap(), questions);
    }

    #[test]
    fn answers_come_in_the_order_of_the_questions_and_questions_are_asked_at_once() {
        let none: Vec<u32> = ask_each(&[], |number: &u32| *number);
        assert!(none.is_empty());
        let questions: Vec<usize> = (0..5 * AT_ONCE).collect();
        // Would never end if fewer were asked at once.
        let barrier = Barrier::new(AT_ONCE);
        let answers = ask_each(&questions, |number| {
            barrier.wait();
            number * 2
        });
        assert_eq!(answers, (0..5 * AT_ONCE).map(|number| number * 2).collect::<Vec<_>>());
    }
}

//! Cases of one test side by side: most of their time they wait, each for processes of its own.

use std::sync::{Mutex, PoisonError};

/// Cases at a time. Chosen: as many as two cores carry without one being late for it.
const AT_A_TIME: usize = 8;

/// Runs every case, several at a time. A failure ends the test once those that were begun have ended; no further one is begun.
pub(crate) fn side_by_side<T: Send>(cases: impl IntoIterator<Item = T>, run: impl Fn(T) + Sync) {
    let cases: Vec<T> = cases.into_iter().collect();
    let threads = cases.len().min(AT_A_TIME);
    let left = Mutex::new(cases.into_iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        let work = || {
            while let Some(case) = next() {
                run(case);
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(failure) = worker.join() {
                // Whoever is still at work finds nothing more to do.
                while next().is_some() {}
                std::panic::resume_unwind(failure);
            }
        }
    });
}

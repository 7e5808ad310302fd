//! Runs the cases of one test side by side. Most of the time they wait, each for processes of its own.

use std::sync::{Mutex, PoisonError};

/// Cases at a time. Chosen: as many as two cores can run without making one of them late.
const AT_A_TIME: usize = 8;

/// Runs every case, several at a time. After a failure no further case starts, and the test ends once the running ones have ended.
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
                // After a failure the remaining cases are skipped.
                while next().is_some() {}
                std::panic::resume_unwind(failure);
            }
        }
    });
}

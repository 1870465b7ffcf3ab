//! Trials on all cores, with a watch on those that hang.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// A trial that takes longer hangs.
const TRIAL_PATIENCE: Duration = Duration::from_secs(60);

/// Runs every trial once; returns what came of them, in no order.
pub(crate) fn run<T, R>(
    name: &str,
    trials: Vec<T>,
    work: impl Fn(&T) -> R + Send + Sync + 'static,
) -> impl Iterator<Item = R>
where
    T: Send + Sync + 'static,
    R: Send + 'static,
{
    let count = trials.len();
    let shared = Arc::new((trials, AtomicUsize::new(0), work));
    let (sender, results) = mpsc::channel();
    for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
        let (shared, sender) = (Arc::clone(&shared), sender.clone());
        thread::spawn(move || {
            let (trials, next, work) = &*shared;
            while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                if sender.send(work(trial)).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let name = name.to_owned();
    (0..count).map(move |done| match results.recv_timeout(TRIAL_PATIENCE) {
        Ok(result) => result,
        Err(error) => panic!("{name}: a trial hangs or panicked after {done} of {count}: {error}"),
    })
}

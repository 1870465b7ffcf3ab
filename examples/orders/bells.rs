//! A bell for each order in flight: its last activity rings, so that the driver looks when there is
//! something to see instead of asking the store about every order all the time.
//!
//! A bell is a hint and nothing more. It lives in memory, rings before the order's completion is committed,
//! and does not ring again in a resumed run if it rang before the crash. What counts is what the driver
//! then reads from the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

#[derive(Clone, Default)]
pub struct Bells {
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<()>>>>,
}

impl Bells {
    /// Hangs up a bell for `order`. Do so before the order is started, or it may ring unheard.
    pub fn listen(&self, order: u64) -> oneshot::Receiver<()> {
        let (ring, bell) = oneshot::channel();
        self.waiting().insert(order, ring);
        bell
    }

    /// Rings once; an activity that runs twice, or an order nobody waits for, does no harm.
    pub fn ring(&self, order: u64) {
        if let Some(ring) = self.waiting().remove(&order) {
            let _ = ring.send(());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        // No panic can leave a map of senders half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

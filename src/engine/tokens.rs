//! The lock tokens that callers hold.

use parking_lot::Mutex;

use crate::queue::LeaseNo;

/// Lock tokens as callers see them: the engine's own random stamp, so that a token from before a restart
/// cannot name a lease of today, and the lease's number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens {
    stamp: u64,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        static DISTINCT: Mutex<u64> = Mutex::new(0);
        let mut distinct = DISTINCT.lock();
        *distinct += 1;
        // RandomState is seeded by the operating system.
        Self {
            stamp: RandomState::new().hash_one((std::process::id(), *distinct, std::time::SystemTime::now())),
        }
    }

    pub(crate) fn write(self, lease: LeaseNo) -> String {
        format!("{:016x}-{lease:x}", self.stamp)
    }

    /// `None` for what this engine never wrote.
    pub(crate) fn read(self, token: &str) -> Option<LeaseNo> {
        let (stamp, lease) = token.split_once('-')?;
        let stamp = u64::from_str_radix(stamp, 16).ok()?;
        (stamp == self.stamp).then(|| LeaseNo::from_str_radix(lease, 16).ok())?
    }
}

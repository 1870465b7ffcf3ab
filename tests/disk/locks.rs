//! SQLite's locks on one file, and the shared memory of its write-ahead log, for connections of one process.
//!
//! What locks mean is in sqlite3.h ("xLock", "xShmLock"); what is refused here is refused as `os_unix.c` does.

use std::collections::HashMap;

use rusqlite::ffi;

/// An open file, as far as locks are concerned.
pub(crate) type Holder = u64;

/// Refused for now: SQLITE_BUSY.
#[derive(Debug)]
pub(crate) struct Busy;

const SHM_LOCKS: usize = ffi::SQLITE_SHM_NLOCK as usize;

/// SQLite asks for 32 KiB at a time.
const REGION_WORDS: usize = 4096;
pub(crate) const REGION_BYTES: usize = REGION_WORDS * size_of::<u64>();

/// SQLite reads and writes it through pointers, from several threads, by a protocol of its own; so it is never
/// borrowed here after it was made.
struct Region(*mut [u64; REGION_WORDS]);

#[derive(Default)]
pub(crate) struct Locks {
    levels: HashMap<Holder, i32>,
    regions: Vec<Region>,
    /// What each connection holds of the eight locks on the shared memory: shared, exclusive.
    shared_memory: HashMap<Holder, [Option<Mode>; SHM_LOCKS]>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Shared,
    Exclusive,
}

// SAFETY: a `Region` is an allocation that nobody but SQLite reads or writes; moving the pointer to it to
// another thread does nothing to it.
unsafe impl Send for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` and dropped once. No connection has it mapped any more: regions are
        // dropped by the last `unmap`, or with the disk, which outlives every open file.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

impl Locks {
    pub(crate) fn lock(&mut self, holder: Holder, wanted: i32) -> Result<(), Busy> {
        let own = self.level(holder);
        if own >= wanted {
            return Ok(());
        }
        let others = self.levels.iter().filter(|(other, _)| **other != holder).map(|(_, level)| *level);
        let others = others.max().unwrap_or(ffi::SQLITE_LOCK_NONE);
        if others >= ffi::SQLITE_LOCK_PENDING
            || (wanted > ffi::SQLITE_LOCK_SHARED && others >= ffi::SQLITE_LOCK_RESERVED)
        {
            return Err(Busy);
        }
        if wanted == ffi::SQLITE_LOCK_EXCLUSIVE && others >= ffi::SQLITE_LOCK_SHARED {
            // No new readers; those that are there are waited for by the caller.
            self.levels.insert(holder, ffi::SQLITE_LOCK_PENDING);
            return Err(Busy);
        }
        self.levels.insert(holder, wanted);
        Ok(())
    }

    pub(crate) fn unlock(&mut self, holder: Holder, level: i32) {
        if level == ffi::SQLITE_LOCK_NONE {
            self.levels.remove(&holder);
        } else if self.level(holder) > level {
            self.levels.insert(holder, level);
        }
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.levels.values().any(|level| *level >= ffi::SQLITE_LOCK_RESERVED)
    }

    fn level(&self, holder: Holder) -> i32 {
        self.levels.get(&holder).copied().unwrap_or(ffi::SQLITE_LOCK_NONE)
    }

    /// The address of a region; null if it is not there and not to be made.
    pub(crate) fn map(&mut self, holder: Holder, region: usize, extend: bool) -> *mut u64 {
        self.shared_memory.entry(holder).or_default();
        while extend && self.regions.len() <= region {
            self.regions.push(Region(Box::into_raw(Box::new([0; REGION_WORDS]))));
        }
        self.regions.get(region).map_or(std::ptr::null_mut(), |region| region.0.cast())
    }

    /// The last one to go takes the memory with it.
    pub(crate) fn unmap(&mut self, holder: Holder) {
        self.shared_memory.remove(&holder);
        if self.shared_memory.is_empty() {
            self.regions.clear();
        }
    }

    pub(crate) fn lock_shared_memory(
        &mut self,
        holder: Holder,
        locks: std::ops::Range<usize>,
        exclusive: bool,
    ) -> Result<(), Busy> {
        let in_the_way = |mode: Mode| exclusive || mode == Mode::Exclusive;
        let others = self.shared_memory.iter().filter(|(other, _)| **other != holder);
        for (_, held) in others {
            if held[locks.clone()].iter().flatten().any(|mode| in_the_way(*mode)) {
                return Err(Busy);
            }
        }
        let mode = if exclusive { Mode::Exclusive } else { Mode::Shared };
        self.shared_memory.entry(holder).or_default()[locks].fill(Some(mode));
        Ok(())
    }

    pub(crate) fn unlock_shared_memory(&mut self, holder: Holder, locks: std::ops::Range<usize>) {
        if let Some(held) = self.shared_memory.get_mut(&holder) {
            held[locks].fill(None);
        }
    }
}

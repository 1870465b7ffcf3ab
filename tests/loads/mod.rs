//! Loads for a simulated disk: each runs its operations in an order that does not depend on chance, and keeps a
//! record of what the database must look like after each of them, from what it was told and never from the
//! engine's code.
//!
//! ```text
//!   orders.rs  duroxide's storage: what is done     driver.rs  how one operation is done and noted
//!   picture.rs what can be seen of it               numbers.rs the same for the Writer
//!   record.rs  what may be found afterwards         manner.rs  what a load does when it is told of an error
//!   cores.rs   trials on all cores
//! ```
#![allow(dead_code)] // every test binary takes what it needs

pub(crate) mod cores;
#[cfg(feature = "duroxide")]
pub(crate) mod driver;
pub(crate) mod manner;
pub(crate) mod numbers;
#[cfg(feature = "duroxide")]
pub(crate) mod orders;
#[cfg(feature = "duroxide")]
pub(crate) mod picture;
pub(crate) mod record;

use std::fmt::Debug;

use forebay::Durability;

use crate::disk::Disk;
use manner::OnError;
use record::Record;

/// Small enough that the log passes it every few batches, so checkpoints and restarts of the log happen
/// while the engine is busy.
pub(crate) const WAL_BYTES_MAX: u64 = 96 << 10;

/// What can be seen of a store.
pub(crate) trait Likeness: PartialEq {
    /// Whether `found` is this, when the process did not get to close the database.
    fn allows(&self, found: &Self) -> bool {
        self == found
    }
}

/// Something to run on a disk.
pub(crate) trait Load: Send + Sync + 'static {
    type Picture: Likeness + Debug + Send + Sync;

    /// Runs until the end, or until it is told of an error that `on_error` does not go on after.
    fn run(&self, disk: &Disk, durability: Durability, on_error: OnError) -> Record<Self::Picture>;

    /// Opens what is on the disk, checks that it is sound, and tells what it looks like.
    fn look(&self, disk: &Disk, durability: Durability) -> Result<Self::Picture, String>;

    /// Opens and closes, as far as that goes.
    fn touch(&self, disk: &Disk, durability: Durability);
}

/// The number of I/O operations of a load that nobody disturbs.
pub(crate) fn undisturbed<L: Load>(load: &L, disk: &Disk, durability: Durability) -> u64 {
    let record = load.run(disk, durability, OnError::Stop);
    assert!(record.stopped.is_none(), "undisturbed, the load runs to its end: {:?}", record.stopped);
    let operations = disk.operations();
    let found = load.look(disk, durability).expect("undisturbed, the file is sound");
    record.judge_all(&found).expect("undisturbed, everything is there");
    operations
}

/// Overridden by `FOREBAY_SEED`.
const SEED: u64 = 0x0F0E_BA1D;

pub(crate) fn seed() -> u64 {
    std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED)
}

/// Shows the first few.
pub(crate) fn assert_none(wrong: &[String]) {
    let shown: Vec<&str> = wrong.iter().take(3).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} wrong, the first of them:\n{}", wrong.len(), shown.join("\n"));
}

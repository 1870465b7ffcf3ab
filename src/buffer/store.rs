//! The seam between group commit and what is being committed.
//!
//! The writer thread is the only caller, so a store needs no locks. Failure is injected here in tests.

use super::horizon::CommitNo;
use super::reply::{Replies, Responder};
use crate::error::Error;

/// Why a commit did not happen, or may not have.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// Nothing of the batch is in the file, for certain. The engine goes on after [`Store::rollback`].
    RolledBack(Error),
    /// Nobody can tell. The engine latches.
    Unknown(Error),
}

/// What the writer thread drives: one transaction per batch, opened only if something writes.
///
/// A cycle is `tick`, `prepare`, `apply` for every operation in arrival order, `settle`, `commit`. An error from
/// `apply` or `settle` means that the batch as a whole cannot be written; an operation that fails on its
/// own says so through its responder and leaves no trace.
///
/// Operations that [need no commit](Store::needs_no_commit) are applied first and answered before the others
/// are looked at: what becomes of a batch is nothing to those that neither write nor rely on what it writes.
pub(crate) trait Store: Send + 'static {
    /// What callers submit.
    type Op: Send + 'static;
    /// What they hear. One whose caller is gone is dropped, on any thread.
    type Reply: Send + 'static;

    /// The instant the batch runs at is now: whatever was submitted before it is in the batch, unless the batch is
    /// [full](Store::left_some_waiting).
    fn note_time(&mut self) {}

    /// Brings everything that depends on time up to the instant of the batch, and looks at what came in beside the
    /// channel.
    fn tick(&mut self, out: &mut Replies<Self::Reply>);

    /// The batch was full before the channel was empty: there may be operations that arrived before its instant
    /// and are not in it.
    fn left_some_waiting(&mut self) {}

    /// Whether `op` writes nothing and its answer depends on nothing but what is committed. It is then answered
    /// at once, before the batch it arrived with; `apply` must not fail for it.
    fn needs_no_commit(&self, op: &Self::Op) -> bool {
        let _ = op;
        false
    }

    /// Whether `op` is to be alone in its batch.
    fn goes_alone(&self, op: &Self::Op) -> bool {
        let _ = op;
        false
    }

    /// The operations that are about to be applied, in their order: what they need and the store does not know it may ask
    /// for now, for all of them at once.
    fn prepare<'a>(&mut self, batch: impl Iterator<Item = &'a Self::Op> + Clone) {
        let _ = batch;
    }

    /// Applies one operation. The responder is pushed to `out` with its result, or kept for a later cycle.
    ///
    /// On `Err` the batch will be rolled back, once the operations behind this one have been applied as well: they
    /// can write nothing any more, but one that would not have written has its own answer.
    ///
    /// IMPORTANT: on `Err` the responder must be in `out` as well (with any result: the buffer overwrites
    /// it, unless it [stands](Replies::push_standing)), or its caller would hear "closed" instead of what
    /// happened.
    fn apply(
        &mut self,
        op: Self::Op,
        responder: Responder<Self::Reply>,
        out: &mut Replies<Self::Reply>,
    ) -> Result<(), Error>;

    /// Runs after the last operation of a batch and before its commit.
    fn settle(&mut self, out: &mut Replies<Self::Reply>) -> Result<(), Error>;

    /// Commits the batch; succeeds at once if nothing was written. From then on it survives the process. What has to
    /// survive the machine says so [with its answer](Replies::push_after).
    fn commit(&mut self) -> Result<(), CommitError>;

    /// The number of the last commit; 0 where none is waited for.
    fn last_commit(&self) -> CommitNo {
        0
    }

    /// Undoes the batch in the file and in memory. Any error latches the engine; one that is
    /// [`CommitError::RolledBack`] says that the file at least is as it was before the batch.
    fn rollback(&mut self) -> Result<(), CommitError>;

    /// Upkeep between batches: the checkpoint. An error latches the engine.
    fn maintain(&mut self) -> Result<(), Error>;

    /// How long the writer may wait for a submission before it must `tick` again; `None` for ever.
    fn wait(&self) -> Option<std::time::Duration>;

    /// The engine has latched or closed: answers everyone the store still holds.
    fn abandon(&mut self, error: &Error);

    /// The last call on a store that has not failed: leaves the file as small and as plain as possible.
    fn close(&mut self) -> Result<(), Error>;

    /// The last call on a store that has failed, closing included: lets go of the file without touching it. What is on
    /// its way to the disk may still get there.
    fn let_go(&mut self);
}

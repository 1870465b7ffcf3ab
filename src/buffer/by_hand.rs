//! One cycle of a store without the writer thread, in the caller's hands: for measuring a store alone, and for
//! tests that say what a batch is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::horizon::Horizon;
use super::reply::{self, Pending, Replies};
use super::shared::Shared;
use super::stats::Counters;
use super::store::{CommitError, Store};
use crate::error::Error;

/// Applies and commits `ops` as one batch; an answer for each, or `None` for what has to wait, and is given up.
pub(crate) fn cycle<S: Store>(store: &mut S, ops: Vec<S::Op>) -> Result<Vec<Option<S::Reply>>, Error> {
    submit(store, ops)?.iter_mut().map(answer).collect()
}

/// What has been answered, if it has.
pub(crate) fn answer<R>(pending: &mut Pending<R>) -> Result<Option<R>, Error> {
    match Pin::new(pending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.map(Some),
        Poll::Pending => Ok(None),
    }
}

/// Applies and commits `ops` as one batch.
pub(crate) fn submit<S: Store>(store: &mut S, ops: Vec<S::Op>) -> Result<Vec<Pending<S::Reply>>, Error> {
    let shared = Arc::new(Shared::new(ops.len(), Arc::<Counters>::default()));
    let mut out = Replies::new();
    let mut waiting = Vec::with_capacity(ops.len());
    store.note_time();
    store.tick(&mut out);
    store.prepare(ops.iter());
    for op in ops {
        let (responder, pending) = reply::pair(&shared);
        waiting.push(pending);
        store.apply(op, responder, &mut out)?;
    }
    store.settle(&mut out)?;
    store.commit().map_err(|(CommitError::RolledBack(error) | CommitError::Unknown(error))| error)?;
    // Without the thread that syncs the log: what is committed is told.
    out.deliver(&Horizon::default(), 0);
    store.maintain()?;
    Ok(waiting)
}

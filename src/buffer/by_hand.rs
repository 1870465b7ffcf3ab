//! One cycle of a store without the writer thread, in the caller's hands: for measuring a store alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::reply::{self, Replies};
use super::shared::{Counters, Shared};
use super::store::{CommitError, Store};
use crate::error::Error;

/// Applies and commits `ops` as one batch; an answer for each, or `None` for what has to wait.
pub(crate) fn cycle<S: Store>(store: &mut S, ops: Vec<S::Op>) -> Result<Vec<Option<S::Reply>>, Error> {
    let shared = Arc::new(Shared::new(ops.len(), Arc::<Counters>::default()));
    let mut out = Replies::new();
    let mut waiting = Vec::with_capacity(ops.len());
    store.note_time();
    store.tick(&mut out);
    for op in ops {
        let (responder, pending) = reply::pair(&shared);
        waiting.push(pending);
        store.apply(op, responder, &mut out)?;
    }
    store.settle(&mut out)?;
    store.commit().map_err(|(CommitError::RolledBack(error) | CommitError::Unknown(error))| error)?;
    out.deliver(|undelivered| store.take_back(undelivered));
    store.maintain()?;
    let mut context = Context::from_waker(Waker::noop());
    let answers = waiting.iter_mut().map(|pending| match Pin::new(pending).poll(&mut context) {
        Poll::Ready(answer) => answer.map(Some),
        Poll::Pending => Ok(None),
    });
    answers.collect()
}

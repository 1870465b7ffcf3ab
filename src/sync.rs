//! What `buffer/` waits with, in one place: `tests/interleavings` compiles the same `buffer/` against primitives
//! of a model checker instead, which decides who runs next.
//!
//! Names only: nothing here may have a cost or a behaviour of its own.

pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
pub(crate) use std::thread;

pub(crate) use crossbeam_channel as channel;
pub(crate) use parking_lot::Mutex;
pub(crate) use pollster::block_on;
pub(crate) use tokio::sync::{Semaphore, TryAcquireError, oneshot};

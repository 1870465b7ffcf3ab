//! The work every subject does, and how it is watched: one source for both sides.
//!
//! The harness and the packages of peers include this folder by path, because they cannot share a dependency
//! graph (one `libsqlite3-sys` a graph). What is measured is therefore the same code twice, and only the
//! provider under it differs.
//!
//! ```text
//!   harness ──► Job, one JSON line ──► child: serve.rs ──► stress / load / long / scale
//!           ◄── Outcome, one JSON line ◄──                   │ Observed (observe.rs) around the subject
//!                                                            ▼
//!                                                     Provider of a Store (subject.rs)
//! ```
//!
//! IMPORTANT: nothing here waits with `Client::wait_for_orchestration`, except duroxide's own stress test,
//! whose work it is: it polls whole histories every 5 to 100 ms and would be the limit. Completion is seen
//! where it becomes durable, when the acknowledgement of the last turn returns.

pub(crate) mod figures;
pub(crate) mod flows;
pub(crate) mod job;
pub(crate) mod lines;
pub(crate) mod load;
pub(crate) mod long;
pub(crate) mod observe;
pub(crate) mod observed;
pub(crate) mod process;
pub(crate) mod scale;
pub(crate) mod serve;
pub(crate) mod stress;
pub(crate) mod subject;

//! The part of `benches/driver/` that knows nothing of duroxide.

// Most of the work and its figures are for other subjects.
#![allow(dead_code)]

#[path = "../../driver/figures.rs"]
pub(crate) mod figures;
#[path = "../../driver/job.rs"]
pub(crate) mod job;
#[path = "../../driver/lines.rs"]
pub(crate) mod lines;
#[path = "../../driver/process.rs"]
mod process;

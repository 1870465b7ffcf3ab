//! Micro-benchmarks of the pieces that profiles show to matter: the codec, the scheduling state, a batch on
//! SQLite. Each alone, on one thread, without the waiting and waking around it.
//!
//! They say whether a change to a piece made it faster, not how fast forebay is: that is the harness' to say.
//! `docs/benchmarks.md` has the commands and figures.

mod batch;
mod codec;
mod fan_out;
mod scheduling;

use criterion::{criterion_group, criterion_main};

criterion_group!(pieces, codec::benches, scheduling::benches, batch::benches);
criterion_main!(pieces);

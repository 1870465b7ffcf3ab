//! What others do to an engine that runs: they hold SQLite's lock, write its tables, remove or replace its file, set the clock,
//! stop its process, or take its writer thread down. Nobody hangs, everybody hears the truth, and what was
//! acknowledged is there.

#![cfg(feature = "duroxide")]

mod at_work;
mod clock_set;
#[path = "../engine_support/mod.rs"]
mod engine_support;
mod file_gone;
mod foreign_lock;
mod foreign_rows;
mod process_stopped;
mod runtime_under_a_lock;
mod writer_panics;

//! A process is killed (SIGKILL) at random instants under full load, again and again on the same file: what it
//! was told is done is there, nothing is there by halves, what it had in its hands counts as tried, and in the
//! end everything completes with the right output.
//!
//! The process that dies is this test binary once more, told by its environment what to do. It says on its
//! output, line by line, what was acknowledged to it; the parent holds that against the file.
//!
//! A kill takes the process and leaves the page cache: what is tested is the engine's order of things, not
//! fsync (see `power_loss` for that).
//!
//! `FOREBAY_KILLS=1000 cargo test --release --test kill -- --nocapture`; `FOREBAY_SEED` for another series.

// Without duroxide the writer alone is killed.
#![cfg_attr(not(feature = "duroxide"), allow(dead_code))]

mod child;
#[cfg(feature = "duroxide")]
mod conservation;
#[cfg(feature = "duroxide")]
mod engine;
#[cfg(feature = "duroxide")]
#[path = "../engine_support/mod.rs"]
mod engine_support;
#[cfg(feature = "duroxide")]
mod found;
#[cfg(feature = "duroxide")]
mod ledger;
mod manner;
mod numbers;
#[cfg(feature = "duroxide")]
mod orders;
#[path = "../disk/random.rs"]
mod random;
mod report;
#[cfg(feature = "duroxide")]
mod reporting;
mod scratch;

/// Overridden by `FOREBAY_SEED`.
const SEED: u64 = 0x0DEA_D0FE;

fn seed() -> u64 {
    std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED)
}

/// Kills of both loads together: `FOREBAY_KILLS`, or else enough for every day.
fn kills() -> usize {
    std::env::var("FOREBAY_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(25)
}

/// Of a thousand faults the first few say what is wrong.
fn assert_none(wrong: &[String]) {
    let shown: Vec<&str> = wrong.iter().take(5).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} wrong, the first of them:\n{}", wrong.len(), shown.join("\n"));
}

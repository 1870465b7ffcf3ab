//! Every wake-up, answer and shutdown of `src/buffer` under a model checker.
//!
//! The files of `src/buffer` are compiled here as they are, against primitives that shuttle schedules
//! ([`sync`]), over a small store ([`ledger`]). Each of the [`scenarios`] runs under random schedules and under
//! PCT ones (few switches, at the worst places). What is looked for: a wake-up that is lost, an answer before
//! its commit, a submission that is answered with something untrue or never, a close that does not drain, a
//! failure that does not reach everybody.
//!
//! ```text
//! cargo run --manifest-path tests/interleavings/Cargo.toml --target-dir target -- [SCHEDULES [SCENARIO]]
//! cargo run ... -- replay SCENARIO SCHEDULE     the schedule that a failure printed
//! tests/interleavings/can_fail.sh               breaks the buffer in several ways; each has to be caught
//! ```
//!
//! shuttle and not loom: loom tries every schedule, weak memory included, of programs far smaller than this
//! one, and would need stand-ins for tokio's primitives too. The price: this shows what was tried, not all, and
//! atomics are sequentially consistent here. (The one flag with an ordering of its own, `nudged`, guards a list
//! under a mutex: a list that the writer locked too early happened before the swap that finds the flag down.)
//!
//! First finding: `close` called on the writer's own thread, by a closure, waited for whoever was closing at
//! the same moment, who was waiting for the writer; and took the thread's handle with it, so that everybody
//! who closed later came back at once.

// What is compiled here is a part of forebay, and not all of that is used.
#![allow(dead_code, unused_imports, unused_macros)]

#[path = "../../../src/buffer/mod.rs"]
mod buffer;
#[path = "../../../src/clock.rs"]
mod clock;
#[path = "../../../src/error/mod.rs"]
mod error;
mod ledger;
#[path = "../../../src/options.rs"]
mod options;
mod scenarios;
mod sync;

use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

/// How many schedules of each kind a scenario runs under, if nothing is said.
const SCHEDULES: usize = 1000;

/// Most races need two or three switches at the right places.
const SWITCHES: usize = 3;

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) -> usize {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(scenario)
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let named = |name: &str| scenarios::ALL.iter().filter(|(known, _)| known.contains(name)).collect();
    if let [replay, name, schedule] = &arguments[..]
        && replay == "replay"
    {
        let found: Vec<_> = named(name);
        shuttle::replay(found[0].1, schedule);
        return;
    }
    let schedules = arguments.first().map_or(SCHEDULES, |number| number.parse().expect("a number"));
    let chosen: Vec<_> = named(arguments.get(1).map_or("", String::as_str));
    assert!(!chosen.is_empty(), "no such scenario");
    let (mut total, begin) = (0, Instant::now());
    for (name, scenario) in chosen {
        let begin = Instant::now();
        eprintln!("scenario: {name}");
        let count = run(RandomScheduler::new(schedules), *scenario)
            + run(PctScheduler::new(SWITCHES, schedules), *scenario);
        total += count;
        println!("{count:>8} schedules {:>6.1} s  {name}", begin.elapsed().as_secs_f64());
    }
    println!("{total:>8} schedules {:>6.1} s  in all, none failed", begin.elapsed().as_secs_f64());
}

//! Whatever was seen outside the engine before the power went is true of what is found afterwards, although commits
//! do not wait for the disk: clients, activities and readers do (docs/guarantees.md).
//!
//! ```text
//!   provider.rs  everybody at once, through the provider      turns.rs   what its turns do
//!   runtime.rs   the same with duroxide's runtime             readers.rs who reads, and when that is over
//!   facts.rs     what was seen, and whether it is still true  found.rs   what is found on the disk
//! ```
//!
//! Another thread than the writer's syncs, so the order of I/O operations is not the same each time, and neither is
//! their number: a cut that is not reached is a run to the end, and that is looked at too.

mod facts;
mod found;
mod provider;
mod readers;
mod runtime;
mod turns;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use facts::{Observer, Seen};
use forebay::{Durability, Options};
use found::Found;

use crate::disk::random::Random;
use crate::disk::{Disk, Image, Survival};
use crate::loads::{WAL_BYTES_MAX, assert_none, cores, seed};
use crate::trial::{cuts, some_survival};

/// A load that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A history that is written by hand, of no orchestration.
const APPENDED: &str = "appended";

/// How many operations a slow sync of the log lets pass at the most before it begins.
const SLOW_MAX: u64 = 16;

type Load = fn(&Disk, &Arc<Observer>);

const THROUGH_THE_PROVIDER: Load = |disk, observer| provider::run(disk, observer);

fn options() -> Options {
    Options::default()
        .durability(Durability::Full)
        .wal_bytes_max(WAL_BYTES_MAX)
        .full_disk_wait(Duration::ZERO)
}

fn on_one_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

/// One loss of power, and the disks that may be found after it.
struct Trial {
    cut: u64,
    slow: u64,
    survivals: Vec<(Survival, u64)>,
}

/// What came of a trial.
struct Outcome {
    images: usize,
    facts: usize,
    is_reached: bool,
    wrong: Vec<String>,
}

impl Trial {
    /// Nothing that was not synced survives, which is the least there may be; and something else.
    fn at(cut: u64, mut random: Random) -> Self {
        let slow = random.next() % (SLOW_MAX + 1);
        let survivals = vec![(Survival::Nothing, 0), (some_survival(&mut random, cut), random.next())];
        Self { cut, slow, survivals }
    }

    fn judge(&self, load: Load) -> Outcome {
        let (disk, observer) = (Disk::new(), Arc::new(Observer::default()));
        disk.slow_syncs(self.slow);
        disk.cut_at(self.cut);
        load(&disk, &observer);
        let seen = observer.all();
        let mut images: Vec<Image> = Vec::new();
        let mut wrong = Vec::new();
        for (survival, seed) in &self.survivals {
            let image = disk.survivor(*survival, *seed);
            if images.contains(&image) {
                continue;
            }
            images.push(image.clone());
            if let Err(what) = look(image, &seen) {
                wrong
                    .push(format!("cut {}, slow {}, {survival:?}, seed {seed}: {what}", self.cut, self.slow));
            }
        }
        Outcome { images: images.len(), facts: seen.facts.len(), is_reached: disk.is_off(), wrong }
    }
}

fn look(image: Image, seen: &Seen) -> Result<(), String> {
    let disk = Disk::with(image);
    let found = catch_unwind(AssertUnwindSafe(|| Found::on(&disk)));
    let found = found.unwrap_or_else(|_panic| Err("what is found cannot be looked at".into()));
    seen.judge(&found?)
}

/// The I/O operations of a load that nobody disturbs, and what is seen of it: all kinds of facts.
fn undisturbed(load: Load) -> (u64, Seen) {
    let (disk, observer) = (Disk::new(), Arc::new(Observer::default()));
    disk.slow_syncs(SLOW_MAX / 2);
    load(&disk, &observer);
    let (operations, seen) = (disk.operations(), observer.all());
    look(disk.survivor(Survival::Nothing, 0), &seen).expect("undisturbed, everything is there");
    (operations, seen)
}

fn judge_all(name: &str, load: Load, trials: Vec<Trial>) -> Vec<String> {
    let (began, count) = (Instant::now(), trials.len());
    let mut all = Outcome { images: 0, facts: 0, is_reached: true, wrong: Vec::new() };
    let mut reached = 0;
    for outcome in cores::run(name, trials, move |trial: &Trial| trial.judge(load)) {
        all.images += outcome.images;
        all.facts += outcome.facts;
        reached += usize::from(outcome.is_reached);
        all.wrong.extend(outcome.wrong);
    }
    println!(
        "{name}: {count} cuts, {reached} reached, {} disks, {} facts, {} wrong, seed {}, {:.1} s",
        all.images,
        all.facts,
        all.wrong.len(),
        seed(),
        began.elapsed().as_secs_f64()
    );
    assert!(reached * 2 > count, "{name}: most cuts are reached");
    all.wrong
}

fn cut_at_random(name: &str, load: Load, count: usize) -> Vec<String> {
    let (operations, _) = undisturbed(load);
    let trial = |no: usize| {
        let mut random = Random::new(seed() ^ ((no as u64) << 20) ^ 0x0B5);
        Trial::at(1 + random.next() % operations, random)
    };
    judge_all(name, load, (0..count).map(trial).collect())
}

#[test]
fn everywhere_through_the_provider() {
    let (operations, _) = undisturbed(THROUGH_THE_PROVIDER);
    let trials = (1..=operations).map(|cut| Trial::at(cut, Random::new(seed() ^ (cut << 16)))).collect();
    assert_none(&judge_all("observer, provider, everywhere", THROUGH_THE_PROVIDER, trials));
}

#[test]
fn random_through_the_provider() {
    assert_none(&cut_at_random("observer, provider, random", THROUGH_THE_PROVIDER, cuts(300)));
}

#[test]
fn random_with_the_runtime() {
    assert_none(&cut_at_random("observer, runtime, random", runtime::run, cuts(60)));
}

/// The loads are worth their cuts: everything that can be seen is seen in them.
#[test]
fn every_kind_of_fact_is_seen() {
    let (_, seen) = undisturbed(THROUGH_THE_PROVIDER);
    for kind in [
        "StartTaken",
        "RaiseTaken",
        "WorkTaken",
        "Started",
        "History",
        "Status",
        "Count",
        "Info",
        "Latest",
        "Listed",
        "Totals",
        "Timers",
        "Gone",
        "Pruned",
    ] {
        assert!(seen.kinds().contains_key(kind), "nothing of {kind} is seen: {:?}", seen.kinds());
    }
}

/// A disk whose syncs do nothing is caught, whatever the engine does.
#[test]
fn a_disk_that_lies_is_caught() {
    let lying: Load = |disk, observer| {
        disk.lie(crate::disk::Lies::EverySync);
        provider::run(disk, observer);
    };
    let trials = (1..=30).map(|no| Trial::at(no * 20, Random::new(no))).collect();
    let wrong = judge_all("observer, lies", lying, trials);
    assert!(wrong.iter().any(|what| what.contains("LOST")), "nothing was noticed");
}

//! Cutting the power: a load is run on a simulated disk, the power goes at a chosen I/O operation, and what the
//! disk kept is opened and looked at.
//!
//! A load notes every state its database goes through, and up to which of them it was acknowledged. What is
//! found afterwards must be one of those states, whole: then nothing is half there and there is no hole. And
//! it must not be older than the durability promises: at `Full` than the last acknowledged state (attempt
//! counts that shared their batch with nothing else aside), at `Normal` than the last clean close.
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use forebay::Durability;

use crate::disk::random::Random;
use crate::disk::{Disk, Image, Lies, Survival};

/// Small enough that the log passes it every few batches, so checkpoints and restarts of the log happen
/// while the engine is busy.
pub(crate) const WAL_BYTES_MAX: u64 = 96 << 10;

/// A trial that takes longer hangs.
const TRIAL_PATIENCE: Duration = Duration::from_secs(60);

/// Overridden by `FOREBAY_SEED`.
const SEED: u64 = 0x0F0E_BA1D;

/// What a load looks like from outside, and everything it went through.
pub(crate) struct Record<P> {
    states: Vec<State<P>>,
    acknowledged: usize,
    closed: usize,
    /// Why it did not go on to its end.
    pub(crate) stopped: Option<String>,
}

struct State<P> {
    picture: P,
    /// Whether coming to it has to survive a power loss at `Full`.
    matters: bool,
}

impl<P> Record<P> {
    pub(crate) fn new(before: P) -> Self {
        let states = vec![State { picture: before, matters: false }];
        Self { states, acknowledged: 0, closed: 0, stopped: None }
    }

    /// The state to come, if what is about to be submitted works.
    pub(crate) fn submit(&mut self, picture: P, matters: bool) {
        self.states.push(State { picture, matters });
    }

    /// What was submitted was answered with success.
    pub(crate) fn acknowledge(&mut self) {
        self.acknowledged = self.states.len() - 1;
    }

    /// Closing was answered with success.
    pub(crate) fn close(&mut self) {
        self.acknowledge();
        self.closed = self.acknowledged;
    }

    /// The oldest state that may be found.
    fn oldest(&self, promised: Durability) -> usize {
        let up_to_now = &self.states[..=self.acknowledged];
        match promised {
            Durability::Full => {
                up_to_now.iter().rposition(|state| state.matters).unwrap_or(0).max(self.closed)
            }
            Durability::Normal => self.closed,
        }
    }
}

impl<P: PartialEq + Debug> Record<P> {
    fn judge(&self, found: &P, promised: Durability) -> Result<(), String> {
        let oldest = self.oldest(promised);
        if self.states[oldest..].iter().any(|state| state.picture == *found) {
            return Ok(());
        }
        if let Some(older) = self.states[..oldest].iter().rposition(|state| state.picture == *found) {
            return Err(format!("LOST: found state {older}, state {oldest} was acknowledged"));
        }
        let expected = &self.states[oldest].picture;
        Err(format!("HALF OR HOLE: no state looks like this: {found:#?}\nthe oldest allowed: {expected:#?}"))
    }
}

/// Something to run on a disk.
pub(crate) trait Load: Send + Sync + 'static {
    type Picture: PartialEq + Debug;

    /// Runs until the end, or until the first error.
    fn run(&self, disk: &Disk, durability: Durability) -> Record<Self::Picture>;

    /// Opens what is on the disk, checks that it is sound, and tells what it looks like.
    fn look(&self, disk: &Disk, durability: Durability) -> Result<Self::Picture, String>;

    /// Opens and closes, as far as that goes.
    fn touch(&self, disk: &Disk, durability: Durability);
}

/// What is tried, and by which promise it is judged.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) durability: Durability,
    pub(crate) promised: Durability,
    pub(crate) lies: Lies,
}

impl Setting {
    pub(crate) fn honest(durability: Durability) -> Self {
        Self { durability, promised: durability, lies: Lies::None }
    }
}

/// One loss of power, and the disks that may be found after it.
struct Trial {
    cut: u64,
    survivals: Vec<(Survival, u64)>,
    /// The power goes a second time, this many operations into the recovery.
    again: Option<(u64, Survival)>,
}

pub(crate) fn seed() -> u64 {
    std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED)
}

/// The number of random cuts: `FOREBAY_CUTS`, or else `default`.
pub(crate) fn cuts(default: usize) -> usize {
    std::env::var("FOREBAY_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(default)
}

/// The number of I/O operations of a load nobody disturbs.
pub(crate) fn operations<L: Load>(load: &L, setting: Setting) -> u64 {
    let disk = Disk::new();
    disk.lie(setting.lies);
    let record = load.run(&disk, setting.durability);
    assert_eq!(record.stopped, None, "undisturbed, the load runs to its end");
    let operations = disk.operations();
    let found = load.look(&disk, setting.durability).expect("undisturbed, the file is sound");
    record.judge(&found, setting.durability).expect("undisturbed, everything is there");
    operations
}

/// Cuts at every I/O operation, with nothing surviving, everything, and some of what was not synced.
pub(crate) fn cut_everywhere<L: Load>(name: &str, load: L, setting: Setting, scattered: u64) -> Vec<String> {
    let seed = seed();
    let operations = operations(&load, setting);
    let trial = |cut: u64| {
        let mut random = Random::new(seed ^ (cut << 16));
        let mut survivals = vec![(Survival::Nothing, 0), (Survival::Everything, 0)];
        survivals.extend((0..scattered).map(|_| (some_survival(&mut random, cut), random.next())));
        Trial { cut, survivals, again: None }
    };
    judge_all(name, load, setting, seed, (1..=operations).map(trial).collect())
}

/// Cuts at random, half of them followed by a second one during recovery.
pub(crate) fn cut_at_random<L: Load>(name: &str, load: L, setting: Setting, cuts: usize) -> Vec<String> {
    let seed = seed();
    let operations = operations(&load, setting);
    let trial = |no: usize| {
        let mut random = Random::new(seed ^ ((no as u64) << 20) ^ 0xCC);
        let cut = 1 + random.next() % operations;
        let survivals = vec![(some_survival(&mut random, cut), random.next())];
        let second = 1 + random.next() % 120;
        let again = random.percent(50).then(|| (second, some_survival(&mut random, second)));
        Trial { cut, survivals, again }
    };
    judge_all(name, load, setting, seed, (0..cuts).map(trial).collect())
}

fn some_survival(random: &mut Random, cut: u64) -> Survival {
    match random.below(5) {
        0 => Survival::Before(cut),
        1 => Survival::Before(cut.saturating_sub(random.next() % 12)),
        2 => Survival::Scattered(0),
        3 => Survival::Scattered(50),
        _ => Survival::Scattered(90),
    }
}

/// Runs the trials on all cores; returns what was wrong.
fn judge_all<L: Load>(name: &str, load: L, setting: Setting, seed: u64, trials: Vec<Trial>) -> Vec<String> {
    let began = Instant::now();
    let (count, next) = (trials.len(), AtomicUsize::new(0));
    let work = Arc::new((load, trials, next));
    let (sender, results) = mpsc::channel();
    for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
        let (work, sender) = (Arc::clone(&work), sender.clone());
        thread::spawn(move || {
            let (load, trials, next) = &*work;
            while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                if sender.send(judge(load, setting, trial)).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let (mut images, mut wrong) = (0, Vec::new());
    for done in 0..count {
        match results.recv_timeout(TRIAL_PATIENCE) {
            Ok(found) => {
                images += found.0;
                wrong.extend(found.1);
            }
            Err(error) => panic!("{name}: a trial hangs or panicked after {done} of {count}: {error}"),
        }
    }
    println!(
        "{name}: {count} cuts, {images} disks, {} wrong, seed {seed}, {:.1} s",
        wrong.len(),
        began.elapsed().as_secs_f64()
    );
    wrong
}

/// Loses power once; returns how many different disks that left, and what was wrong with them.
fn judge<L: Load>(load: &L, setting: Setting, trial: &Trial) -> (usize, Vec<String>) {
    let disk = Disk::new();
    disk.lie(setting.lies);
    disk.cut_at(trial.cut);
    let record = load.run(&disk, setting.durability);
    let mut wrong = Vec::new();
    let mut seen: Vec<Image> = Vec::new();
    for (survival, seed) in &trial.survivals {
        let mut image = disk.survivor(*survival, *seed);
        if seen.contains(&image) {
            continue;
        }
        seen.push(image.clone());
        if let Some((operation, survival)) = trial.again {
            image = cut_recovery(load, setting, image, operation, survival, *seed);
        }
        let disk = Disk::with(image);
        let found = catch_unwind(AssertUnwindSafe(|| load.look(&disk, setting.durability)));
        let found = found.unwrap_or_else(|_panic| Err("what is found cannot be looked at".into()));
        if let Err(what) = found.and_then(|found| record.judge(&found, setting.promised)) {
            let (cut, again) = (trial.cut, trial.again);
            let stopped = &record.stopped;
            wrong.push(format!("cut {cut}, {survival:?}, seed {seed}, {again:?}, {stopped:?}: {what}"));
        }
    }
    (seen.len(), wrong)
}

/// Opens, and loses power again on the way.
fn cut_recovery<L: Load>(
    load: &L,
    setting: Setting,
    image: Image,
    operation: u64,
    survival: Survival,
    seed: u64,
) -> Image {
    let disk = Disk::with(image);
    disk.lie(setting.lies);
    disk.cut_at(operation);
    load.touch(&disk, setting.durability);
    disk.survivor(survival, seed)
}

/// Shows the first few.
pub(crate) fn assert_none(wrong: &[String]) {
    let shown: Vec<&str> = wrong.iter().take(3).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} wrong, the first of them:\n{}", wrong.len(), shown.join("\n"));
}

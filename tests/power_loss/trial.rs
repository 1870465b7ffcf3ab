//! Cutting the power: a load is run on a simulated disk, the power goes at a chosen I/O operation, and what the
//! disk kept is opened and looked at.
//!
//! What is found must not be older than the durability promises: at `Full` than the last acknowledged state
//! (attempt counts that shared their batch with nothing else aside), at `Normal` than the last clean close.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use forebay::Durability;

use crate::disk::random::Random;
use crate::disk::{Disk, Image, Io, Lies, Survival};
use crate::loads::manner::OnError;
use crate::loads::{Load, cores, seed, undisturbed};

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

/// The number of random cuts: `FOREBAY_CUTS`, or else `default`.
pub(crate) fn cuts(default: usize) -> usize {
    std::env::var("FOREBAY_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(default)
}

/// The I/O operations of a load that nobody disturbs.
fn trace<L: Load>(load: &L, setting: Setting) -> Vec<Io> {
    let disk = Disk::new();
    disk.lie(setting.lies);
    let operations = undisturbed(load, &disk, setting.durability);
    disk.trace().into_iter().take(operations as usize).map(|(io, _)| io).collect()
}

/// Cuts at every I/O operation, and looks at what differs from the cut before: all disks of a cut that comes
/// before a sync, some when something has just been written, one when nothing has happened to the disk.
pub(crate) fn cut_everywhere<L: Load>(name: &str, load: L, setting: Setting) -> Vec<String> {
    let seed = seed();
    let trial = |(before, io): (usize, &Io)| {
        let cut = before as u64 + 1;
        let mut random = Random::new(seed ^ (cut << 16));
        let mut survivals = vec![(Survival::Everything, 0)];
        if !matches!(io, Io::Read | Io::Open) {
            survivals.push((some_survival(&mut random, cut), random.next()));
        }
        if *io == Io::Sync {
            survivals.push((Survival::Nothing, 0));
        }
        Trial { cut, survivals, again: None }
    };
    let trials = trace(&load, setting).iter().enumerate().map(trial).collect();
    judge_all(name, load, setting, seed, trials)
}

/// Cuts at random, half of them followed by a second one during recovery.
pub(crate) fn cut_at_random<L: Load>(name: &str, load: L, setting: Setting, cuts: usize) -> Vec<String> {
    let seed = seed();
    let operations = trace(&load, setting).len() as u64;
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

pub(crate) fn some_survival(random: &mut Random, cut: u64) -> Survival {
    match random.below(5) {
        0 => Survival::Before(cut),
        1 => Survival::Before(cut.saturating_sub(random.next() % 12)),
        2 => Survival::Scattered(0),
        3 => Survival::Scattered(50),
        _ => Survival::Scattered(90),
    }
}

/// Runs the trials; returns what was wrong.
fn judge_all<L: Load>(name: &str, load: L, setting: Setting, seed: u64, trials: Vec<Trial>) -> Vec<String> {
    let (began, count) = (Instant::now(), trials.len());
    let (mut images, mut wrong) = (0, Vec::new());
    for (of_trial, what) in cores::run(name, trials, move |trial| judge(&load, setting, trial)) {
        images += of_trial;
        wrong.extend(what);
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
    let record = load.run(&disk, setting.durability, OnError::Stop);
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
        if let Err(what) = found.and_then(|found| record.judge_after_power_loss(&found, setting.promised)) {
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

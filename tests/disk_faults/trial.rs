//! One I/O operation of a load fails, once, for good, or everything does from there. The load persists: it tries
//! again what may be tried again, and makes sure that an engine that has failed stays so (`loads/manner.rs`).
//! Then the disk is healed, and what is on it must be what the load was told:
//!
//! - opened again, everything acknowledged, nothing that was refused, and what is unknown wholly or not at all;
//! - after a power loss, what the durability promises;
//! - the same after a power loss that follows on opening again and closing. (The first version lost commits there
//!   when a failed fsync had lost pages: the kernel shows those of the log as if they were on the disk, and SQLite,
//!   which opens it again, takes its word for it. See `src/sqlite/recover.rs`.)

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use forebay::Durability;

use crate::disk::random::Random;
use crate::disk::{Disk, Fault, Io, Lasting, Survival};
use crate::loads::manner::{Heard, OnError};
use crate::loads::record::{Doubt, Record};
use crate::loads::{Load, cores, seed, undisturbed};

/// How many trials a test makes unless all are asked for.
const TRIALS_BY_DEFAULT: usize = 160;

/// Which of the trials are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All with `FOREBAY_FAULTS=all`, those of one operation with its number, else evenly spread ones.
    AsAsked,
    /// Those in which one sync fails once.
    Syncs,
}

/// What came of all trials.
pub(crate) struct Outcome {
    pub(crate) trials: usize,
    pub(crate) wrong: Vec<String>,
    /// What loads were told, and how often.
    pub(crate) heard: BTreeMap<Heard, usize>,
}

struct Trial {
    at: u64,
    io: Io,
    fault: Fault,
    lasting: Lasting,
}

struct Judged {
    wrong: Vec<String>,
    heard: Vec<Heard>,
    failures: u64,
}

/// Every way in which this operation can fail and that is not another way, too.
fn ways(io: Io) -> Vec<(Fault, Lasting)> {
    let mut ways =
        vec![(Fault::Eio, Lasting::Once), (Fault::Eio, Lasting::ForGood), (Fault::Eio, Lasting::Dead)];
    match io {
        Io::Write => {
            ways.extend([(Fault::Full, Lasting::Once), (Fault::Full, Lasting::ForGood)]);
            ways.extend([(Fault::ShortEio, Lasting::Once), (Fault::ShortEio, Lasting::ForGood)]);
        }
        Io::Sync => {
            ways.extend([(Fault::EioLosingPages, Lasting::Once), (Fault::EioLosingPages, Lasting::ForGood)]);
        }
        Io::Open | Io::Read | Io::Truncate | Io::Delete => {}
    }
    ways
}

/// Fails the operations of a load, one a trial.
pub(crate) fn fail_everywhere<L: Load>(
    name: &str,
    load: L,
    durability: Durability,
    doubt: Doubt,
    part: Part,
) -> Outcome {
    let disk = Disk::new();
    let operations = undisturbed(&load, &disk, durability);
    let mut trials = Vec::new();
    for (at, (io, _)) in (1..=operations).zip(disk.trace()) {
        let of_operation = ways(io).into_iter().map(|(fault, lasting)| Trial { at, io, fault, lasting });
        trials.extend(of_operation);
    }
    let asked = std::env::var("FOREBAY_FAULTS").unwrap_or_default();
    match (part, asked.parse::<u64>()) {
        (Part::AsAsked, Ok(operation)) => trials.retain(|trial| trial.at == operation),
        (Part::AsAsked, _) if asked == "all" => {}
        (Part::AsAsked, _) => {
            let step = trials.len().div_ceil(TRIALS_BY_DEFAULT);
            trials = trials.into_iter().step_by(step).collect();
        }
        (Part::Syncs, _) => trials.retain(|trial| trial.io == Io::Sync && trial.lasting == Lasting::Once),
    }
    let (began, count) = (Instant::now(), trials.len());
    let mut outcome = Outcome { trials: count, wrong: Vec::new(), heard: BTreeMap::new() };
    let mut failures = 0;
    for judged in cores::run(name, trials, move |trial| judge(&load, durability, doubt, trial)) {
        outcome.wrong.extend(judged.wrong);
        failures += judged.failures;
        for heard in judged.heard {
            *outcome.heard.entry(heard).or_default() += 1;
        }
    }
    println!(
        "{name}: {count} faults at {operations} operations, {failures} operations failed, told {:?}, {} wrong, {:.1} s",
        outcome.heard,
        outcome.wrong.len(),
        began.elapsed().as_secs_f64()
    );
    outcome
}

fn judge<L: Load>(load: &L, durability: Durability, doubt: Doubt, trial: &Trial) -> Judged {
    let disk = Disk::new();
    disk.fail_at(trial.at, trial.fault, trial.lasting);
    let ran = catch_unwind(AssertUnwindSafe(|| load.run(&disk, durability, OnError::Persist)));
    let (mut wrong, mut heard, mut stopped) = (Vec::new(), Vec::new(), None);
    let failures = disk.failures();
    disk.heal();
    match ran {
        Ok(mut record) => {
            wrong.append(&mut record.wrong);
            heard.append(&mut record.heard);
            wrong.extend(look(load, durability, doubt, &disk, &record, trial));
            stopped = record.stopped;
        }
        Err(_panic) => wrong.push("the load panicked".into()),
    }
    let Trial { at, io, fault, lasting } = trial;
    let wrong =
        wrong.into_iter().map(|what| format!("{io:?} {at}, {fault:?} {lasting:?}, {stopped:?}: {what}"));
    Judged { wrong: wrong.collect(), heard, failures }
}

/// Looks at the disk in each of the three ways.
fn look<L: Load>(
    load: &L,
    durability: Durability,
    doubt: Doubt,
    disk: &Disk,
    record: &Record<L::Picture>,
    trial: &Trial,
) -> Vec<String> {
    let mut random = Random::new(seed() ^ (trial.at << 8));
    let look = |disk: &Disk| {
        let found = catch_unwind(AssertUnwindSafe(|| load.look(disk, durability)));
        found.unwrap_or_else(|_panic| Err("what is found cannot be looked at".into()))
    };
    let survivals = [Survival::Nothing, Survival::Scattered(50)];
    let lost = survivals.map(|survival| disk.survivor(survival, random.next()));
    // Opening and closing first: looking takes what is there.
    load.touch(disk, durability);
    let closed = disk.survivor(Survival::Nothing, 0);
    let mut wrong = Vec::new();
    let mut note = |when: &str, judged: Result<(), String>| {
        wrong.extend(judged.err().map(|what| format!("{when}: {what}")));
    };
    note("opened again", look(disk).and_then(|found| record.judge_after_restart(&found, doubt)));
    for image in lost {
        let found = look(&Disk::with(image));
        note("power lost", found.and_then(|found| record.judge_after_power_loss(&found, durability)));
    }
    let found = look(&Disk::with(closed));
    note("opened, closed, power lost", found.and_then(|found| record.judge_after_restart(&found, doubt)));
    wrong
}

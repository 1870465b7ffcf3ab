//! Runs the plan: subject after subject in every cell, round after round, so that drift hits all alike.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Args;
use crate::child::Programs;
use crate::driver::job::{Job, Outcome, Prepare, Scale, Work};
use crate::driver::subject::Problem;
use crate::plan::{Cell, Side, Subject, Task};
use crate::results::Results;

/// A child may take this many times the estimate, and some, before it counts as hung.
const PATIENCE: f64 = 4.0;
const PATIENCE_MORE_S: f64 = 120.0;

/// How long filling a file may take.
const FILLING_MAX: Duration = Duration::from_secs(1800);

/// Larger files are used where they are: a copy would still be on its way to the disk while it is measured,
/// and what one round adds to a million instances is nothing.
const COPIED_BYTES_MAX: u64 = 512 << 20;

pub(crate) struct Runner<'a> {
    args: &'a Args,
    programs: Programs,
    bar: ProgressBar,
    /// Estimated seconds of what is done.
    done_s: f64,
    filled: HashSet<PathBuf>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(args: &'a Args, cells: &[Cell], programs: Programs) -> Self {
        let rounds = |cell: &Cell| cell.rounds_max.min(args.rounds) as f64;
        let seconds: f64 =
            cells.iter().map(|cell| cell.estimate_s * cell.subjects.len() as f64 * rounds(cell)).sum();
        let style =
            ProgressStyle::with_template("{bar:30} {percent:>3} %  {elapsed} of {duration}  {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new((seconds * 10.0) as u64).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { args, programs, bar, done_s: 0.0, filled: HashSet::new() }
    }

    /// `save` is called after each work: a run takes hours, and what it has should survive the rest of it.
    pub(crate) fn run(
        mut self,
        cells: &[Cell],
        mut save: impl FnMut(&Results) -> Result<(), Problem>,
    ) -> Result<Results, Problem> {
        let mut results = Results::default();
        for work in 1..=7 {
            let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.work == work).collect();
            for round in 0..self.args.rounds {
                for cell in cells.iter().filter(|cell| round < cell.rounds_max) {
                    self.round(cell, round, &mut results);
                }
            }
            if !cells.is_empty() {
                save(&results)?;
            }
        }
        self.bar.finish_and_clear();
        // Gigabytes, of no use to anyone any more.
        let _ = fs::remove_dir_all(self.folder());
        Ok(results)
    }

    fn round(&mut self, cell: &Cell, round: usize, results: &mut Results) {
        for subject in &cell.subjects {
            let place = format!("work {} {}: {}, round {}", cell.work, cell.label, subject.name, round + 1);
            self.bar.set_message(place.clone());
            let measured = self.measure(cell, subject);
            if let Err(problem) = &measured {
                self.bar.suspend(|| eprintln!("{place}: {problem}"));
            }
            results.add(cell, subject, measured);
            self.done_s += cell.estimate_s;
            self.bar.set_position((self.done_s * 10.0) as u64);
        }
    }

    fn measure(&mut self, cell: &Cell, subject: &Subject) -> Result<Outcome, Problem> {
        let folder = self.folder().join(subject.key);
        emptied(&folder)?;
        let work = match &cell.task {
            Task::Plain(work) => work.clone(),
            Task::Filled { finished, timers, load } => {
                let file = self.filled_file(subject, &folder, *finished, *timers)?;
                Work::Scale(Scale { file, load: load.clone() })
            }
        };
        let job = Job { subject: subject.key.into(), folder, work };
        let limit = Duration::from_secs_f64(cell.estimate_s * PATIENCE + PATIENCE_MORE_S);
        self.child(subject.side, &job, limit, cell.estimate_s)
    }

    fn child(&self, side: Side, job: &Job, limit: Duration, estimate_s: f64) -> Result<Outcome, Problem> {
        let begun = Instant::now();
        self.programs.run(side, job, limit, || {
            // Up to its estimate: a bar that goes back would be worse than one that waits.
            let passed = begun.elapsed().as_secs_f64().min(estimate_s);
            self.bar.set_position(((self.done_s + passed) * 10.0) as u64);
        })
    }

    /// A file as full as asked for, of the subject's own. Filling takes long and is done once.
    fn filled_file(
        &mut self,
        subject: &Subject,
        folder: &Path,
        finished: u64,
        timers: u64,
    ) -> Result<PathBuf, Problem> {
        let own = folder.join("app.db");
        if finished == 0 && timers == 0 {
            return Ok(own);
        }
        let stock = self.folder().join(format!("{}-{finished}-{timers}.db", subject.key));
        if !self.filled.contains(&stock) {
            self.bar.set_message(format!("filling a file: {finished} finished, {timers} timers"));
            let prepare = Prepare { file: stock.clone(), finished, timers };
            let work = Work::Prepare(prepare);
            let job = Job { subject: subject.key.into(), folder: folder.into(), work };
            self.child(subject.side, &job, FILLING_MAX, 0.0)?;
            self.filled.insert(stock.clone());
        }
        if fs::metadata(&stock)?.len() > COPIED_BYTES_MAX {
            return Ok(stock);
        }
        fs::copy(&stock, &own)?;
        fs::File::open(&own)?.sync_all()?;
        Ok(own)
    }

    /// Beside the results, so that what is measured is the disk they are on.
    fn folder(&self) -> PathBuf {
        self.args.out.join("run")
    }
}

fn emptied(folder: &Path) -> Result<(), Problem> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    Ok(())
}

//! Measures forebay beside what one would use instead and beside the limits, on the same work in one run.
//!
//! ```text
//!   args ─► plan (cells: work, size, subjects) ─► runner (rounds) ─► child: one process a measurement
//!                                                    │               (subjects.rs, or benches/peers*)
//!                                                    ▼
//!                          results ─► table (terminal, Markdown) · results.json · plots (SVG)
//! ```
//!
//! `docs/benchmarks.md` says how to run it and how to read what comes out.

mod args;
mod axis;
mod ceiling;
mod chart;
mod child;
#[path = "../driver/mod.rs"]
mod driver;
mod fill;
mod machine;
#[path = "../driver/plain.rs"]
mod plain;
mod plan;
mod plots;
mod raw;
mod results;
mod runner;
mod subjects;
mod table;
mod writer;

use std::collections::HashSet;
use std::fs;
use std::process::ExitCode;

use args::{Args, Mode, USAGE};
use driver::job::Job;
use driver::subject::Problem;
use plan::{Cell, SUBJECTS, Side, Task};
use results::Results;
use serde_json::json;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("harness: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Problem> {
    let args = Args::parse(std::env::args().skip(1))?;
    match args.mode {
        Mode::Measure => measure(&args),
        Mode::Serve => driver::serve::serve(&subjects::Ours),
        Mode::Jobs => print_jobs(&args),
        Mode::List => {
            list();
            Ok(())
        }
        Mode::Help => {
            println!("{USAGE}");
            Ok(())
        }
    }
}

fn measure(args: &Args) -> Result<(), Problem> {
    let cells = plan::cells(args);
    if cells.is_empty() {
        return Err("none of these subjects does this work".into());
    }
    fs::create_dir_all(&args.out)?;
    let sides: HashSet<Side> =
        cells.iter().flat_map(|cell| &cell.subjects).map(|subject| subject.side).collect();
    let programs = child::Programs::prepare(&sides, &args.out.join("children.log"))?;
    let machine = machine::describe(&args.out);
    let options = json!({ "quick": args.quick, "rounds": args.rounds });
    let quick = if args.quick { ", quick" } else { "" };
    let head = format!("{}\n{} rounds{quick}", machine::line(&machine), args.rounds);
    let table = |results: &Results| format!("{head}\n{}", table::render(results));
    let results = runner::Runner::new(args, &cells, programs).run(&cells, |results| {
        fs::write(args.out.join("table.md"), table(results))?;
        results.write_json(&machine, &options, &args.out.join("results.json"))
    })?;
    println!("{}", table(&results));
    let plots = plots::draw(&results, &args.out)?;
    println!("\n{} has table.md, results.json and {plots} plots", args.out.display());
    // A gap in the table is a failure of the run, wherever it came from.
    let failures: usize = results.rows.iter().map(|row| row.failures.len()).sum();
    if failures > 0 { Err(format!("{failures} measurements failed").into()) } else { Ok(()) }
}

/// For `benches/profile.sh`, a line a job: cell, program, folder, and the job for its standard input.
fn print_jobs(args: &Args) -> Result<(), Problem> {
    for Cell { label, task, subjects, .. } in plan::cells(args) {
        // Filling a file is not what anyone wants to see in a profile.
        let Task::Plain(work) = task else { continue };
        for subject in subjects {
            let program = child::program(subject.side)?;
            let folder = args.out.join("run").join(subject.key);
            let job = Job { subject: subject.key.into(), folder, work: work.clone() };
            let (program, folder) = (program.display(), job.folder.display());
            println!("{label}\t{program}\t{folder}\t{}", serde_json::to_string(&job)?);
        }
    }
    Ok(())
}

fn list() {
    println!("subjects:");
    for subject in &SUBJECTS {
        println!("  {:<22} {}", subject.key, subject.name);
    }
    println!("works:");
    for work in 1..=7 {
        println!("  {}", plan::title(work));
    }
}

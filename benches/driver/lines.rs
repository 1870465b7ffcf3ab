//! The child's loop: a line with a job in, a line with its outcome out.

use std::io::{BufRead, Write};

use super::figures;
use super::job::{Answer, Job, Outcome, Problem};
use super::process;

/// Answers jobs until standard input ends.
pub(crate) fn answer_each(mut done: impl FnMut(&Job) -> Result<Outcome, Problem>) -> Result<(), Problem> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let outcome = serde_json::from_str(&line).map_err(Problem::from).and_then(|job| done(&job));
        let answer = match outcome {
            Ok(mut outcome) => {
                outcome.set(figures::PEAK_MEMORY_MB, process::peak_memory_mb().unwrap_or(f64::NAN));
                Answer::Outcome(outcome)
            }
            Err(problem) => Answer::Failed(problem.to_string()),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(())
}

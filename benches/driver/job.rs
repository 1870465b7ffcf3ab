//! What the harness asks of a child and what the child answers: one JSON line each way.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) type Problem = Box<dyn std::error::Error + Send + Sync>;

/// One measurement: one subject, one work, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) subject: String,
    /// Where the subject may put its files; emptied by the harness.
    pub(crate) folder: PathBuf,
    pub(crate) work: Work,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Work {
    /// duroxide's own stress test.
    Stress(Stress),
    /// duroxide's own large-payload test.
    LargePayload(LargePayload),
    /// Fan-out of 5 activities that do nothing, a fixed number in flight.
    Load(Load),
    /// One orchestration, one activity after the other.
    LongHistory(LongHistory),
    /// Fills a file for [`Work::Scale`].
    Prepare(Prepare),
    /// Opens a filled file, then does what [`Work::Load`] does on it.
    Scale(Scale),
    /// The rows of an orchestration on one thread, without an engine.
    Rows(Rows),
    /// Small transactions of an embedder, from many threads.
    Writer(WriterLoad),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stress {
    pub(crate) dispatchers: usize,
    pub(crate) seconds: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LargePayload {
    pub(crate) seconds: u64,
    pub(crate) activities: usize,
    pub(crate) sub_orchestrations: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) dispatchers: usize,
    pub(crate) in_flight: usize,
    pub(crate) warm_up_s: f64,
    pub(crate) seconds: f64,
    /// Ends the measurement early; for latencies, where so many are as good as more.
    pub(crate) completions_max: Option<usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LongHistory {
    pub(crate) activities: usize,
    /// A subject that is not done by then is cut off; its curve ends where it got to.
    pub(crate) seconds_max: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Prepare {
    pub(crate) file: PathBuf,
    pub(crate) finished: u64,
    pub(crate) timers: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scale {
    pub(crate) file: PathBuf,
    pub(crate) load: Load,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rows {
    pub(crate) orchestrations_a_transaction: u32,
    pub(crate) seconds: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WriterLoad {
    pub(crate) threads: u32,
    /// Transactions each thread submits before it waits for the oldest.
    pub(crate) in_flight_a_thread: usize,
    pub(crate) seconds: f64,
}

/// What came out: numbers by name ([`super::figures`]), and curves of points.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) figures: BTreeMap<String, f64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) curves: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Outcome {
    /// What is not a number is left out: JSON has no word for it, and a table shows a gap better.
    pub(crate) fn set(&mut self, figure: &str, value: f64) {
        if value.is_finite() {
            self.figures.insert(figure.into(), rounded(value));
        }
    }
}

/// To six digits, which is more than any of this is good for, and half the size as text.
pub(crate) fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// A child's line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Outcome(Outcome),
    Failed(String),
}

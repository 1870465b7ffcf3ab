//! The figures at the end of a run.

use std::time::Duration;

use forebay::Stats;
use indicatif::{HumanBytes, HumanCount};

pub struct Report {
    finished: u64,
    elapsed: Duration,
    /// Sorted; one for each order that this process both submitted and saw ended.
    latencies: Vec<Duration>,
    resumed: bool,
}

impl Report {
    pub fn new(finished: u64, elapsed: Duration, mut latencies: Vec<Duration>, resumed: bool) -> Report {
        latencies.sort_unstable();
        Report { finished, elapsed, latencies, resumed }
    }

    pub fn print(&self, stats: &Stats) {
        let seconds = self.elapsed.as_secs_f64();
        println!();
        row(
            "orders/s",
            per(self.finished as f64, seconds),
            &format!("{} orders in {seconds:.2} s", HumanCount(self.finished)),
        );
        let counted = HumanCount(self.latencies.len() as u64);
        let what = format!("submission to completion observed, {counted} orders");
        row("latency p50", millis(self.percentile(50)), &what);
        row("latency p99", millis(self.percentile(99)), &what);
        let since = if self.resumed { "since the resume" } else { "" };
        row("batches", HumanCount(stats.batches).to_string(), since);
        row("operations a batch", per(stats.operations as f64, stats.batches as f64), since);
        row("commits", HumanCount(stats.commits).to_string(), since);
        row("bytes written", HumanBytes(stats.bytes_written).to_string(), since);
        println!();
    }

    /// The smallest latency that at least `percent` of the orders did not exceed.
    fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.checked_sub(1)?).copied()
    }
}

fn row(name: &str, value: String, note: &str) {
    println!("{}", format!("{name:<20}{value:>12}   {note}").trim_end());
}

/// A resumed run may have had nothing left to do.
fn per(count: f64, of: f64) -> String {
    if count == 0.0 || of == 0.0 { "-".into() } else { format!("{:.1}", count / of) }
}

fn millis(latency: Option<Duration>) -> String {
    latency.map_or("-".into(), |latency| format!("{:.1} ms", latency.as_secs_f64() * 1e3))
}

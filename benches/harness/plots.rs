//! The plots, and what each is made of. How one is drawn is in [`crate::chart`].

use std::path::Path;

use crate::axis::Scale;
use crate::chart::{Chart, Line};
use crate::driver::figures;
use crate::driver::subject::Problem;
use crate::plan::{CEILING, Part};
use crate::results::{Results, Row};

/// Draws every plot there are figures for; returns how many.
pub(crate) fn draw(results: &Results, out: &Path) -> Result<usize, Problem> {
    let charts = [
        throughput(results),
        latency(results),
        batches(results),
        turn_cost(results),
        scale(results),
        writer(results),
    ];
    let mut drawn = 0;
    for mut chart in charts {
        if !chart.has_points() {
            continue;
        }
        chart.draw(&out.join(chart.file))?;
        drawn += 1;
    }
    Ok(drawn)
}

/// One line a subject: `figure` over the sizes of one part of a work.
fn over_size(results: &Results, work: u8, part: Part, figure: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in results.rows.iter().filter(|row| row.work == work && row.part == part) {
        let Some(value) = row.median(figure) else { continue };
        let point = (row.x, value);
        match lines.iter_mut().find(|line| line.name == row.subject.name) {
            Some(line) => line.points.push(point),
            None => lines.push(line(row, vec![point])),
        }
    }
    lines
}

/// One line a subject: a curve that was measured in one go.
fn curves(results: &Results, work: u8, name: &str) -> Vec<Line> {
    results.rows.iter().filter(|row| row.work == work).map(|row| line(row, row.curve(name))).collect()
}

fn line(row: &Row, points: Vec<(f64, f64)>) -> Line {
    let is_ceiling = row.subject.key == CEILING;
    Line { name: row.subject.name.into(), colour: row.subject.colour, points, is_ceiling }
}

fn throughput(results: &Results) -> Chart {
    let mut lines = over_size(results, 2, Part::Sizes, figures::THROUGHPUT);
    let (from, to) = (1.0, 64.0);
    // The storage's ceiling does not know dispatchers: one thread, whatever is above it.
    let batched = |row: &&Row| row.work == 2 && row.part == Part::Storage && row.x > 1.0;
    for row in results.rows.iter().filter(batched) {
        let Some(height) = row.median(figures::THROUGHPUT) else { continue };
        let name = format!("{}, {} a transaction", row.subject.name, row.x);
        let points = vec![(from, height), (to, height)];
        lines.push(Line { name, colour: row.subject.colour, points, is_ceiling: true });
    }
    Chart {
        file: "throughput.svg",
        title: "Throughput over concurrency: fan-out of 5 x 0 ms",
        x: ("orchestration and activity dispatchers", Scale::Logarithmic),
        y: ("orchestrations a second", Scale::Logarithmic),
        lines,
    }
}

fn latency(results: &Results) -> Chart {
    Chart {
        file: "latency.svg",
        title: "Latency, one orchestration at a time",
        x: ("percentile", Scale::Nines),
        y: ("submission to durable completion, ms", Scale::Logarithmic),
        lines: curves(results, 3, figures::LATENCY_CURVE),
    }
}

fn batches(results: &Results) -> Chart {
    Chart {
        file: "batches.svg",
        title: "Operations a batch over load, 64/64",
        x: ("orchestrations in flight", Scale::Logarithmic),
        y: ("operations a batch", Scale::Logarithmic),
        lines: over_size(results, 2, Part::Load, figures::OPERATIONS_A_BATCH),
    }
}

fn turn_cost(results: &Results) -> Chart {
    Chart {
        file: "turn-cost.svg",
        title: "Cost of a turn over the length of the history",
        x: ("events in the history", Scale::Linear),
        y: ("ms a turn", Scale::Logarithmic),
        lines: curves(results, 5, figures::TURN_CURVE),
    }
}

fn scale(results: &Results) -> Chart {
    Chart {
        file: "scale.svg",
        title: "Throughput over what the file holds already, 8/8",
        x: ("finished instances in the file", Scale::Linear),
        y: ("orchestrations a second", Scale::Logarithmic),
        lines: over_size(results, 6, Part::Sizes, figures::THROUGHPUT),
    }
}

fn writer(results: &Results) -> Chart {
    Chart {
        file: "writer.svg",
        title: "Writer: transactions of one row",
        x: ("transactions in flight", Scale::Logarithmic),
        y: ("transactions a second", Scale::Logarithmic),
        lines: over_size(results, 7, Part::Sizes, figures::THROUGHPUT),
    }
}

//! What was measured: every round of every subject in every cell, and medians over the rounds.

use std::path::Path;

use serde_json::{Value, json};

use crate::driver::job::Outcome;
use crate::driver::subject::Problem;
use crate::plan::{Cell, Part, Subject};

/// One subject in one cell.
pub(crate) struct Row {
    pub(crate) work: u8,
    pub(crate) part: Part,
    pub(crate) cell: String,
    pub(crate) x: f64,
    pub(crate) subject: &'static Subject,
    /// By round, so that two subjects can be compared within one; a gap where it failed.
    pub(crate) rounds: Vec<Option<Outcome>>,
    pub(crate) failures: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
}

impl Results {
    pub(crate) fn add(&mut self, cell: &Cell, subject: &'static Subject, measured: Result<Outcome, Problem>) {
        let same =
            |row: &Row| row.work == cell.work && row.cell == cell.label && row.subject.key == subject.key;
        let index = match self.rows.iter().position(same) {
            Some(index) => index,
            None => {
                self.rows.push(Row {
                    work: cell.work,
                    part: cell.part,
                    cell: cell.label.clone(),
                    x: cell.x,
                    subject,
                    rounds: Vec::new(),
                    failures: Vec::new(),
                });
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[index];
        match measured {
            Ok(outcome) => row.rounds.push(Some(outcome)),
            Err(problem) => {
                row.rounds.push(None);
                row.failures.push(problem.to_string());
            }
        }
    }

    /// The labels of the cells of a work, in the order they were planned.
    pub(crate) fn cells(&self, work: u8) -> Vec<&str> {
        let mut cells: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|row| row.work == work) {
            if !cells.contains(&row.cell.as_str()) {
                cells.push(&row.cell);
            }
        }
        cells
    }

    pub(crate) fn find(&self, work: u8, cell: &str, subject: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.work == work && row.cell == cell && row.subject.key == subject)
    }

    pub(crate) fn write_json(&self, machine: &Value, options: &Value, to: &Path) -> Result<(), Problem> {
        // A line a row: short enough to read, and a difference of two runs shows what differs.
        let rows: Vec<String> = self.rows.iter().map(|row| row.json().to_string()).collect();
        let all = format!(
            "{{\n\"machine\": {machine},\n\"options\": {options},\n\"results\": [\n{}\n]\n}}\n",
            rows.join(",\n")
        );
        Ok(std::fs::write(to, all)?)
    }
}

impl Row {
    fn values(&self, figure: &str) -> Vec<f64> {
        let of = |outcome: &Outcome| outcome.figures.get(figure).copied();
        let mut values: Vec<f64> = self.rounds.iter().flatten().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    pub(crate) fn median(&self, figure: &str) -> Option<f64> {
        median(&self.values(figure))
    }

    /// Smallest and largest; `None` if there is one value or none.
    pub(crate) fn spread(&self, figure: &str) -> Option<(f64, f64)> {
        match self.values(figure).as_slice() {
            [smallest, .., largest] => Some((*smallest, *largest)),
            _ => None,
        }
    }

    /// The median of the rounds' ratios: both were measured within the same minutes.
    pub(crate) fn ratio(&self, base: &Row, figure: &str) -> Option<f64> {
        let of = |outcome: &Option<Outcome>| outcome.as_ref().and_then(|it| it.figures.get(figure).copied());
        let pairs = self.rounds.iter().zip(&base.rounds);
        let mut ratios: Vec<f64> = pairs.filter_map(|(mine, other)| Some(of(mine)? / of(other)?)).collect();
        ratios.retain(|ratio| ratio.is_finite());
        ratios.sort_by(f64::total_cmp);
        median(&ratios)
    }

    /// Point by point the median of the rounds, as far as every round goes.
    pub(crate) fn curve(&self, name: &str) -> Vec<(f64, f64)> {
        let curves: Vec<&Vec<(f64, f64)>> =
            self.rounds.iter().flatten().filter_map(|outcome| outcome.curves.get(name)).collect();
        let length = curves.iter().map(|curve| curve.len()).min().unwrap_or(0);
        let point = |index: usize| {
            let mut heights: Vec<f64> = curves.iter().map(|curve| curve[index].1).collect();
            heights.sort_by(f64::total_cmp);
            Some((curves.first()?[index].0, median(&heights)?))
        };
        (0..length).filter_map(point).collect()
    }

    fn json(&self) -> Value {
        let mut names: Vec<&String> =
            self.rounds.iter().flatten().flat_map(|outcome| outcome.figures.keys()).collect();
        names.sort();
        names.dedup();
        let summary = |name: &&String| {
            let values = self.values(name);
            let stated = json!({ "median": median(&values), "min": values.first(), "max": values.last() });
            ((*name).clone(), stated)
        };
        let summary: serde_json::Map<String, Value> = names.iter().map(summary).collect();
        json!({
            "work": self.work, "cell": self.cell, "subject": self.subject.key, "name": self.subject.name,
            "summary": summary, "rounds": self.rounds, "failures": self.failures,
        })
    }
}

/// Of sorted values.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

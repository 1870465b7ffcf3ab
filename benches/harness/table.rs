//! The table on the terminal, which is Markdown: what is pasted into documents is what was seen.

use std::fmt::Write;

use crate::driver::figures;
use crate::plain;
use crate::plan::{CEILING, PEER, title};
use crate::results::{Results, Row};

/// What a column shows of a row.
enum Shows {
    /// Median and, over several rounds, smallest and largest.
    Spread(&'static str),
    Median(&'static str),
    /// How many times the row of another subject in the same cell.
    Times(&'static str, &'static str),
    /// How many times what a family of subjects does in the same cell at the same durability.
    TimesOfFamily(&'static str, &'static str),
    /// Which part of it, in percent.
    PartOf(&'static str, &'static str),
    /// Which part of the same subject in the first cell of the work, in percent.
    PartOfFirst(&'static str),
    Errors,
}

struct Column(&'static str, Shows);

fn columns(work: u8) -> Vec<Column> {
    use Shows::{Errors, Median, PartOf, PartOfFirst, Spread, Times, TimesOfFamily};
    let throughput = || Column("orchestrations/s", Spread(figures::THROUGHPUT));
    let peer = || Column("x SqliteProvider", Times(figures::THROUGHPUT, PEER));
    let ceiling = || Column("of ceiling", PartOf(figures::THROUGHPUT, CEILING));
    let stress = || Column("throughput (orch/s)", Spread(figures::THROUGHPUT));
    let not_latency = || Column("latency (elapsed/count, ms)", Median(figures::ELAPSED_OVER_COUNT_MS));
    let success = || Column("success rate (%)", Median(figures::SUCCESS_RATE));
    let failures = || Column("infrastructure failures", Median(figures::INFRASTRUCTURE_FAILURES));
    match work {
        1 => vec![
            stress(),
            Column("activity throughput (act/s)", Median(figures::ACTIVITY_THROUGHPUT)),
            not_latency(),
            success(),
            failures(),
            ceiling(),
        ],
        2 => vec![
            throughput(),
            peer(),
            ceiling(),
            Column("p50 ms", Median(figures::P50_MS)),
            Column("p99 ms", Median(figures::P99_MS)),
            Column("ops/batch", Median(figures::OPERATIONS_A_BATCH)),
            Column("commits/orch", Median(figures::COMMITS_AN_ORCHESTRATION)),
            Column("CPU us/orch", Median(figures::CPU_US_AN_ORCHESTRATION)),
            Column("errors", Errors),
        ],
        3 => vec![
            Column("p50 ms", Spread(figures::P50_MS)),
            Column("p99 ms", Spread(figures::P99_MS)),
            Column("p99.9 ms", Spread(figures::P999_MS)),
            Column("samples", Median(figures::COMPLETED)),
            Column("commits/orch", Median(figures::COMMITS_AN_ORCHESTRATION)),
            Column("errors", Errors),
        ],
        4 => vec![
            stress(),
            not_latency(),
            success(),
            failures(),
            ceiling(),
            Column("real p50 ms", Median(figures::P50_MS)),
            Column("peak memory MB", Median(figures::PEAK_MEMORY_MB)),
        ],
        5 => vec![
            Column("turns done", Median(figures::TURNS)),
            Column("seconds", Median(figures::SECONDS)),
            Column("ms a turn, first tenth", Median(figures::FIRST_TURN_MS)),
            Column("ms a turn, last tenth", Median(figures::LAST_TURN_MS)),
            Column("peak memory MB", Median(figures::PEAK_MEMORY_MB)),
            Column("errors", Errors),
        ],
        6 => vec![
            throughput(),
            Column("of the empty file", PartOfFirst(figures::THROUGHPUT)),
            peer(),
            Column("open ms", Median(figures::OPEN_MS)),
            Column("memory after open MB", Median(figures::OPEN_MEMORY_MB)),
            Column("peak memory MB", Median(figures::PEAK_MEMORY_MB)),
            Column("file MB", Median(figures::FILE_MB)),
        ],
        _ => vec![
            Column("transactions/s", Spread(figures::THROUGHPUT)),
            Column("x mutex", TimesOfFamily(figures::THROUGHPUT, "mutex")),
            Column("p50 ms", Median(figures::P50_MS)),
            Column("p99 ms", Median(figures::P99_MS)),
            Column("ops/batch", Median(figures::OPERATIONS_A_BATCH)),
            Column("busy errors", Median(plain::BUSY_ERRORS)),
        ],
    }
}

pub(crate) fn render(results: &Results) -> String {
    let mut text = String::new();
    for work in 1..=7 {
        let cells = results.cells(work);
        if cells.is_empty() {
            continue;
        }
        let columns = columns(work);
        let mut rows = vec![heading(&columns)];
        for cell in &cells {
            for row in results.rows.iter().filter(|row| row.work == work && row.cell == *cell) {
                rows.push(line(results, row, &columns, cells[0]));
            }
        }
        // A String takes every write.
        let _ = writeln!(text, "\n## {}\n", title(work));
        text.push_str(&aligned(&rows));
    }
    for row in &results.rows {
        for failure in &row.failures {
            let _ =
                writeln!(text, "\nfailed: work {}, {}, {}: {failure}", row.work, row.cell, row.subject.name);
        }
    }
    text
}

fn heading(columns: &[Column]) -> Vec<String> {
    let mut cells = vec!["size".to_owned(), "subject".to_owned()];
    cells.extend(columns.iter().map(|column| column.0.to_owned()));
    cells
}

fn line(results: &Results, row: &Row, columns: &[Column], first_cell: &str) -> Vec<String> {
    let mut cells = vec![row.cell.clone(), row.subject.name.to_owned()];
    let shown = columns.iter().map(|column| show(results, row, &column.1, first_cell));
    cells.extend(shown.map(|shown| shown.unwrap_or_else(|| "-".into())));
    cells
}

fn show(results: &Results, row: &Row, shows: &Shows, first_cell: &str) -> Option<String> {
    let same_cell = |subject: &str| results.find(row.work, &row.cell, subject);
    let percent = |ratio: f64| format!("{:.0} %", ratio * 100.0);
    match shows {
        Shows::Spread(figure) => {
            let median = short(row.median(figure)?);
            Some(match row.spread(figure) {
                Some((min, max)) => format!("{median} ({}..{})", short(min), short(max)),
                None => median,
            })
        }
        Shows::Median(figure) => row.median(figure).map(short),
        Shows::Times(figure, base) => row.ratio(same_cell(base)?, figure).map(short),
        Shows::TimesOfFamily(figure, family) => {
            let (_, durability) = row.subject.key.rsplit_once('-')?;
            row.ratio(same_cell(&format!("{family}-{durability}"))?, figure).map(short)
        }
        Shows::PartOf(figure, base) => row.ratio(same_cell(base)?, figure).map(percent),
        Shows::PartOfFirst(figure) => {
            let first = results.find(row.work, first_cell, row.subject.key)?;
            row.ratio(first, figure).map(percent)
        }
        Shows::Errors => {
            let errors = row.median(figures::RETRYABLE_ERRORS)? + row.median(figures::PERMANENT_ERRORS)?;
            Some(short(errors))
        }
    }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        text.push('|');
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column < 2 {
                write!(text, " {cell:<width$} |")
            } else {
                write!(text, " {cell:>width$} |")
            };
        }
        text.push('\n');
        if index == 0 {
            text.push('|');
            for (column, width) in widths.iter().enumerate() {
                let (dashes, right) = ("-".repeat(width + 1), if column < 2 { '-' } else { ':' });
                let _ = write!(text, "{dashes}{right}|");
            }
            text.push('\n');
        }
    }
    text
}

/// Three digits that matter, thousands apart.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        return thousands(value.round() as i64);
    }
    let decimals = match size {
        0.0 => 0,
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    // 20 failures are not 20.0 failures.
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

//! What the figures were measured on, and with: a figure without its machine says nothing.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

pub(crate) fn describe(out: &Path) -> Value {
    json!({
        "cpu": from_file("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().ok().map(usize::from),
        "memory": from_file("/proc/meminfo", "MemTotal"),
        "kernel": output("uname", &["-sr"]),
        "filesystem": output("stat", &["-f", "-c", "%T", &out.display().to_string()]),
        "rustc": output("rustc", &["--version"]),
        "commit": output("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]),
        "sqlite": rusqlite::version(),
        "date": output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "load_before": std::fs::read_to_string("/proc/loadavg").ok().map(|line| line.trim().to_owned()),
    })
}

/// One line for the head of the table.
pub(crate) fn line(machine: &Value) -> String {
    let word = |name: &str| match &machine[name] {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".into(),
        other => other.to_string(),
    };
    format!(
        "{}, {} cores, {}, {}, SQLite {}, {}, commit {}, {}",
        word("cpu"),
        word("cores"),
        word("memory"),
        word("kernel"),
        word("sqlite"),
        word("rustc"),
        word("commit"),
        word("date")
    )
}

fn from_file(file: &str, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}

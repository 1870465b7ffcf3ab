//! What no compiler checks: every source file says what it owns, and none grows past what can be read at a
//! sitting.

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 600;

/// Every Rust file below `folder`, what is built aside.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of this repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_says_what_it_owns_and_is_of_a_readable_size() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "fuzz"] {
        sources(&root.join(folder), &mut found);
    }
    assert!(found.len() > 100, "only {} files were found", found.len());
    let wrong = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("text");
        let lines = text.lines().count();
        (!text.starts_with("//!") || lines > LINES_MAX).then(|| format!("{}: {lines} lines", path.display()))
    };
    let wrong: Vec<String> = found.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "no `//!` at the top, or more than {LINES_MAX} lines:\n{}", wrong.join("\n"));
}

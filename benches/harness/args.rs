//! The command line.

use std::path::PathBuf;

use crate::driver::subject::Problem;
use crate::plan::SUBJECTS;

pub(crate) const USAGE: &str = "\
cargo bench --bench harness -- [OPTIONS]

  --quick            every work, made small: under two minutes, one round
  --subjects a,b     only these (--list names them)
  --work 1,2         only these works
  --rounds N         how often each measurement is repeated (default 3, quick 1)
  --out DIR          where tables, results.json and plots go (default target/harness)
  --list             name the subjects and the works
  --jobs             print the jobs instead of running them (benches/profile.sh)
  --serve            answer jobs on standard input: what the harness starts its children with";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    Measure,
    Serve,
    Jobs,
    List,
    Help,
}

#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) mode: Mode,
    pub(crate) quick: bool,
    /// Empty: all of them.
    pub(crate) subjects: Vec<String>,
    pub(crate) works: Vec<u8>,
    pub(crate) rounds: usize,
    pub(crate) out: PathBuf,
}

const ROUNDS: usize = 3;
const WORKS: std::ops::RangeInclusive<u8> = 1..=7;

impl Args {
    pub(crate) fn parse(given: impl Iterator<Item = String>) -> Result<Self, Problem> {
        let mut args = Self {
            mode: Mode::Measure,
            quick: false,
            subjects: Vec::new(),
            works: Vec::new(),
            rounds: 0,
            out: target_folder().join("harness"),
        };
        let mut given = given;
        while let Some(flag) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--quick" => args.quick = true,
                "--subjects" => args.subjects = list(&value()?),
                "--work" => {
                    args.works =
                        list(&value()?).iter().map(|work| work_number(work)).collect::<Result<_, _>>()?;
                }
                "--rounds" => {
                    args.rounds = value()?.parse().map_err(|error| format!("--rounds: {error}"))?;
                }
                "--out" => args.out = std::path::absolute(value()?)?,
                "--list" => args.mode = Mode::List,
                "--jobs" => args.mode = Mode::Jobs,
                "--serve" => args.mode = Mode::Serve,
                "--help" | "-h" => args.mode = Mode::Help,
                // Cargo passes it to every bench.
                "--bench" => {}
                other => return Err(format!("unknown option {other}\n\n{USAGE}").into()),
            }
        }
        if args.rounds == 0 {
            args.rounds = if args.quick { 1 } else { ROUNDS };
        }
        for subject in &args.subjects {
            if !SUBJECTS.iter().any(|known| known.key == subject) {
                return Err(format!("no subject is called {subject}; --list names them").into());
            }
        }
        Ok(args)
    }

    pub(crate) fn wants_work(&self, work: u8) -> bool {
        self.works.is_empty() || self.works.contains(&work)
    }

    pub(crate) fn wants_subject(&self, key: &str) -> bool {
        self.subjects.is_empty() || self.subjects.iter().any(|subject| subject == key)
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(String::from).collect()
}

fn work_number(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(work) if WORKS.contains(&work) => Ok(work),
        _ => Err(format!("works are {} to {}, not {text:?}", WORKS.start(), WORKS.end())),
    }
}

/// Where Cargo builds to.
pub(crate) fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| folder.into()),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"),
    }
}

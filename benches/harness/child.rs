//! A child process does each measurement: every subject gets a fresh process, ours as well as the peers, so
//! that memory is its own and a subject that crashes or hangs costs one gap in a table.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::args::target_folder;
use crate::driver::job::{Answer, Job, Outcome};
use crate::driver::subject::Problem;
use crate::plan::Side;

/// How often `waiting` is called while a child works.
const TICK: Duration = Duration::from_millis(100);

pub(crate) struct Programs {
    built: HashMap<Side, PathBuf>,
    log: File,
}

impl Programs {
    /// Builds the programs of these sides. Children write their standard error to `log`.
    pub(crate) fn prepare(sides: &HashSet<Side>, log: &Path) -> Result<Self, Problem> {
        let mut built = HashMap::new();
        for side in sides {
            if let Some((folder, _)) = package(*side) {
                build(folder)?;
            }
            built.insert(*side, program(*side)?);
        }
        Ok(Self { built, log: File::create(log)? })
    }

    /// Runs one job. `waiting` is called every now and then; `limit` ends a child that hangs.
    pub(crate) fn run(
        &self,
        side: Side,
        job: &Job,
        limit: Duration,
        waiting: impl FnMut(),
    ) -> Result<Outcome, Problem> {
        let mut child = self.spawn(side)?;
        let answer = ask(&mut child, job, limit, waiting);
        if answer.is_err() {
            // It may hang; one that has ended already cannot be killed, which is no matter.
            let _ = child.kill();
        }
        let status = child.wait()?;
        match answer? {
            Some(Answer::Outcome(outcome)) => Ok(outcome),
            Some(Answer::Failed(reason)) => Err(reason.into()),
            None => Err(format!("the child ended without an answer ({status}); see its log").into()),
        }
    }

    fn spawn(&self, side: Side) -> Result<Child, Problem> {
        let mut command = Command::new(self.built.get(&side).ok_or("its program was not built")?);
        if side == Side::Ours {
            command.arg("--serve");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(self.log.try_clone()?);
        Ok(command.spawn()?)
    }
}

fn ask(
    child: &mut Child,
    job: &Job,
    limit: Duration,
    mut waiting: impl FnMut(),
) -> Result<Option<Answer>, Problem> {
    let mut input = child.stdin.take().ok_or("the child has no standard input")?;
    writeln!(input, "{}", serde_json::to_string(job)?)?;
    // It ends after this job.
    drop(input);
    let output = child.stdout.take().ok_or("the child has no standard output")?;
    let (sender, receiver) = mpsc::channel();
    // Ends with the child's output, which ends with the child.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line).map(|_bytes| line);
        let _ = sender.send(read);
    });
    let deadline = Instant::now() + limit;
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(line) => {
                let line = line?;
                return if line.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&line)?)) };
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => waiting(),
            Err(RecvTimeoutError::Timeout) => return Err(format!("no answer within {limit:?}").into()),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// The package of a side below `benches/`, and its program; `None` for the harness itself.
fn package(side: Side) -> Option<(&'static str, &'static str)> {
    match side {
        Side::Ours => None,
        Side::Peers => Some(("peers", "forebay-peers")),
        Side::WriterPeers => Some(("peers-writer", "forebay-peers-writer")),
    }
}

/// A target folder of its own for each: the graphs have different versions and features of everything.
fn target_of(folder: &str) -> PathBuf {
    target_folder().join(folder)
}

/// What answers the jobs of a side.
pub(crate) fn program(side: Side) -> Result<PathBuf, Problem> {
    match package(side) {
        None => Ok(std::env::current_exe()?),
        Some((folder, program)) => Ok(target_of(folder).join("release").join(program)),
    }
}

fn build(folder: &str) -> Result<(), Problem> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(folder).join("Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]).arg(manifest);
    command.arg("--target-dir").arg(target_of(folder));
    if folder == "peers" && std::env::var_os("DATABASE_URL").is_some() {
        command.args(["--features", "pg"]);
    }
    eprintln!("building benches/{folder} (minutes, the first time)");
    if !command.status()?.success() {
        return Err(format!("benches/{folder} does not build; --subjects can leave it out").into());
    }
    Ok(())
}

//! A child process does each measurement: every subject gets a fresh process, ours as well as the peers, so
//! that memory is its own and a subject that crashes or hangs costs one gap in a table.

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
    ours: PathBuf,
    /// `None` if no peer is to be measured.
    peers: Option<PathBuf>,
    log: File,
}

impl Programs {
    /// Builds the peers if they are wanted. Children write their standard error to `log`.
    pub(crate) fn prepare(wants_peers: bool, log: &Path) -> Result<Self, Problem> {
        let peers = if wants_peers { Some(build_peers()?) } else { None };
        Ok(Self { ours: std::env::current_exe()?, peers, log: File::create(log)? })
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
        let mut command = match (side, &self.peers) {
            (Side::Ours, _) => {
                let mut command = Command::new(&self.ours);
                command.arg("--serve");
                command
            }
            (Side::Peers, Some(peers)) => Command::new(peers),
            (Side::Peers, None) => return Err("the peers were not built".into()),
        };
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

/// The manifest of the package of peers.
fn peers_manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/Cargo.toml")
}

pub(crate) fn peers_program() -> PathBuf {
    target_folder().join("peers/release/forebay-peers")
}

fn build_peers() -> Result<PathBuf, Problem> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]).arg(peers_manifest());
    // A target folder of its own: the two graphs have different versions and features of everything.
    command.arg("--target-dir").arg(target_folder().join("peers"));
    if std::env::var_os("DATABASE_URL").is_some() {
        command.args(["--features", "pg"]);
    }
    eprintln!("building the peers (minutes, the first time)");
    if !command.status()?.success() {
        return Err("the peers do not build; --subjects can leave them out".into());
    }
    Ok(peers_program())
}
